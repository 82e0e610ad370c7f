"""Small plots as inline SVG: values in, markup out. Colours are classes (`s0` to `s7`) that the page's style sheet fills.

A system has the same number everywhere; its number gives its colour and, so that colour is never needed, its shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from evfi.report.markup import Html, element, joined
from evfi.report.plots import (
    CHARACTER_PX,
    WIDTH_PX,
    Axis,
    draw_x_axis,
    draw_y_axis,
    line_at,
    plot_svg,
    points_text,
    text_at,
)

NUM_COLOURS: Final = 8
_LONGEST_NAME: Final = 26
_LEGEND_ROW: Final = 20.0


@dataclass(frozen=True)
class Point:
    """A value, its interval, and its tooltip."""

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


def dot_plot(rows: Sequence[str], series: Sequence[Series], label: str) -> Html:
    """One row per name, one dot with a whisker per system in it.

    Args:
        rows: names, top to bottom.
        series: with one point per row.
        label: of the axis, with its unit.
    """
    names = [_short(row) for row in rows]
    left = 16 + CHARACTER_PX * max((len(name) for name in names), default=0)
    legend, top = _legend(series, left)
    each = max(24.0, 9.0 * len(series) + 8)
    bottom = top + each * len(rows)
    axis = Axis(*_span(point for one in series for point in one.points), left, WIDTH_PX - 14)
    parts = [legend, draw_x_axis(axis, top, bottom, label)]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        middle = top + each * (index + 0.5)
        parts.append(_row_name(name, row, left, middle))
        if index:
            parts.append(line_at(8, middle - each / 2, WIDTH_PX - 14, middle - each / 2, "rule"))
        for rank, one in enumerate(series):
            y = middle + 9.0 * (rank - (len(series) - 1) / 2)
            parts.append(_dot(axis, one.points[index], y, one.style))
    return plot_svg(bottom + 44, label, parts)


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
    x_axis = Axis(0.0, len(places) + 1.0, 54, WIDTH_PX - 14)
    parts = [legend, draw_y_axis(y_axis, x_axis, top + 12, y_label)]
    step = -(-len(places) // 12)
    for index, place in enumerate(places):
        if index % step == 0:
            parts.append(text_at(place, x_axis.at(index + 1), bottom + 18, "middle"))
    parts.append(text_at("start", x_axis.start, bottom + 18, "middle"))
    parts.append(text_at("end", x_axis.end, bottom + 18, "end"))
    parts.append(text_at(x_label, (x_axis.start + x_axis.end) / 2, bottom + 37, "middle", "axis-label"))
    for draw in (_band, _curve):
        parts += [draw(one, x_axis, y_axis) for one in series]
    return plot_svg(bottom + 46, f"{y_label}; {x_label}", parts)


def strip_plot(series: Sequence[Series], label: str) -> Html:
    """One row per system: every value as a faint dot, over it the quartiles as a bar and the median as a line.

    Args:
        series: with any number of points each.
        label: of the axis, with its unit.
    """
    names = [_short(one.name) for one in series]
    left = 16 + CHARACTER_PX * max((len(name) for name in names), default=0)
    each, top = 34.0, 8.0
    bottom = top + each * len(series)
    axis = Axis(*_span(point for one in series for point in one.points), left, WIDTH_PX - 14)
    parts = [draw_x_axis(axis, top, bottom, label)]
    for index, (one, name) in enumerate(zip(series, names, strict=True)):
        middle = top + each * (index + 0.5)
        parts.append(_row_name(name, one.name, left, middle))
        parts.append(_strip(axis, sorted(point.value for point in one.points if point), middle, one))
    return plot_svg(bottom + 44, label, parts)


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


def _legend(series: Sequence[Series], left: float) -> tuple[Html, float]:
    """The legend, and where the plot below it begins."""
    parts, x, y = [], left, 12.0
    for one in series:
        name = _short(one.name)
        width = 26 + CHARACTER_PX * len(name)
        if x > left and x + width > WIDTH_PX:
            x, y = left, y + _LEGEND_ROW
        parts += [marker(one.style, x + 5, y), text_at(name, x + 15, y + 4, "start", title=one.name)]
        x += width
    return joined(parts), y + _LEGEND_ROW - 4


def _dot(axis: Axis, point: Point | None, y: float, style: int) -> Html:
    if point is None:
        return Html("")
    parts = [element("title", point.note)] if point.note else []
    if point.interval is not None:
        low, high = (axis.at(end) for end in point.interval)
        parts.append(line_at(low, y, high, y, f"whisker s{style % NUM_COLOURS}"))
    return element("g", *parts, marker(style, axis.at(point.value), y))


def _band(one: Series, x_axis: Axis, y_axis: Axis) -> Html:
    ends = [(index + 1, point.interval) for index, point in enumerate(one.points) if point and point.interval]
    if len(ends) < 2:
        return Html("")
    upper = [(x_axis.at(place), y_axis.at(interval[1])) for place, interval in ends]
    lower = [(x_axis.at(place), y_axis.at(interval[0])) for place, interval in reversed(ends)]
    return element("polygon", points=points_text(upper + lower), class_=f"band s{one.style % NUM_COLOURS}")


def _curve(one: Series, x_axis: Axis, y_axis: Axis) -> Html:
    places = [(x_axis.at(index + 1), y_axis.at(point.value), point) for index, point in enumerate(one.points) if point]
    line = element(
        "polyline", points=points_text([(x, y) for x, y, _ in places]), class_=f"line s{one.style % NUM_COLOURS}"
    )
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
        line_at(middle, y - 11, middle, y + 11, f"median {colour}"),
    )


def _row_name(name: str, full: str, left: float, y: float) -> Html:
    return text_at(name, left - 8, y + 4, "end", title=full)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
