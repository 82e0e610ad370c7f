"""Recording: checks on making one, windows' content, mapping of events to the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.source import MemoryEvents
from evfi.events.stream import EventStream
from evfi.recordings.alignment import covers_frame, scale_mapping, warp_events
from evfi.recordings.memory import MemoryFrames, recording_from_memory
from evfi.recordings.recording import Recording

SENSOR = (8, 6)


def make_events(times: list[int], sensor: tuple[int, int] = SENSOR) -> EventStream:
    n = len(times)
    return EventStream.from_arrays(np.arange(n) % sensor[0], np.arange(n) % sensor[1], times, np.ones(n, int), sensor)


def make_frames(count: int, size: tuple[int, int] = SENSOR) -> NDArray[np.uint8]:
    values = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(values, (count, size[1], size[0], 3))


def test_window_holds_half_open_events_and_key_frames() -> None:
    recording = recording_from_memory(make_frames(3), [0, 10, 20], make_events([0, 5, 10, 19, 20]))
    first, second = recording.windows(recording.plan_windows(insert=1))
    assert first.events.t.tolist() == [0, 5]
    assert second.events.t.tolist() == [10, 19]
    assert (first.start_image[0, 0, 0], first.end_image[0, 0, 0], second.end_image[0, 0, 0]) == (0, 1, 2)
    assert recording.warnings == ()


def test_pure_scale_keeps_sensor_coordinates() -> None:
    events = make_events([1, 2, 3])
    recording = recording_from_memory(make_frames(2, (16, 12)), [0, 10], events)
    window = recording.load_window(recording.plan_windows(insert=1)[0])
    assert window.events.sensor_size == SENSOR
    assert window.events.x.tolist() == events.x.tolist()


def test_other_mappings_warp_to_frame_pixels_and_count() -> None:
    shift = np.array([[1.0, 0, 3], [0, 1, 0], [0, 0, 1]])
    recording = Recording(
        Path("x"), "test", MemoryFrames(make_frames(2), [0, 10]), MemoryEvents(make_events(list(range(8)))), shift
    )
    window = recording.load_window(recording.plan_windows(insert=1)[0])
    assert window.events.x.tolist() == [3, 4, 5, 6, 7]
    assert window.events.num_dropped == 3


def test_identity_warp_and_flip() -> None:
    events = make_events(list(range(8)))
    same = warp_events(events, np.eye(3), SENSOR)
    assert (same.x.tolist(), same.y.tolist()) == (events.x.tolist(), events.y.tolist())
    mirror = np.array([[-1.0, 0, SENSOR[0]], [0, 1, 0], [0, 0, 1]])
    assert warp_events(events, mirror, SENSOR).x.tolist() == (SENSOR[0] - 1 - events.x).tolist()
    assert not covers_frame(mirror, SENSOR, SENSOR)
    assert covers_frame(scale_mapping(SENSOR, (970, 625)), SENSOR, (970, 625))


def test_points_behind_the_horizon_are_outside() -> None:
    tilt = np.array([[1.0, 0, 0], [0, 1, 0], [-0.25, 0, 1]])
    warped = warp_events(make_events(list(range(8))), tilt, SENSOR)
    assert len(warped) + warped.num_dropped == 8
    assert warped.num_dropped >= 4


def test_fewer_than_two_frames() -> None:
    for count in (0, 1):
        with pytest.raises(RecordingError, match=f"at least two frames, found {count}"):
            recording_from_memory(make_frames(count), list(range(count)), make_events([0]))


def test_frame_times_must_increase_strictly() -> None:
    with pytest.raises(InputError, match="frames 1 and 2 are at 10 then 10 µs"):
        recording_from_memory(make_frames(3), [0, 10, 10], make_events([0]))
    with pytest.raises(InputError, match="3 frames but 2 frame times"):
        recording_from_memory(make_frames(3), [0, 10], make_events([0]))


@pytest.mark.parametrize("times", [[-5, -1], [20, 30]])
def test_no_overlap_in_time(times: list[int]) -> None:
    with pytest.raises(RecordingError, match="do not overlap in time: frames from 0 to 20 µs, events from"):
        recording_from_memory(make_frames(3), [0, 10, 20], make_events(times))


def test_no_events_at_all() -> None:
    with pytest.raises(RecordingError, match="expected events, got none"):
        recording_from_memory(make_frames(3), [0, 10, 20], EventStream.empty(SENSOR))


def test_warns_of_windows_without_events_at_the_ends() -> None:
    recording = recording_from_memory(make_frames(5), [0, 10, 20, 30, 40], make_events([10, 15, 25]))
    assert recording.warnings == ("windows between key frames without any event: 1 at the start and 1 at the end of 4",)


@pytest.mark.parametrize("mapping", [np.zeros((3, 3)), np.eye(2), np.full((3, 3), np.nan)])
def test_mapping_must_be_invertible(mapping: NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="invertible 3×3"):
        Recording(Path("x"), "test", MemoryFrames(make_frames(2), [0, 1]), MemoryEvents(make_events([0])), mapping)


FAR = np.array([[1.0, 0, 1e6], [0, 1, 0], [0, 0, 1]])
HUGE = np.diag([1e308, 1.0, 1.0])
BEHIND = np.array([[1.0, 0, 0], [0, 1, 0], [-4, 0, 0.5]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (HUGE, r"elements within ±1e\+09, got \[\[1e\+308, "),
        (FAR, "moves all of the 8×6 sensor far out of the 8×6 frame"),
        (BEHIND, "moves all of the 8×6 sensor far out of the 8×6 frame"),
    ],
)
def test_mapping_must_lead_near_the_frame(mapping: NDArray[np.float64], message: str) -> None:
    frames = MemoryFrames(np.zeros((2, SENSOR[1], SENSOR[0], 3), np.uint8), [0, 1])
    with pytest.raises(InputError, match=message):
        Recording(Path("x"), "test", frames, MemoryEvents(make_events([0])), mapping)


def test_frames_must_share_one_shape() -> None:
    with pytest.raises(InputError, match="the same shape"):
        MemoryFrames([np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)], [0, 1])


def test_close_reaches_the_sources() -> None:
    class Closing(MemoryEvents):
        closed = False

        def close(self) -> None:
            self.closed = True

    events = Closing(make_events([0]))
    with Recording(Path("x"), "test", MemoryFrames(make_frames(2), [0, 1]), events, np.eye(3)):
        pass
    assert events.closed
