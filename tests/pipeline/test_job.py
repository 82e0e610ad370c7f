"""Jobs that are interrupted, repeated, shared and altered come to the same video, and do nothing twice."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worker_models import Painter
from workshop import Workshop, busy_recording, contents

from evfi.errors import ConfigError, InputError, OutputError, RecordingError, ResourceError
from evfi.pipeline import job_loop
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_loop import JobState
from evfi.pipeline.window_checks import Finding
from evfi.recordings.files import FileWatch
from evfi.recordings.recording import Window
from evfi.video.io import VideoFrames, read_image
from evfi.video.writer import VideoConfig
from stand_ins import key_frames


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def interrupted(workshop: Workshop, at: int, name: str = "a", config: JobConfig | None = None) -> str:
    """Run a job until Ctrl-C at a window; what is said."""
    model = Painter()
    model.fail_at, model.error = at, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as stopped:
        workshop.run(name, config, model=model)
    return str(stopped.value)


class TestRepeated:
    def test_a_finished_job_does_nothing(self, workshop):
        first = workshop.run(model=Painter())
        assert first.video_facts is not None
        assert (first.num_windows, first.num_kept, first.num_inserted, first.num_frames) == (4, 0, 4, 9)
        before = {path: path.stat() for path in workshop.folder.rglob("*") if path.suffix not in (".jsonl", ".lock")}
        second = workshop.run()
        assert second.video_facts is None
        assert (second.num_windows, second.num_kept, second.num_inserted, second.num_frames) == (4, 4, 4, 9)
        assert second.windows == first.windows
        assert {path: path.stat().st_mtime_ns for path in before} == {
            path: facts.st_mtime_ns for path, facts in before.items()
        }
        log = [json.loads(line) for line in (workshop.job_folder() / "log.jsonl").read_text().splitlines()]
        assert [(line["what"], line.get("missing")) for line in log] == [
            *[("begun", 4), *[("window", None)] * 4, ("done", None)],
            *[("begun", 0), ("done", None)],
        ]

    @pytest.mark.parametrize("place", ["a.mp4", "a/000003.png", "a/timestamps.txt", "a"])
    @pytest.mark.parametrize("harm", ["deleted", "altered"])
    def test_a_video_that_was_harmed_is_written_again_from_what_is_kept(self, workshop, place, harm):
        workshop.run(model=Painter())
        video = contents(workshop.targets())
        path = workshop.folder / place
        if harm == "altered":
            path = path / "000000.png" if path.is_dir() else path
            path.write_bytes(path.read_bytes()[:-3])
        else:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert workshop.run().video_facts is not None
        assert contents(workshop.targets()) == video

    def test_another_encoding_needs_no_work(self, workshop):
        workshop.run(model=Painter())
        before = contents(workshop.targets())
        targets = workshop.targets(encoding=VideoConfig(quality=40))
        assert workshop.run(targets=targets).video_facts is not None
        after = contents(targets)
        assert len(after["video "]) < len(before["video "])
        assert {**after, "video ": b""} == {**before, "video ": b""}

    def test_other_results_need_no_work(self, workshop):
        workshop.run(model=Painter())
        targets = workshop.targets(compare=True, timecodes=True)
        workshop.run(targets=targets)
        assert targets.timecodes_file.read_text().splitlines()[:3] == ["# timecode format v2", "0.000", "40.000"]
        with VideoFrames(targets.comparison) as video:
            assert len(video) == 9
            assert video.size[0] > 2 * workshop.recording.frames.size[0]

    def test_another_frame_rate_needs_no_work(self, workshop):
        workshop.run(model=Painter())
        workshop.run(config=JobConfig(insert=1, fps=10))
        with VideoFrames(workshop.targets().video) as video:
            assert video.frame_rate == pytest.approx(10)

    def test_the_same_windows_may_show_other_key_frames(self, workshop, tmp_path):
        times = tmp_path / "times.txt"
        for asked in ([0, 20_000], [20_000, 40_000]):
            times.write_text("\n".join(map(str, asked)))
            workshop.run(config=JobConfig(times=times), model=Painter())
            assert (workshop.folder / "a" / "timestamps.txt").read_text().split() == [str(time) for time in asked]

    def test_what_others_put_among_the_frames_stays(self, workshop):
        workshop.run(model=Painter())
        (workshop.folder / "a" / "notes.txt").write_text("mine")
        (workshop.folder / "a.mp4").unlink()
        with pytest.raises(OutputError, match=r"it holds notes\.txt, which is not one of them"):
            workshop.run()
        assert (workshop.folder / "a" / "notes.txt").read_text() == "mine"
        assert len(list((workshop.folder / "a").glob("*.png"))) == 9

    def test_a_folder_of_something_else_is_not_written_to(self, workshop):
        (workshop.folder / "a").mkdir()
        (workshop.folder / "a" / "000000.png").touch()
        model = Painter()
        with pytest.raises(OutputError, match="not empty"):
            workshop.run(model=model)
        assert model.seen == []

    def test_other_settings_are_refused_unless_fresh(self, workshop):
        workshop.run(model=Painter())
        with pytest.raises(ConfigError, match="seed was 0, is 1"):
            workshop.run(config=JobConfig(insert=1, seed=1))
        model = Painter()
        workshop.run(config=JobConfig(insert=1, seed=1), model=model, fresh=True)
        assert model.seen == [0, 1, 2, 3]
        workshop.run("other", JobConfig(insert=1, seed=1), model=Painter())
        assert contents(workshop.targets()) == contents(workshop.targets("other"))


class TestInterrupted:
    def test_at_any_window_it_goes_on_to_the_same_video(self, workshop):
        workshop.run("whole", model=Painter())
        for at in range(4):
            message = interrupted(workshop, at, f"part{at}")
            assert message.startswith(f"interrupted; {at} of 4 windows are done and kept in ")
            assert message.endswith("run the same command to resume")
            assert not workshop.targets(f"part{at}").video.exists()
            model = Painter()
            summary = workshop.run(f"part{at}", model=model)
            assert model.seen == list(range(at, 4))
            assert summary.num_kept == at
            assert contents(workshop.targets(f"part{at}")) == contents(workshop.targets("whole"))

    def test_within_a_window_its_pieces_are_kept(self, workshop):
        workshop.most = 2
        config = JobConfig(insert=7)
        whole = Painter()
        workshop.run("whole", config, model=whole)
        assert len(set(whole.seen)) == len(whole.seen) == 4 * 4  # 2 frames of a window first, then 2, 2 and 1
        interrupted(workshop, whole.seen[6], config=config)
        model = Painter()
        summary = workshop.run(config=config, model=model)
        assert model.seen == whole.seen[6:]
        assert (summary.num_kept, summary.num_inserted) == (1, 28)
        assert contents(workshop.targets()) == contents(workshop.targets("whole"))

    def test_leftovers_of_a_killed_run_go(self, workshop):
        for name in ("a.mp4", "a", "b.mp4"):
            code = f"""
import os
from pathlib import Path
from evfi.files import temporary_beside
with temporary_beside(Path({str(workshop.folder / name)!r})) as partial:
    partial.write_text("half")
    os._exit(9)
"""
            subprocess.run([sys.executable, "-c", code], check=False)
        assert len(list(workshop.folder.glob(".evfi-*.part"))) == 3
        workshop.run(model=Painter())
        (left,) = workshop.folder.glob(".evfi-*.part")
        assert (left / "b.mp4").read_text() == "half"

    def test_what_only_looks_like_a_leftover_stays(self, workshop):
        foreign = [workshop.folder / name for name in (".a.mp4.99.part", ".evfi-abcdefgh.part", ".evfi-ijklmnop.part")]
        foreign[0].write_text("mine")
        foreign[1].mkdir()
        (foreign[1] / "a.mp4").write_text("mine")
        foreign[2].write_text("mine")
        workshop.run(model=Painter())
        assert foreign[0].read_text() == (foreign[1] / "a.mp4").read_text() == foreign[2].read_text() == "mine"


CUT = JobConfig(insert=7)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A finished job of three windows of four pieces each, as pictures only."""
    workshop = Workshop(tmp_path_factory.mktemp("finished"), busy_recording(range(4)), most=2)
    workshop.run(config=CUT, model=Painter(), targets=workshop.targets(video=None))
    return workshop


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_from_any_pieces_the_same_video(finished, tmp_path_factory, data):
    pieces = sorted((finished.job_folder() / "windows").iterdir())
    there = data.draw(st.sets(st.sampled_from(pieces)))
    workshop = Workshop(tmp_path_factory.mktemp("part"), finished.recording, most=2)
    (workshop.job_folder() / "windows").mkdir(parents=True)
    shutil.copy(finished.job_folder() / "job.json", workshop.job_folder())
    for piece in there:
        shutil.copy(piece, workshop.job_folder() / "windows")
    model = Painter()
    workshop.run(config=CUT, model=model, targets=workshop.targets(video=None))
    assert len(model.seen) >= len(pieces) - len(there)
    assert contents(workshop.targets(video=None)) == contents(finished.targets(video=None))


def test_frames_of_pieces_are_in_order_and_key_frames_untouched(finished):
    folder = finished.targets().frames_dir
    assert [int(line) for line in (folder / "timestamps.txt").read_text().split()] == list(range(0, 120_001, 5_000))
    for index, frame in enumerate(key_frames(4)):
        np.testing.assert_array_equal(read_image(folder / f"{8 * index:06d}.png"), frame)


class TestShards:
    @pytest.mark.parametrize("of", [1, 2, 3, 6])
    def test_shards_and_their_merge_make_the_whole_video(self, workshop, of):
        workshop.run("whole", model=Painter())
        seen = []
        for number in range(of, 0, -1):
            model = Painter()
            summary = workshop.run(model=model, shard=(number, of))
            assert summary.num_frames == 0
            assert summary.video_facts is None
            assert summary.num_windows == len(model.seen)
            seen += model.seen
        assert sorted(seen) == [0, 1, 2, 3]
        assert not workshop.targets().video.exists()
        merged = workshop.run(merge=True)
        assert (merged.num_windows, merged.num_frames) == (4, 9)
        assert contents(workshop.targets()) == contents(workshop.targets("whole"))

    def test_a_merge_does_no_work(self, workshop):
        workshop.run(model=Painter(), shard=(1, 2))
        with pytest.raises(
            RecordingError, match=r"2 windows of the job in .* are not done yet; run the missing shards first"
        ):
            workshop.run(merge=True)
        assert not workshop.targets().video.exists()
        workshop.run(model=Painter(), shard=(2, 2))
        assert workshop.run(merge=True).num_frames == 9

    def test_what_shards_left_is_done_by_a_whole_run(self, workshop):
        workshop.run(model=Painter(), shard=(2, 2))
        model = Painter()
        workshop.run(model=model)
        assert model.seen == [0, 1]


class TestFailures:
    def test_they_are_told_and_others_are_finished(self, workshop):
        model = Painter()
        model.fail_at, model.error = 1, ResourceError("not enough memory for it")
        with pytest.raises(ResourceError) as failed:
            workshop.run(model=model)
        told = f"1 of 4 windows failed: window 1: not enough memory for it. All others are kept in {workshop.job_folder()}; "
        assert str(failed.value) == told + "run the same command to retry the failed ones"
        assert model.seen == [0, 2, 3]
        assert not workshop.targets().video.exists()
        again = Painter()
        workshop.run(model=again)
        assert again.seen == [1]

    def test_the_recordings_own_fault(self, workshop):
        model = Painter()
        model.fail_at, model.error = 2, InputError("events are damaged")
        with pytest.raises(RecordingError, match="1 of 4 windows failed: window 2: events are damaged"):
            workshop.run(model=model)

    def test_a_few_are_named_and_all_counted(self, tmp_path):
        class Hopeless(Painter):
            def interpolate_window(self, window, **_):
                raise ResourceError(f"no {window.spec.index}")

        with pytest.raises(ResourceError, match=r"5 of 5 windows failed: window 0: no 0; .*window 2: no 2; and 2 more"):
            Workshop(tmp_path, busy_recording(range(6))).run(model=Hopeless())

    def test_a_bug_is_not_hidden_and_what_was_made_is_kept(self, workshop):
        model = Painter()
        model.fail_at = 2
        with pytest.raises(RuntimeError, match="stand-in failed"):
            workshop.run(model=model)
        again = Painter()
        workshop.run(model=again)
        assert again.seen == [2, 3]

    def test_a_damaged_piece_is_told_and_made_again(self, workshop, caplog):
        workshop.run(model=Painter())
        video = contents(workshop.targets())
        pieces = sorted((workshop.job_folder() / "windows").iterdir())
        pieces[2].write_bytes(pieces[2].read_bytes()[:-1])
        model = Painter()
        log = logging.getLogger("evfi")
        log.addHandler(caplog.handler)  # the command line's set-up keeps records from the root
        try:
            workshop.run(model=model)
        finally:
            log.removeHandler(caplog.handler)
        assert model.seen == [2]
        assert contents(workshop.targets()) == video
        assert any("its window is made again" in record.message for record in caplog.records)

    def test_a_file_that_changes_stops_all_before_anything_is_kept(self, workshop, tmp_path):
        source = tmp_path / "events.bin"
        source.write_text("old")

        class Meddler(Painter):
            def interpolate_window(self, window, **arguments):
                if window.spec.index == 2:
                    source.write_text("new content")
                return super().interpolate_window(window, **arguments)

        model = Meddler()
        with pytest.raises(InputError, match=r"events\.bin changed while it was being read"):
            workshop.run(model=model, watch=FileWatch([source]))
        assert model.seen == [0, 1, 2]
        kept = sorted(path.name[:6] for path in (workshop.job_folder() / "windows").iterdir())
        assert kept == ["000000", "000001"]

    def test_a_file_that_is_gone_ends_the_job_rather_than_each_window(self, workshop, tmp_path):
        source = tmp_path / "events.bin"
        source.touch()
        watch = FileWatch([source])
        source.unlink()
        with pytest.raises(InputError, match=r"events\.bin can no longer be read"):
            workshop.run(model=Painter(), watch=watch)


class TestGaps:
    @pytest.fixture
    def with_gap(self, tmp_path: Path) -> Workshop:
        """Of the windows, the third is four times as long as the others."""
        return Workshop(tmp_path, busy_recording([0, 1, 2, 6, 7, 8]))

    def test_another_choice_concerns_doubtful_windows_only(self, with_gap):
        model = Painter()
        summary = with_gap.run(model=model)
        assert model.seen == [0, 1, 3, 4]
        assert summary.findings == {"gap": 1}
        assert [facts.treatment for facts in summary.windows].count("blend") == 1
        with_gap.run("held", JobConfig(insert=1, on_gap="hold"), model=Painter())
        model = Painter()
        with_gap.run(config=JobConfig(insert=1, on_gap="hold"), model=model)
        assert model.seen == []
        assert contents(with_gap.targets()) == contents(with_gap.targets("held"))
        held = [read_image(with_gap.targets().frames_dir / f"{number:06d}.png") for number in (4, 5)]
        np.testing.assert_array_equal(*held)
        model = Painter()
        with_gap.run(config=JobConfig(insert=1, on_gap="interpolate"), model=model)
        assert model.seen == [2]

    def test_to_and_fro_with_pieces_of_the_first_choice_left(self, with_gap):
        with_gap.most = 1
        with_gap.run("whole", JobConfig(insert=3, on_gap="interpolate"), model=Painter())
        for choice in ("interpolate", "hold", "interpolate"):
            with_gap.run(config=JobConfig(insert=3, on_gap=choice), model=Painter())
        assert contents(with_gap.targets()) == contents(with_gap.targets("whole"))

    def test_gaps_may_fail(self, with_gap):
        with pytest.raises(RecordingError, match="a gap between key frames, at 80000 to 240000 µs"):
            with_gap.job(config=JobConfig(insert=1, on_gap="fail"))

    @pytest.mark.parametrize(
        ("kind", "treatment"),
        [
            ("gap", "blend"),
            ("no-events", "blend"),
            ("few-events", "blend"),
            ("cut", "hold"),
            ("exposure", "interpolate"),
        ],
    )
    def test_findings_are_treated_and_told(self, workshop, monkeypatch, kind, treatment):
        def check(window: Window, _: int) -> Finding:
            return Finding(kind, "strange") if window.spec.index == 1 else Finding()

        monkeypatch.setattr(job_loop, "check_window", check)
        model = Painter()
        summary = workshop.run(model=model)
        assert summary.findings == {kind: 1}
        assert [facts.treatment for facts in summary.windows] == [
            "interpolate",
            treatment,
            "interpolate",
            "interpolate",
        ]
        assert summary.windows[1].notes == ("strange",)
        assert (1 in model.seen) == (treatment == "interpolate")
        assert workshop.run().windows == summary.windows  # known of kept windows, too

    def test_a_finding_that_shall_fail_fails_its_window(self, workshop, monkeypatch):
        monkeypatch.setattr(
            job_loop, "check_window", lambda window, _: Finding("cut" if window.spec.index else "", "new")
        )
        model = Painter()
        with pytest.raises(
            RecordingError, match="3 of 4 windows failed: window 1: new; choose what to show there with --on-gap"
        ):
            workshop.run(config=JobConfig(insert=1, on_gap="fail"), model=model)
        assert model.seen == [0]

    def test_a_window_without_events_is_blended_piece_by_piece_or_whole(self, tmp_path):
        recording = busy_recording(range(3))
        half = recording.events.slice(0, 60_000)  # the second window's second half is empty
        recording.events = type(recording.events)(half)
        workshop = Workshop(tmp_path, recording, most=1)
        summary = workshop.run(config=JobConfig(insert=3, on_gap="interpolate"), model=Painter())
        assert summary.num_inserted == 6
        assert len(list(workshop.targets().frames_dir.glob("*.png"))) == 9


class TestProgress:
    def test_states_add_up(self, workshop):
        workshop.most = 2
        interrupted(workshop, 2, config=CUT)
        told: list[JobState] = []
        workshop.run(config=CUT, model=Painter(), on_state=told.append)
        assert told[0].num_done == told[0].num_kept == 2
        assert told[-1].num_done == told[-1].num_windows == 4
        assert told[-1].num_frames_done == told[-1].num_frames == 28
        done = [state.num_done + state.part for state in told]
        assert all(0 <= part <= 4 for part in done)
        assert all(before <= after + 1e-9 for before, after in itertools.pairwise(done))
