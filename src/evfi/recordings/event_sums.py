"""Pairs of frames beside the events between them, made comparable: log differences and sums of polarity on one grid.

Both tell how much brighter each place became: a frame pair by the difference of the logarithms of its levels, events
by the sum of their polarities. They agree where the times and the pixels of frames and events are the same.

An event is written when a change is complete, so sums of polarity always lag: by 2 to 3.5 ms in simulated recordings whose
clocks are the same. Each event is therefore moved to the middle of the time over which its change took place (`_lags`),
which leaves 0.1 to 0.7 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.events.stream import EventStream
from evfi.recordings.recording import Image, Recording

Floats = NDArray[np.float32]

_MAX_GRID_PIXELS: Final = 160_000
_MAX_EVENTS: Final = 500_000  # of one pair; beyond, every second event is left out, again and again
_READ_US: Final = 20_000
_PAUSE_US: Final = 50_000  # longer, and two events of a pixel do not tell of one change
_DARK_LEVEL: Final = 10.0  # added to levels of 0 to 255 before the logarithm: keeps the noise of dark pixels small
_USABLE_LEVELS: Final = (2.0, 253.0)


@dataclass(frozen=True)
class Grid:
    """Square-like cells over the frame, no finer than the frame's and the sensor's pixels.

    Attributes:
        size: (width, height) in cells.
        frame_size: (width, height) of the frame in px.
    """

    size: tuple[int, int]
    frame_size: tuple[int, int]

    @classmethod
    def of(cls, recording: Recording) -> Grid:
        """The grid for a recording: its frame's pixels, or fewer where the sensor is coarser or the frame is large."""
        width, height = recording.frames.size
        sensor_width, sensor_height = recording.events.sensor_size
        shrink = min(1.0, sensor_width / width, sensor_height / height, (_MAX_GRID_PIXELS / (width * height)) ** 0.5)
        return cls((max(1, round(width * shrink)), max(1, round(height * shrink))), (width, height))

    @property
    def cell_px(self) -> tuple[float, float]:
        """Width and height of a cell in frame pixels."""
        return self.frame_size[0] / self.size[0], self.frame_size[1] / self.size[1]

    def average(self, image: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over each cell of values per frame pixel [H, W]."""
        for axis, (cells, pixels) in enumerate(zip(self.size[::-1], self.frame_size[::-1], strict=True)):
            if cells != pixels:
                edges = np.arange(cells) * pixels // cells
                counts = np.diff(np.append(edges, pixels))
                image = np.add.reduceat(image, edges, axis) / np.expand_dims(counts, 1 - axis)
        return image

    def cells_of(self, events: EventStream) -> NDArray[np.int32]:
        """The cell of each event, whose own grid covers the frame: row times width plus column, int32 [N]."""
        columns, rows = (
            ((np.arange(own) + 0.5) * cells / own).astype(np.int32)
            for own, cells in zip(events.sensor_size, self.size, strict=True)
        )
        cells: NDArray[np.int32] = rows[events.y] * np.int32(self.size[0]) + columns[events.x]
        return cells


@dataclass(frozen=True, eq=False)
class FramePair:
    """Two frames and the events around the time between them.

    Attributes:
        start_us: time of the first frame.
        end_us: time of the second.
        difference: log of the second's levels less log of the first's, float32 [h, w] on the grid; 0 where unusable.
        usable: 1 where neither frame is too dark or too bright to tell, else 0, float32 [h, w].
        cells: cell of each event, int32 [N].
        times_us: time of each event less its lag, in order, int64 [N].
        polarities: +1 or -1, int8 [N].
    """

    start_us: int
    end_us: int
    difference: Floats
    usable: Floats
    cells: NDArray[np.int32]
    times_us: NDArray[np.int64]
    polarities: NDArray[np.int8]

    @classmethod
    def read(cls, recording: Recording, grid: Grid, first: int, second: int, margin_us: int) -> FramePair:
        """Read frames `first` and `second` of a recording, and the events from a margin before to a margin after."""
        levels = [_levels(recording.frames.read(index), grid) for index in (first, second)]
        low, high = _USABLE_LEVELS
        usable = np.logical_and.reduce([(low < level) & (level < high) for level in levels])
        difference = np.log(levels[1] + _DARK_LEVEL) - np.log(levels[0] + _DARK_LEVEL)
        start, end = (int(recording.frames.times_us[index]) for index in (first, second))
        events = _read_events(recording, grid, start - margin_us, end + margin_us)
        return cls(start, end, np.where(usable, difference, 0).astype(np.float32), usable.astype(np.float32), *events)

    def between(self, offset_us: int) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Cells and polarities of the events between the two frames if their times were later by an offset."""
        first, last = np.searchsorted(self.times_us, [self.start_us + offset_us, self.end_us + offset_us])
        return self.cells[first:last], self.polarities[first:last]


def _levels(image: Image, grid: Grid) -> NDArray[np.float64]:
    return grid.average(image.astype(np.float64) @ np.array([0.2126, 0.7152, 0.0722]))


def _read_events(
    recording: Recording, grid: Grid, start_us: int, end_us: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int8]]:
    """Cells, times without lag, and polarities; thinned evenly where there are more events than are needed."""
    parts: list[EventStream] = []
    stride, count = 1, 0
    for at in range(start_us, end_us, _READ_US):
        parts.append(_every(recording.read_events(at, min(at + _READ_US, end_us)), stride))
        count += len(parts[-1])
        while count > _MAX_EVENTS:
            parts, stride = [_every(part, 2) for part in parts], stride * 2
            count = sum(len(part) for part in parts)
    events = EventStream.concatenate(parts)
    times = events.t - _lags(events) // (2 * stride)
    order = np.argsort(times, kind="stable")
    return grid.cells_of(events)[order], times[order], events.p[order]


def _every(events: EventStream, stride: int) -> EventStream:
    part = np.s_[::stride]
    return EventStream(events.x[part], events.y[part], events.t[part], events.p[part], events.sensor_size)


def _lags(events: EventStream) -> NDArray[np.int64]:
    """How long the change behind each event took, in µs.

    An event comes when its pixel has changed by a threshold since the last one: the change lies before it, over the time
    between the two, or as long as to the next one where there was a pause before. Where neither is of the same polarity,
    the change is taken to be sudden.
    """
    pixel = events.y.astype(np.int64) * events.sensor_size[0] + events.x
    order = np.argsort(pixel, kind="stable")
    pixel, times, polarity = pixel[order], events.t[order], events.p[order]
    between = np.where((pixel[1:] == pixel[:-1]) & (polarity[1:] == polarity[:-1]), np.diff(times), _PAUSE_US)
    ends = np.full(1, _PAUSE_US)
    shorter = np.minimum(np.concatenate([ends, between]), np.concatenate([between, ends]))
    lags = np.empty_like(events.t)
    known = shorter < _PAUSE_US
    lags[order] = np.where(known, shorter, int(np.median(shorter[known])) if known.any() else 0)
    return lags
