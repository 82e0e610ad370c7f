"""The most informative windows: where the first model loses most, where it gains most, and where it is worst."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.report.context import TRUTH_TITLES, ReportContext
from evfi.evaluation.report.pictures import (
    ERROR_TOP,
    PictureSource,
    WindowPictures,
    cut_out,
    error_colours,
    error_map,
    slice_through_time,
    telling_box,
    with_box,
)
from evfi.evaluation.report.tables import system_label
from evfi.evaluation.results import MetricInfo, WindowRecord
from evfi.evaluation.score_cells import Cell, WindowKey, mean_of
from evfi.report.markup import Html, element, joined, number
from evfi.report.parts import table
from evfi.report.pictures import busiest_row, data_uri, picture_element, picture_figure

MOST_PICTURE_BYTES: Final = 10_000_000
_MOST_SYSTEMS: Final = 6
_FEWEST_SLICE_FRAMES: Final = 5


@dataclass(frozen=True, eq=False)
class Pick:
    """A window that is shown.

    Attributes:
        record: which.
        cell: the scores it was chosen by.
        reason: why, in words.
        rival: the baseline that the subject is compared with; None without any.
        place: the inserted frame that is shown, 0 is the first.
    """

    record: WindowRecord
    cell: Cell
    reason: str
    rival: str | None
    place: int


def windows_section(context: ReportContext, source: PictureSource | None) -> Html:
    """The chosen windows of every skip, with pictures as long as these are not too large together."""
    picks = {skip: pick_windows(context, skip) for skip in context.skips}
    budget = _Budget(source, MOST_PICTURE_BYTES)
    by_rank = [picks[skip][rank] for rank in range(3) for skip in picks if rank < len(picks[skip])]
    shown = {pick: _window_figure(context, pick, budget) for pick in by_rank}
    parts = []
    for skip, chosen in picks.items():
        if chosen:
            parts += [element("h3", f"Skip {skip}"), *(shown[pick] for pick in chosen)]
    if not parts:
        return element("p", "There are no windows to choose from.")
    return joined([_introduction(context), *parts])


def pick_windows(context: ReportContext, skip: int) -> list[Pick]:
    """The windows of largest loss, largest gain and worst value of the subject; fewer where they coincide.

    The first headline metric over the whole frame decides, under the protocol's first truth; the rival is the baseline
    with the best average.
    """
    if context.subject is None or not context.headline or not context.truths(skip):
        return []
    key = (skip, context.truths(skip)[0], context.headline[0].name, ALL)
    cell = context.cells.get(key)
    if cell is None or context.subject.name not in cell.systems:
        return []
    rival = next(iter(context.ranked(key, context.rivals(key), "sequences")), None)
    metric = context.headline[0]
    choices: dict[WindowKey, list[_Choice]] = {}
    for choice in _choices(cell, context.subject.name, rival, metric):
        choices.setdefault(choice.window, []).append(choice)
    records = {record.key: record for record in context.results.windows}
    return [
        Pick(
            records[window[0], skip, window[1]],
            cell,
            "; ".join(choice.reason for choice in found),
            rival,
            _telling_place(cell, context.subject.name, rival, metric, found[0]),
        )
        for window, found in choices.items()
    ]


@dataclass(frozen=True)
class _Choice:
    window: WindowKey
    kind: Literal["loss", "gain", "worst"]
    reason: str


def _choices(cell: Cell, subject: str, rival: str | None, metric: MetricInfo) -> list[_Choice]:
    sign = 1 if metric.higher_is_better else -1
    means = {window: mean_of(cell.systems[subject][window]) for window in cell.common_windows()}
    goodness = {window: sign * value for window, value in means.items() if value is not None}
    found: list[_Choice] = []
    if rival is not None:
        others = {window: mean_of(cell.systems[rival][window]) for window in goodness}
        gains = {window: goodness[window] - sign * other for window, other in others.items() if other is not None}
        for window in [min(gains, key=gains.__getitem__)] if gains else []:
            found.append(_Choice(window, "loss", _loss_words(subject, rival, gains[window], metric)))
        for window in [max(gains, key=gains.__getitem__)] if len(gains) > 1 else []:
            found.append(_Choice(window, "gain", _gain_words(subject, rival, gains[window], metric)))
    if goodness:
        window = min(goodness, key=goodness.__getitem__)
        value = _with_unit(number(means[window], metric.decimals), metric)
        found.append(_Choice(window, "worst", f"{subject} has its worst {metric.title}: {value}"))
    return found


def _loss_words(subject: str, rival: str, gain: float, metric: MetricInfo) -> str:
    size = _with_unit(number(abs(gain), metric.decimals), metric)
    if gain < 0:
        return f"{subject} loses most against {rival}: by {size} {metric.title}"
    return f"{subject} gains least over {rival} (it loses nowhere): {size} {metric.title}"


def _gain_words(subject: str, rival: str, gain: float, metric: MetricInfo) -> str:
    size = _with_unit(number(abs(gain), metric.decimals), metric)
    if gain > 0:
        return f"{subject} gains most over {rival}: {size} {metric.title}"
    return f"{subject} loses least against {rival} (it gains nowhere): by {size} {metric.title}"


def _with_unit(value: str, metric: MetricInfo) -> str:
    return f"{value} {metric.unit}" if metric.unit else value


def _telling_place(cell: Cell, subject: str, rival: str | None, metric: MetricInfo, choice: _Choice) -> int:
    """The inserted frame in which what the window was chosen for shows most."""
    sign = 1 if metric.higher_is_better else -1
    values = cell.systems[subject][choice.window]
    others = (
        cell.systems[rival][choice.window] if rival is not None and choice.kind != "worst" else (0.0,) * len(values)
    )
    gains = {
        place: sign * (own - other)
        for place, (own, other) in enumerate(zip(values, others, strict=False))
        if own is not None and other is not None
    }
    best = max if choice.kind == "gain" else min
    return best(gains, key=gains.__getitem__, default=0)


class _Budget:
    """Gives pictures as long as all together are not too large."""

    def __init__(self, source: PictureSource | None, most: int) -> None:
        self.source, self.left = source, most

    def spend(self, figure: Callable[[WindowPictures], Html], record: WindowRecord) -> Html | None:
        """What is made of a window's pictures; None where there is no source, or it would be too much."""
        if self.source is None or self.left <= 0:
            return None
        made = figure(self.source.window(record))
        if len(made) > self.left:
            self.left = 0
            return None
        self.left -= len(made)
        return made


def _introduction(context: ReportContext) -> Html:
    metric, truth = context.headline[0], context.truths(context.skips[0])[0]
    bar = error_colours()[None].repeat(12, axis=0)
    scale = element("img", src=data_uri(bar), alt="colours from black over red to light yellow", class_="bar")
    words = (
        f"Chosen by {metric.title} over the whole frame, {TRUTH_TITLES.get(truth, truth).lower()}, "
        "mean of the window. The inserted frame shown is the one where the reason is most visible. The baseline is the one "
        "with the best average. Pictures are compressed and at most 448 px large; nothing is measured on them. Ground truth "
        "is shown as recorded. Details: where the error of all systems together is "
        "largest. Events: red brighter, blue darker. "
    )
    legend = element(
        "span", "Errors: mean absolute difference of the channels, 0 ", scale, f" {ERROR_TOP} of 255 or more."
    )
    return element("p", words, legend, class_="note")


def _window_figure(context: ReportContext, pick: Pick, budget: _Budget) -> Html:
    record = pick.record
    length = (record.times_us[-1] - record.times_us[0]) / 1e3
    where = f"frames {record.start_frame} to {record.end_frame}, {length:.1f} ms"
    heading = element("h4", record.sequence, element("span", f" window {record.index} · {where}", class_="what"))
    pictures = budget.spend(lambda found: _pictures(context, pick, found), record)
    if pictures is None and budget.source is not None:
        pictures = element("p", "Its pictures are left out to limit the size of the report.", class_="note")
    return element(
        "article",
        heading,
        element("p", f"Chosen because {pick.reason}."),
        _values_table(context, pick),
        pictures,
        class_="window",
    )


def _values_table(context: ReportContext, pick: Pick) -> Html:
    """The headline metrics of this window, all systems."""
    skip, truth = pick.cell.skip, pick.cell.truth
    window = (pick.record.sequence, pick.record.index)
    cells = [context.cells.get((skip, truth, metric.name, ALL)) for metric in context.headline]
    rows = []
    for name in pick.cell.systems:
        shown = [
            number(mean_of(cell.systems[name][window]), metric.decimals)
            if cell is not None and window in cell.systems.get(name, {})
            else "–"
            for cell, metric in zip(cells, context.headline, strict=True)
        ]
        at_place = pick.cell.systems[name][window][pick.place]
        values = [*shown, number(at_place, context.headline[0].decimals)]
        row = [element("td", value, class_="value") for value in values]
        rows.append(element("tr", element("th", system_label(context, name), scope="row"), *row))
    titles = [metric.title for metric in context.headline]
    head = ["Mean of the window", *titles, f"{titles[0]} of inserted frame {pick.place + 1}"]
    return table(head, [rows], None, "compact")


def _pictures(context: ReportContext, pick: Pick, pictures: WindowPictures) -> Html:
    at = pick.place + 1
    truth = pictures.truth[at]
    names = [name for name in _shown_systems(context, pick) if name in pictures.frames]
    box = telling_box([pictures.frames[name][at] for name in names], truth)
    inputs = [
        picture_figure(pictures.truth[0], "Start key frame"),
        picture_figure(pictures.events, "Events") if pictures.events is not None else None,
        picture_figure(with_box(truth, box), f"Ground truth, inserted frame {at} (box: detail)"),
        picture_figure(pictures.truth[-1], "End key frame"),
    ]
    made = [_made_frame(context, pick, name, pictures.frames[name][at], truth) for name in names]
    details = [picture_figure(cut_out(truth, box), "Ground truth, detail")]
    details += [picture_figure(cut_out(pictures.frames[name][at], box), f"{name}, detail") for name in names]
    return joined(
        [
            element("div", *inputs, class_="pictures"),
            element("div", *made, class_="pictures"),
            element("div", *details, class_="pictures enlarged"),
            _slices(pictures, names),
        ]
    )


def _shown_systems(context: ReportContext, pick: Pick) -> Sequence[str]:
    """The subject first, then its rival, then the others as far as there is room."""
    subject = context.subject.name if context.subject else ""
    first = [name for name in (subject, pick.rival) if name in pick.cell.systems]
    others = [name for name in pick.cell.systems if name not in first]
    return [name for name in [*first, *others] if name is not None][:_MOST_SYSTEMS]


def _made_frame(
    context: ReportContext, pick: Pick, name: str, frame: NDArray[np.uint8],
    truth: NDArray[np.uint8],
) -> Html:  # fmt: skip
    metric = context.headline[0]
    value = pick.cell.systems[name][pick.record.sequence, pick.record.index][pick.place]
    shown = f" · {_with_unit(number(value, metric.decimals), metric)}"
    return element(
        "figure",
        picture_element(frame, f"frame interpolated by {name}"),
        picture_element(error_map(frame, truth), f"error map of {name}"),
        element("figcaption", system_label(context, name), shown),
    )


def _slices(pictures: WindowPictures, names: Sequence[str]) -> Html | None:
    if len(pictures.truth) < _FEWEST_SLICE_FRAMES:
        return None
    row = busiest_row(itertools.pairwise(pictures.truth))
    shown = [picture_figure(slice_through_time(pictures.truth, row), "Truth")]
    shown += [picture_figure(slice_through_time(pictures.frames[name], row), name) for name in names]
    words = (
        f"Row {row} of the pictures (the one with most change, counted from 0 at the top) over the window's "
        f"{len(pictures.truth)} frames: time runs downwards; the first and last stripes are the key frames."
    )
    return joined([element("p", words, class_="note"), element("div", *shown, class_="pictures enlarged")])
