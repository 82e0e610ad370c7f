"""Results as all parts of a report need them: averages by subject, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

from evfi.evaluation.bootstrap import Average, Interval, interval
from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.results import EvaluationResults, MetricInfo, SystemInfo
from evfi.evaluation.score_cells import (
    Cell,
    CellKey,
    by_sequence,
    cells_of,
    mean_over_sequences,
    mean_over_windows,
    paired_difference,
)
from evfi.evaluation.summary import SequenceRow, SummaryRow, summarise, summarise_sequences

MOST_HEADLINES: Final = 6

FEWEST_FOR_VERDICT: Final = 6
"""Windows or sequences: if fewer all agree, that still happens by chance in more than one of twenty cases (sign test)."""

TRUTH_TITLES: Final = {"raw": "Raw ground truth", "vae": "Ground truth through the autoencoder"}
TRUTH_WORDS: Final = {
    "raw": "compared with the ground truth as it was recorded",
    "vae": "compared with the ground truth passed through the model's own autoencoder; not comparable with raw ground truth",
}
REGION_TITLES: Final = {ALL: "Whole frame", "moving": "Moving region", "changing": "Changing region"}
REGION_WORDS: Final = {
    ALL: "every pixel",
    "moving": "of each frame, the pixels where the ground truth differs from either key frame by more than 12 of 255 "
    "in the mean of channels, grown by 3 px",
    "changing": "of a whole window, the pixels where the ground truth changes by more than 20 of 255 in some channel",
}


AnyAverage: TypeAlias = Literal["sequences", "windows", "frames"]
"""What weighs the same; frames are averaged only where a protocol's own tables do."""


def mean_of_row(row: SummaryRow, average: AnyAverage) -> float | None:
    """One of a row's averages."""
    return {"sequences": row.over_sequences, "windows": row.over_windows, "frames": row.over_frames}[average]


def window_limit(results: EvaluationResults) -> int | None:
    """How many windows of each sequence and skip were asked for; None for all."""
    config = results.settings.get("config")
    limit = config.get("windows") if isinstance(config, dict) else None
    return limit if isinstance(limit, int) else None


@dataclass(frozen=True)
class Difference:
    """A paired difference of two averages, first minus second.

    Attributes:
        value: the difference.
        interval: its 95 % interval, where there is enough to draw from.
        num_units: windows or sequences that the interval was drawn from.
    """

    value: float
    interval: Interval | None
    num_units: int

    @property
    def is_clear(self) -> bool:
        """Whether its interval leaves out zero and is of enough windows or sequences to mean something."""
        if self.interval is None or self.num_units < FEWEST_FOR_VERDICT:
            return False
        return self.interval.low > 0 or self.interval.high < 0


@dataclass(frozen=True, eq=False)
class ReportContext:
    """Results with cached look-ups."""

    results: EvaluationResults

    @cached_property
    def summary(self) -> dict[tuple[CellKey, str], SummaryRow]:
        """Averages by cell and system."""
        rows = summarise(self.results)
        return {((row.skip, row.truth, row.metric, row.region), row.system): row for row in rows}

    @cached_property
    def sequence_rows(self) -> tuple[SequenceRow, ...]:
        """Averages of each sequence."""
        return summarise_sequences(self.results)

    @cached_property
    def cells(self) -> dict[CellKey, Cell]:
        """Scores by what they are of, in the order of tables."""
        return {cell.key: cell for cell in cells_of(self.results)}

    @property
    def skips(self) -> list[int]:
        """Skips that have scores."""
        return sorted({key[0] for key in self.cells})

    @cached_property
    def headline(self) -> tuple[MetricInfo, ...]:
        """The metrics of the protocol's own tables; the first few where it names none of those that are here."""
        named = self.results.protocol.get("metrics")
        wanted = [name for name in named if isinstance(name, str)] if isinstance(named, list | tuple) else []
        by_name = {metric.name: metric for metric in self.compared}
        found = tuple(by_name[name] for name in dict.fromkeys(wanted) if name in by_name)
        return (found or self.compared)[:MOST_HEADLINES]

    @property
    def compared(self) -> tuple[MetricInfo, ...]:
        """Metrics that compare with the ground truth and have scores."""
        return tuple(metric for metric in self._scored if metric.needs_truth)

    @property
    def truthless(self) -> tuple[MetricInfo, ...]:
        """Metrics that do not use the ground truth and have scores."""
        return tuple(metric for metric in self._scored if not metric.needs_truth)

    @property
    def _scored(self) -> list[MetricInfo]:
        names = {key[2] for key in self.cells}
        return [metric for metric in self.results.metrics if metric.name in names]

    @property
    def own_average(self) -> str:
        """What weighs the same in the protocol's own tables; "" where it does not tell."""
        return str(self.results.protocol.get("average", ""))

    def metric(self, name: str) -> MetricInfo:
        """A metric by name."""
        return next(metric for metric in self.results.metrics if metric.name == name)

    def truths(self, skip: int) -> list[str]:
        """Truths of a skip, the protocol's own first."""
        needing = {metric.name for metric in self.compared}
        found = {key[1] for key in self.cells if key[0] == skip and key[2] in needing}
        asked = self.results.protocol.get("truths")
        order = list(asked) if isinstance(asked, list | tuple) else []
        return sorted(found, key=lambda truth: (order.index(truth) if truth in order else len(order), truth))

    def regions(self, skip: int, truth: str, metrics: Sequence[MetricInfo]) -> list[str]:
        """Regions for which any of these metrics has scores."""
        names = {metric.name for metric in metrics}
        return list(dict.fromkeys(key[3] for key in self.cells if key[:2] == (skip, truth) and key[2] in names))

    def style(self, system: str) -> int:
        """Number of a system: its colour and shape, the same everywhere."""
        return [info.name for info in self.results.systems].index(system)

    @cached_property
    def subject(self) -> SystemInfo | None:
        """The first model, else the first folder of frames, else the first system: what the report is about."""
        order = {"model": 0, "frames": 1, "baseline": 2}
        return min(self.results.systems, key=lambda system: order.get(system.kind, 3), default=None)

    def rivals(self, key: CellKey) -> list[str]:
        """Systems that the subject is compared with in a cell: baselines, else all others."""
        present = self.cells[key].systems if key in self.cells else {}
        others = [system for system in self.results.systems if system != self.subject and system.name in present]
        return [system.name for system in others if system.kind == "baseline"] or [system.name for system in others]

    def average(self, key: CellKey, system: str, average: AnyAverage) -> float | None:
        """One of the averages."""
        row = self.summary.get((key, system))
        return None if row is None else mean_of_row(row, average)

    def ranked(self, key: CellKey, systems: Sequence[str], average: Average) -> list[str]:
        """Systems that have an average, the best first."""
        sign = -1 if self.metric(key[2]).higher_is_better else 1
        values = {system: self.average(key, system, average) for system in systems}
        found = {system: value for system, value in values.items() if value is not None}
        return sorted(found, key=lambda system: sign * found[system])

    def difference(self, key: CellKey, first: str, second: str, average: Average) -> Difference | None:
        """First minus second, paired frame by frame, over the windows in which both have a value."""
        cell = self.cells[key]
        one, other = cell.systems[first], cell.systems[second]
        groups = by_sequence(
            {window: paired_difference(other[window], one[window]) for window in cell.common_windows()}
        )
        value = mean_over_sequences(groups) if average == "sequences" else mean_over_windows(groups)
        if value is None:
            return None
        drawn = interval(list(groups.values()), average)
        num_units = len(groups) if drawn is not None and drawn.over == "sequences" else sum(map(len, groups.values()))
        return Difference(value, drawn, num_units)

    def clear_winner(self, key: CellKey, average: Average) -> str | None:
        """The best system, if its paired difference to the second best is clear."""
        ranked = self.ranked(key, list(self.cells[key].systems), average) if key in self.cells else []
        if len(ranked) < 2:
            return None
        difference = self.difference(key, ranked[0], ranked[1], average)
        return ranked[0] if difference is not None and difference.is_clear else None
