"""Results as tables: `results.csv` with every value, and averages as Markdown or for the terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from evfi.errors import ConfigError
from evfi.evaluation.results import EvaluationResults, MetricInfo
from evfi.evaluation.results_checks import fault_of
from evfi.evaluation.score_cells import mean_of
from evfi.evaluation.summary import Ends, SpeedRow, SummaryRow
from evfi.files import written_whole

CSV_COLUMNS: Final = (
    *("sequence", "skip", "window", "frame", "time_us", "system", "truth", "metric", "unit", "region", "value"),
)
"""One row is one value of one inserted frame."""

UNDEFINED: Final = "–"
"""Stands in tables where there is no number."""


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        header: names of the columns.
        rows: cells, as many as there are columns.
        best: (row, column) of cells that are the best of their row.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()


_RowKey: TypeAlias = tuple[int, str, str, str]
"""(skip, truth, metric, region)."""


def write_csv(path: str | Path, results: EvaluationResults) -> None:
    """Write every value, one a line, in the order of the scores; an undefined value is an empty field.

    Args:
        path: the file; an existing one is replaced.
        results: of one evaluation.

    Raises:
        ConfigError: they do not fit together.
        OutputError: the file cannot be written.
    """
    if fault := fault_of(results):
        raise ConfigError(f"cannot write results: {fault}")
    with (
        written_whole(Path(path)) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows(_csv_rows(results))


def average_table(rows: Sequence[SummaryRow], metrics: Sequence[MetricInfo], *, with_intervals: bool = False) -> Table:
    """Averages with a column for each system; both averages in a cell: over windows / over sequences.

    The best average over sequences of a row is marked, as it is printed: equal ones together. A system with fewer defined
    windows than another has their number behind its averages.

    Args:
        rows: of `summarise`, or some of them; their order stays.
        metrics: of the same results.
        with_intervals: put the interval of the average over sequences behind it.

    Returns:
        Columns skip, truth, region, metric, windows (and in how many sequences), then systems.
    """
    systems = list(dict.fromkeys(row.system for row in rows))
    infos = {metric.name: metric for metric in metrics}
    grouped: dict[_RowKey, dict[str, SummaryRow]] = {}
    for row in rows:
        grouped.setdefault((row.skip, row.truth, row.metric, row.region), {})[row.system] = row
    lines: list[tuple[str, ...]] = []
    best: set[tuple[int, int]] = set()
    for number, ((skip, truth, metric, region), by_system) in enumerate(grouped.items()):
        info = infos[metric]
        most = max(by_system.values(), key=lambda row: row.num_windows)
        cells = [_average_cell(by_system.get(system), info, with_intervals, most) for system in systems]
        lines.append((str(skip), truth, region, metric_title(info), _counts(most), *cells))
        best |= {(number, 5 + systems.index(system)) for system in _best(by_system, info)}
    return Table(("skip", "truth", "region", "metric", "windows", *systems), tuple(lines), frozenset(best))


def speed_table(rows: Sequence[SpeedRow]) -> Table:
    """Seconds per inserted frame with a column for each system: median (mean)."""
    systems = list(dict.fromkeys(row.system for row in rows))
    found = {(row.skip, row.system): row for row in rows}
    lines = [
        (str(skip), *(_speed_cell(found.get((skip, system))) for system in systems))
        for skip in dict.fromkeys(row.skip for row in rows)
    ]
    return Table(("skip", *systems), tuple(lines))


def as_markdown(table: Table) -> str:
    """A Markdown table; the best cells are bold."""
    lines = [_markdown_line(table.header), "|" + "---|" * len(table.header)]
    for number, row in enumerate(table.rows):
        cells = [f"**{cell}**" if (number, column) in table.best else None for column, cell in enumerate(row)]
        lines.append(_markdown_line([bold or cell for bold, cell in zip(cells, row, strict=True)]))
    return "\n".join(lines) + "\n"


def text_lines(table: Table) -> list[str]:
    """Aligned columns, line by line, for the terminal; a star stands behind the best cells."""
    marked = [
        [cell + (" *" if (number, column) in table.best else "") for column, cell in enumerate(row)]
        for number, row in enumerate(table.rows)
    ]
    cells = [list(table.header), *marked]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def markdown_table(rows: Sequence[SummaryRow], metrics: Sequence[MetricInfo], *, with_intervals: bool = False) -> str:
    """`average_table` as Markdown."""
    return as_markdown(average_table(rows, metrics, with_intervals=with_intervals))


def text_table(rows: Sequence[SummaryRow], metrics: Sequence[MetricInfo], *, with_intervals: bool = False) -> list[str]:
    """`average_table`, line by line, for the terminal."""
    return text_lines(average_table(rows, metrics, with_intervals=with_intervals))


def metric_title(metric: MetricInfo) -> str:
    """A metric as in tables: title, which way is up, unit."""
    arrow = "↑" if metric.higher_is_better else "↓"
    return f"{metric.title} {arrow}" + (f" ({metric.unit})" if metric.unit else "")


def number_text(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """A number as printed; minus is a hyphen, and nothing is a dash."""
    return UNDEFINED if value is None else f"{value:{'+' if sign else ''}.{decimals}f}"


def interval_text(ends: Ends | None, decimals: int, *, sign: bool = False) -> str:
    """An interval as printed: [low, high]."""
    if ends is None:
        return UNDEFINED
    return f"[{number_text(ends[0], decimals, sign=sign)}, {number_text(ends[1], decimals, sign=sign)}]"


def _csv_rows(results: EvaluationResults) -> Iterator[tuple[object, ...]]:
    windows = {window.key: window for window in results.windows}
    units = {metric.name: metric.unit for metric in results.metrics}
    for score in results.scores:
        window = windows[score.sequence, score.skip, score.index]
        for place, value in enumerate(score.values, start=1):
            yield (
                *(score.sequence, score.skip, score.index, window.start_frame + place, window.times_us[place]),
                *(score.system, score.truth, score.metric, units[score.metric], score.region),
                "" if mean_of([value]) is None else value,
            )


def _counts(row: SummaryRow) -> str:
    undefined = f" ({row.num_undefined} undefined)" if row.num_undefined else ""
    return f"{row.num_windows}{undefined} in {row.num_sequences}"


def _average_cell(row: SummaryRow | None, metric: MetricInfo, with_intervals: bool, most: SummaryRow) -> str:
    if row is None:
        return UNDEFINED
    text = f"{number_text(row.over_windows, metric.decimals)} / {number_text(row.over_sequences, metric.decimals)}"
    if with_intervals:
        text += f" {interval_text(row.interval, metric.decimals)}"
    return text + (f" ({row.num_windows} windows)" if row.num_windows != most.num_windows else "")


def _best(rows: dict[str, SummaryRow], metric: MetricInfo) -> list[str]:
    printed = {
        system: float(number_text(row.over_sequences, metric.decimals))
        for system, row in rows.items()
        if row.over_sequences is not None
    }
    if len(printed) < 2:
        return []
    top = max(printed.values()) if metric.higher_is_better else min(printed.values())
    return [system for system, value in printed.items() if value == top]


def _speed_cell(row: SpeedRow | None) -> str:
    if row is None or row.frame_median_s is None or row.frame_mean_s is None:
        return UNDEFINED
    return f"{row.frame_median_s:.3g} s ({row.frame_mean_s:.3g} s)"


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
