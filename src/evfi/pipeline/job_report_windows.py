"""Windows in a job's report: what is unusual, by kind, and one line for each window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from evfi.pipeline.job_facts import Treatment, WindowFacts
from evfi.report.markup import Html, counted, element, joined, number
from evfi.report.parts import table

MOST_ROWS: Final = 500
"""So many windows are listed in full; of more, those with findings and an even selection of the others."""

MOST_FOUND_ROWS: Final = 4000
"""Of more windows with findings, an even selection."""

_MOST_NAMED: Final = 6
_TREATMENTS: Final[dict[Treatment, str]] = {
    "interpolate": "by the model",
    "hold": "key frame held",
    "blend": "key frames blended",
    "key": "key frames only",
}
_MEANINGS: Final = {
    "gap": "Key frames lie far apart, or events stop in between: part of the motion was not recorded.",
    "cut": "The two key frames show different scenes; no motion leads from one to the other.",
    "exposure": "The whole picture becomes brighter or darker from one key frame to the next.",
    "no-events": "Something changed between the key frames, but there are hardly any events to show how.",
    "few-events": "Nothing moves and there are hardly any events; blending the key frames is correct.",
}
_Item = TypeVar("_Item")


def finding_titles(windows: Sequence[WindowFacts]) -> dict[str, str]:
    """The kinds of findings, most frequent first, as they are called in the report."""
    counts = Counter(window.finding for window in windows if window.finding)
    return {kind: " ".join(kind.replace("_", " ").replace("-", " ").split()) for kind, _ in counts.most_common()}


def findings_table(windows: Sequence[WindowFacts]) -> Html:
    """One line for each kind of finding; nothing where there are none."""
    titles = finding_titles(windows)
    if not titles:
        return Html("")
    rows = []
    for kind, title in titles.items():
        found = [window for window in windows if window.finding == kind]
        example = next((window.notes for window in found if window.notes), ())
        meaning = [_MEANINGS[kind]] if kind in _MEANINGS else example
        rows.append(
            element(
                "tr",
                element("th", title, scope="row"),
                element("td", len(found), class_="value"),
                element("td", _listed(found, windows[0].start_us), class_="words"),
                element("td", _treatments(found), class_="words"),
                element("td", *_notes(meaning), class_="words"),
            )
        )
    head = ("Finding", "Windows", "Which", "Their frames", "What it means")
    return table(head, [rows], None, "compact")


def windows_table(windows: Sequence[WindowFacts]) -> Html:
    """One line for each window that is listed, and a word on those that are not."""
    shown = listed_windows(windows)
    words = f"All {len(windows)} windows." if len(windows) > 1 else "The only window."
    if len(shown) < len(windows):
        found = sum(bool(window.finding) for window in windows)
        listed = sum(bool(window.finding) for window in shown)
        which = f"all {found}" if listed == found else f"{listed} of {found}"
        words = (
            f"{len(shown)} of {len(windows)} windows are listed: {which} with a finding, "
            f"and {len(shown) - listed} of the others, sampled evenly."
        )
    origin = windows[0].start_us
    rows = [_window_row(window, origin) for window in shown]
    head = ("Window", "Start, s", "Length, ms", "Interpolated frames", "Events", "Left out", "Treatment", "Finding",
            "Work, s", "Device")  # fmt: skip
    return joined([element("p", words, class_="note"), table(head, [rows], None, "sortable compact")])


def listed_windows(windows: Sequence[WindowFacts]) -> list[WindowFacts]:
    """Those that get a line of their own, in order."""
    if len(windows) <= MOST_ROWS:
        return list(windows)
    found = _thinned([window for window in windows if window.finding], MOST_FOUND_ROWS)
    others = _thinned([window for window in windows if not window.finding], max(MOST_ROWS - len(found), 0))
    return sorted([*found, *others], key=lambda window: (window.start_us, window.index))


def _window_row(window: WindowFacts, origin_us: int) -> Html:
    begins, lasts = (window.start_us - origin_us) / 1e6, (window.end_us - window.start_us) / 1e3
    notes = [*window.notes, *([f"started {window.attempts} times"] if window.attempts > 1 else [])]
    title = finding_titles([window]).get(window.finding, "")
    return element(
        "tr",
        element("th", window.index, scope="row", data_value=window.index),
        _value(begins, 3),
        _value(lasts, 1),
        _value(window.num_inserted, 0),
        _value(window.num_events, 0),
        _value(window.num_dropped, 0),
        element("td", _TREATMENTS.get(window.treatment, window.treatment), class_="value"),
        element("td", element("b", title) if title else "", *_notes(notes), class_="words"),
        _value(window.seconds, 2),
        element("td", window.device, class_="value"),
    )


def _value(value: float, decimals: int) -> Html:
    return element("td", number(value, decimals), class_="value", data_value=f"{value:.{decimals}f}")


def _notes(notes: Iterable[str]) -> list[Html]:
    return [element("span", note, class_="remark") for note in notes]


def _treatments(windows: Sequence[WindowFacts]) -> str:
    counts = Counter(window.treatment for window in windows)
    if len(counts) == 1:
        return _TREATMENTS.get(windows[0].treatment, windows[0].treatment)
    return ", ".join(f"{count} {_TREATMENTS.get(kind, kind)}" for kind, count in counts.most_common())


def _listed(windows: Sequence[WindowFacts], origin_us: int) -> str:
    """The first few, with the time at which they begin."""
    named = [f"{window.index} (at {(window.start_us - origin_us) / 1e6:.2f} s)" for window in windows[:_MOST_NAMED]]
    rest = len(windows) - len(named)
    return ", ".join(named) + (f" and {counted(rest, 'other')}" if rest else "")


def _thinned(items: Sequence[_Item], most: int) -> list[_Item]:
    count = min(len(items), most)
    return [items[index * len(items) // count] for index in range(count)]
