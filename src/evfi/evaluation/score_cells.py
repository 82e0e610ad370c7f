"""Scores that may be averaged or compared: those of one skip, truth, metric and region, by system and window."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.results import EvaluationResults
from evfi.evaluation.results_checks import TRUTHS

WindowKey: TypeAlias = tuple[str, int]
"""(sequence, index); the skip is the cell's."""

Values: TypeAlias = tuple[float | None, ...]
"""One per inserted frame."""

CellKey: TypeAlias = tuple[int, str, str, str]
"""(skip, truth, metric, region)."""

_TRUTH_ORDER: Final = {truth: number for number, truth in enumerate(TRUTHS)}


@dataclass(frozen=True, eq=False)
class Cell:
    """All scores of one skip, truth, metric and region.

    Attributes:
        skip: true frames left out.
        truth: what frames were compared with.
        metric: by name.
        region: "all" or the name of a smaller one.
        systems: per system that has any, its values by window, in the order of systems and windows.
    """

    skip: int
    truth: str
    metric: str
    region: str
    systems: dict[str, dict[WindowKey, Values]] = field(default_factory=dict)

    @property
    def key(self) -> CellKey:
        """(skip, truth, metric, region)."""
        return self.skip, self.truth, self.metric, self.region

    def common_windows(self) -> tuple[WindowKey, ...]:
        """Windows that every system of this cell has, defined or not; in order."""
        first, *others = self.systems.values()
        return tuple(window for window in first if all(window in other for other in others))


def cells_of(results: EvaluationResults) -> tuple[Cell, ...]:
    """Sort scores into cells; those of dropped windows never count.

    Returns:
        Cells by skip, truth, metric (as in `results.metrics`) and region (all pixels first, others as they come).
    """
    sequences = {sequence.name: number for number, sequence in enumerate(results.sequences)}
    scored = {window.key for window in results.windows if window.dropped is None}
    cells: dict[CellKey, Cell] = {}
    for score in sorted(results.scores, key=lambda score: (sequences[score.sequence], score.index)):
        if (score.sequence, score.skip, score.index) not in scored:
            continue
        key = score.skip, score.truth, score.metric, score.region
        cell = cells.setdefault(key, Cell(*key))
        cell.systems.setdefault(score.system, {})[score.sequence, score.index] = score.values
    return _in_order(cells.values(), results)


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of those that are defined; None where none is."""
    defined = [value for value in values if value is not None and not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else None


def paired_difference(a: Values, b: Values) -> float | None:
    """Mean of B - A over the frames that are defined in both; None where none is."""
    return mean_of(y - x for x, y in zip(a, b, strict=True) if x is not None and y is not None)


def by_sequence(means: dict[WindowKey, float | None]) -> dict[str, list[float]]:
    """Defined values of windows, by sequence; sequences without any are left out."""
    groups: dict[str, list[float]] = {}
    for (sequence, _), mean in means.items():
        if mean is not None:
            groups.setdefault(sequence, []).append(mean)
    return groups


def mean_over_windows(groups: dict[str, list[float]]) -> float | None:
    """Every window counts the same."""
    return mean_of(value for group in groups.values() for value in group)


def mean_over_sequences(groups: dict[str, list[float]]) -> float | None:
    """Every sequence counts the same, with the mean of its windows."""
    return mean_of(mean_of(group) for group in groups.values())


def _in_order(cells: Iterable[Cell], results: EvaluationResults) -> tuple[Cell, ...]:
    metrics = [metric.name for metric in results.metrics]
    regions: dict[str, int] = {ALL: 0}
    for score in results.scores:
        regions.setdefault(score.region, len(regions))
    systems = [system.name for system in results.systems]

    def place(cell: Cell) -> tuple[int, ...]:
        return cell.skip, _TRUTH_ORDER[cell.truth], metrics.index(cell.metric), regions[cell.region]

    return tuple(
        Cell(*cell.key, {name: cell.systems[name] for name in systems if name in cell.systems})
        for cell in sorted(cells, key=place)
    )
