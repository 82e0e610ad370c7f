"""Metrics of how well the frames explain the events, without ground truth.

Between two neighbouring frames each pixel's log intensity changes by D, and the camera counts S, its ON events less its OFF
events. An ideal camera writes an event per contrast threshold c, so D = c * S but for a remainder of less than c.

    frame -> linear luminance + 0.01 -> mean over each cell -> natural log -> difference D -> 3x3 mean
    events -> sum of polarities S per interval and cell                                     -> 3x3 mean

Conventions and notable choices:
- Cells are the pixels of the frames or of the events' grid, along each axis the coarser ones; both are brought there by
  exact shares of area. The mapping from frame to log intensity is the simulator's (`events.simulate_video`).
- The 3x3 mean evens out remainders, single noise events, and misalignment of up to a pixel.
- Compared are cells where something happens: those that have, with their eight neighbours, at least two events in the
  window. They are the same for all systems and all intervals of a window, so that a ghost at a place whose events come at
  another time counts, and camera noise where nothing happens does not.
- Both values are about zero change, not about the mean: a change of the whole picture counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from evfi.evaluation.metrics.base import ALL, Metric, ScoredWindow, Values
from evfi.evaluation.metrics.temporal import mean_of_both_sides
from evfi.events.simulate_video import log_luminance
from evfi.events.stream import EventStream

_MIN_EVENTS_AROUND: Final = 2
_MIN_EVENTS: Final = 20
_MIN_CELLS: Final = 20

_Map = NDArray[np.float64]


def event_correlation(window: ScoredWindow) -> Values:
    """How well changes of log intensity go along with the events: the cosine between D and S, per interval.

    1 is perfect, whatever the contrast threshold; -1 means opposite polarity. Frames that do not change at all where
    events say that something did explain nothing: 0.

    Returns:
        For all pixels alone; NaN where an interval beside the frame has fewer than 20 events, or the window fewer than 20
        cells to compare.
    """
    values = [_cosine(change, sums) for change, sums in _compared(window)]
    return {ALL: mean_of_both_sides(np.array(values))}


def event_residual(window: ScoredWindow) -> Values:
    """What frames leave unexplained of the events: root of the sum of (D - c * S)^2 over that of (c * S)^2.

    The sums go over both intervals beside a frame. The contrast threshold c is the ratio of the root mean squares of D and S
    from the first to the last key frame, so it is the same for all systems. (The least-squares fit would be smaller
    the more noise S holds.) 0 is perfect, 1 as bad as frames that do not change.

    Returns:
        As `event_correlation`; NaN also where the key frames' change goes against the events.
    """
    threshold = _threshold(*next(_compared(window, (0, len(window.frames) - 1))))
    parts = np.array([_rest_and_power(change, sums, threshold) for change, sums in _compared(window)])  # [F - 1, 2]
    rest, power = mean_of_both_sides(parts).T
    return {ALL: np.sqrt(np.divide(rest, power, out=np.full(len(rest), np.nan), where=power > 0))}


def area_means(image: _Map, size: tuple[int, int]) -> _Map:
    """Mean over each cell of a coarser grid; a pixel that lies in several cells counts in each by its share of area.

    Args:
        image: values per pixel [H, W].
        size: (width, height) of the grid in cells.

    Returns:
        float64 [height, width].
    """
    for axis, cells in enumerate(size[::-1]):
        pixels = image.shape[axis]
        if cells != pixels:
            image = _summed_along(image, axis, cells) * (cells / pixels)
    return image


def area_sums(image: _Map, size: tuple[int, int]) -> _Map:
    """Like `area_means`, but sums: the total stays what it is."""
    for axis, cells in enumerate(size[::-1]):
        if cells != image.shape[axis]:
            image = _summed_along(image, axis, cells)
    return image


def _summed_along(image: _Map, axis: int, cells: int) -> _Map:
    """Sums over equal parts of one axis: differences of the running sum, which is linear within a pixel."""
    pixels = image.shape[axis]
    running = np.insert(np.cumsum(image, axis=axis, dtype=np.float64), 0, 0, axis=axis)
    edges = np.arange(cells + 1) * pixels / cells
    below = np.minimum(np.arange(cells + 1) * pixels // cells, pixels - 1)
    share = np.expand_dims(edges - below, 1 - axis)
    lower, upper = (np.take(running, index, axis=axis) for index in (below, below + 1))
    summed: _Map = np.diff(lower + (upper - lower) * share, axis=axis)
    return summed


def _compared(window: ScoredWindow, frames: Sequence[int] | None = None) -> Iterator[tuple[_Map, _Map]]:
    """D and S between neighbouring frames, of those named or of all, in the cells that are compared.

    Yields:
        float64 [N] each; empty where there is too little to compare.
    """
    frames = range(len(window.frames)) if frames is None else frames
    events = window.events
    cells = None if events is None else _eventful_cells(events, _grid(window, events))
    if events is None or cells is None or np.count_nonzero(cells) < _MIN_CELLS:
        yield from ((np.empty(0), np.empty(0)) for _ in frames[1:])
        return
    size = (cells.shape[1], cells.shape[0])
    before = _log_intensity(window.frames[frames[0]], size)
    for start, end in pairwise(frames):
        after = _log_intensity(window.frames[end], size)
        first, last = np.searchsorted(events.t, window.times_us[[start, end]])
        if last - first < _MIN_EVENTS:
            yield np.empty(0), np.empty(0)
        else:
            sums = _per_cell(events, np.s_[first:last], events.p, size)
            yield _box_means(after - before)[cells], _box_means(sums)[cells]
        before = after


def _grid(window: ScoredWindow, events: EventStream) -> tuple[int, int]:
    """(width, height) of the grid on which frames and events are compared."""
    height, width = window.frames.shape[1:3]
    return min(width, events.sensor_size[0]), min(height, events.sensor_size[1])


def _eventful_cells(events: EventStream, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells with at least two events of the window in the 3x3 around, bool [height, width]."""
    counts = _per_cell(events, np.s_[:], np.ones(len(events)), size)
    return _box_means(counts, "constant") * 9 > _MIN_EVENTS_AROUND - 1e-6


def _per_cell(events: EventStream, part: slice, weights: NDArray[Any], size: tuple[int, int]) -> _Map:
    """Sum of the weights of a part of the events, float64 [height, width]."""
    width, height = events.sensor_size
    pixels = events.y[part].astype(np.int64) * width + events.x[part]
    counts: _Map = np.bincount(pixels, weights[part], minlength=width * height).astype(np.float64)
    return area_sums(counts.reshape(height, width), size)


def _log_intensity(frame: NDArray[np.uint8], size: tuple[int, int]) -> _Map:
    """Natural log of the cells' mean of linear luminance plus a dark level, float64 [height, width]."""
    levels: _Map = log_luminance(frame).numpy().astype(np.float64)
    return levels if levels.shape == size[::-1] else np.log(area_means(np.exp(levels), size))


def _box_means(image: _Map, border: Literal["edge", "constant"] = "edge") -> _Map:
    """Means over 3x3 cells; beyond the border, the border's values continue ("edge"), or all is 0 ("constant")."""
    padded = np.pad(image, 1, mode=border)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    means: _Map = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return means


def _cosine(change: _Map, sums: _Map) -> float:
    power, expected = float(np.vdot(change, change)), float(np.vdot(sums, sums))
    if not expected > 0:
        return float("nan")
    return float(np.vdot(change, sums)) / (power * expected) ** 0.5 if power > 0 else 0.0


def _threshold(change: _Map, sums: _Map) -> float:
    """The contrast threshold for which threshold * sums is as strong as change; NaN if they go against each other."""
    if not float(np.vdot(change, sums)) > 0:
        return float("nan")
    return float(np.linalg.norm(change) / np.linalg.norm(sums))


def _rest_and_power(change: _Map, sums: _Map, threshold: float) -> tuple[float, float]:
    """Sums of (D - c * S)^2 and of (c * S)^2; NaN where there is nothing to compare."""
    if not len(sums):
        return float("nan"), float("nan")
    expected = threshold * sums
    rest = expected - change
    return float(np.vdot(rest, rest)), float(np.vdot(expected, expected))


METRICS: Final = (
    Metric(
        name="event_correlation",
        title="events explained",
        definition=(
            "cosine between the change of log(0.01 + linear luminance) from frame to frame and the sum of event polarities, "
            "both averaged over 3x3 cells, over cells with at least 2 events of the window in the 3x3 around, mean of the "
            "intervals before and after the frame; 0 for frames that do not change, NaN for under 20 events or cells"
        ),
        higher_is_better=True,
        load=lambda device: event_correlation,
        needs_truth=False,
    ),
    Metric(
        name="event_residual",
        title="events unexplained",
        definition=(
            "root of sum (D - c S)^2 over sum (c S)^2, D and S being the changes and polarity sums that event_correlation "
            "compares, in the intervals before and after the frame, c the ratio of the root mean squares of D and S from the "
            "first to the last key frame; 1 for frames that do not change, NaN as for event_correlation or where the key "
            "frames' change goes against the events"
        ),
        higher_is_better=False,
        load=lambda device: event_residual,
        needs_truth=False,
        is_default=False,
    ),
)
"""In the order of tables."""
