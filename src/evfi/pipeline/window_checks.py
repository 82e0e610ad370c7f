"""Check from its key frames and events whether a window can be interpolated reliably.

A check knows one window and the recording's usual interval between key frames, nothing else; the same window gives the
same finding whatever is done before it. Where several kinds hold, the first of this order is reported:

    gap        the key frames lie too far apart, or the events stop in between: what is missing is not in the data (events
               that stop at an end of the window go after cut and exposure, which account for more)
    cut        the key frames show different scenes: no motion leads from one to the other
    exposure   the same scene, brighter or darker all over: explains why pictures differ that nothing moves in, so it
               goes before
    no-events  no output interval has enough events for a stack, yet something changed
    few-events the same, and nothing changed: blending is right

Conventions: brightness is luma (0.299 R + 0.587 G + 0.114 B) in 8-bit levels, averaged over blocks of 8×8 px (as sensors'
noise is nearly gone there, and small motions are still seen) and over cells of whole blocks, at most 48 along the longer
side (a scene's layout). Limits were set on real recordings, simulated ones and pairs of photographs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from evfi.events.stack_config import MIN_EVENTS
from evfi.recordings.recording import Image, Times, Window
from evfi.video.geometry import LUMA

FindingKind = Literal["", "gap", "no-events", "few-events", "cut", "exposure"]

Grid = NDArray[np.float64]
"""Mean luma of blocks or cells of a picture, [rows, columns]."""

GAP_RATIO: Final = 2.5
"""Key frames further apart than so many usual intervals: a single lost frame (2) is still bridged well by events."""

_SILENT_SHARE: Final = 0.5
"""Part of a window without any event that makes a gap: with less, most of the motion is still recorded."""

_MIN_SILENCE_US: Final = 10_000
"""The light of lamps on 50 Hz mains makes bursts of events 10 ms apart (8.3 ms on 60 Hz); a gap is longer."""

_READOUT_SHARE: Final = 0.05
"""Part of a window next to each key frame whose events tell no rate: reading a frame out makes sensors write some."""

_MIN_FLOW: Final = 20
"""Events on either side of a gap: fewer are noise, and tell no rate."""

_MIN_EXPECTED: Final = 30.0
"""Events that a silent stretch should hold at the slower of the rates beside it. Poisson: none came by a chance of e^-30."""

_BLOCK_PX: Final = 8
"""Side of a block; it lowers the noise of pixels to an eighth."""

_MAX_CELLS: Final = 48
"""Cells along the longer side: tiles of about 12 cells tell pictures apart, and all their shifts are tried in 2 ms."""


_MAX_TILES: Final = 4
"""Tiles along each side that are looked for in the other picture: small enough to follow parallax."""

_MIN_TILE_CELLS: Final = 5
"""Cells along a tile's shorter side: smaller tiles match anything. So small pictures have fewer tiles, but at least 2."""

_MIN_CELLS: Final = 2 * _MIN_TILE_CELLS
"""Cells along a picture's shorter side (80 px) below which nothing is said of cuts and exposure."""

_MAX_SHIFT: Final = 1 / 4
"""Part of the picture by which a tile may have moved; the farther one looks, the better any tile is found by chance."""

_SAME_SCENE: Final = 0.7
"""Correlation of cells from which on two pictures show one scene as they lie; so did 2 % of pairs of photographs."""

_SAME_TILES: Final = 0.72
"""Matching of tiles from which on two pictures show one scene that moved. Found in one scene: 0.81 and more with every 2nd
frame as a key frame, 0.79 with every 4th, 0.71 with every 8th of a fast camera; less than the limit in 96 % of pairs of
photographs."""

_MIN_DIFFERENCE: Final = 8.0
"""Levels (root mean square over cells) that gain and offset leave: flat or dark pictures correlate badly by noise alone."""

_EXPLAINED: Final = 0.5
"""Correlation of the cells' change in log brightness with their sums of polarities from which on events account for it.
Found: 0.8 and more where the pictures of one scene correlate by less than 0.85; -0.1 to 0.0 after a cut."""

_INSTANT_SHARE: Final = 0.6
"""Part of a window's events within a quarter of it that makes them those of a cut. Found for motion that changes the
pictures as much: up to 0.44."""

_MAX_EVENTS_USED: Final = 2**16
"""Events taken to explain a change, evenly spread: 28 for each cell on average, and cheap."""

_EXPOSURE_GAIN: Final = 1.25
"""Ratio of brightness (median over cells) that is reported: smaller ones happen as clouds pass and lamps flicker."""

_EXPOSURE_EVERYWHERE: Final = 1.05
"""Ratio that four fifths of the cells must exceed in the same direction: a large object changes fewer."""

_USABLE_LEVELS: Final = (16.0, 235.0)
"""Cells outside are left out where gain is measured: dark ones are offset and noise, bright ones are clipped."""

_MIN_USABLE: Final = 0.25
"""Part of the cells that must be left to speak for the whole picture."""

_MIN_CHANGE: Final = 3.0
"""Levels by which a block must change to be called changed: compression of still scenes makes changes of 1 or 2."""

_MIN_CHANGE_RATIO: Final = 0.05
"""The same as part of its brightness: event cameras see no change below their threshold, which is 10 % or more."""

_NOISE_SIGMAS: Final = 5.0
"""The same in standard deviations of the block's noise: by chance in less than one block of a million."""

_MAX_NOISE: Final = 12.0
"""Standard deviation of the difference, in levels, that can be noise; what is more is fine texture that moved."""

_MAX_CHANGED_SHARE: Final = 0.001
"""Part of the blocks that may change unseen (and always one): single defect pixels blink."""

_LOG_OFFSET: Final = 8.0
"""Levels added before the logarithm: dark pixels make no events by noise alone."""


SOUND: Final = ("", "few-events")
"""Kinds that speak against no frame: nothing is unusual, or nothing moves and a blend is right. All others are doubtful."""


@dataclass(frozen=True)
class Finding:
    """Something unusual about a window.

    Attributes:
        kind: in one word; "" where nothing is.
        note: one line for people, with what was found against which limit; "" where nothing is.
    """

    kind: FindingKind = ""
    note: str = ""


NOTHING: Final = Finding()


def typical_interval_us(times_us: Times) -> int:
    """The median interval between neighbouring key frames, in µs.

    Args:
        times_us: times of the key frames that bound windows, int64 [N], N >= 2.
    """
    return round(float(np.median(np.diff(times_us))))


def find_time_gaps(times_us: Times, typical_us: int) -> NDArray[np.int64]:
    """Windows whose key frames lie so far apart that `check_window` will call them a gap, known before any is read.

    Args:
        times_us: times of the key frames that bound windows, int64 [N].
        typical_us: from `typical_interval_us`.

    Returns:
        Index of each such window (that of its first key frame in `times_us`), int64 [G].
    """
    return np.flatnonzero(np.diff(times_us) > GAP_RATIO * typical_us).astype(np.int64)


def check_window(window: Window, typical_us: int) -> Finding:
    """Say whether interpolating a window is sound.

    Args:
        window: key frames and events. Where no frame is to be made, nothing is found.
        typical_us: from `typical_interval_us`.
    """
    if window.spec.num_inserted == 0:
        return NOTHING
    start_us, end_us = int(window.spec.times_us[0]), int(window.spec.times_us[-1])
    gap = _find_time_gap(end_us - start_us, typical_us)
    if gap is not None:
        return gap
    blocks = _block_means(window.start_image), _block_means(window.end_image)
    return (
        _find_silence(window, *blocks)
        or _find_other_scene(window, *blocks)
        or _find_unexplained_silence(window, *blocks)
        or _find_stillness(window, *blocks)
        or NOTHING
    )


def _find_time_gap(length_us: int, typical_us: int) -> Finding | None:
    ratio = length_us / typical_us
    if ratio <= GAP_RATIO:
        return None
    missing = max(1, round(ratio) - 1)
    note = (
        f"key frames {length_us / 1e3:.1f} ms apart, {ratio:.1f} times the usual {typical_us / 1e3:.1f} ms (limit "
        f"{GAP_RATIO}): about {missing} {'frame seems' if missing == 1 else 'frames seem'} to be missing, or the frame "
        "clock jumped"
    )
    return Finding("gap", note)


def _find_silence(window: Window, start: Grid, end: Grid) -> Finding | None:
    """A stretch without events for most of the window, though they flow before and after it and something changed.

    The slower of the two rates decides how long is unusual, so that sparse events of a quiet scene are no gap.
    """
    first_us, last_us = int(window.spec.times_us[0]), int(window.spec.times_us[-1])
    begin_us, end_us = _middle_silence(window.events.t, first_us, last_us)
    if not _is_long(end_us - begin_us, last_us - first_us):
        return None
    readout_us = round(_READOUT_SHARE * (last_us - first_us))
    before = window.events.slice(first_us + readout_us, begin_us + 1)
    after = window.events.slice(end_us, last_us - readout_us)
    if min(len(before), len(after)) < _MIN_FLOW:
        return None
    lengths_us = begin_us - first_us - readout_us, last_us - readout_us - end_us
    expected = (end_us - begin_us) * min(len(before) / max(lengths_us[0], 1), len(after) / max(lengths_us[1], 1))
    if expected < _MIN_EXPECTED or not _changed_blocks(window, start, end).are_many:
        return None
    why = (
        f"where {expected:.0f} are expected at the rates before and after: events were lost, or the event clock jumped"
    )
    return _silence(end_us - begin_us, last_us - first_us, why)


def _find_unexplained_silence(window: Window, start_blocks: Grid, end_blocks: Grid) -> Finding | None:
    """A stretch without events for most of the window, anywhere in it, where the other events do not explain the change.

    A motion that begins or ends in the window leaves such a stretch too, but its events explain what it did.
    """
    first_us, last_us = int(window.spec.times_us[0]), int(window.spec.times_us[-1])
    begin_us, end_us = _middle_silence(window.events.t, first_us, last_us)
    if not _is_long(end_us - begin_us, last_us - first_us) or _most_events(window) <= MIN_EVENTS:
        return None
    if not _changed_blocks(window, start_blocks, end_blocks).are_many:
        return None
    explained = _explained(window, _cell_means(start_blocks), _cell_means(end_blocks))
    if explained >= _EXPLAINED:
        return None
    why = (
        f"and the change between the key frames correlates by {explained:.2f} with the others (limit {_EXPLAINED}): events "
        "were lost, or the event clock jumped"
    )
    return _silence(end_us - begin_us, last_us - first_us, why)


def _middle_silence(times_us: Times, first_us: int, last_us: int) -> tuple[int, int]:
    """Begin and end of the stretch without events around a window's middle: any longer than half of it lies there."""
    after = int(np.searchsorted(times_us, (first_us + last_us) // 2))
    begin_us = int(times_us[after - 1]) if after > 0 else first_us
    end_us = int(times_us[after]) if after < len(times_us) else last_us
    return begin_us, end_us


def _is_long(silent_us: int, length_us: int) -> bool:
    return silent_us > max(_SILENT_SHARE * length_us, _MIN_SILENCE_US)


def _silence(silent_us: int, length_us: int, why: str) -> Finding:
    note = f"no event for {silent_us / 1e3:.1f} of {length_us / 1e3:.1f} ms (limit {_SILENT_SHARE:.0%}), {why}"
    return Finding("gap", note)


def _find_other_scene(window: Window, start_blocks: Grid, end_blocks: Grid) -> Finding | None:
    """A cut, or the same scene at another exposure."""
    start, end = (_cell_means(blocks) for blocks in (start_blocks, end_blocks))
    if min(start.shape) < _MIN_CELLS:
        return None
    correlation = _correlation(start, end)
    if correlation >= _SAME_SCENE:
        return _find_exposure(start, end)
    forward, backward = _match_tiles(start, end), _match_tiles(end, start)
    matching = (forward.matching + backward.matching) / 2
    if matching >= _SAME_TILES:
        return _find_exposure(forward.here, forward.there)
    difference = max(float(start.std()), float(end.std())) * math.sqrt(1 - max(correlation, 0) ** 2)
    if difference <= _MIN_DIFFERENCE:
        return None
    return _find_cut(
        window, start, end, f"only {matching:.2f} of each key frame is found in the other (limit {_SAME_TILES})"
    )


def _find_cut(window: Window, start: Grid, end: Grid, found: str) -> Finding | None:
    """A cut, unless events that come throughout the window explain how one picture became the other."""
    explained = _explained(window, start, end)
    instant = _busiest_quarter(window.events.t, window.spec.times_us)
    if explained >= _EXPLAINED and instant <= _INSTANT_SHARE:
        return None
    if explained < _EXPLAINED:
        why = f"the change by {explained:.2f} with the events (limit {_EXPLAINED})"
    else:
        why = f"{instant:.0%} of the events fall within a quarter of the window (limit {_INSTANT_SHARE:.0%})"
    return Finding("cut", f"{found}, and {why}: the scene changes at once")


def _explained(window: Window, start: Grid, end: Grid) -> float:
    """Correlation over cells of the sums of polarities with the change in log brightness; 0 without events."""
    change = np.log(end + _LOG_OFFSET) - np.log(start + _LOG_OFFSET)
    return _correlation(_polarity_sums(window, start.shape), change)


def _find_exposure(start: Grid, end: Grid) -> Finding | None:
    """Another brightness all over cells that show the same scene."""
    low, high = _USABLE_LEVELS
    usable = (np.minimum(start, end) >= low) & (np.maximum(start, end) <= high)
    if np.count_nonzero(usable) < _MIN_USABLE * usable.size:
        return None
    ratios = np.log(end[usable] / start[usable])
    median = float(np.median(ratios))
    weakest = float(np.quantile(ratios * np.sign(median), 0.2))
    if abs(median) <= math.log(_EXPOSURE_GAIN) or weakest <= math.log(_EXPOSURE_EVERYWHERE):
        return None
    gain = math.exp(abs(median))
    note = (
        f"the whole picture becomes {gain:.2f} times {'brighter' if median > 0 else 'darker'} (limit {_EXPOSURE_GAIN}): "
        "exposure or light changed"
    )
    return Finding("exposure", note)


def _find_stillness(window: Window, start: Grid, end: Grid) -> Finding | None:
    """A window whose event stacks are all empty, classified by whether its key frames differ."""
    most = _most_events(window)
    if most > MIN_EVENTS:
        return None
    found = f"at most {most} events per output interval (a stack needs more than {MIN_EVENTS})"
    changed = _changed_blocks(window, start, end)
    share = f"{changed.number} of {start.size} blocks of {_BLOCK_PX}×{_BLOCK_PX} px change (limit {changed.allowed})"
    if changed.are_many:
        note = f"{found}, yet the key frames differ: {share}, by up to {changed.greatest:.0f} levels"
        return Finding("no-events", note)
    return Finding("few-events", f"{found}, and the key frames are equal up to noise: {share}")


def _most_events(window: Window) -> int:
    """The most events of any output interval; a stack holds all but one, and is empty if these are < MIN_EVENTS."""
    return int(np.diff(np.searchsorted(window.events.t, window.spec.times_us)).max())


@dataclass(frozen=True)
class _ChangedBlocks:
    """How many blocks changed, how many may though nothing moves, and the greatest change of any in levels."""

    number: int
    allowed: int
    greatest: float

    @property
    def are_many(self) -> bool:
        return self.number > self.allowed


def _changed_blocks(window: Window, start: Grid, end: Grid) -> _ChangedBlocks:
    """Blocks that change by more than noise and a drift of the light."""
    if start.size == 0:
        return _ChangedBlocks(0, 0, 0.0)  # smaller than a block
    gain, offset = _fit_gain(start, end)
    change = np.abs(end - (gain * start + offset))
    noise = min(_difference_noise(window.start_image, window.end_image), _MAX_NOISE) / _BLOCK_PX
    limit = np.maximum(_MIN_CHANGE_RATIO * np.maximum(start, end), max(_MIN_CHANGE, _NOISE_SIGMAS * noise))
    allowed = max(1, int(_MAX_CHANGED_SHARE * start.size))
    return _ChangedBlocks(int(np.count_nonzero(change > limit)), allowed, float(change.max()))


def _fit_gain(start: Grid, end: Grid) -> tuple[float, float]:
    """Gain and offset from one picture's blocks to the other's, by least squares over those that a first fit suits."""
    kept = np.ones(start.shape, bool)
    gain, offset = 1.0, 0.0
    for _ in range(2):
        before, after = start[kept], end[kept]
        spread = float(before.var())
        gain = float(np.mean((before - before.mean()) * (after - after.mean()))) / spread if spread > 1 else 1.0
        offset = float(after.mean()) - gain * float(before.mean())
        residuals = np.abs(end - (gain * start + offset))
        kept = residuals <= max(3 * float(np.median(residuals)), 1.0)
    return gain, offset


def _difference_noise(start: Image, end: Image) -> float:
    """Standard deviation of the difference of two pictures' noise, from neighbouring pixels of every 8th row's green."""
    rows = (picture[::_BLOCK_PX, :, 1].astype(np.int16) for picture in (end, start))
    steps = np.diff(np.subtract(*rows), axis=1)
    return float(np.mean(np.minimum(np.abs(steps), 3 * np.median(np.abs(steps)) + 1))) * math.sqrt(math.pi) / 2


def _block_means(picture: Image) -> Grid:
    """Mean luma of a picture's whole blocks: uint8 [H, W, 3] to [H // side, W // side]; sums of views are the fastest."""
    side = _BLOCK_PX
    rows, columns = (max(length // side, 0) for length in picture.shape[:2])
    lines = np.ascontiguousarray(picture[: rows * side, : columns * side]).reshape(rows, side, columns * side * 3)
    sums = lines[:, 0].astype(np.uint16)
    for line in range(1, side):
        sums += lines[:, line]
    pixels = sums.reshape(rows, columns, side, 3)
    totals = pixels[:, :, 0].copy()
    for column in range(1, side):
        totals += pixels[:, :, column]
    means: Grid = totals @ np.array(LUMA) / side**2
    return means


def _cell_means(blocks: Grid) -> Grid:
    """Means of groups of blocks, at most `_MAX_CELLS` along the longer side."""
    step = _blocks_per_cell(blocks.shape)
    rows, columns = blocks.shape[0] // step, blocks.shape[1] // step
    means: Grid = blocks[: rows * step, : columns * step].reshape(rows, step, columns, step).mean((1, 3))
    return means


def _blocks_per_cell(shape: tuple[int, ...]) -> int:
    return max(1, -(-max(shape) // _MAX_CELLS))


def _correlation(first: Grid, second: Grid) -> float:
    """Pearson's correlation, which neither gain nor offset changes; 0 where one has no contrast."""
    first, second = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(np.sum(first**2)) * float(np.sum(second**2)))
    return float(np.sum(first * second)) / scale if scale > 1e-6 else 0.0


@dataclass(frozen=True, eq=False)
class _MatchedTiles:
    """How well tiles are found in another picture, in [-1, 1], and the mean luma of each here and where it is found."""

    matching: float
    here: Grid
    there: Grid


def _match_tiles(start: Grid, end: Grid) -> _MatchedTiles:
    """Look for the tiles of one grid in another.

    For each tile the best correlation over all shifts up to `_MAX_SHIFT` of the picture, so that objects and a moving
    camera may move every tile in its own way; their mean is weighted by the tiles' contrast.
    """
    number = min(_MAX_TILES, min(start.shape) // _MIN_TILE_CELLS)
    (rows, reach_down), (columns, reach_right) = ((size // number, int(size * _MAX_SHIFT)) for size in start.shape)
    tiles, found = [], []
    for index in range(number**2):
        top, left = index // number * rows, index % number * columns
        tiles.append(start[top : top + rows, left : left + columns])
        near = end[
            max(0, top - reach_down) : top + rows + reach_down,
            max(0, left - reach_right) : left + columns + reach_right,
        ]
        found.append(_best_match(tiles[-1], near))
    matches, there = np.array(found).T
    weights = np.array([tile.std() for tile in tiles]) + 1e-6  # of flat pictures all alike
    return _MatchedTiles(float(np.average(matches, weights=weights)), np.array([tile.mean() for tile in tiles]), there)


def _best_match(tile: Grid, near: Grid) -> tuple[float, float]:
    """The greatest correlation of a tile with a part of `near`, and that part's mean."""
    parts = np.lib.stride_tricks.sliding_window_view(near, tile.shape).reshape(-1, tile.size)
    means = parts.mean(1)
    centred = (tile - tile.mean()).ravel()
    variances = np.einsum("ij,ij->i", parts, parts) - means**2 * tile.size
    scales = np.sqrt(np.maximum(variances, 1e-3) * max(float(centred @ centred), 1e-3))
    correlations = np.einsum("ij,j->i", parts, centred) / scales
    best = int(np.argmax(correlations))
    return float(correlations[best]), float(means[best])


def _polarity_sums(window: Window, shape: tuple[int, ...]) -> Grid:
    """Sums of polarities over the cells of the key frames, [rows, columns], of at most `_MAX_EVENTS_USED` events."""
    height, width = window.start_image.shape[:2]
    events = window.events
    every = np.s_[:: max(1, -(-len(events) // _MAX_EVENTS_USED))]
    cell_px = _BLOCK_PX * _blocks_per_cell((height // _BLOCK_PX, width // _BLOCK_PX))
    rows, columns = shape
    column_of, row_of = (
        np.minimum((np.arange(size) * 2 + 1) * frame // (2 * size * cell_px), number)
        for size, frame, number in zip(events.sensor_size, (width, height), (columns, rows), strict=True)
    )
    cells = row_of[events.y[every]] * (columns + 1) + column_of[events.x[every]]  # one more: partial cells, cut off
    sums = np.bincount(cells, weights=events.p[every], minlength=(rows + 1) * (columns + 1))
    return sums.reshape(rows + 1, columns + 1)[:rows, :columns].astype(np.float64)


def _busiest_quarter(times_us: Times, output_times_us: Times) -> float:
    """The greatest part of a window's events within a quarter of it."""
    edges = np.linspace(float(output_times_us[0]), float(output_times_us[-1]), 17)
    before = np.searchsorted(times_us, edges)
    return float((before[4:] - before[:-4]).max()) / max(len(times_us), 1)
