"""Plots of a job's report over the recording's time: the event rate, and the time taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from evfi.pipeline.job_facts import WindowFacts
from evfi.report.markup import Html, counted, element, joined
from evfi.report.plots import CHARACTER_PX, WIDTH_PX, Axis, draw_x_axis, draw_y_axis, line_at, plot_svg, text_at

NUM_COLOURS: Final = 7
MOST_STEPS: Final = 500
"""More windows are drawn several at a time."""

_LEFT: Final = 54.0
_HEIGHT: Final = 170.0
_ROW: Final = 20.0
_THINNEST_PX: Final = 2.0


@dataclass(frozen=True)
class Group:
    """Neighbouring windows that are drawn as one step."""

    start_us: int
    end_us: int
    num_events: int
    seconds: float

    @property
    def events_per_s(self) -> float:
        """Events per second of the recording."""
        return self.num_events * 1e6 / max(self.end_us - self.start_us, 1)


def group_windows(windows: Sequence[WindowFacts]) -> tuple[list[Group], int]:
    """Windows as they are drawn, and how many windows are drawn as one."""
    size = max(1, -(-len(windows) // MOST_STEPS))
    parts = [windows[first : first + size] for first in range(0, len(windows), size)]
    groups = [
        Group(
            part[0].start_us,
            part[-1].end_us,
            sum(window.num_events for window in part),
            sum(window.seconds for window in part) / len(part),
        )
        for part in parts
    ]
    return groups, size


def rate_figure(windows: Sequence[WindowFacts], titles: dict[str, str]) -> Html:
    """Events per second over time.

    Args:
        windows: all of them, in the order of time; at least one.
        titles: of the findings, in the order of their colours.
    """
    groups, size = group_windows(windows)
    rates = [group.events_per_s for group in groups]
    factor, words = _unit(max(rates))
    note = "" if size == 1 else f" · each step is {size} windows"
    plot = _plot(windows, groups, [rate / factor for rate in rates], f"{words} per second", titles)
    return element("figure", element("figcaption", f"Events{note}"), plot)


def seconds_figure(windows: Sequence[WindowFacts], titles: dict[str, str]) -> Html:
    """Seconds of work per window over the recording's time; arguments as of `rate_figure`."""
    groups, size = group_windows(windows)
    note = "" if size == 1 else f" · each step is the mean of {size} windows"
    plot = _plot(windows, groups, [group.seconds for group in groups], "seconds of work per window", titles)
    return element("figure", element("figcaption", f"Time taken{note}"), plot)


def _plot(
    windows: Sequence[WindowFacts], groups: Sequence[Group], values: Sequence[float], label: str, titles: dict[str, str]
) -> Html:
    origin = windows[0].start_us
    legend, top = _legend(titles, windows)
    bottom = top + 22 + _HEIGHT
    across = Axis(0.0, max((windows[-1].end_us - origin) / 1e6, 1e-6), _LEFT, WIDTH_PX - 14)
    upwards = Axis(0.0, (max(values) or 1.0) * 1.06, bottom, top + 22)
    edges = [((group.start_us - origin) / 1e6, (group.end_us - origin) / 1e6) for group in groups]
    return plot_svg(
        bottom + 44,
        f"{label} over time",
        [
            legend,
            draw_x_axis(across, top + 22, bottom, "seconds since the video's first key frame"),
            draw_y_axis(upwards, across, top + 12, label),
            *_shades(windows, across, (top + 22, bottom), titles),
            _steps(edges, values, across, upwards),
        ],
    )


def _steps(edges: Sequence[tuple[float, float]], values: Sequence[float], across: Axis, upwards: Axis) -> Html:
    """A line of steps and the area below it."""
    corners: list[str] = []
    for (start, end), value in zip(edges, values, strict=True):
        height = upwards.at(value)
        corners.append(f"{across.at(start):.1f},{height:.1f} {across.at(end):.1f},{height:.1f}")
    first, last, ground = across.at(edges[0][0]), across.at(edges[-1][1]), upwards.start
    area = " ".join([f"{first:.1f},{ground:.1f}", *corners, f"{last:.1f},{ground:.1f}"])
    return joined([
        element("polygon", points=area, class_="band s0"),
        element("polyline", points=" ".join(corners), class_="line s0"),
    ])  # fmt: skip


def _shades(
    windows: Sequence[WindowFacts], across: Axis, heights: tuple[float, float], titles: dict[str, str]
) -> list[Html]:
    """A shade and a line at its foot for every stretch of windows with the same finding."""
    shades, origin = [], windows[0].start_us
    for kind, first, last in _stretches(windows):
        start, end = (across.at((at - origin) / 1e6) for at in (windows[first].start_us, windows[last].end_us))
        colour = _colour(titles, kind)
        which = f"window {windows[first].index}" + (f" to {windows[last].index}" if last > first else "")
        top, bottom = heights
        width = max(end - start, _THINNEST_PX)
        shades.append(
            element(
                "g",
                element("title", f"{titles.get(kind, kind)}: {which}"),
                element("rect", x=start, y=top, width=width, height=bottom - top, class_=f"shade {colour}"),
                line_at(start, bottom + 2, start + width, bottom + 2, f"median {colour}"),
            )
        )
    return shades


def _stretches(windows: Sequence[WindowFacts]) -> list[tuple[str, int, int]]:
    """Runs of neighbours with the same finding: its kind, the first place and the last."""
    found: list[tuple[str, int, int]] = []
    for place, window in enumerate(windows):
        if not window.finding:
            continue
        if found and found[-1][0] == window.finding and found[-1][2] == place - 1:
            found[-1] = (window.finding, found[-1][1], place)
        else:
            found.append((window.finding, place, place))
    return found


def _legend(titles: dict[str, str], windows: Sequence[WindowFacts]) -> tuple[Html, float]:
    """What the shades mean, and where the plot below begins."""
    if not titles:
        return Html(""), 0.0
    parts, x, y = [], _LEFT, 12.0
    for kind, title in titles.items():
        words = f"{title} ({counted(sum(window.finding == kind for window in windows), 'window')})"
        width = 30 + CHARACTER_PX * len(words)
        if x > _LEFT and x + width > WIDTH_PX:
            x, y = _LEFT, y + _ROW
        key = element("rect", x=x, y=y - 6, width=12, height=12, rx=2, class_=f"box shade {_colour(titles, kind)}")
        parts += [key, text_at(words, x + 18, y + 4, "start")]
        x += width
    return joined(parts), y + _ROW - 6


def _colour(titles: dict[str, str], kind: str) -> str:
    """The class of a finding's colour; the first colour is that of the curves."""
    return f"s{1 + list(titles).index(kind) % NUM_COLOURS}"


def _unit(largest: float) -> tuple[float, str]:
    """In what to count events."""
    for factor, words in ((1e6, "million events"), (1e3, "thousand events")):
        if largest >= 2 * factor:
            return factor, words
    return 1.0, "events"
