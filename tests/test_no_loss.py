"""No output destroys an input or a stranger's file: every command, and the Python call, before any work begins."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from evfi.demo.recording import DemoConfig
from evfi.demo.run import run_demo
from evfi.errors import EvfiError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import open_event_file
from evfi.fingerprints import fingerprint_of
from evfi.interpolator import Interpolator
from evfi.pipeline.job import _OneAtATime, interpolate_recording
from evfi.pipeline.job_config import JobConfig
from evfi.recordings.opening import open_recording
from evfi.recordings.retiming import RetimedFrames
from evfi.video.writer import VideoWriter
from stand_ins import HEIGHT, STEP_US, WIDTH, Blender, key_frames
from test_cli import failure, run, write_recording

SMALL = DemoConfig(width=64, height=48, windows=2, insert=1, sub_frames=2)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Blender:
    blender = Blender()
    monkeypatch.setattr(Interpolator, "from_pretrained", staticmethod(lambda *_, **__: blender))
    return blender


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "r")


@pytest.fixture
def video_recording(recording: Path) -> Path:
    """A recording whose key frames are a video."""
    shutil.rmtree(recording / "frames")
    with VideoWriter(recording / "frames.mp4", (WIDTH, HEIGHT), 25) as writer:
        for frame in key_frames():
            writer.write(frame)
    return recording


def contents(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: files with their content, links with their target, folders."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
    return found


class Untouched:
    """Fails if anything in a folder is another after a block than it was before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = contents(self.folder)

    def __exit__(self, *_: object) -> None:
        after = contents(self.folder)
        assert {name for name in self.before if after.get(name) != self.before[name]} == set()
        assert set(after) == set(self.before)


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, model: Blender, *arguments: object, status: int = 1
) -> str:
    """The command must fail in one line, before any work, and leave everything as it is."""
    with Untouched(folder):
        line = failure(capsys, *arguments, status=status)
    assert model.seen == []
    return line


def interpolate(recording: Path, *more: object) -> tuple[object, ...]:
    return "interpolate", recording, "--insert", 1, *more


class TestInputs:
    """What is read is never written over, under whatever name."""

    @pytest.mark.parametrize("offset", [0, 5])
    def test_the_source_video_of_the_python_call(self, video_recording, tmp_path, model, offset):
        told = pytest.raises(EvfiError, match="the recording is read from it")
        with open_recording(video_recording, time_offset_us=offset) as opened, Untouched(tmp_path), told:
            interpolate_recording(model, opened, video_recording / "frames.mp4", config=JobConfig(insert=1))
        assert model.seen == []

    @pytest.mark.parametrize("offset", [0, 5])
    def test_a_video_named_by_itself(self, video_recording, tmp_path, model, capsys, offset):
        video, events = video_recording / "frames.mp4", video_recording / "events.npz"
        more = ("--events", events, "--time-offset-us", offset, "-o", video)
        assert "is read from it" in refused(capsys, tmp_path, model, *interpolate(video, *more))
        told = pytest.raises(EvfiError, match="the recording is read from it")
        with open_recording(video, events=events, time_offset_us=offset) as opened, Untouched(tmp_path), told:
            interpolate_recording(model, opened, video, config=JobConfig(insert=1))

    @pytest.mark.parametrize("spelling", ["dots", "link", "hard link", "folder link"])
    def test_another_spelling(self, video_recording, tmp_path, model, capsys, spelling):
        video = video_recording / "frames.mp4"
        other = {
            "dots": video_recording / ".." / "r" / "frames.mp4",
            "link": tmp_path / "link.mp4",
            "hard link": tmp_path / "hard.mp4",
            "folder link": tmp_path / "s" / "frames.mp4",
        }[spelling]
        if spelling == "link":
            other.symlink_to(video)
        if spelling == "hard link":
            other.hardlink_to(video)
        if spelling == "folder link":
            other.parent.symlink_to(video_recording)
        assert "is read from it" in refused(capsys, tmp_path, model, *interpolate(video_recording, "-o", other))

    def test_frame_times(self, recording, tmp_path, model, capsys):
        times = (recording / "timestamps.txt").rename(tmp_path / "a.timecodes.txt")
        command = interpolate(recording / "frames", "--events", recording / "events.npz", "--timestamps", times)
        line = refused(capsys, tmp_path, model, *command, "-o", tmp_path / "a.mp4", "--timecodes")
        assert "is read from it" in line

    def test_output_times(self, recording, tmp_path, model, capsys):
        times = tmp_path / "a.timecodes.txt"
        times.write_text("20000\n60000\n")
        command = ("interpolate", recording, "--times", times, "-o", tmp_path / "a.mp4", "--timecodes")
        assert "the list of output times is read from it" in refused(capsys, tmp_path, model, *command)

    def test_events(self, recording, tmp_path, model, capsys):
        shutil.move(recording / "events.npz", tmp_path / "ev.mp4")
        shutil.move(recording / "timestamps.txt", tmp_path / "t.txt")
        command = interpolate(recording / "frames", "--events", tmp_path / "ev.mp4", "--timestamps", tmp_path / "t.txt")
        assert "is read from it" in refused(capsys, tmp_path, model, *command, "-o", tmp_path / "ev.mp4")

    def test_homography(self, recording, tmp_path, model, capsys):
        matrix = tmp_path / "a.timecodes.txt"
        matrix.write_text("1 0 0\n0 1 0\n0 0 1\n")
        more = ("--sensor-to-frame", matrix, "-o", tmp_path / "a.mp4", "--timecodes")
        assert "is read from it" in refused(capsys, tmp_path, model, *interpolate(recording, *more))

    def test_what_a_link_in_the_recording_points_to(self, recording, tmp_path, model, capsys):
        shutil.move(recording / "events.npz", tmp_path / "a.mp4")
        (recording / "events.npz").symlink_to(tmp_path / "a.mp4")
        assert "is read from it" in refused(capsys, tmp_path, model, *interpolate(recording, "-o", tmp_path / "a.mp4"))

    def test_a_linked_folder_of_pictures(self, recording, tmp_path, model, capsys):
        shutil.move(recording / "frames", tmp_path / "pictures")
        (recording / "frames").symlink_to(tmp_path / "pictures")
        more = ("-o", tmp_path / "pictures" / "a.mp4")
        assert "would become part of the recording" in refused(capsys, tmp_path, model, *interpolate(recording, *more))

    def test_the_model(self, recording, tmp_path, model, capsys):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "evfi.json").write_text("{}")
        more = ("--model", tmp_path / "m", "--frames-dir", tmp_path / "m" / "frames")
        assert "would become part of the model" in refused(capsys, tmp_path, model, *interpolate(recording, *more))
        line = refused(
            capsys, tmp_path, model, "benchmark", "--model", tmp_path / "m", "--json", tmp_path / "m" / "evfi.json"
        )
        assert "the model is read from it" in line

    @pytest.mark.parametrize("place", ["the times", "the homography", "a linked file"])
    def test_convert(self, recording, tmp_path, model, capsys, place):
        events, times = recording / "events.npz", tmp_path / "t.txt"
        (recording / "timestamps.txt").rename(times)
        (tmp_path / "h.txt").write_text("1 0 0\n0 1 0\n0 0 1\n")
        shutil.move(events, tmp_path / "e.npz")
        events.symlink_to(tmp_path / "e.npz")
        output = {"the times": times, "the homography": tmp_path / "h.txt", "a linked file": tmp_path / "e.npz"}[place]
        named = ("--events", events, "--timestamps", times, "--sensor-to-frame", tmp_path / "h.txt")
        assert "is read from it" in refused(capsys, tmp_path, model, "convert", recording / "frames", output, *named)

    @pytest.mark.parametrize("harm", ["one time too many", "no times"])
    def test_convert_drops_no_frames_in_silence(self, recording, tmp_path, model, capsys, harm):
        """Frames that cannot be read are an error where they would be written, and a warning where they would not."""
        times = recording / "timestamps.txt"
        if harm == "no times":
            times.unlink()
        else:
            times.write_text(times.read_text() + "9999999\n")
        declared = json.loads((recording / "recording.json").read_text())["sensor_size"]
        message = failure(capsys, "convert", recording, tmp_path / "a.aedat4")
        assert "to write only the events, name a .h5, .npz, .txt or .csv file" in message
        assert not (tmp_path / "a.aedat4").exists()
        assert run("convert", recording, tmp_path / "a.npz") == 0
        assert "warning: the frames cannot be read" in capsys.readouterr().err
        assert list(open_event_file(tmp_path / "a.npz", EventFileOptions()).sensor_size) == declared

    def test_convert_with_a_wrong_option_for_frames(self, recording, tmp_path, model, capsys):
        for name in ("a.aedat4", "a.npz"):
            message = failure(capsys, "convert", recording, tmp_path / name, "--timestamps", tmp_path / "none.txt")
            assert "none.txt" in message
            assert not (tmp_path / name).exists()

    def test_convert_a_recording_with_a_linked_file(self, recording, tmp_path, model, capsys):
        shutil.move(recording / "events.npz", tmp_path / "e.npz")
        (recording / "events.npz").symlink_to(tmp_path / "e.npz")
        assert "is read from it" in refused(capsys, tmp_path, model, "convert", recording, tmp_path / "e.npz")

    @pytest.mark.parametrize("name", ["000003.png", "new.png"])
    def test_inspect(self, recording, tmp_path, model, capsys, name):
        picture = recording / "frames" / name
        line = refused(capsys, tmp_path, model, "inspect", recording, "--picture", picture)
        assert "the recording" in line

    def test_simulate(self, video_recording, tmp_path, model, capsys):
        video = tmp_path / "v.mp4"
        shutil.move(video_recording / "frames.mp4", video)
        refused(capsys, tmp_path, model, "simulate", video, "-o", video)

    def test_the_cache_within_a_recording(self, recording, tmp_path, model, capsys, monkeypatch):
        monkeypatch.setenv("EVFI_CACHE", str(recording / "cache"))
        assert "set EVFI_CACHE" in refused(capsys, tmp_path, model, *interpolate(recording, "-o", tmp_path / "a.mp4"))


class TestWithinTheRecording:
    """What is new in a recording's folder must not change what the next run reads."""

    @pytest.mark.parametrize("name", ["frames.mp4", "events.mp4", "Events.MKV", "frames/a.mp4"])
    def test_videos(self, recording, tmp_path, model, capsys, name):
        refused(capsys, tmp_path, model, *interpolate(recording, "-o", recording / name))

    def test_folders(self, video_recording, tmp_path, model, capsys):
        for option, name in (("--frames-dir", "frames"), ("--frames-dir", "images"), ("--job", "events.d")):
            more = ("-o", tmp_path / "a.mp4", option, video_recording / name)
            line = refused(capsys, tmp_path, model, *interpolate(video_recording, *more))
            assert "would become part of the recording" in line

    def test_what_nobody_knows_there_is_not_replaced(self, recording, tmp_path, model, capsys):
        (recording / "out.mp4").write_text("mine")
        line = refused(capsys, tmp_path, model, *interpolate(recording, "-o", recording / "out.mp4"))
        assert "nothing shows that an earlier run of the same job wrote it" in line

    def test_the_jobs_own_results_are(self, recording, model):
        for _ in range(2):
            assert run(*interpolate(recording, "-o", recording / "out.mp4", "--compare", "--timecodes")) == 0
        assert len(model.seen) == 3


class TestCollisions:
    @pytest.mark.parametrize(
        "name", ["a.mp4", "a.report.html", "a.timecodes.txt", "a.compare.mp4", ".a.mp4.evfi", "A.MP4"]
    )
    @pytest.mark.parametrize("option", ["--frames-dir", "--job"])
    def test_of_results(self, recording, tmp_path, model, capsys, name, option):
        if option == "--job" and name == ".a.mp4.evfi":
            return  # its own place
        more = ("-o", tmp_path / "a.mp4", option, tmp_path / name, "--compare", "--timecodes")
        assert "would both be" in refused(capsys, tmp_path, model, *interpolate(recording, *more), status=2)

    def test_one_within_the_other(self, recording, tmp_path, model, capsys):
        (tmp_path / "d").mkdir()
        more = ("-o", tmp_path / "d" / "a.mp4", "--frames-dir", tmp_path / "d")
        assert "would lie in" in refused(capsys, tmp_path, model, *interpolate(recording, *more), status=2)

    @pytest.mark.parametrize("name", ["a.report.html", "a.timecodes.txt", "a.compare.mp4"])
    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_with_others_files(self, recording, tmp_path, model, capsys, name, kind):
        place = tmp_path / name
        if kind == "file":
            place.write_text("mine")
        if kind == "folder":
            place.mkdir()
        if kind == "link":
            (tmp_path / "mine.txt").write_text("mine")
            place.symlink_to(tmp_path / "mine.txt")
        more = ("-o", tmp_path / "a.mp4", "--compare", "--timecodes")
        before = contents(tmp_path)
        failure(capsys, *interpolate(recording, *more))
        after = contents(tmp_path)
        assert {name: after.get(name) for name in before} == before
        assert model.seen == []

    def test_a_device(self, recording, tmp_path, model, capsys):
        os.mkfifo(tmp_path / "a.mp4")
        line = failure(capsys, *interpolate(recording, "-o", tmp_path / "a.mp4"))
        assert "not a regular file" in line
        assert (tmp_path / "a.mp4").is_fifo()

    def test_a_linked_folder_of_frames(self, recording, tmp_path, model, capsys):
        (tmp_path / "d").mkdir()
        (tmp_path / "frames").symlink_to(tmp_path / "d")
        more = ("--frames-dir", tmp_path / "frames")
        assert "it is a link" in refused(capsys, tmp_path, model, *interpolate(recording, *more))

    def test_a_linked_video_is_replaced_and_not_followed(self, recording, tmp_path):
        (tmp_path / "other.mp4").write_text("mine")
        (tmp_path / "a.mp4").symlink_to(tmp_path / "other.mp4")
        assert run(*interpolate(recording, "-o", tmp_path / "a.mp4")) == 0
        assert not (tmp_path / "a.mp4").is_symlink()
        assert (tmp_path / "other.mp4").read_text() == "mine"

    def test_results_of_a_removed_job_are_known_by_their_content(self, recording, tmp_path):
        more = ("-o", tmp_path / "a.mp4", "--compare", "--timecodes", "--remove-job")
        for _ in range(2):
            assert run(*interpolate(recording, *more)) == 0


FOREIGN = {
    "job.json": '{"jobs": ["mine"]}',
    "outputs.json": '{"results": []}',
    "alignment.json": '{"advice": "mine"}',
    "log.jsonl": '{"level": "info", "message": "mine"}\n',
}


class TestJobFolders:
    @pytest.mark.parametrize("name", FOREIGN)
    @pytest.mark.parametrize("more", [(), ("--fresh", "--remove-job")])
    def test_anybodys_folder_is_not_taken(self, recording, tmp_path, model, capsys, name, more):
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / name).write_text(FOREIGN[name])
        command = interpolate(recording, "-o", tmp_path / "a.mp4", "--job", tmp_path / "d", *more)
        assert "is not a job folder" in refused(capsys, tmp_path, model, *command)

    @pytest.mark.parametrize("name", FOREIGN)
    @pytest.mark.parametrize("more", [(), ("--fresh", "--remove-job")])
    def test_anybodys_file_in_a_jobs_folder_is_moved_aside(self, recording, tmp_path, name, more):
        command = interpolate(recording, "-o", tmp_path / "a.mp4", "--job", tmp_path / "d")
        assert run(*command) == 0
        (tmp_path / "d" / name).write_text(FOREIGN[name])
        assert run(*command, *more) == 0
        kept = [path.read_text() for path in (tmp_path / "d").iterdir() if path.name.startswith(name)]
        assert FOREIGN[name] in kept

    def test_a_linked_log_is_not_followed(self, recording, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        command = interpolate(recording, "-o", tmp_path / "a.mp4", "--job", tmp_path / "d")
        assert run(*command) == 0
        (tmp_path / "d" / "log.jsonl").unlink()
        (tmp_path / "d" / "log.jsonl").symlink_to(tmp_path / "mine.txt")
        assert run(*command) == 0
        assert (tmp_path / "mine.txt").read_text() == "mine"

    @pytest.mark.parametrize("lost", ["", "job.json", "outputs.json", "log.jsonl", "windows"])
    def test_a_folder_from_before_the_mark_goes_on(self, recording, tmp_path, model, lost):
        """It has a checksum in one of its other files."""
        command = interpolate(
            recording, "-o", tmp_path / "a.mp4", "--frames-dir", tmp_path / "f", "--job", tmp_path / "d"
        )
        assert run(*command) == 0
        before = contents(tmp_path / "f")
        make_old(tmp_path / "d")
        if lost:
            place = tmp_path / "d" / lost
            shutil.rmtree(place) if place.is_dir() else place.write_text("")
        shutil.copy(recording / "frames" / "000000.png", tmp_path / "a.mp4")  # something to write again
        if lost == "outputs.json":
            shutil.rmtree(tmp_path / "f")  # nothing tells any more whose it is
        model.seen = []
        assert run(*command) == 0
        assert len(model.seen) == (3 if lost == "windows" else 0)
        assert contents(tmp_path / "f") == before
        assert (tmp_path / "d" / "evfi-job.json").is_file()


def make_old(job: Path) -> None:
    """Let a job's folder look as it did before there were marks and numbers of frames."""
    (job / "evfi-job.json").unlink(missing_ok=True)
    note = json.loads((job / "outputs.json").read_text())
    for entry in note["results"].values():
        entry.pop("frames", None)
    note["fingerprint"] = fingerprint_of(note["results"])
    (job / "outputs.json").write_text(json.dumps(note, indent=1) + "\n")


class TestEvaluations:
    def test_into_what_is_read(self, recording, tmp_path, model, capsys):
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "evfi.json").write_text("{}")
        command = ("evaluate", recording, "--baseline", "linear")
        line = refused(capsys, tmp_path, model, *command, "-o", tmp_path / "m" / "out", "--model", tmp_path / "m")
        assert "would become part of the system m" in line
        (tmp_path / "out").mkdir()
        events = (recording / "events.npz").rename(tmp_path / "out" / "results.csv")
        line = refused(capsys, tmp_path, model, *command, "-o", tmp_path / "out", "--events", events)
        assert "is read from it" in line

    def test_anybodys_folder_is_not_taken(self, recording, tmp_path, model, capsys):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "evaluation.json").write_text('{"mine": 1}')
        (tmp_path / "theirs" / "r" / "skip1").mkdir(parents=True)
        shutil.copy(recording / "frames" / "000001.png", tmp_path / "theirs" / "r" / "skip1")
        others = ("--results", f"x={tmp_path / 'theirs'}")
        command = (
            "evaluate",
            recording,
            "-o",
            tmp_path / "out",
            *others,
            "--baseline",
            "none",
            "--metrics",
            "psnr_rgb",
        )
        assert "does not belong to an earlier evaluation" in refused(capsys, tmp_path, model, *command)


class TestFoldersOfFrames:
    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("kind", ["file", "folder", "link", "in place of a frame"])
    def test_what_others_put_there_stays(self, recording, tmp_path, capsys, kind, old):
        frames = tmp_path / "f"
        command = interpolate(recording, "--frames-dir", frames, "--job", tmp_path / "d", "--no-report")
        assert run(*command) == 0
        if old:
            make_old(tmp_path / "d")
        if kind == "file":
            (frames / "123456.png").write_text("mine")
        if kind == "folder":
            (frames / "000777.png").mkdir()
        if kind == "link":
            (frames / "123456.png").symlink_to(recording / "frames" / "000000.png")
        if kind == "in place of a frame":
            (frames / "000001.png").unlink()
            (frames / "000001.png").mkdir()
            (frames / "000001.png" / "mine.txt").write_text("mine")
        before = contents(frames)
        capsys.readouterr()
        failure(capsys, *command, "--fps", 10)
        assert contents(frames) == before

    def test_fewer_frames_replace_more(self, recording, tmp_path):
        times = tmp_path / "times.txt"
        command = ("interpolate", recording, "--frames-dir", tmp_path / "f", "--job", tmp_path / "d", "--times", times)
        for asked in ("10000\n20000\n30000\n", "20000\n"):
            times.write_text(asked)
            assert run(*command, "--fresh") == 0
            assert (tmp_path / "f" / "timestamps.txt").read_text() == asked
        assert {path.name for path in (tmp_path / "f").iterdir()} == {"000000.png", "timestamps.txt"}


class TestDemo:
    def test_what_was_added_to_its_recording_stays(self, tmp_path):
        run_demo(tmp_path, Blender(), config=SMALL)
        (tmp_path / "recording" / "notes.txt").write_text("mine")
        with Untouched(tmp_path), pytest.raises(EvfiError, match=r"notes\.txt"):
            run_demo(tmp_path, Blender(), config=SMALL)

    @pytest.mark.parametrize("name", ["demo.mp4", "demo.png", "recording/timestamps.txt"])
    def test_what_was_changed_stays(self, tmp_path, name):
        run_demo(tmp_path, Blender(), config=SMALL)
        with (tmp_path / name).open("ab") as file:
            file.write(b"mine")
        with Untouched(tmp_path), pytest.raises(EvfiError, match="has changed since an earlier demo wrote it"):
            run_demo(tmp_path, Blender(), config=SMALL)

    @pytest.mark.parametrize("name", ["demo.mp4", "demo.png"])
    def test_others_files_of_its_names_stay(self, tmp_path, name):
        (tmp_path / name).write_text("mine")
        with Untouched(tmp_path), pytest.raises(EvfiError, match="is not from a demo"):
            run_demo(tmp_path, Blender(), config=SMALL)

    def test_another_recording_of_evfi_stays(self, tmp_path):
        write_recording(tmp_path / "recording")
        with Untouched(tmp_path), pytest.raises(EvfiError, match="is not a demo's recording"):
            run_demo(tmp_path, Blender(), config=SMALL)

    def test_a_demo_from_before_its_list_is_replaced(self, tmp_path):
        run_demo(tmp_path, Blender(), config=SMALL)
        (tmp_path / "demo.json").unlink()
        run_demo(tmp_path, Blender(), config=DemoConfig(width=64, height=48, windows=1, insert=1, sub_frames=2))
        assert len(list((tmp_path / "recording" / "frames").iterdir())) == 2

    def test_an_old_demo_with_something_else_in_it_stays(self, tmp_path):
        run_demo(tmp_path, Blender(), config=SMALL)
        (tmp_path / "demo.json").unlink()
        (tmp_path / "recording" / "notes.txt").write_text("mine")
        with Untouched(tmp_path), pytest.raises(EvfiError, match="is not a demo's recording"):
            run_demo(tmp_path, Blender(), config=SMALL)


def test_every_source_around_another_keeps_what_it_knows(video_recording):
    with open_recording(video_recording) as opened:
        times = opened.frames.times_us
        retimed = RetimedFrames(opened.frames, times, 5)
        for frames in (
            RetimedFrames(opened.frames, times),
            _OneAtATime(opened.frames),
            _OneAtATime(retimed),
        ):
            assert frames.path == video_recording / "frames.mp4"
            np.testing.assert_array_equal(frames.read(1), opened.frames.read(1))
        assert opened.frames.times_us[1] == STEP_US
