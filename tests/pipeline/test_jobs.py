"""Whole recordings become videos and folders of pictures, or nothing at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evfi.cli.job_progress import describe
from evfi.errors import ConfigError, OutputError, RecordingError, ResourceError
from evfi.pipeline.blending import blend_linearly
from evfi.pipeline.job import JobSummary, interpolate_recording
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_loop import JobState
from evfi.pipeline.job_plan import plan_job
from evfi.pipeline.outputs import Targets
from evfi.video.io import VideoFrames, read_image
from stand_ins import STEP_US, WIDTH, Blender, key_frames, memory_recording


def blended(summary: JobSummary) -> int:
    return sum(facts.treatment == "blend" for facts in summary.windows)


def test_video_and_pictures(tmp_path: Path):
    blender = Blender()
    summary = interpolate_recording(
        blender,
        memory_recording(),
        tmp_path / "a.mp4",
        frames_dir=tmp_path / "frames",
        config=JobConfig(insert=3, seed=5),
    )
    assert blender.seen == [(0, 5), (1, 5), (2, 5)]
    assert (summary.num_windows, summary.num_inserted, summary.num_frames, blended(summary)) == (3, 9, 13, 0)
    assert summary.playback.slowdown == pytest.approx(4)
    assert summary.seconds_per_frame == pytest.approx(summary.work_s / 9)
    pictures = sorted((tmp_path / "frames").glob("*.png"))
    assert [path.name for path in pictures[:2]] == ["000000.png", "000001.png"]
    assert len(pictures) == 13
    for index, frame in enumerate(key_frames()):
        np.testing.assert_array_equal(read_image(pictures[4 * index]), frame)
    times = [int(line) for line in (tmp_path / "frames" / "timestamps.txt").read_text().splitlines()]
    assert times == list(range(1_000_000, 1_000_000 + 3 * STEP_US + 1, STEP_US // 4))
    with VideoFrames(tmp_path / "a.mp4") as video:
        assert len(video) == 13
        assert video.frame_rate == pytest.approx(25)
        assert not video.is_grey


def test_grey_recording_gives_grey_output(tmp_path: Path):
    interpolate_recording(
        Blender(),
        memory_recording(grey=True),
        tmp_path / "a.mp4",
        frames_dir=tmp_path / "f",
        config=JobConfig(insert=1),
    )
    frame = read_image(tmp_path / "f" / "000001.png")
    assert (frame == frame[..., :1]).all()
    with VideoFrames(tmp_path / "a.mp4") as video:
        assert video.is_grey


@pytest.mark.parametrize(
    ("start", "end", "windows"), [(0.04, None, [1, 2]), (None, 0.041, [0, 1]), (0.05, 0.06, [1]), (0.0, 9.0, [0, 1, 2])]
)
def test_part_of_a_recording(tmp_path: Path, start, end, windows):
    blender = Blender()
    interpolate_recording(
        blender, memory_recording(), tmp_path / "a.mp4", config=JobConfig(insert=1, start=start, end=end)
    )
    assert [index for index, _ in blender.seen] == windows


def test_progress_counts_parts_of_windows(tmp_path: Path):
    told: list[JobState] = []
    interpolate_recording(
        Blender(), memory_recording(3), tmp_path / "a.mp4", config=JobConfig(insert=1), on_state=told.append
    )
    assert [(state.num_done + state.part, state.num_windows) for state in told] == [
        (0, 2),
        *[(0.5, 2), (1, 2), (1, 2)],
        *[(1.5, 2), (2, 2), (2, 2)],
    ]
    assert [state.num_frames_done for state in told] == [0, 0, 0, 1, 1, 1, 2]
    assert all((state.num_frames, state.num_kept) == (2, 0) for state in told)


def test_windows_without_events_are_blended_and_counted(tmp_path: Path):
    blender = Blender()
    recording = memory_recording(event_span=(0, STEP_US))
    summary = interpolate_recording(
        blender, recording, None, frames_dir=tmp_path / "frames", config=JobConfig(insert=1)
    )
    assert [index for index, _ in blender.seen] == [0]
    assert blended(summary) == 2
    keys = key_frames()
    expected = blend_linearly(keys[1], keys[2], np.array([0, 1, 2]))[1]
    np.testing.assert_array_equal(read_image(tmp_path / "frames" / "000003.png"), expected)


def test_no_events_at_all_where_frames_are_wanted(tmp_path: Path):
    recording = memory_recording(event_span=(0, STEP_US))
    with pytest.raises(RecordingError, match="no events between 1040000 and 1120000 µs"):
        plan_job(recording, Targets(tmp_path / "a.mp4"), JobConfig(start=0.04))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError, ResourceError, RecordingError])
def test_failure_leaves_nothing(tmp_path: Path, error):
    with pytest.raises(error):
        interpolate_recording(
            Blender(fail_at=2, error=error),
            memory_recording(),
            tmp_path / "a.mp4",
            frames_dir=tmp_path / "frames",
            config=JobConfig(insert=1),
        )
    assert not list(tmp_path.iterdir())


def test_settings_are_checked_before_the_work(tmp_path: Path):
    recording = memory_recording()
    with pytest.raises(ConfigError, match="expected an output, got none"):
        interpolate_recording(Blender(), recording, None)
    with pytest.raises(OutputError, match="no folder"):
        plan_job(recording, Targets(tmp_path / "no" / "a.mp4"))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "x").touch()
    blender = Blender()
    with pytest.raises(OutputError, match="not empty"):
        interpolate_recording(blender, recording, None, frames_dir=tmp_path / "frames")
    assert blender.seen == []
    with pytest.raises(ConfigError, match="start must be seconds"):
        JobConfig(start=-1.0)
    with pytest.raises(ConfigError, match="seed"):
        JobConfig(seed=-1)
    with pytest.raises(RecordingError, match="no window"):
        plan_job(recording, Targets(tmp_path / "a.mp4"), JobConfig(start=5.0, end=6.0))


def test_frames_too_far_apart_for_a_video_are_refused_before_the_work(tmp_path: Path):
    recording = memory_recording()
    recording.frames.times_us[-1] += 56 * 3_600_000_000  # somebody's wrong time stamp
    message = r"^frames 2 and 3 of the recording, at 1080000 and \d+ µs, lie too far apart: .* 6\.6 hours in \.mp4, got 112\.0;"
    with pytest.raises(ConfigError, match=message):
        plan_job(recording, Targets(tmp_path / "a.mp4"), JobConfig(insert=1))
    interpolate_recording(
        Blender(), recording, tmp_path / "a.mkv", frames_dir=tmp_path / "f", config=JobConfig(insert=1, on_gap="hold")
    )
    with VideoFrames(tmp_path / "a.mkv") as video:
        assert video.times_us[-1] == pytest.approx(112 * 3.6e9, rel=1e-3)


def test_blending_by_hand():
    start, end = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8)
    blended = blend_linearly(start, end, np.array([0, 10, 40, 100]))
    assert blended[:, 0, 0, 0].tolist() == [0, 20, 80, 200]


def test_events_that_were_left_out_are_counted_and_told(tmp_path: Path):
    recording = memory_recording()
    recording.sensor_to_frame = np.array([[1.0, 0, WIDTH // 2], [0, 1, 0], [0, 0, 1]])
    outside = int(np.count_nonzero(recording.events.slice(0, 2_000_000).x >= WIDTH - WIDTH // 2))
    summary = interpolate_recording(Blender(), recording, tmp_path / "a.mp4", config=JobConfig(insert=1))
    assert summary.num_dropped_events == outside > 100
    assert f"events    {outside} left out" in "\n".join(describe(summary))
