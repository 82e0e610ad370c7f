"""The plots of a report: values per sequence, per position in the window, and over all windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from evfi.evaluation.bootstrap import interval
from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.report.context import REGION_TITLES, TRUTH_TITLES, ReportContext
from evfi.evaluation.report.plots import Point, Series, dot_plot, line_chart, strip_plot
from evfi.evaluation.report.tables import system_label
from evfi.evaluation.results import MetricInfo
from evfi.evaluation.score_cells import Cell, CellKey, by_sequence, mean_of, mean_over_sequences
from evfi.evaluation.summary import SequenceRow
from evfi.report.markup import Html, counted, element, ends, joined, number
from evfi.report.parts import table

_MOST_METRICS: Final = 3
_MOST_ROWS: Final = 60
_MOST_VALUES: Final = 1500


def plots_section(context: ReportContext, skip: int) -> Html:
    """All plots of one skip, with the protocol's own ground truth."""
    truths = context.truths(skip)
    if not truths:
        return Html("")
    rows = [row for row in context.sequence_rows if row.skip == skip]
    cells = list(_shown_cells(context, skip, truths[0]))
    per_sequence = [_sequence_figure(context, cell, rows) for cell in cells]
    per_place = [_place_figure(context, cell) for cell in cells if skip > 1]
    spread = [_spread_figure(context, cell) for cell in cells]
    parts = [
        element("h4", "Per sequence"),
        element(
            "p",
            "Whiskers: 95 % confidence intervals over the sequence's windows; those that reach the edge of the plot "
            "continue beyond it.",
            class_="note",
        ),
        element("div", *per_sequence, class_="plots"),
        _sequence_table(context, skip, truths[0], rows),
    ]
    if per_place:
        words = "Mean over sequences of the frames at each position between the key frames; bands: 95 % confidence intervals."
        parts += [element("h4", "Per position in the window"), element("p", words, class_="note")]
        parts.append(element("div", *per_place, class_="plots"))
    words = "One dot per window; bar: quartiles, line: median."
    parts += [
        element("h4", "Over windows"),
        element("p", words, class_="note"),
        element("div", *spread, class_="plots"),
    ]
    return joined(parts)


def _shown_cells(context: ReportContext, skip: int, truth: str) -> Iterator[Cell]:
    """The first headline metrics over the whole frame, and the first one where something moves."""
    keys: list[CellKey] = [(skip, truth, metric.name, ALL) for metric in context.headline[:_MOST_METRICS]]
    keys += [(skip, truth, metric.name, "moving") for metric in context.headline[:1]]
    return (context.cells[key] for key in keys if key in context.cells)


def _title(context: ReportContext, cell: Cell) -> str:
    where = "" if cell.region == ALL else f", {REGION_TITLES.get(cell.region, cell.region).lower()}"
    return f"{context.metric(cell.metric).title}{where}"


def _label(metric: MetricInfo) -> str:
    way = "higher is better" if metric.higher_is_better else "lower is better"
    return f"{metric.title} in {metric.unit}, {way}" if metric.unit else f"{metric.title}, {way}"


def _figure(context: ReportContext, cell: Cell, plot: Html, note: str = "") -> Html:
    caption = f"{_title(context, cell)} · {TRUTH_TITLES.get(cell.truth, cell.truth).lower()}{note}"
    return element("figure", element("figcaption", caption), plot)


def _sequence_figure(context: ReportContext, cell: Cell, rows: list[SequenceRow]) -> Html:
    metric = context.metric(cell.metric)
    found = {(row.sequence, row.system): row for row in rows if _is_of(row, cell)}
    names = list(dict.fromkeys(sequence for sequence, _ in found))
    note = "" if len(names) <= _MOST_ROWS else f" · the first {_MOST_ROWS} of {len(names)} sequences"
    names = names[:_MOST_ROWS]
    series = [
        Series(name, context.style(name), tuple(_sequence_point(found.get((one, name)), metric) for one in names))
        for name in cell.systems
    ]
    return _figure(context, cell, dot_plot(names, series, _label(metric)), note)


def _is_of(row: SequenceRow, cell: Cell) -> bool:
    return (row.skip, row.truth, row.metric, row.region) == cell.key


def _sequence_point(row: SequenceRow | None, metric: MetricInfo) -> Point | None:
    if row is None or row.over_windows is None:
        return None
    value = number(row.over_windows, metric.decimals)
    note = f"{row.system}, {row.sequence}: {value} {ends(row.interval, metric.decimals)}, "
    return Point(row.over_windows, row.interval, note + counted(row.num_windows, "window"))


def _place_figure(context: ReportContext, cell: Cell) -> Html:
    metric = context.metric(cell.metric)
    common = cell.common_windows()
    first = next(iter(cell.systems.values()))
    length = max((len(first[window]) for window in common), default=0)
    series = [
        Series(name, context.style(name), tuple(_place_point(cell, name, place, metric) for place in range(length)))
        for name in cell.systems
    ]
    places = [str(place + 1) for place in range(length)]
    x_label = f"inserted frame of {length}, between start and end key frame"
    return _figure(context, cell, line_chart(series, places, x_label, _label(metric)))


def _place_point(cell: Cell, system: str, place: int, metric: MetricInfo) -> Point | None:
    """Mean over sequences at one place in the window."""
    values = cell.systems[system]
    found = {window: values[window] for window in cell.common_windows()}
    groups = by_sequence({window: mean_of(all_[place : place + 1]) for window, all_ in found.items()})
    mean = mean_over_sequences(groups)
    if mean is None:
        return None
    drawn = interval(list(groups.values()))
    pair = None if drawn is None else (drawn.low, drawn.high)
    note = f"{system}, frame {place + 1}: {number(mean, metric.decimals)} {ends(pair, metric.decimals)}"
    return Point(mean, pair, note)


def _spread_figure(context: ReportContext, cell: Cell) -> Html:
    common = cell.common_windows()
    step = -(-len(common) // _MOST_VALUES) if common else 1
    shown = common[::step]
    note = "" if step == 1 else f" · every {step}th of {len(common)} windows"
    series = []
    for name, values in cell.systems.items():
        means = [mean_of(values[window]) for window in shown]
        points = tuple(None if mean is None else Point(mean) for mean in means)
        series.append(Series(name, context.style(name), points))
    return _figure(context, cell, strip_plot(series, _label(context.metric(cell.metric))), note)


def _sequence_table(context: ReportContext, skip: int, truth: str, rows: list[SequenceRow]) -> Html:
    """The numbers behind the first plots."""
    cells = list(_shown_cells(context, skip, truth))
    found = {(row.sequence, row.system, row.metric, row.region): row for row in rows if row.truth == truth}
    lines = []
    for sequence in dict.fromkeys(row.sequence for row in rows):
        for system in context.results.systems:
            row_cells = [
                _sequence_cell(
                    found.get((sequence, system.name, cell.metric, cell.region)), context.metric(cell.metric)
                )
                for cell in cells
            ]
            name = element("td", system_label(context, system.name), class_="name")
            lines.append(element("tr", element("th", sequence, scope="row"), name, *row_cells))
    head = ["Sequence", "System", *(_title(context, cell) for cell in cells)]
    return element("details", element("summary", "Numbers per sequence"), table(head, [lines], None, "sortable"))


def _sequence_cell(row: SequenceRow | None, metric: MetricInfo) -> Html:
    if row is None or row.over_windows is None:
        return element("td", "–", class_="value")
    shown = element("span", number(row.over_windows, metric.decimals))
    interval_shown = element("span", ends(row.interval, metric.decimals), class_="ends") if row.interval else None
    return element("td", shown, interval_shown, class_="value", data_value=repr(row.over_windows))
