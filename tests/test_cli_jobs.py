"""`evfi interpolate` as a job: what batch systems read, shards, and what is left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from evfi.cli.interpolate import InterpolateCommand
from evfi.cli.job_progress import job_progress
from evfi.cli.options import parse
from evfi.interpolator import Interpolator
from evfi.pipeline.job_loop import JobState
from evfi.recordings.estimation import AlignmentEstimate
from evfi.video.io import VideoFrames
from evfi.video.writer import VideoWriter
from stand_ins import HEIGHT, WIDTH, Blender, key_frames
from test_cli import failure, run, write_recording


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Blender:
    blender = Blender()
    monkeypatch.setattr(Interpolator, "from_pretrained", staticmethod(lambda *_, **__: blender))
    return blender


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "r")


def command(recording: Path, name: str = "out", *more: object) -> tuple[object, ...]:
    return "interpolate", recording, "-o", recording.parent / f"{name}.mp4", "--insert", 1, *more


def test_devices_has_the_old_name_too():
    for option in ("--devices", "--device"):
        assert parse(InterpolateCommand, "interpolate", ["r", option, "cpu,cpu"]).devices == "cpu,cpu"


class TestProgress:
    def test_json_lines(self, recording, capsys):
        assert run(*command(recording, "out", "--progress", "json", "--compare", "--timecodes")) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        *states, done = (json.loads(line) for line in captured.out.splitlines())
        assert [state["event"] for state in states] == ["progress"] * len(states)
        assert states[0]["windows_done"] == 0
        assert states[0]["seconds_left"] is None
        assert (states[-1]["windows_done"], states[-1]["windows"], states[-1]["frames_done"]) == (3, 3, 3)
        assert done["event"] == "done"
        assert (done["windows"], done["windows_kept"], done["frames"], done["frames_made"]) == (3, 0, 7, 3)
        assert set(done["results"]) == {"video", "compare", "times", "report"}
        assert all(Path(place).is_file() for place in done["results"].values())
        assert Path(done["job"]).is_dir()

    def test_json_says_what_earlier_runs_did(self, recording, capsys):
        run(*command(recording))
        capsys.readouterr()
        assert run(*command(recording, "out", "--progress", "json")) == 0
        state, done = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert (state["windows_kept"], state["windows_done"]) == (3, 3)
        assert done["windows_kept"] == 3

    def test_time_left_is_told_from_this_runs_work(self, capsys, monkeypatch):
        clock = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: clock)
        with job_progress("json") as progress:
            for at, done, part in ((0.0, 5, 0.0), (20.0, 5, 1.5), (24.0, 6, 1.5)):
                clock = at
                progress(JobState(10, done, 5, 10, done, part, {"cpu": 1}))
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        # 1 window in 4 s since work was first seen, 2.5 are left
        assert [line["seconds_left"] for line in lines] == [None, None, 10]
        assert lines[-1]["devices"] == {"cpu": 1}

    def test_quiet(self, recording, capsys):
        assert run(*command(recording, "out", "--progress", "quiet")) == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "")

    def test_failures_are_one_line_in_every_mode(self, recording, model, capsys):
        model.fail_at, model.error = 0, MemoryError
        for mode in ("auto", "quiet"):
            assert "memory" in failure(capsys, *command(recording, "out", "--progress", mode))


class TestShards:
    def test_shards_and_merge(self, recording, tmp_path, model, capsys):
        job = tmp_path / "job"
        for number in (2, 1):
            assert run(*command(recording, "out", "--job", job, "--shard", f"{number}/2")) == 0
            out = capsys.readouterr().out
            assert "playback" not in out  # there is no video yet
            assert str(job) in out
        assert not (tmp_path / "out.mp4").exists()
        assert not (tmp_path / "out.report.html").exists()
        model.seen = []
        assert run(*command(recording, "out", "--job", job, "--merge")) == 0
        assert model.seen == []
        assert "3, 3 of them already done" in capsys.readouterr().out
        assert run(*command(recording, "whole")) == 0
        assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()

    def test_merge_before_all_is_done(self, recording, capsys):
        run(*command(recording, "out", "--shard", "1/3"))
        capsys.readouterr()
        line = failure(capsys, *command(recording, "out", "--merge"))
        assert "2 windows of the job in" in line
        assert "run the missing shards first" in line

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--shard", "0/2"), "shard must have the form 2/5"),
            (("--shard", "3/2"), "shard must have the form 2/5"),
            (("--shard", "x"), "shard must have the form 2/5"),
            (("--shard", "1/2", "--merge"), "--shard only makes frames"),
            (("--shard", "1/2", "--fresh"), "--shard only makes frames"),
            (("--shard", "1/2", "--remove-job"), "--shard only makes frames"),
            (("--merge", "--fresh"), "leave out one of them"),
            (("--workers", "elsewhere"), "workers must be here, local, a number, ray"),
            (("--devices", "gpu"), "device must be"),
            (("--on-gap", "skip"), "skip"),
        ],
    )
    def test_what_does_not_go_together(self, recording, capsys, arguments, message):
        assert message in failure(capsys, *command(recording, "out", *arguments), status=2)
        assert {path.name for path in recording.parent.iterdir()} == {"r"}


class TestJobFolder:
    def test_it_may_be_removed_in_the_end(self, recording, capsys):
        assert run(*command(recording, "out", "--remove-job")) == 0
        assert {path.name for path in recording.parent.iterdir()} == {"r", "out.mp4", "out.report.html"}
        assert "job  " not in capsys.readouterr().out

    def test_a_job_that_failed_is_not_removed(self, recording, model, capsys):
        model.fail_at, model.error = 1, MemoryError
        failure(capsys, *command(recording, "out", "--remove-job"))
        assert (recording.parent / ".out.mp4.evfi").is_dir()

    def test_no_report(self, recording):
        assert run(*command(recording, "out", "--no-report")) == 0
        assert not (recording.parent / "out.report.html").exists()

    def test_other_settings_are_named(self, recording, capsys):
        run(*command(recording))
        capsys.readouterr()
        line = failure(capsys, *command(recording, "out", "--seed", 3), status=2)
        assert "seed was 0, is 3" in line
        assert run(*command(recording, "out", "--seed", 3, "--fresh")) == 0

    def test_a_changed_recording_is_named(self, recording, capsys):
        run(*command(recording))
        capsys.readouterr()
        (recording / "notes.txt").write_text("a note")
        assert "recording was" in failure(capsys, *command(recording), status=2)

    @pytest.mark.parametrize("offset", [0, 5])
    def test_key_frames_are_not_written_over(self, recording, offset, capsys):
        for picture in sorted((recording / "frames").iterdir()):
            picture.unlink()
        (recording / "frames").rmdir()
        with VideoWriter(recording / "frames.mp4", (WIDTH, HEIGHT), 25) as writer:
            for frame in key_frames():
                writer.write(frame)
        before = (recording / "frames.mp4").read_bytes()
        inside = ("interpolate", recording, "-o", recording / "frames.mp4", "--time-offset-us", offset)
        assert "the recording is read from it; choose another name" in failure(capsys, *inside)
        assert (recording / "frames.mp4").read_bytes() == before

    def test_results_beside_the_recordings_files(self, recording, model, capsys):
        inside = ("interpolate", recording, "-o", recording / "out.mp4", "--insert", 1)
        for _ in range(2):
            assert run(*inside) == 0
        assert len(model.seen) == 3
        with VideoFrames(recording / "out.mp4") as video:
            assert len(video) == 7


class TestAdviceOnAlignment:
    """A shift in time between frames and events shows in every window, so the user is told before the work."""

    def advice(self, tmp_path, capsys, monkeypatch, *arguments: object, offset_us: int = 4000) -> str:
        estimate = AlignmentEstimate(
            offset_us, 100.0, (0.0, 0.0), (0.1, 0.1), 0.9, 1.0, np.zeros(1), np.zeros(1), 30, True, "good"
        )
        monkeypatch.setattr("evfi.pipeline.session.estimate_alignment", lambda recording, **_: estimate)
        recording = write_recording(tmp_path / "r")
        assert run("interpolate", recording, "-o", tmp_path / "a.mp4", "--insert", 1, *arguments) == 0
        return capsys.readouterr().err

    def test_a_shift_is_told_and_stands_in_the_report(self, tmp_path, model, capsys, monkeypatch):
        assert "seem shifted by 4.0 ms" in self.advice(tmp_path, capsys, monkeypatch)
        assert "--time-offset-us 4000" in (tmp_path / "a.report.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize(("arguments", "offset_us"), [((), 500), (("--time-offset-us", 3000), 4000)])
    def test_not_where_it_is_small_or_seen_to(self, tmp_path, model, capsys, monkeypatch, arguments, offset_us):
        assert "shifted" not in self.advice(tmp_path, capsys, monkeypatch, *arguments, offset_us=offset_us)
