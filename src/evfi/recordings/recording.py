"""A recording: key frames with their times, the events of the same time, and how the two images lie on each other.

Conventions: times are int64 microseconds on one clock; a frame is uint8 [H, W, 3] RGB; sizes are (width, height).
Coordinates of the sensor-to-frame mapping are continuous: pixel i covers [i, i + 1), so its centre is i + 0.5.
Nothing is held that can be read again: frames are read one by one, events by time slice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.source import EventSource
from evfi.events.stream import EventStream
from evfi.recordings.planning import WindowSpec, plan_windows

Times = NDArray[np.int64]
Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]

_SCALE_TOLERANCE_PX = 0.01  # a mapping that is off by less at every corner of the frame counts as a pure scale


class FrameSource(Protocol):
    """Key frames that are read one by one; may also have `close()`."""

    @property
    def times_us(self) -> Times:
        """Time of each frame in µs, int64 [N], strictly increasing."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every frame."""

    @property
    def is_grey(self) -> bool:
        """Whether the three channels of every frame are equal because the camera is monochrome."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB."""


@dataclass(frozen=True, eq=False)
class Window:
    """Two key frames and the events between them, ready to be interpolated.

    Attributes:
        spec: which key frames and output times.
        start_image: first key frame, uint8 [H, W, 3] RGB.
        end_image: last key frame, uint8 [H, W, 3] RGB.
        events: the events of [start, end) on a grid that covers exactly the frame's field of view; its resolution may
            differ from the frame's. `events.num_dropped` counts those left out.
    """

    spec: WindowSpec
    start_image: Image
    end_image: Image
    events: EventStream


@dataclass(eq=False)
class Recording:
    """Key frames and events of one scene.

    Attributes:
        path: what was opened.
        format: name of the reader, e.g. "aedat4".
        frames: the key frames.
        events: the events.
        sensor_to_frame: homography from event to frame coordinates, float64 [3, 3] (continuous, see the module).
        warnings: what the user should know, one line each.

    Raises:
        RecordingError: fewer than two frames, or no event between the first and the last.
        InputError: frame times do not increase strictly, or the mapping is no invertible 3×3 matrix.
    """

    path: Path
    format: str
    frames: FrameSource
    events: EventSource
    sensor_to_frame: Matrix
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_frames(self.path, self.frames)
        self.sensor_to_frame = _checked_mapping(self.sensor_to_frame)
        _check_overlap(self.path, self.frames.times_us, self.events.time_range_us)
        self.warnings = (*self.warnings, *_warn_of_eventless_ends(self.frames.times_us, self.events.time_range_us))

    @property
    def is_grey(self) -> bool:
        """Whether the frames are grey (their three channels are equal)."""
        return self.frames.is_grey

    def plan_windows(
        self,
        insert: int | None = None,
        times_us: NDArray[np.int64] | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        skip: int = 1,
    ) -> list[WindowSpec]:
        """Lay out windows between this recording's key frames; see `planning.plan_windows`."""
        return plan_windows(
            self.frames.times_us, insert=insert, times_us=times_us, start_us=start_us, end_us=end_us, skip=skip
        )

    def load_window(self, spec: WindowSpec) -> Window:
        """Read what one window needs.

        Raises:
            InputError: a file turns out to be damaged.
        """
        start_us, end_us = int(spec.times_us[0]), int(spec.times_us[-1])
        return Window(
            spec=spec,
            start_image=self.frames.read(spec.start_frame),
            end_image=self.frames.read(spec.end_frame),
            events=self.read_events(start_us, end_us),
        )

    def read_events(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us on a grid that covers exactly the frame's field of view."""
        events = self.events.slice(start_us, end_us)
        if covers_frame(self.sensor_to_frame, events.sensor_size, self.frames.size):
            return events
        return warp_events(events, self.sensor_to_frame, self.frames.size)

    def windows(self, specs: list[WindowSpec]) -> Iterator[Window]:
        """Load windows one after the other."""
        for spec in specs:
            yield self.load_window(spec)

    def close(self) -> None:
        """Close the files; the recording cannot be read afterwards."""
        with contextlib.ExitStack() as stack:
            for source in (self.frames, self.events):
                if hasattr(source, "close"):
                    stack.callback(source.close)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def scale_mapping(sensor_size: tuple[int, int], frame_size: tuple[int, int]) -> Matrix:
    """The mapping of a sensor that covers exactly the frame's field of view, float64 [3, 3]."""
    return np.diag([frame_size[0] / sensor_size[0], frame_size[1] / sensor_size[1], 1.0])


def covers_frame(mapping: Matrix, sensor_size: tuple[int, int], frame_size: tuple[int, int]) -> bool:
    """Whether the mapping is the pure scale under which the sensor's corners are the frame's corners."""
    width, height = sensor_size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    expected = corners * (np.array(frame_size) / np.array(sensor_size))
    return bool(np.all(np.abs(_transform(mapping, corners) - expected) < _SCALE_TOLERANCE_PX))


def warp_events(events: EventStream, mapping: Matrix, frame_size: tuple[int, int]) -> EventStream:
    """Move events to the frame pixels on which their pixel centres fall; those outside are dropped and counted."""
    centres = np.stack([events.x, events.y], axis=1).astype(np.float64) + 0.5  # [N, 2]
    pixels = np.floor(_transform(mapping, centres))
    pixels[~np.isfinite(pixels).all(axis=1)] = -1  # behind the camera or at infinity: outside
    warped = EventStream.from_arrays(pixels[:, 0], pixels[:, 1], events.t, events.p, frame_size, on_outside="drop")
    num_dropped = events.num_dropped + warped.num_dropped
    return EventStream(warped.x, warped.y, warped.t, warped.p, warped.sensor_size, num_dropped)


def _transform(mapping: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    homogeneous = points @ mapping[:, :2].T + mapping[:, 2]  # [N, 3]
    depth = np.where(homogeneous[:, 2:] > 0, homogeneous[:, 2:], np.nan)
    moved: NDArray[np.float64] = homogeneous[:, :2] / depth
    return moved


def _check_frames(path: Path, frames: FrameSource) -> None:
    if len(frames) < 2:
        raise RecordingError(
            f"{path}: expected at least two frames, found {len(frames)}; there is nothing between them"
        )
    if len(frames.times_us) != len(frames):
        raise InputError(
            f"{path}: {len(frames)} frames but {len(frames.times_us)} frame times; give one time per frame"
        )
    steps = np.diff(frames.times_us)
    if (steps <= 0).any():
        first = int(np.argmax(steps <= 0))
        found = " then ".join(str(time) for time in frames.times_us[first : first + 2])
        raise InputError(
            f"{path}: frame times must increase strictly, but frames {first} and {first + 1} are at {found} µs; "
            "correct or remove the frame"
        )


def _checked_mapping(mapping: Matrix) -> Matrix:
    matrix = np.asarray(mapping, np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError(f"sensor_to_frame must be an invertible 3×3 matrix, got {np.asarray(mapping).tolist()}")
    return -matrix if matrix[2, 2] < 0 else matrix


def _check_overlap(path: Path, frame_times: Times, event_range: tuple[int, int]) -> None:
    first, last = int(frame_times[0]), int(frame_times[-1])
    if event_range[1] >= first and event_range[0] < last:
        return
    raise RecordingError(
        f"{path}: frames and events do not overlap in time: frames from {first} to {last} µs, events from "
        f"{event_range[0]} to {event_range[1]} µs; check units and clocks of both"
    )


def _warn_of_eventless_ends(frame_times: Times, event_range: tuple[int, int]) -> list[str]:
    before = int(np.count_nonzero(frame_times[1:] <= event_range[0]))
    after = int(np.count_nonzero(frame_times[:-1] > event_range[1]))
    where = [f"{count} at the {end}" for count, end in ((before, "start"), (after, "end")) if count]
    if not where:
        return []
    return [f"windows between key frames without any event: {' and '.join(where)} of {len(frame_times) - 1}"]
