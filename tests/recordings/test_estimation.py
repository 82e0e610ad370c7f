"""Estimation of time offset and shift, and the options that use it; on a small moving scene, and on real recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evfi.errors import ConfigError, RecordingError
from evfi.events.simulate import SimulatorConfig, simulate_events
from evfi.events.stream import EventStream
from evfi.recordings.alignment import event_grid, shifted_mapping
from evfi.recordings.datasets.plain import write_plain_recording
from evfi.recordings.estimation import estimate_alignment
from evfi.recordings.memory import MemoryFrames, recording_from_memory
from evfi.recordings.opening import open_recording
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording
from evfi.recordings.retiming import retimed

WIDTH, HEIGHT, NUM_FRAMES, STEP_US, SUB_US = 80, 60, 7, 40_000, 2_000


def levels_at(time_us: int) -> NDArray[np.float64]:
    """Log levels of blobs of which each moves on its own way."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    levels = np.full((HEIGHT, WIDTH), np.log(60.0))
    for _ in range(25):
        at, speed = rng.uniform((0, 0), (WIDTH, HEIGHT)), rng.uniform(-90, 90, 2)
        centre = at + speed * time_us / 1e6
        levels += rng.uniform(-1, 1) * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 18)
    return levels


@pytest.fixture(scope="module")
def recording() -> Recording:
    times = np.arange(0, (NUM_FRAMES - 1) * STEP_US + 1, SUB_US)
    levels = np.stack([levels_at(int(time)) for time in times])
    batch = simulate_events(
        torch.from_numpy(levels).float()[None], torch.from_numpy(times), SimulatorConfig(0.1, 0.1, 0.01), 0
    )
    frames = np.exp(levels[:: STEP_US // SUB_US]).clip(0, 255).round().astype(np.uint8)
    return recording_from_memory(np.repeat(frames[..., None], 3, -1), times[:: STEP_US // SUB_US], batch.stream(0))


def moved(recording: Recording, offset_us: int, dx: float = 0, dy: float = 0) -> Recording:
    frames = retimed(recording.path, recording.frames, None, -offset_us)
    return replace(recording, frames=frames, sensor_to_frame=shifted_mapping(recording.sensor_to_frame, (-dx, -dy)))


def test_nothing_is_found_where_nothing_is_wrong(recording: Recording) -> None:
    found = estimate_alignment(recording)
    assert abs(found.time_offset_us) < 2 * found.time_offset_error_us + 500
    assert max(map(abs, found.shift_px)) < 0.1
    assert found.is_reliable
    assert found.correlation > 0.8
    assert found.num_windows == NUM_FRAMES - 1


@pytest.mark.parametrize(("offset", "dx", "dy"), [(2000, 0, 0), (-2000, 1, 0), (1300, -1, 0), (0, 0, 1), (0, 0, -1)])
def test_known_errors_are_found(recording: Recording, offset: int, dx: int, dy: int) -> None:
    before, found = estimate_alignment(recording), estimate_alignment(moved(recording, offset, dx, dy))
    assert found.time_offset_us - before.time_offset_us == pytest.approx(offset, abs=500)
    assert np.subtract(found.shift_px, before.shift_px) == pytest.approx((dx, dy), abs=0.2)


def test_one_of_the_two_alone(recording: Recording) -> None:
    found = estimate_alignment(moved(recording, 3000), shift=False)
    assert found.time_offset_us == pytest.approx(3000, abs=1500)
    assert found.shift_px == (0, 0)
    assert estimate_alignment(moved(recording, 0, 2), offset=False).shift_px == pytest.approx((2, 0), abs=0.2)
    with pytest.raises(ConfigError, match="time offset, the shift, or both"):
        estimate_alignment(recording, offset=False, shift=False)


def with_events(recording: Recording, events: EventStream) -> Recording:
    frames = [recording.frames.read(i) for i in range(NUM_FRAMES)]
    return recording_from_memory(frames, recording.frames.times_us, events)


def noise(recording: Recording) -> EventStream:
    rng, count = np.random.default_rng(5), 5000
    x, y, t = (rng.integers(0, bound, count) for bound in (WIDTH, HEIGHT, STEP_US * NUM_FRAMES))
    return EventStream.from_arrays(x, y, t, rng.choice([-1, 1], count), (WIDTH, HEIGHT))


def test_unrelated_and_swapped_events_and_still_scenes(recording: Recording) -> None:
    events = recording.events.slice(-(10**9), 10**9)
    found = estimate_alignment(with_events(recording, noise(recording)))
    assert not found.is_reliable
    assert "nothing in common" in found.note
    assert not estimate_alignment(with_events(recording, events.slice(0, 20_000))).is_reliable
    swapped = EventStream(events.x, events.y, events.t, -events.p, events.sensor_size)
    assert "polarities look swapped" in estimate_alignment(with_events(recording, swapped), shift=False).note
    still = [recording.frames.read(0)] * NUM_FRAMES
    found = estimate_alignment(recording_from_memory(still, recording.frames.times_us, events))
    assert (found.is_reliable, found.confidence) == (False, 0)


def test_options_when_a_recording_is_opened(recording: Recording, tmp_path: Path) -> None:
    frames = [recording.frames.read(i) for i in range(NUM_FRAMES)]
    times = recording.frames.times_us
    write_plain_recording(tmp_path / "good", frames, times - 3000, recording.events.slice(-(10**9), 10**9))
    write_plain_recording(tmp_path / "noise", frames, times, noise(recording))
    opened = open_recording(tmp_path / "good", estimate_offset=True)
    assert np.abs(opened.frames.times_us - times).max() < 1500
    assert open_recording(tmp_path / "good", time_offset_us=3000).frames.times_us.tolist() == times.tolist()
    both = open_recording(tmp_path / "good", estimate_shift=True, estimate_offset=True, background_filter_us=50_000)
    assert both.sensor_to_frame[0, 2] == pytest.approx(0, abs=0.2)
    assert any("no neighbouring pixel supports" in warning for warning in both.warnings)
    with pytest.raises(RecordingError, match="the time offset cannot be estimated: events and frames have nothing"):
        open_recording(tmp_path / "noise", estimate_offset=True)
    with pytest.raises(RecordingError, match="the start of the exposure is unknown"):
        open_recording(tmp_path / "good", frame_time="start")


def test_moment_of_the_exposure() -> None:
    frames = MemoryFrames(np.zeros((2, 4, 4, 3), np.uint8), [0, 100])
    frames.exposures_us = np.array([[0, 20], [100, 131]])  # type: ignore[attr-defined]
    path = Path("x")
    assert retimed(path, frames, "start", 0).times_us.tolist() == [0, 100]
    assert retimed(path, frames, "middle", 5).times_us.tolist() == [15, 120]
    ends = retimed(path, frames, "end", -1)
    assert ends.times_us.tolist() == [19, 130]
    assert ends.exposures_us.tolist() == [[-1, 19], [99, 130]]  # type: ignore[attr-defined]
    assert retimed(path, frames, None, 0) is frames


@pytest.mark.parametrize("settings", [
    {"estimate_offset": True, "time_offset_us": 5},
    {"frame_time": "mid"},
    {"events_unit": "h"},
    {"time_offset_us": 2**62},
])  # fmt: skip
def test_contradicting_options(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RecordingOptions(**settings)  # type: ignore[arg-type]


def test_grid_of_coarse_sensors() -> None:
    assert event_grid(np.eye(3), (80, 60), (80, 60)) == (80, 60)
    assert event_grid(np.diag([2.0, 2.0, 1.0]), (640, 480), (1440, 1080)) == (720, 540)
    assert event_grid(np.diag([0.5, 0.5, 1.0]), (640, 480), (300, 200)) == (300, 200)


@pytest.mark.parametrize(("name", "offset_us"), [("newtons_cradle_davis346", 2600)])
def test_real_recordings(shared_dir: Path, name: str, offset_us: int) -> None:
    with open_recording(shared_dir / f"data/recordings/{name}.aedat4") as real:
        before, after = estimate_alignment(real), estimate_alignment(moved(real, 2000, 1, -1))
    assert before.is_reliable
    assert before.time_offset_us == pytest.approx(offset_us, abs=500)
    assert after.time_offset_us - before.time_offset_us == pytest.approx(2000, abs=500)
    assert np.subtract(after.shift_px, before.shift_px) == pytest.approx((1, -1), abs=0.2)
