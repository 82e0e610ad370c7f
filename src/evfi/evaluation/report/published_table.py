"""Published numbers, shown next to results of the same protocol, layout, skip and ground truth only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.published import PublishedResult, published_results
from evfi.evaluation.report.context import TRUTH_TITLES, AnyAverage, ReportContext, window_limit
from evfi.evaluation.report.tables import metric_heading, system_label
from evfi.report.markup import Html, element, joined, number
from evfi.report.parts import table

_WORDS: Final = (
    "From papers and their repositories, under the same protocol, never mixed into the tables above. evfi does not check "
    "whether the data evaluated here is the whole test set of the named dataset."
)
_LIMITED: Final = (
    "Published numbers exist for this protocol. They are not shown because only some of its windows were evaluated."
)
_AVERAGES: Final[tuple[AnyAverage, ...]] = ("sequences", "windows")
_DECIMALS: Final = 3

Source: TypeAlias = tuple[str, int, str]
"""Title, year and address."""


def published_section(context: ReportContext) -> Html:
    """Tables of published numbers with their sources; empty where there are none for this protocol and layout."""
    layouts = {sequence.format for sequence in context.results.sequences}
    if len(layouts) != 1:
        return Html("")
    rows = published_results(str(context.results.protocol.get("name", "")), layout=next(iter(layouts)))
    rows = tuple(row for row in rows if row.skip in context.skips and row.truth in context.truths(row.skip))
    sources = list(dict.fromkeys(map(_source, rows)))
    parts = []
    for skip in context.skips:
        for truth in context.truths(skip):
            found = [row for row in rows if row.skip == skip and row.truth == truth]
            for dataset in dict.fromkeys(row.dataset for row in found):
                parts.append(_table(context, [row for row in found if row.dataset == dataset], sources))
    if not parts:
        return Html("")
    if window_limit(context.results) is not None:
        return element("p", _LIMITED, class_="note")
    return joined([element("p", _WORDS, class_="note"), *parts, _source_list(sources)])


def _table(context: ReportContext, rows: Sequence[PublishedResult], sources: Sequence[Source]) -> Html:
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    known = {metric.name: metric for metric in context.results.metrics}
    head = ["System", *(metric_heading(known[name]) if name in known else name for name in names)]
    head += ["Average", "Measured by", "Source", "Remarks"]
    caption = f"{rows[0].dataset}, skip {rows[0].skip}, {TRUTH_TITLES.get(str(rows[0].truth), '').lower()}"
    theirs = [_their_row(context, row, names, sources.index(_source(row)) + 1) for row in rows]
    return table(head, [theirs, _our_rows(context, rows, names)], element("b", caption), "facts-table")


def _their_row(context: ReportContext, row: PublishedResult, names: Sequence[str], source: int) -> Html:
    decimals = {metric.name: metric.decimals for metric in context.results.metrics}
    values = [number(row.metrics.get(name), decimals.get(name, _DECIMALS)) for name in names]
    return element(
        "tr",
        element("th", row.system, scope="row"),
        *(element("td", value, class_="value") for value in values),
        element("td", f"over {row.average}" if row.average else "not stated"),
        element("td", "its authors" if row.by == "authors" else "others"),
        element("td", element("a", f"[{source}]", href=f"#source-{source}")),
        element("td", row.notes, class_="settings"),
    )


def _our_rows(context: ReportContext, published: Sequence[PublishedResult], names: Sequence[str]) -> list[Html]:
    """The systems of this report, averaged in the same way, as far as they have any of these metrics."""
    rows = []
    keys = [(published[0].skip, str(published[0].truth), name, ALL) for name in names]
    averages = dict.fromkeys(average for row in published for average in ((row.average,) if row.average else _AVERAGES))
    for system in context.results.systems:
        for average in averages:
            values = [context.average(key, system.name, average) for key in keys]
            if any(value is not None for value in values):
                shown = [
                    element(
                        "td", number(value, context.metric(key[2]).decimals if value is not None else 0), class_="value"
                    )
                    for key, value in zip(keys, values, strict=True)
                ]
                name = element("th", system_label(context, system.name), scope="row")
                rest = [element("td", text) for text in (f"over {average}", "this report", "", "")]
                rows.append(element("tr", name, *shown, *rest))
    return rows


def _source(row: PublishedResult) -> Source:
    return row.source, row.year, row.url


def _source_list(sources: Sequence[Source]) -> Html:
    """Every source once, numbered, with its address also in words, for paper."""
    lines = [
        element(
            "li", f"{title} ({year}), ", element("a", url, href=url) if _is_address(url) else url, id=f"source-{place}"
        )
        for place, (title, year, url) in enumerate(sources, start=1)
    ]
    return element("ol", *lines, class_="note")


def _is_address(url: str) -> bool:
    return url.startswith(("https://", "http://"))
