"""Published numbers of others, shown beside results of the same protocol, layout, skip and truth only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.published import PublishedResult, published_results
from evfi.evaluation.report.context import TRUTH_TITLES, AnyAverage, ReportContext
from evfi.evaluation.report.markup import Html, element, joined, number
from evfi.evaluation.report.tables import metric_heading, system_label, table

_WORDS: Final = (
    "From papers and their repositories, under the same protocol, never mixed into the tables above. Whether the data "
    "evaluated here is the whole test set of the dataset named is not checked."
)
_AVERAGES: Final[tuple[AnyAverage, ...]] = ("sequences", "windows")
_DECIMALS: Final = 3


def published_section(context: ReportContext) -> Html:
    """Tables of published numbers with their sources; empty where there are none for this protocol and layout."""
    layouts = {sequence.format for sequence in context.results.sequences}
    if len(layouts) != 1:
        return Html("")
    rows = published_results(str(context.results.protocol.get("name", "")), layout=next(iter(layouts)))
    parts = []
    for skip in context.skips:
        for truth in context.truths(skip):
            found = [row for row in rows if row.skip == skip and row.truth == truth]
            for dataset in dict.fromkeys(row.dataset for row in found):
                parts.append(_table(context, [row for row in found if row.dataset == dataset]))
    if not parts:
        return Html("")
    return joined(
        [element("p", _WORDS, class_="note"), *parts, _sources([row for row in rows if row.skip in context.skips])]
    )


def _table(context: ReportContext, rows: Sequence[PublishedResult]) -> Html:
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    known = {metric.name: metric for metric in context.results.metrics}
    head = ["System", *(metric_heading(known[name]) if name in known else name for name in names)]
    head += ["Average", "Measured by", "Remarks"]
    caption = f"{rows[0].dataset}, skip {rows[0].skip}, {TRUTH_TITLES.get(str(rows[0].truth), '')}"
    theirs = [_their_row(context, row, names) for row in rows]
    return table(head, [theirs, _our_rows(context, rows[0], names)], element("b", caption), "facts-table")


def _their_row(context: ReportContext, row: PublishedResult, names: Sequence[str]) -> Html:
    decimals = {metric.name: metric.decimals for metric in context.results.metrics}
    values = [number(row.metrics.get(name), decimals.get(name, _DECIMALS)) for name in names]
    source = element("a", f"{row.source}, {row.year}", href=row.url) if _is_address(row.url) else row.source
    return element(
        "tr",
        element("th", row.system, scope="row"),
        *(element("td", value, class_="value") for value in values),
        element("td", f"over {row.average}" if row.average else "not told"),
        element("td", "its authors" if row.by == "authors" else "others"),
        element("td", row.notes, " " if row.notes else None, source, class_="settings"),
    )


def _our_rows(context: ReportContext, published: PublishedResult, names: Sequence[str]) -> list[Html]:
    """The systems of this report, averaged in the same way, as far as they have any of these metrics."""
    rows = []
    for system in context.results.systems:
        for average in (published.average,) if published.average else _AVERAGES:
            keys = [(published.skip, str(published.truth), name, ALL) for name in names]
            values = [context.average(key, system.name, average) for key in keys]
            if any(value is not None for value in values):
                shown = [
                    element(
                        "td", number(value, context.metric(key[2]).decimals if value is not None else 0), class_="value"
                    )
                    for key, value in zip(keys, values, strict=True)
                ]
                name = element("th", system_label(context, system.name), scope="row")
                rest = [element("td", text) for text in (f"over {average}", "this report", "")]
                rows.append(element("tr", name, *shown, *rest))
    return rows


def _sources(rows: Sequence[PublishedResult]) -> Html:
    """Every source once, with its address in words for paper."""
    lines = dict.fromkeys(f"{row.source} ({row.year}), {row.url}" for row in rows)
    return element("ul", *(element("li", line) for line in lines), class_="note")


def _is_address(url: str) -> bool:
    return url.startswith(("https://", "http://"))
