"""Small plots as inline SVG: values in, markup out. Colours are classes (`s0` to `s7`) that the page's style sheet fills.

A system has the same number everywhere; its number gives its colour and, so that colour is never needed, its shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from evfi.evaluation.report.markup import MINUS, Html, element, joined

NUM_COLOURS: Final = 8
_WIDTH: Final = 560.0
_CHARACTER: Final = 6.4  # px, of the plots' font
_LONGEST_NAME: Final = 26
_LEGEND_ROW: Final = 20.0


@dataclass(frozen=True)
class Point:
    """A value, where it may lie, and what is said when one points at it."""

    value: float
    interval: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Series:
    """What one system has.

    Attributes:
        name: as in the legend.
        style: its number: colour and shape.
        points: one per row or place; None where there is none.
    """

    name: str
    style: int
    points: tuple[Point | None, ...]


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Pixel of a value; outside the axis, its nearer end."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values, at most so many and one."""
        step = self._step(most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def label(self, value: float, most: int) -> str:
        """A tick's value with as many decimals as its step needs."""
        decimals = max(0, -math.floor(math.log10(self._step(most)) + 1e-9))
        shown = f"{abs(value):.{decimals}f}"
        return MINUS + shown if value < 0 and float(shown) else shown

    def _step(self, most: int) -> float:
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def dot_plot(rows: Sequence[str], series: Sequence[Series], label: str) -> Html:
    """One row per name, one dot with a whisker per system in it.

    Args:
        rows: names, top to bottom.
        series: with one point per row.
        label: of the axis, with its unit.
    """
    names = [_short(row) for row in rows]
    left = 16 + _CHARACTER * max((len(name) for name in names), default=0)
    legend, top = _legend(series, left)
    each = max(24.0, 9.0 * len(series) + 8)
    bottom = top + each * len(rows)
    axis = Axis(*_span(point for one in series for point in one.points), left, _WIDTH - 14)
    parts = [legend, _x_axis(axis, top, bottom, label)]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        middle = top + each * (index + 0.5)
        parts.append(_row_name(name, row, left, middle))
        if index:
            parts.append(_line(8, middle - each / 2, _WIDTH - 14, middle - each / 2, "rule"))
        for rank, one in enumerate(series):
            y = middle + 9.0 * (rank - (len(series) - 1) / 2)
            parts.append(_dot(axis, one.points[index], y, one.style))
    return _svg(bottom + 44, label, parts)


def line_chart(series: Sequence[Series], places: Sequence[str], x_label: str, y_label: str) -> Html:
    """A line with a band per system over numbered places.

    Args:
        series: with one point per place; a point's interval is the band's.
        places: names of the places, left to right.
        x_label: of the axis of places.
        y_label: of the axis of values, with its unit.
    """
    legend, top = _legend(series, 54)
    bottom = top + 190
    y_axis = Axis(*_span(point for one in series for point in one.points), bottom, top + 22)
    x_axis = Axis(0.0, len(places) + 1.0, 54, _WIDTH - 14)
    parts = [legend, _y_axis(y_axis, x_axis, top + 12, y_label)]
    step = -(-len(places) // 12)
    for index, place in enumerate(places):
        if index % step == 0:
            parts.append(_text(place, x_axis.at(index + 1), bottom + 18, "middle"))
    parts.append(_text("start", x_axis.start, bottom + 18, "middle"))
    parts.append(_text("end", x_axis.end, bottom + 18, "end"))
    parts.append(_text(x_label, (x_axis.start + x_axis.end) / 2, bottom + 37, "middle", "axis-label"))
    for draw in (_band, _curve):
        parts += [draw(one, x_axis, y_axis) for one in series]
    return _svg(bottom + 46, f"{y_label}; {x_label}", parts)


def strip_plot(series: Sequence[Series], label: str) -> Html:
    """One row per system: every value as a faint dot, over it the quartiles as a bar and the median as a line.

    Args:
        series: with any number of points each.
        label: of the axis, with its unit.
    """
    names = [_short(one.name) for one in series]
    left = 16 + _CHARACTER * max((len(name) for name in names), default=0)
    each, top = 34.0, 8.0
    bottom = top + each * len(series)
    axis = Axis(*_span(point for one in series for point in one.points), left, _WIDTH - 14)
    parts = [_x_axis(axis, top, bottom, label)]
    for index, (one, name) in enumerate(zip(series, names, strict=True)):
        middle = top + each * (index + 0.5)
        parts.append(_row_name(name, one.name, left, middle))
        parts.append(_strip(axis, sorted(point.value for point in one.points if point), middle, one))
    return _svg(bottom + 44, label, parts)


def marker(style: int, x: float, y: float, radius: float = 4.0) -> Html:
    """The shape of a system."""
    number = style % NUM_COLOURS
    kind = (style + style // NUM_COLOURS) % 4
    if kind == 0:
        return element("circle", cx=x, cy=y, r=radius, class_=f"dot s{number}")
    corners = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0, -1.2), (1.1, 0.85), (-1.1, 0.85)),
        3: ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    }[kind]
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners)
    return element("polygon", points=points, class_=f"dot s{number}")


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of sorted values, linear between neighbours."""
    place = share * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


def _span(points: Iterable[Point | None]) -> tuple[float, float]:
    """A range that shows all values, and of intervals what is not far beyond them."""
    found = [point for point in points if point is not None]
    low = min((point.value for point in found), default=0.0)
    high = max((point.value for point in found), default=1.0)
    room = 0.6 * (high - low) or 0.05 * abs(high) or 1.0
    intervals = [point.interval for point in found if point.interval is not None]
    low_end = max(low - room, min((ends[0] for ends in intervals), default=low))
    high_end = min(high + room, max((ends[1] for ends in intervals), default=high))
    margin = 0.05 * (max(high, high_end) - min(low, low_end)) or room
    return min(low, low_end) - margin, max(high, high_end) + margin


def _svg(height: float, label: str, parts: Sequence[Html]) -> Html:
    return element(
        "svg", element("title", label), *parts, viewBox=f"0 0 {_WIDTH:.0f} {height:.0f}", role="img", class_="plot"
    )


def _legend(series: Sequence[Series], left: float) -> tuple[Html, float]:
    """The legend, and where the plot below it begins."""
    parts, x, y = [], left, 12.0
    for one in series:
        name = _short(one.name)
        width = 26 + _CHARACTER * len(name)
        if x > left and x + width > _WIDTH:
            x, y = left, y + _LEGEND_ROW
        parts += [marker(one.style, x + 5, y), _text(name, x + 15, y + 4, "start", title=one.name)]
        x += width
    return joined(parts), y + _LEGEND_ROW - 4


def _x_axis(axis: Axis, top: float, bottom: float, label: str) -> Html:
    parts = []
    for tick in axis.ticks(6):
        at = axis.at(tick)
        parts.append(_line(at, top, at, bottom, "grid"))
        parts.append(_text(axis.label(tick, 6), at, bottom + 16, "middle"))
    parts.append(_line(axis.start, bottom, axis.end, bottom, "frame"))
    parts.append(_text(label, (axis.start + axis.end) / 2, bottom + 35, "middle", "axis-label"))
    return joined(parts)


def _y_axis(axis: Axis, across: Axis, label_y: float, label: str) -> Html:
    parts = [_text(label, across.start, label_y, "start", "axis-label")]
    for tick in axis.ticks(5):
        at = axis.at(tick)
        parts.append(_line(across.start, at, across.end, at, "grid"))
        parts.append(_text(axis.label(tick, 5), across.start - 7, at + 4, "end"))
    parts.append(_line(across.start, axis.start, across.end, axis.start, "frame"))
    return joined(parts)


def _dot(axis: Axis, point: Point | None, y: float, style: int) -> Html:
    if point is None:
        return Html("")
    parts = [element("title", point.note)] if point.note else []
    if point.interval is not None:
        low, high = (axis.at(end) for end in point.interval)
        parts.append(_line(low, y, high, y, f"whisker s{style % NUM_COLOURS}"))
    return element("g", *parts, marker(style, axis.at(point.value), y))


def _band(one: Series, x_axis: Axis, y_axis: Axis) -> Html:
    ends = [(index + 1, point.interval) for index, point in enumerate(one.points) if point and point.interval]
    if len(ends) < 2:
        return Html("")
    upper = [(x_axis.at(place), y_axis.at(interval[1])) for place, interval in ends]
    lower = [(x_axis.at(place), y_axis.at(interval[0])) for place, interval in reversed(ends)]
    return element("polygon", points=_path(upper + lower), class_=f"band s{one.style % NUM_COLOURS}")


def _curve(one: Series, x_axis: Axis, y_axis: Axis) -> Html:
    places = [(x_axis.at(index + 1), y_axis.at(point.value), point) for index, point in enumerate(one.points) if point]
    line = element("polyline", points=_path([(x, y) for x, y, _ in places]), class_=f"line s{one.style % NUM_COLOURS}")
    dots = [element("g", element("title", point.note), marker(one.style, x, y, 3.2)) for x, y, point in places]
    return joined([line, *dots])


def _strip(axis: Axis, values: Sequence[float], y: float, one: Series) -> Html:
    if not values:
        return Html("")
    colour = f"s{one.style % NUM_COLOURS}"
    heights = (0.0, -5.0, 4.0, -2.5, 6.0, 1.5, -6.5, 3.0)  # neighbours in value do not hide each other
    ticks = "".join(f"M{axis.at(value):.1f} {y + heights[index % 8]:.1f}h0" for index, value in enumerate(values))
    low, middle, high = (axis.at(quantile(values, share)) for share in (0.25, 0.5, 0.75))
    note = f"{one.name}: median {quantile(values, 0.5):.4g}, quartiles {quantile(values, 0.25):.4g} and "
    return element(
        "g",
        element("title", f"{note}{quantile(values, 0.75):.4g}, {len(values)} windows"),
        element("path", d=ticks, class_=f"points {colour}"),
        element("rect", x=low, y=y - 9, width=max(1.0, high - low), height=18.0, rx=3.0, class_=f"box {colour}"),
        _line(middle, y - 11, middle, y + 11, f"median {colour}"),
    )


def _row_name(name: str, full: str, left: float, y: float) -> Html:
    return _text(name, left - 8, y + 4, "end", title=full)


def _text(content: str, x: float, y: float, anchor: str, kind: str | None = None, title: str | None = None) -> Html:
    inside = [element("title", title)] if title and title != content else []
    return element("text", *inside, content, x=x, y=y, text_anchor=anchor, class_=kind)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
