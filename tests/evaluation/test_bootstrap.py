from __future__ import annotations

import numpy as np
import pytest

from evfi.evaluation import bootstrap
from evfi.evaluation.bootstrap import Average, interval

AVERAGES: tuple[Average, ...] = ("sequences", "windows")


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("groups", [[], [[]], [[1.0]], [[1.0], [2.0]], [[1.0], [], [2.0], [3.0]]])
def test_too_little_to_draw_from(groups: list[list[float]], average: Average) -> None:
    assert interval(groups, average) is None


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("groups", [[[0.1, 0.1]], [[0.1], [0.1, 0.1]], [[0.1]] * 4, [[0.1] * 3, *[[0.1]] * 6]])
def test_equal_values_have_no_width(groups: list[list[float]], average: Average) -> None:
    found = interval(groups, average)
    assert found is not None
    assert (found.low, found.high) == (0.1, 0.1)


@pytest.mark.parametrize("average", AVERAGES)
def test_what_is_drawn(average: Average) -> None:
    values = [1.0, 2.0, 4.0]
    for num_sequences, over in ((1, "windows"), (3, "windows"), (4, "sequences"), (9, "sequences")):
        found = interval([values] * num_sequences, average)
        assert found is not None
        assert found.over == over


def test_differences_between_sequences_count_only_if_sequences_are_drawn() -> None:
    within = interval([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0]])
    between = interval([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0], [30.0, 30.0]])
    assert within is not None
    assert (within.low, within.high) == (10.0, 10.0)
    assert between is not None
    assert between.low < 5 < 25 < between.high


def test_long_sequences_weigh_in_the_average_over_windows_only() -> None:
    groups = [[0.0] * 97, [10.0], [10.0], [10.0]]
    sequences, windows = interval(groups, "sequences"), interval(groups, "windows")
    assert sequences is not None
    assert windows is not None
    assert sequences.low <= 7.5 <= sequences.high == 10.0
    assert windows.low <= 0.3 <= windows.high


def test_two_windows_by_hand() -> None:
    """Draws are both, or one of them twice: a quarter, a half, a quarter; the far percentiles are the ends."""
    found = interval([[1.0, 3.0]])
    assert found is not None
    assert (found.low, found.high, found.over) == (1.0, 3.0, "windows")


def test_same_seed_same_interval() -> None:
    groups = [[float(n), n + 0.5] for n in range(8)]
    assert interval(groups, seed=3) == interval(groups, seed=3)
    assert interval(groups, seed=3) != interval(groups, seed=4)


def test_shifting_and_scaling_move_the_interval() -> None:
    groups = [[1.0, 2.0], [2.5], [3.0, 8.0, 4.0], [5.0], [4.5, 0.5]]
    for average in AVERAGES:
        found, moved = (
            interval(groups, average),
            interval([[20 * v + 1000 for v in group] for group in groups], average),
        )
        assert found is not None
        assert moved is not None
        assert (moved.low, moved.high) == pytest.approx((20 * found.low + 1000, 20 * found.high + 1000))


@pytest.mark.parametrize("average", AVERAGES)
def test_width_is_that_of_students_interval(average: Average) -> None:
    """Of many normal values, the interval is mean ± 1.98 standard errors."""
    values = np.random.default_rng(5).normal(size=100)
    found = interval([[value] for value in values], average)
    assert found is not None
    half = 1.984 * values.std(ddof=1) / 10
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


@pytest.mark.parametrize(
    ("num_sequences", "num_windows", "at_least"), [(6, 6, 0.88), (16, 6, 0.91), (2, 8, 0.90), (1, 20, 0.90)]
)
def test_intervals_cover_the_truth(num_sequences: int, num_windows: int, at_least: float) -> None:
    """Sequences are drawn where there are six, and stay what they are where there is one."""
    generator = np.random.default_rng(11)
    covered = 0
    for _ in range(300):
        centres = generator.normal(size=num_sequences)
        truth = 0.0 if num_sequences >= 4 else centres.mean()
        found = interval([list(centre + 0.5 * generator.normal(size=num_windows)) for centre in centres])
        assert found is not None
        covered += found.low <= truth <= found.high
    assert at_least <= covered / 300 <= 0.99


def test_many_windows_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=50).tolist()
    whole = interval([values])
    monkeypatch.setattr(bootstrap, "_MOST_IN_BLOCK", 50 * 300)
    monkeypatch.setattr(bootstrap, "_MOST_CACHED_UNITS", 10)
    parts = interval([values])
    assert whole is not None
    assert parts is not None
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-12)
