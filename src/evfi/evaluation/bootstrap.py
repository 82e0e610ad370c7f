"""Bootstrap 95 % confidence intervals: how far an average would move with other sequences.

Windows of one sequence resemble each other, so whole sequences are drawn, with all their windows. Below four sequences that
says nothing; then windows are drawn within each sequence, and the interval says only how the average depends on which
windows of these very sequences were looked at. Each interval tells which of the two it is.

Percentile intervals of few units are too narrow, for the spread of n values underestimates the true one and its error is not
counted. The percentiles taken are therefore further out, such that the interval of a normal mean is as wide as Student's
(Hesterberg 2015, "What teachers should know about the bootstrap", section 3.3 and 4.1: the expanded percentile interval).

Draws depend on the seed and the number of units only: two averages over the same windows see the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Average: TypeAlias = Literal["windows", "sequences"]
"""Over all windows alike, or over the sequences' means alike."""

LEVEL: Final = 0.95
NUM_RESAMPLES: Final = 2000
FEWEST_SEQUENCES: Final = 4
"""Of fewer sequences than these, windows are drawn instead."""

_MOST_CACHED_UNITS: Final = 20_000
"""Counts of so many units, 40 MB, are kept for the next average over the same windows."""

_MOST_IN_BLOCK: Final = 2**22
"""Counts that are worked on at once."""

_STUDENT: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""97.5 % quantiles of Student's distribution with 1, 2, … 30 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """Where an average lies with 95 % confidence.

    Attributes:
        low: lower end.
        high: upper end.
        over: what was drawn: "sequences", or "windows" of the same sequences where there are fewer than four.
    """

    low: float
    high: float
    over: Average


def interval(groups: Sequence[Sequence[float]], average: Average = "sequences", *, seed: int = 0) -> Interval | None:
    """Interval of an average over windows that belong to sequences.

    Args:
        groups: per sequence, the values of its windows; sequences without any are left out.
        average: "sequences" averages the sequences' means, "windows" all windows.
        seed: of the draws.

    Returns:
        None where nothing can be drawn: below four sequences none of which has two windows.
    """
    arrays = [np.asarray(group, np.float64) for group in groups if len(group)]
    if len(arrays) >= FEWEST_SEQUENCES:
        return _between(_draw_sequences(arrays, average, seed), len(arrays), 1, "sequences")
    if max((len(array) for array in arrays), default=0) < 2:
        return None
    return _between(_draw_windows(arrays, average, seed), sum(len(array) for array in arrays), len(arrays), "windows")


def _draw_sequences(arrays: list[NDArray[np.float64]], average: Average, seed: int) -> NDArray[np.float64]:
    """Averages over sequences that were drawn with replacement: [NUM_RESAMPLES]."""
    centre = arrays[0][0]  # so that equal values stay exactly equal
    if average == "sequences":
        means = np.array([(array - centre).mean() for array in arrays])
        return _shifted(_drawn_sums(means, seed, 0) / len(arrays), centre)
    sums_and_lengths = np.array([((array - centre).sum(), float(len(array))) for array in arrays])
    sums, lengths = _drawn_sums(sums_and_lengths, seed, 0).T
    return _shifted(sums / lengths, centre)


def _draw_windows(arrays: list[NDArray[np.float64]], average: Average, seed: int) -> NDArray[np.float64]:
    """Averages over windows that were drawn with replacement within each sequence: [NUM_RESAMPLES]."""
    centre = arrays[0][0]
    total = np.zeros(NUM_RESAMPLES)
    for number, array in enumerate(arrays):
        share = len(arrays) * len(array) if average == "sequences" else sum(map(len, arrays))
        total += _drawn_sums(array - centre, seed, number) / share
    return _shifted(total, centre)


def _shifted(averages: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    return averages + centre


def _drawn_sums(values: NDArray[np.float64], seed: int, stream: int) -> NDArray[np.float64]:
    """Sums over as many units as there are, drawn with replacement: [N] or [N, K] to [NUM_RESAMPLES] or with K."""
    draw = _counts if len(values) <= _MOST_CACHED_UNITS else _counts.__wrapped__
    counts = draw(seed, len(values), stream)
    return np.concatenate([counts[rows].astype(np.float32) @ values for rows in _blocks(len(values))])


@lru_cache(maxsize=8)
def _counts(seed: int, num_units: int, stream: int) -> NDArray[np.uint8]:
    """How often each unit is drawn in each resample: [NUM_RESAMPLES, num_units]; never near 255."""
    generator = np.random.default_rng([seed, num_units, stream])
    counts = np.empty((NUM_RESAMPLES, num_units), np.uint8)
    for rows in _blocks(num_units):
        size = rows.stop - rows.start
        counts[rows] = generator.multinomial(num_units, np.full(num_units, 1 / num_units), size=size)
    return counts


def _blocks(num_units: int) -> list[slice]:
    """The resamples in parts that take little memory."""
    step = max(1, _MOST_IN_BLOCK // num_units)
    return [slice(start, min(start + step, NUM_RESAMPLES)) for start in range(0, NUM_RESAMPLES, step)]


def _between(draws: NDArray[np.float64], num_units: int, num_strata: int, over: Average) -> Interval:
    """The expanded percentiles of averages whose units were drawn within strata."""
    freedom = num_units - num_strata
    outwards = _student(freedom) * math.sqrt(num_units / freedom)
    tail = NormalDist().cdf(-outwards)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high), over)


def _student(freedom: int) -> float:
    """97.5 % quantile of Student's distribution."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    normal = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return normal + (normal**3 + normal) / (4 * freedom)
