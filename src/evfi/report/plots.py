"""Elements of plots as inline SVG: axes with round ticks, lines and text. The page's style sheet sets the colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from evfi.report.markup import MINUS, Html, element, joined

WIDTH_PX: Final = 560.0
"""Width of a plot."""

CHARACTER_PX: Final = 6.4
"""Width of a character of the plots' font, about."""


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


def plot_svg(height: float, label: str, parts: Sequence[Html]) -> Html:
    """A plot of its parts, as wide as all plots are."""
    return element(
        "svg", element("title", label), *parts, viewBox=f"0 0 {WIDTH_PX:.0f} {height:.0f}", role="img", class_="plot"
    )


def draw_x_axis(axis: Axis, top: float, bottom: float, label: str) -> Html:
    """The axis of values from left to right: its grid between top and bottom, ticks and label below."""
    parts = []
    for tick in axis.ticks(6):
        at = axis.at(tick)
        parts.append(line_at(at, top, at, bottom, "grid"))
        parts.append(text_at(axis.label(tick, 6), at, bottom + 16, "middle"))
    parts.append(line_at(axis.start, bottom, axis.end, bottom, "frame"))
    parts.append(text_at(label, (axis.start + axis.end) / 2, bottom + 35, "middle", "axis-label"))
    return joined(parts)


def draw_y_axis(axis: Axis, across: Axis, label_y: float, label: str) -> Html:
    """The axis of values upwards: its grid over the width of the other axis, ticks to its left, the label above."""
    parts = [text_at(label, across.start, label_y, "start", "axis-label")]
    for tick in axis.ticks(5):
        at = axis.at(tick)
        parts.append(line_at(across.start, at, across.end, at, "grid"))
        parts.append(text_at(axis.label(tick, 5), across.start - 7, at + 4, "end"))
    parts.append(line_at(across.start, axis.start, across.end, axis.start, "frame"))
    return joined(parts)


def text_at(content: str, x: float, y: float, anchor: str, kind: str | None = None, title: str | None = None) -> Html:
    """Text; `title` is the full text, shown as a tooltip."""
    inside = [element("title", title)] if title and title != content else []
    return element("text", *inside, content, x=x, y=y, text_anchor=anchor, class_=kind)


def line_at(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def points_text(points: Iterable[tuple[float, float]]) -> str:
    """Corners, as polygons and polylines have them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
