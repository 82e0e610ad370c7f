"""A recording: key frames with their times, the events of the same time, and how the two images lie on each other.

Conventions: times are int64 microseconds on one clock; a frame is uint8 [H, W, 3] RGB; sizes are (width, height).
How events come to lie on frames is in `alignment`.
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
from evfi.recordings.alignment import (
    Matrix,
    RectificationMap,
    check_reach,
    checked_mapping,
    checked_rectification,
    covers_frame,
    event_grid,
    scale_mapping,
    warp_events,
)
from evfi.recordings.planning import WindowSpec, plan_windows

Times = NDArray[np.int64]
Image = NDArray[np.uint8]


class FrameSource(Protocol):
    """Key frames that are read one by one."""

    @property
    def times_us(self) -> Times:
        """Time of each frame in µs, int64 [N], strictly increasing."""

    @property
    def exposures_us(self) -> Times | None:
        """Start and end of each frame's exposure in µs, int64 [N, 2]; None where they are unknown."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every frame."""

    @property
    def is_grey(self) -> bool:
        """Whether the three channels of every frame are equal because the camera is monochrome."""

    @property
    def path(self) -> Path | None:
        """The video that frames are read from, if it is one."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The pictures that frames are read from, one per frame in their order; none where they lie in other files."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB."""

    def close(self) -> None:
        """Close the files."""


class FrameSourceDefaults:
    """For frame sources: no known exposures, no video, no pictures, no open files."""

    exposures_us: Times | None = None
    path: Path | None = None
    paths: tuple[Path, ...] = ()

    def close(self) -> None:
        """Nothing is open."""


class FramesAround:
    """Another source's frames, with all that it knows of them; subclasses override what they change."""

    def __init__(self, frames: FrameSource) -> None:
        """Take the source, which is closed with this one."""
        self._frames = frames
        self.exposures_us, self.path, self.paths = frames.exposures_us, frames.path, frames.paths

    @property
    def times_us(self) -> Times:
        """Time of each frame in µs, int64 [N]."""
        return self._frames.times_us

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every frame."""
        return self._frames.size

    @property
    def is_grey(self) -> bool:
        """Whether the frames are grey."""
        return self._frames.is_grey

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB."""
        return self._frames.read(index)

    def close(self) -> None:
        """Close the source."""
        self._frames.close()


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
        sensor_to_frame: homography from (rectified) event to frame coordinates, float64 [3, 3] (see `alignment`).
        warnings: what the user should know, one line each.
        rectification: where each sensor pixel's centre lies after rectification, float32 [height, width, 2] (x, y); None
            where events are taken as they are.
        convention: in one line, what the reader takes the files to mean.
        places: all files and folders that it is read from, `path` first; a reader names those outside `path`.

    Raises:
        RecordingError: fewer than two frames.
        InputError: frame times do not increase strictly, the mapping is no invertible 3×3 matrix or leads far out of
            the frame, or the rectification does not fit the sensor.
    """

    path: Path
    format: str
    frames: FrameSource
    events: EventSource
    sensor_to_frame: Matrix
    warnings: tuple[str, ...] = ()
    rectification: RectificationMap | None = None
    convention: str = ""
    places: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        _check_frames(self.path, self.frames)
        self.sensor_to_frame = checked_mapping(self.sensor_to_frame)
        if self.rectification is not None:
            self.rectification = checked_rectification(self.rectification, self.events.sensor_size)
        check_reach(self.sensor_to_frame, self.events.sensor_size, self.frames.size, self.rectification)
        self.warnings = tuple(dict.fromkeys((*self.warnings, *self.events.report.warnings())))  # copies bring theirs
        self.places = tuple(dict.fromkeys((self.path, *self.places)))

    def checked_overlap(self) -> Recording:
        """This recording, with a warning where key frames at its ends have no event between them.

        A reader does not ask for this, because the user may still say by how much the two clocks differ.

        Raises:
            RecordingError: there is no event between the first and the last frame.
        """
        _check_overlap(self.path, self.frames.times_us, self.events.time_range_us)
        ends = _warn_of_eventless_ends(self.frames.times_us, self.events.time_range_us)
        self.warnings = (*self.warnings, *ends)
        return self

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
        if self.rectification is None and covers_frame(self.sensor_to_frame, events.sensor_size, self.frames.size):
            return events
        grid = event_grid(self.sensor_to_frame, events.sensor_size, self.frames.size)
        mapping = scale_mapping(self.frames.size, grid) @ self.sensor_to_frame
        return warp_events(events, mapping, grid, self.rectification)

    def windows(self, specs: list[WindowSpec]) -> Iterator[Window]:
        """Load windows one after the other."""
        for spec in specs:
            yield self.load_window(spec)

    def close(self) -> None:
        """Close the files; the recording cannot be read afterwards."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.frames.close)
            stack.callback(self.events.close)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_frames(path: Path, frames: FrameSource) -> None:
    if len(frames) < 2:
        raise RecordingError(
            f"{path}: expected at least two frames, found {len(frames)}; there is nothing to interpolate"
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


def _check_overlap(path: Path, frame_times: Times, event_range: tuple[int, int]) -> None:
    first, last = int(frame_times[0]), int(frame_times[-1])
    if event_range[1] >= first and event_range[0] < last:
        return
    raise RecordingError(
        f"{path}: frames and events do not overlap in time: frames from {first} to {last} µs, events from "
        f"{event_range[0]} to {event_range[1]} µs; check units and clocks of both (--events-unit, --time-offset-us)"
    )


def _warn_of_eventless_ends(frame_times: Times, event_range: tuple[int, int]) -> list[str]:
    before = int(np.count_nonzero(frame_times[1:] <= event_range[0]))
    after = int(np.count_nonzero(frame_times[:-1] > event_range[1]))
    where = [f"{count} at the {end}" for count, end in ((before, "start"), (after, "end")) if count]
    if not where:
        return []
    return [f"windows between key frames without any event: {' and '.join(where)} of {len(frame_times) - 1}"]
