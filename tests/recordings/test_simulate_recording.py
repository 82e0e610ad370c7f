"""From a video to a recording that can be opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import evfi
from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.simulate import SimulatorConfig
from evfi.recordings.simulate import simulate_recording
from evfi.video.io import VideoFrames
from evfi.video.writer import VideoWriter

CAMERA = SimulatorConfig(noise_rate_hz=0.0, leak_rate_hz=0.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square that moves to the right over 11 frames of 64×48."""
    path = tmp_path_factory.mktemp("video") / "square.mp4"
    with VideoWriter(path, (64, 48), 25) as writer:
        for index in range(11):
            frame = np.full((48, 64, 3), 40, np.uint8)
            frame[16:32, 4 + 4 * index : 20 + 4 * index] = 200
            writer.write(frame)
    return path


def test_recording_holds_every_nth_frame_and_the_events_between(video: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = simulate_recording(
        video, tmp_path / "out", keep_every=4, config=CAMERA, progress=lambda done, total: calls.append((done, total))
    )
    assert (result.size, result.num_video_frames, result.num_key_frames) == ((64, 48), 9, 3)
    assert calls[-1] == (9, 9)
    recording = evfi.open_recording(result.folder)
    with VideoFrames(video) as source:
        assert recording.frames.times_us.tolist() == source.times_us[[0, 4, 8]].tolist()
        assert np.array_equal(recording.frames.read(1), source.read(4))
    first, last = recording.events.time_range_us
    events = recording.events.slice(first, last + 1)
    assert len(events) == result.num_events > 100
    assert recording.frames.times_us[0] <= first < last <= recording.frames.times_us[-1]
    assert events.sensor_size == (64, 48)
    assert set(np.unique(events.p)) == {-1, 1}


def test_same_seed_same_events_and_frames_can_be_scaled(video: Path, tmp_path: Path) -> None:
    results = [simulate_recording(video, tmp_path / str(n), keep_every=5, height=24, seed=3) for n in range(2)]
    assert results[0].size == (32, 24)
    streams = [evfi.open_recording(result.folder).events.slice(0, 10**9) for result in results]
    for name in "xytp":
        assert np.array_equal(getattr(streams[0], name), getattr(streams[1], name))


def test_what_cannot_be_simulated_is_named(video: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such video"):
        simulate_recording(tmp_path / "absent.mp4", tmp_path / "out")
    with pytest.raises(RecordingError, match="expected at least 12 frames for two key frames 11 apart, found 11"):
        simulate_recording(video, tmp_path / "out", keep_every=11)
    with pytest.raises(ConfigError, match="keep_every must be at least 1"):
        simulate_recording(video, tmp_path / "out", keep_every=0)
    assert not (tmp_path / "out").exists()


def test_a_height_beyond_all_frames(video: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="height 100000 makes frames of 133334×100000; expected at most 64 megapixels"
    ):
        simulate_recording(video, tmp_path / "out", height=100_000)
    assert not (tmp_path / "out").exists()
