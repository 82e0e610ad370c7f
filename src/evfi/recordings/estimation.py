"""By how much the clocks and the pixels of a recording's frames and events are apart, estimated from the recording itself.

Up to 30 pairs of frames, spread over the recording, are compared with the events between them (`event_sums`): at the right
time offset and shift, the sums of polarity correlate best with the frames' log differences. One correlation (Pearson's, about
each pair's own mean) is taken over all pairs together, so that pairs and places where much happens count most.

    1. At a quarter of the resolution, every time offset of a grid is tried at the given shift.
    2. From the best one, offset and shift climb to the top together, first there, then at full resolution.
    3. A paraboloid through the top and its neighbours tells the rest, to fractions of a step.
    4. Leaving out one pair after the other (jackknife) tells how far the estimate can be trusted.

What moves evenly everywhere looks the same shifted in time or in space; then errors of both are large if both are
estimated. Estimating the offset alone does not have this weakness.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError
from evfi.recordings.event_sums import Floats, FramePair, Grid
from evfi.recordings.recording import Recording

_MAX_PAIRS: Final = 30
_MIN_INTERVAL_US: Final = 20_000  # frames that are closer are taken two or more apart: less would happen between them
_NUM_STEPS: Final = 20  # of the curve, in either direction
_COARSE: Final = 4
_MAX_CLIMB: Final = 12
_DETOUR: Final = 4  # steps: where offset and shift can stand in for each other, a climb may end on a side peak
_MAX_SHIFT_CELLS: Final = 8
_TOLERANCE_US, _TOLERANCE_PX = 2_000.0, 0.5  # an estimate is right if it is off by less
_MIN_CORRELATION: Final = 0.2
_MIN_CONFIDENCE: Final = 0.8
_MIN_UNITS: Final = 8
_NUM_THREADS: Final = 2

Moments = NDArray[np.float64]
Place = tuple[int, int, int]  # offset in steps, column and row of the shift in cells


@dataclass(frozen=True, eq=False)
class AlignmentEstimate:
    """How frames and events lie on each other, as far as the recording tells.

    Attributes:
        time_offset_us: what to add to every frame's time so that it names the same moment on the events' clock.
        time_offset_error_us: its standard error, from how far the windows disagree.
        shift_px: (dx, dy) in frame pixels: what to add to an event's place in the frame so that it lies on what caused it.
        shift_error_px: standard errors of both.
        correlation: of the events' polarity sums with the frames' log differences, at the estimate; -1 to 1.
        confidence: 0 to 1: how probable it is, judging by the standard errors, that the offset is right to 2 ms and the
            shift to half a pixel (or a cell of the grid, where pixels are finer); 0 where nothing correlates.
        curve_offsets_us: time offsets that were tried, float64 [N], increasing.
        curve_correlations: the correlation at each of them, at the estimated shift, float64 [N].
        num_windows: pairs of frames that the estimate rests on.
        is_reliable: whether the estimate should be used.
        note: in plain words, one line: how good the estimate is, or why there is none.
    """

    time_offset_us: int
    time_offset_error_us: float
    shift_px: tuple[float, float]
    shift_error_px: tuple[float, float]
    correlation: float
    confidence: float
    curve_offsets_us: NDArray[np.float64]
    curve_correlations: NDArray[np.float64]
    num_windows: int
    is_reliable: bool
    note: str

    def describe(self, *, offset: bool = True, shift: bool = True) -> str:
        """The estimate in one line for people.

        Args:
            offset: tell the time offset.
            shift: tell the shift.
        """
        parts = []
        if offset:
            parts.append(f"time offset {self.time_offset_us:+d} µs (± {self.time_offset_error_us:.0f})")
        if shift:
            values = (
                f"{value:+.2f} px (± {error:.2f})"
                for value, error in zip(self.shift_px, self.shift_error_px, strict=True)
            )
            parts.append(f"shift {', '.join(values)}")
        return f"{', '.join(parts)}; correlation {self.correlation:.2f} over {self.num_windows} pairs of frames"


def estimate_alignment(
    recording: Recording, *, offset: bool = True, shift: bool = True, max_offset_us: int = 40_000
) -> AlignmentEstimate:
    """Estimate the time offset and the spatial shift between a recording's frames and its events.

    Args:
        recording: as opened; estimates are relative to its frame times and its mapping.
        offset: estimate the time offset; otherwise it is taken as 0.
        shift: estimate the spatial shift; otherwise it is taken as 0.
        max_offset_us: largest offset to try, in either direction; no more than the time between two frames is tried.

    Raises:
        InputError: frames or events cannot be read.
    """
    if not (offset or shift):
        raise ConfigError("estimate the time offset, the shift, or both")
    chosen, interval_us = _choose_pairs(recording.frames.times_us)
    step_us = max(1, min(max_offset_us, interval_us) // _NUM_STEPS)
    margin_us = step_us * (_NUM_STEPS + 2)
    grid = Grid.of(recording)
    pairs = [FramePair.read(recording, grid, first, second, margin_us) for first, second in chosen]
    search = _Search(step_us, offset=offset, shift=shift)
    steps = range(-_NUM_STEPS, _NUM_STEPS + 1)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        coarse, fine = _Level(pairs, _COARSE, pool), _Level(pairs, 1, pool)
        start = (0, 0, 0)
        if offset:
            tried = coarse.correlations([(step, 0, 0) for step in steps], step_us)
            start = (int(np.argmax(tried)) - _NUM_STEPS, 0, 0)
        near = search.climb(coarse, start)
        top = search.climb_from_several(fine, (near[0], near[1] * _COARSE, near[2] * _COARSE))
        place, errors = search.refine(fine, top)
        curve = fine.correlations([(step, *top[1:]) for step in steps], step_us)
    units = np.array([step_us, *grid.cell_px])
    return _conclude(place * units, errors * units, grid, curve, np.array(steps) * float(step_us), len(pairs))


def _conclude(
    place: NDArray[np.float64],
    errors: NDArray[np.float64],
    grid: Grid,
    curve: NDArray[np.float64],
    offsets_us: NDArray[np.float64],
    num_windows: int,
) -> AlignmentEstimate:
    """Judge what was found.

    Args:
        place: offset in µs and shift (dx, dy) in px.
        errors: their standard errors.
        grid: what a cell is.
        curve: correlations at `offsets_us`.
        offsets_us: offsets that were tried.
        num_windows: pairs of frames.
    """
    correlation = float(np.interp(place[0], offsets_us, curve))
    tolerances = np.array([_TOLERANCE_US, *(max(_TOLERANCE_PX, cell / 2) for cell in grid.cell_px)])
    confidence = math.prod(_chance(*both) for both in zip(errors, tolerances, strict=True))
    confidence = confidence if correlation >= _MIN_CORRELATION else 0.0
    return AlignmentEstimate(
        time_offset_us=round(float(place[0])),
        time_offset_error_us=float(errors[0]),
        shift_px=(float(place[1]), float(place[2])),
        shift_error_px=(float(errors[1]), float(errors[2])),
        correlation=correlation,
        confidence=confidence,
        curve_offsets_us=offsets_us,
        curve_correlations=curve,
        num_windows=num_windows,
        is_reliable=confidence >= _MIN_CONFIDENCE,
        note=_describe(correlation, float(curve.min()), confidence, errors > tolerances),
    )


def _chance(error: float, tolerance: float) -> float:
    """How probable an error below the tolerance is, given its standard deviation."""
    return math.erf(tolerance / (error * 2**0.5)) if error > 0 else 1.0


def _describe(correlation: float, lowest: float, confidence: float, is_vague: NDArray[np.bool_]) -> str:
    """The verdict in one line."""
    if correlation < _MIN_CORRELATION:
        if lowest < -2 * _MIN_CORRELATION:
            return (
                f"events and frames change in opposite directions (correlation {lowest:.2f}): polarities look swapped"
            )
        return (
            f"events and frames have nothing in common (correlation {correlation:.2f}): too little moves, "
            "or they do not belong together, or their times or pixels are too far apart"
        )
    if confidence >= _MIN_CONFIDENCE:
        return f"events and frames agree (correlation {correlation:.2f})"
    what = " and ".join(name for name, vague in (("time offset", is_vague[0]), ("shift", is_vague[1:].any())) if vague)
    return f"the {what or 'estimate'} cannot be estimated reliably: windows disagree, or the motion is too uniform or too small"


def _choose_pairs(times_us: NDArray[np.int64]) -> tuple[list[tuple[int, int]], int]:
    """Indices of up to 30 pairs of frames, spread evenly, and the median time between the two of a pair."""
    between = float(np.median(np.diff(times_us)))
    apart = min(max(1, math.ceil(_MIN_INTERVAL_US / between)), len(times_us) - 1)
    intervals = times_us[apart:] - times_us[:-apart]
    usual = np.flatnonzero(intervals <= 2 * np.median(intervals))  # not across a gap in the frames
    chosen = usual[np.unique(np.linspace(0, len(usual) - 1, min(len(usual), _MAX_PAIRS)).round().astype(int))]
    return [(int(first), int(first) + apart) for first in chosen], int(np.median(intervals[chosen]))


class _Level:
    """Pairs of frames and their events at one resolution.

    Args:
        pairs: at full resolution.
        factor: how many cells of those are one cell here, along either side.
        pool: works on several pairs at once.
    """

    def __init__(self, pairs: list[FramePair], factor: int, pool: ThreadPoolExecutor):
        from evfi.recordings.alignment_loops import blurred

        self._pairs, self._factor, self._pool = pairs, factor, pool
        border = _MAX_SHIFT_CELLS // factor + 1
        self.max_shift = border - 1
        self._border = border
        usable = [blurred(_binned(pair.usable, factor)) > 0.9 * factor**2 for pair in pairs]
        differences = [
            blurred(_binned(pair.difference, factor)) * is_usable for pair, is_usable in zip(pairs, usable, strict=True)
        ]
        self._usable, self._differences = (
            np.pad(np.stack(pictures).astype(np.float32), ((0, 0), (border, border), (border, border)))
            for pictures in (usable, differences)
        )
        self._known: dict[Place, Moments] = {}
        count, height, width = self._usable.shape
        self._integrals = np.zeros((3, count, height + 1, width + 1))
        # sums over all cells above and to the left: of usable ones, of the difference, and of its square
        for sums, pictures in zip(
            self._integrals, (self._usable, self._differences, self._differences**2), strict=True
        ):
            inner = sums[:, 1:, 1:]
            np.cumsum(pictures, axis=1, dtype=np.float64, out=inner)
            np.cumsum(inner, axis=2, out=inner)

    def correlations(self, places: list[Place], step_us: int) -> NDArray[np.float64]:
        """The correlation over all pairs at each place, float64 [places]."""
        return _correlation(self.moments(places, step_us).sum(axis=0))

    def moments(self, places: list[Place], step_us: int) -> Moments:
        """What correlations are made of, [units, places, 3]: variance of sums and differences, and their covariance.

        A unit is a quarter of the picture of a pair; the units of a pair follow each other.
        """
        unknown = [place for place in dict.fromkeys(places) if place not in self._known]
        for offset in sorted({place[0] for place in unknown}):
            shifts = [place[1:] for place in unknown if place[0] == offset]
            total, squares, products = np.moveaxis(self._sums(offset * step_us, shifts), -1, 0)
            frames = np.stack([self._frames_at(*shift) for shift in shifts])
            per_cell, frames_total, frames_variance = np.moveaxis(frames, -1, 0)
            variance = squares - total**2 * per_cell
            covariance = products - total * frames_total * per_cell
            found = np.stack([variance, frames_variance, covariance], axis=-1)
            self._known |= {(offset, *shift): moments for shift, moments in zip(shifts, found, strict=True)}
        return np.stack([self._known[place] for place in places], axis=1)

    def _sums(self, offset_us: int, shifts: list[tuple[int, int]]) -> NDArray[np.float64]:
        """The events' share in the moments: `sums_at_shifts` of all pairs, [shifts, units, 3]."""
        from evfi.recordings.alignment_loops import sums_at_shifts

        corners = np.array([(self._border + dy, self._border + dx) for dx, dy in shifts])

        def of_pair(index: int) -> NDArray[np.float64]:
            pair = self._pairs[index]
            pictures = self._usable[index], self._differences[index]
            return sums_at_shifts(*pair.between(offset_us), pair.usable.shape, self._factor, *pictures, corners)

        return np.concatenate(list(self._pool.map(of_pair, range(len(self._pairs)))), axis=1)

    def _frames_at(self, dx: int, dy: int) -> NDArray[np.float64]:
        """The frames' share in the moments at a shift, [units, 3].

        For each unit: 1 over the number of usable cells, the sum of the difference over them, and its variance times their
        number.
        """
        height, width = (side - 1 - 2 * self._border for side in self._integrals.shape[2:])
        rows = self._border + dy + np.array([[0, height // 2], [max(height // 2, 1), height]])  # starts, ends
        columns = self._border + dx + np.array([[0, width // 2], [max(width // 2, 1), width]])
        above, below = self._integrals[:, :, rows[0]], self._integrals[:, :, rows[1]]
        quarters = (below - above)[..., columns[1]] - (below - above)[..., columns[0]]
        cells, total, squares = quarters.reshape(3, -1)
        per_cell = 1 / np.maximum(cells, 1)
        return np.stack([per_cell, total, squares - total**2 * per_cell], axis=-1)


def _correlation(moments: Moments) -> NDArray[np.float64]:
    """Pearson's correlation from summed moments [..., 3]; 0 where nothing varies."""
    scale = np.sqrt(np.maximum(moments[..., 0], 0) * np.maximum(moments[..., 1], 0))
    correlation: NDArray[np.float64] = np.where(scale > 0, moments[..., 2] / np.where(scale > 0, scale, 1), 0)
    return correlation


def _binned(image: Floats, factor: int) -> Floats:
    """Sums over squares of cells; an incomplete last row or column is left out."""
    if factor == 1:
        return image
    height, width = (max(side // factor, 1) for side in image.shape)
    squares = image[: height * factor, : width * factor]
    rows = sum((squares[start::factor] for start in range(1, factor)), squares[::factor])  # faster than reduceat
    return sum((rows[:, start::factor] for start in range(1, factor)), rows[:, ::factor])


class _Search:
    """Looks for the place (offset and shift) where frames and events correlate best.

    Args:
        step_us: the step of the offset.
        offset: whether the offset is free.
        shift: whether the shift is free.
    """

    def __init__(self, step_us: int, *, offset: bool, shift: bool):
        self._step_us = step_us
        self._free = np.array([offset, shift, shift])
        self._cube = np.array(list(product(*((-1, 0, 1) if free else (0,) for free in self._free))))

    def climb(self, level: _Level, place: Place) -> Place:
        """From a place to the next top, in steps of one."""
        for _ in range(_MAX_CLIMB):
            best = self._around(place)[int(np.argmax(level.correlations(self._around(place), self._step_us)))]
            if best == place or not self._is_inside(level, best):
                break
            place = best
        return place

    def climb_from_several(self, level: _Level, place: Place) -> Place:
        """The highest of the tops reached from a place and, where all is free, from some earlier and later offsets."""
        offsets = (0, -_DETOUR, _DETOUR) if self._free.all() else (0,)
        tops = [self.climb(level, (place[0] + offset, place[1], place[2])) for offset in offsets]
        return tops[int(np.argmax(level.correlations(tops, self._step_us)))]

    def refine(self, level: _Level, place: Place) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The top to fractions of a step, and its standard errors, both [3] in steps; errors are infinite without a top."""
        moments = level.moments(self._around(place), self._step_us)  # [units, cube, 3]
        if len(moments) >= 4 * _MIN_UNITS:  # enough pairs: pairs as a whole are left out
            moments = moments.reshape(-1, 4, *moments.shape[1:]).sum(axis=1)
        all_of_them = moments.sum(axis=0)
        step = self._vertex(_correlation(all_of_them))
        left_out = np.stack([self._vertex(_correlation(all_of_them - unit)) for unit in moments])
        spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
        errors = np.sqrt(spread * (len(moments) - 1) / len(moments))
        failed = np.abs(step) > 1 + 1e-9
        errors = np.where(np.isnan(errors) | failed | np.isnan(step), np.inf, errors)
        return np.clip(np.nan_to_num(step), -1, 1) + place, errors

    def _around(self, place: Place) -> list[Place]:
        return [(int(t), int(x), int(y)) for t, x, y in self._cube + place]

    def _is_inside(self, level: _Level, place: Place) -> bool:
        return abs(place[0]) <= _NUM_STEPS and max(abs(place[1]), abs(place[2])) < level.max_shift

    def _vertex(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where a paraboloid through the values of the cube is highest, [3]; not a number where it has no top."""
        num_free = int(self._free.sum())
        cube = values.reshape((3,) * num_free)
        unit = np.eye(num_free, dtype=int)

        def at(*steps: NDArray[np.int_]) -> float:
            return float(cube[tuple(1 + np.sum(steps, axis=0))])

        gradient = np.array([(at(step) - at(-step)) / 2 for step in unit])
        curvature = np.empty((num_free, num_free))
        for i, j in product(range(num_free), repeat=2):
            a, b = unit[i], unit[j]
            if i == j:
                curvature[i, i] = at(a) - 2 * at(0 * a) + at(-a)
            else:
                curvature[i, j] = (at(a, b) - at(a, -b) - at(-a, b) + at(-a, -b)) / 4
        is_top = bool((np.linalg.eigvalsh(curvature) < -1e-9).all())
        top = np.zeros(3)
        top[self._free] = np.linalg.solve(curvature, -gradient) if is_top else np.nan
        return top
