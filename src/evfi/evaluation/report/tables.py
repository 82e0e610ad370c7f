"""Tables of averages, of paired differences, of seconds, and of published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.report.context import (
    REGION_TITLES,
    REGION_WORDS,
    TRUTH_TITLES,
    TRUTH_WORDS,
    AnyAverage,
    ReportContext,
    mean_of_row,
)
from evfi.evaluation.report.plots import marker
from evfi.evaluation.results import MetricInfo
from evfi.evaluation.score_cells import CellKey
from evfi.evaluation.summary import SpeedRow, SummaryRow, summarise_speed
from evfi.report.markup import Html, counted, element, ends, joined, number
from evfi.report.parts import table

_MOST_COLUMNS: Final = 6
_AVERAGE_TITLES: Final[dict[AnyAverage, str]] = {
    "sequences": "Mean over sequences, each counting the same",
    "windows": "Mean over windows, each counting the same",
    "frames": "Mean over inserted frames, each counting the same",
}


def metric_heading(metric: MetricInfo) -> str:
    """A metric's title with its direction and unit: PSNR ↑ dB."""
    arrow = "↑" if metric.higher_is_better else "↓"
    return f"{metric.title} {arrow}" + (f" {metric.unit}" if metric.unit else "")


def system_label(context: ReportContext, name: str) -> Html:
    """A system's name behind its colour and shape."""
    mark = element("svg", marker(context.style(name), 6, 6), viewBox="0 0 12 12", class_="key", aria_hidden="true")
    return element("span", mark, name, class_="system")


def averages_section(context: ReportContext, skip: int) -> Html:
    """All tables of one skip: separately per ground truth, the protocol's metrics, then the others."""
    parts = [_truth_block(context, skip, truth) for truth in context.truths(skip)]
    free = [metric for metric in context.truthless if _first_truth(context, skip, metric)]
    if free:
        truth = _first_truth(context, skip, free[0])
        parts.append(
            element(
                "div",
                element(
                    "h4", element("span", "No ground truth", class_="badge none"), " computed without the ground truth"
                ),
                *(_averages_table(context, skip, truth, ALL, group) for group in _groups(free)),
                class_="truth none",
            )
        )
    return joined(parts)


def _truth_block(context: ReportContext, skip: int, truth: str) -> Html:
    badge = element("span", TRUTH_TITLES.get(truth, truth), class_=f"badge {truth}")
    heading = element("h4", badge, " ", TRUTH_WORDS.get(truth, ""))
    main = _region_tables(context, skip, truth, context.headline)
    others = [metric for metric in context.compared if metric not in context.headline]
    parts: list[Html] = [heading, main]
    if others:
        further = [_region_tables(context, skip, truth, group) for group in _groups(others)]
        parts.append(element("details", element("summary", "Further metrics"), *further, open=True))
    return element("div", *parts, class_=f"truth {truth}")


def _region_tables(context: ReportContext, skip: int, truth: str, metrics: Sequence[MetricInfo]) -> Html:
    tables = []
    for region in context.regions(skip, truth, metrics):
        present = [metric for metric in metrics if (skip, truth, metric.name, region) in context.cells]
        tables.append(_averages_table(context, skip, truth, region, present))
    return element("div", *tables, class_="tables")


def _averages_table(context: ReportContext, skip: int, truth: str, region: str, metrics: Sequence[MetricInfo]) -> Html:
    keys = [(skip, truth, metric.name, region) for metric in metrics]
    rows = [row for (key, _), row in context.summary.items() if key in keys]
    single = max((row.num_sequences for row in rows), default=0) < 2
    averages: tuple[AnyAverage, ...] = ("windows",) if single else ("sequences", "windows")
    averages += ("frames",) if context.own_average == "frames" else ()
    bodies = [
        _averages_body(context, keys, metrics, average, _average_title(context, average, single))
        for average in averages
    ]
    head = ["System", *(metric_heading(metric) for metric in metrics)]
    return table(head, bodies, _caption(region, rows), "sortable averages")


def _caption(region: str, rows: Sequence[SummaryRow]) -> Html:
    windows, sequences = ({getattr(row, name) for row in rows} for name in ("num_windows", "num_sequences"))
    undefined = max((row.num_undefined for row in rows), default=0)
    words = f"{_counted(windows, 'window')} of {_counted(sequences, 'sequence')}"
    if undefined:
        words += f"; undefined in {counted(undefined, 'window')}"
    name = element("b", REGION_TITLES.get(region, region), title=REGION_WORDS.get(region))
    return joined([name, element("span", words, class_="what")], " ")


def _average_title(context: ReportContext, average: AnyAverage, single: bool) -> str:
    if single and average == "windows":
        return "Mean over windows; there is one sequence, so both averages are the same"
    return _AVERAGE_TITLES[average] + (" (the protocol's own)" if context.own_average == average else "")


def _averages_body(
    context: ReportContext, keys: Sequence[CellKey], metrics: Sequence[MetricInfo], average: AnyAverage, title: str
) -> list[Html]:
    rows = [element("tr", element("th", title, colspan=len(keys) + 1, scope="rowgroup"), class_="group")]
    winners = {key: None if average == "frames" else context.clear_winner(key, average) for key in keys}
    for system in context.results.systems:
        found = [context.summary.get((key, system.name)) for key in keys]
        if any(found):
            cells = [
                _average_cell(row, metric, average, is_best=winners[key] == system.name)
                for key, metric, row in zip(keys, metrics, found, strict=True)
            ]
            rows.append(element("tr", element("th", system_label(context, system.name), scope="row"), *cells))
    return rows


def _average_cell(row: SummaryRow | None, metric: MetricInfo, average: AnyAverage, is_best: bool) -> Html:
    value = None if row is None else mean_of_row(row, average)
    if row is None or value is None:
        return element("td", "–", class_="value", title="undefined")
    interval = {"sequences": row.interval, "windows": row.interval_over_windows}.get(average)
    shown = element("strong" if is_best else "span", number(value, metric.decimals))
    inside = [shown, element("span", ends(interval, metric.decimals), class_="ends")] if interval else [shown]
    return element("td", *inside, class_="value", data_value=repr(value))


def differences_section(context: ReportContext, skip: int) -> Html:
    """The subject against every rival, window by window: mean differences with intervals."""
    subject = context.subject
    if subject is None:
        return Html("")
    tables = []
    for truth in context.truths(skip):
        bodies = [
            _difference_rows(context, subject.name, skip, truth, region)
            for region in context.regions(skip, truth, context.headline)
        ]
        if any(bodies):
            head = [f"{subject.name} minus", *(metric_heading(metric) for metric in context.headline)]
            badge = element("span", TRUTH_TITLES.get(truth, truth), class_=f"badge {truth}")
            tables.append(table(head, filter(None, bodies), badge, "sortable"))
    return element("div", *tables, class_="tables")


def _difference_rows(context: ReportContext, subject: str, skip: int, truth: str, region: str) -> list[Html]:
    keys = [(skip, truth, metric.name, region) for metric in context.headline]
    rows = []
    for rival in [system.name for system in context.results.systems if system.name != subject]:
        cells = [
            _difference_cell(context, key, subject, rival, metric)
            for key, metric in zip(keys, context.headline, strict=True)
        ]
        if any("data-value" in cell for cell in cells):
            rows.append(element("tr", element("th", system_label(context, rival), scope="row"), *cells))
    if not rows:
        return []
    title = element("th", REGION_TITLES.get(region, region), colspan=len(keys) + 1, scope="rowgroup")
    return [element("tr", title, class_="group"), *rows]


def _difference_cell(context: ReportContext, key: CellKey, subject: str, rival: str, metric: MetricInfo) -> Html:
    cell = context.cells.get(key)
    if cell is None or subject not in cell.systems or rival not in cell.systems:
        return element("td", "–", class_="value")
    found = context.difference(key, subject, rival, "sequences")
    if found is None:
        return element("td", "–", class_="value")
    verdict = "level"
    if found.is_clear:
        verdict = "better" if (found.value > 0) == metric.higher_is_better else "worse"
    word = {"level": "", "better": "better", "worse": "worse"}[verdict]
    inside = [element("span", number(found.value, metric.decimals, sign=True))]
    if found.interval is not None:
        pair = (found.interval.low, found.interval.high)
        inside.append(element("span", ends(pair, metric.decimals, sign=True), class_="ends"))
    if word:
        inside.append(element("span", word, class_="verdict"))
    return element("td", *inside, class_=f"value {verdict}", data_value=repr(found.value))


def speed_section(context: ReportContext) -> Html:
    """Seconds per inserted frame."""
    rows = summarise_speed(context.results)
    if not rows:
        return element("p", "No times were measured.")
    devices = {system.name: system.device or "–" for system in context.results.systems}
    lines = [
        element(
            "tr",
            element("th", system_label(context, row.system), scope="row"),
            element("td", row.skip, class_="value", data_value=row.skip),
            *(_seconds(row, name) for name in ("frame_mean_s", "frame_median_s", "window_mean_s")),
            element("td", devices[row.system]),
            element("td", _timed(row)),
        )
        for row in rows
    ]
    head = ("System", "Skip", "Per inserted frame, mean", "median", "Per window, mean", "Device", "Timed")
    return table(head, [lines], None, "sortable")


def _timed(row: SpeedRow) -> str:
    return f"{counted(row.num_windows, 'window')}, excluding the first of each process: {row.num_cold}"


def _seconds(row: SpeedRow, name: str) -> Html:
    value: float | None = getattr(row, name)
    if value is None:
        return element("td", "–", class_="value")
    shown = f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"
    return element("td", f"{shown} s", class_="value", data_value=repr(value))


def _first_truth(context: ReportContext, skip: int, metric: MetricInfo) -> str:
    """The truth under which a metric that needs none was written down; "" if it was not."""
    return next((key[1] for key in context.cells if key[0] == skip and key[2] == metric.name), "")


def _groups(metrics: Sequence[MetricInfo]) -> list[Sequence[MetricInfo]]:
    return [metrics[start : start + _MOST_COLUMNS] for start in range(0, len(metrics), _MOST_COLUMNS)]


def _counted(counts: set[int], noun: str) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return counted(low, noun) if low == high else f"{low} to {high} {noun}s"
