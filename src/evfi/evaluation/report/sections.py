"""The parts of a report, top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from evfi.evaluation.bootstrap import FEWEST_SEQUENCES
from evfi.evaluation.report.charts import plots_section
from evfi.evaluation.report.context import FEWEST_FOR_VERDICT, ReportContext
from evfi.evaluation.report.facts import (
    definitions_section,
    omissions_section,
    protocol_section,
    provenance_section,
)
from evfi.evaluation.report.pictures import PictureSource
from evfi.evaluation.report.published_table import published_section
from evfi.evaluation.report.tables import averages_section, differences_section, speed_section
from evfi.evaluation.report.windows import windows_section
from evfi.report.document import Section, page
from evfi.report.markup import Html, counted, element, joined

_READING: Final = (
    "In brackets: 95 % bootstrap confidence intervals; with few windows they are too narrow, as they cannot reach beyond "
    f"the observed values. Bold: clearly best, that is, the interval of the paired difference to the second best excludes "
    f"zero, over at least {FEWEST_FOR_VERDICT} windows or sequences. There is no correction for comparing many columns. "
    "Arrows show which direction is better."
)
_OVER_WINDOWS: Final = (
    f"Fewer than {FEWEST_SEQUENCES} sequences: intervals are over windows of these sequences. They show how the averages "
    "depend on the choice of windows, not how other scenes would score."
)
_DIFFERENCES: Final = (
    "Both systems on the same windows, mean over sequences, with 95 % confidence intervals of the difference. “Better” and "
    f"“worse” mean that the interval excludes zero, over at least {FEWEST_FOR_VERDICT} windows or sequences."
)


def render(context: ReportContext, pictures: PictureSource | None) -> str:
    """The whole report as text."""
    sections = [
        Section("protocol", "What was evaluated", protocol_section(context.results)),
        Section("provenance", "Provenance", provenance_section(context)),
        Section("results", "Results", _results(context)),
        Section("differences", "Paired differences", _differences(context)),
        Section("speed", "Speed", speed_section(context)),
        *_published(context),
        Section("plots", "Plots", _per_skip(context, plots_section)),
        Section("windows", "Best and worst windows", windows_section(context, pictures)),
        Section("omissions", "What was left out", omissions_section(context)),
        Section("metrics", "Metrics", definitions_section(context.results)),
    ]
    results = context.results
    footer = f"evfi {results.evfi_version} · {results.created} · made from results.json, which contains every value"
    return page(_title(context), _introduction(context), sections, footer)


def _title(context: ReportContext) -> str:
    subject = context.subject.name if context.subject else "nothing"
    others = [system.name for system in context.results.systems if system != context.subject]
    if not others:
        return f"Evaluation of {subject}"
    listed = ", ".join(others[:-1]) + (" and " if len(others) > 1 else "") + others[-1]
    return f"{subject} against {listed}"


def _introduction(context: ReportContext) -> Html:
    results = context.results
    scored = [window for window in results.windows if window.dropped is None]
    frames = sum(len(window.times_us) - 2 for window in scored)
    protocol = results.protocol.get("title") or results.protocol.get("name") or "none"
    text = (
        f"Protocol {protocol}: {counted(len(results.sequences), 'sequence')}, {counted(len(scored), 'window')}, "
        f"{counted(frames, 'inserted frame')} per system; {results.created[:10]}."
    )
    return joined([element("p", text, class_="lead"), _interval_note(context)])


def _interval_note(context: ReportContext) -> Html:
    if any(row.interval_over == "windows" for row in context.summary.values()):
        return element("p", _OVER_WINDOWS, class_="callout")
    return Html("")


def _results(context: ReportContext) -> Html:
    return joined([element("p", _READING, class_="note"), _per_skip(context, averages_section)])


def _differences(context: ReportContext) -> Html:
    if len(context.results.systems) < 2:
        return element("p", "There is only one system.")
    return joined([element("p", _DIFFERENCES, class_="note"), _per_skip(context, differences_section)])


def _published(context: ReportContext) -> list[Section]:
    body = published_section(context)
    return [Section("published", "Published numbers", body)] if body else []


def _per_skip(context: ReportContext, part: Callable[[ReportContext, int], Html]) -> Html:
    if not context.skips:
        return element("p", "Nothing was scored.")
    parts = []
    for skip in context.skips:
        words = f"Skip {skip}: {counted(skip, 'frame')} inserted between two key frames"
        parts += [element("h3", words), part(context, skip)]
    return joined(parts)
