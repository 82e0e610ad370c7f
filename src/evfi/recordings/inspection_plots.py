"""Plots of an inspection, drawn with Pillow: the rate of events over time, and how well time offsets fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from evfi.recordings.inspection_facts import AlignmentFacts, Gap, RateOverTime
from evfi.recordings.recording import Times

PAPER: Final = (250, 250, 248)
INK: Final = (34, 34, 40)
FAINT_INK: Final = (110, 110, 120)
_GRID: Final = (226, 226, 224)
_CURVE: Final = (52, 73, 94)
_AREA: Final = (199, 209, 220)
_WINDOW: Final = (246, 222, 170)
WINDOW_INK: Final = (150, 96, 0)
_GAP: Final = (245, 183, 177)
_FRAME_MARK: Final = (60, 140, 90)
_SCALE: Final = 2  # drawn larger, then shrunk: smooth lines
_MAX_FRAME_MARKS: Final = 400


def text_size(height: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The built-in font at a height in px."""
    return ImageFont.load_default(height)


def draw_rate(
    size: tuple[int, int],
    rate: RateOverTime,
    span_us: tuple[int, int],
    last_us: int,
    frame_times_us: Times | None,
    windows_us: Sequence[tuple[int, int]],
    gaps: Sequence[Gap],
) -> Image.Image:
    """Events per second over time; below, a mark for each frame; shaded, the windows that are shown, and gaps.

    Args:
        size: (width, height) of the picture.
        rate: what to plot.
        span_us: first and last time of the axis, which counts from the first.
        last_us: time of the last event.
        frame_times_us: times of frames, int64 [N], or None.
        windows_us: start and end of each window shown.
        gaps: stretches without events.
    """
    origin = span_us[0]
    factor, time_name = time_unit(span_us[1] - origin)
    top = max(*rate.events_per_s, 1e-9)
    bottom_px = 40 if frame_times_us is None else 62
    plot = _Plot(size, (0.0, (span_us[1] - origin) / factor), (0.0, top), bottom_px)
    for gap in gaps:
        plot.band((gap.start_us - origin) / factor, (gap.end_us - origin) / factor, _GAP, "")
    for number, (start, end) in enumerate(windows_us, start=1):
        plot.band((start - origin) / factor, (end - origin) / factor, _WINDOW, str(number))
    edges = np.arange(len(rate.events_per_s) + 1) * rate.step_us + rate.start_us - origin
    edges[-1] = last_us - origin
    steps = np.repeat(np.array(rate.events_per_s), 2)
    plot.area(np.repeat(edges, 2)[1:-1] / factor, steps)
    if frame_times_us is not None:
        plot.marks((frame_times_us - origin) / factor)
    unit = f"events per second over time in {time_name}" + ("; green: frames" if frame_times_us is not None else "")
    plot.label(unit + ("; yellow: the windows above" if windows_us else "") + ("; red: gaps" if gaps else ""))
    return plot.finish()


def draw_offsets(size: tuple[int, int], alignment: AlignmentFacts) -> Image.Image:
    """How well frames and events agree at each time offset that was tried, with the estimate."""
    offsets, values = np.array(alignment.curve_offsets_us) / 1e3, np.array(alignment.curve_correlations)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.1)
    plot = _Plot(size, (float(offsets[0]), float(offsets[-1])), (low, high), bottom_px=40)
    plot.line(offsets, values)
    plot.point(alignment.time_offset_us / 1e3, alignment.correlation)
    plot.label(f"agreement of frames and events by time offset in ms: best at {alignment.time_offset_us / 1e3:+.1f}")
    return plot.finish()


def time_unit(span_us: int) -> tuple[float, str]:
    """The unit in which to tell times of a span: µs in one, and its name."""
    return (1e6, "s") if span_us >= 1_000_000 else (1e3, "ms")


def short_number(value: float) -> str:
    """A number for an axis: 12000 is 12k."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, values: ArrayLike) -> NDArray[np.float64]:
        share = (np.asarray(values, np.float64) - self.low) / max(self.high - self.low, 1e-12)
        return self.start + np.clip(share, 0, 1) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values, at most so many and one."""
        rough = max(self.high - self.low, 1e-12) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


class _Plot:
    """Axes with round ticks, and what is drawn into them."""

    def __init__(self, size: tuple[int, int], x: tuple[float, float], y: tuple[float, float], bottom_px: int):
        self._size = size
        self._image = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._font = text_size(13 * _SCALE)
        left, top, right, bottom = (side * _SCALE for side in (58, 34, size[0] - 14, size[1] - bottom_px))
        self._x = _Axis(*x, left, right)
        self._y = _Axis(y[0], y[1] + 0.06 * (y[1] - y[0]), bottom, top)
        self._axes()

    def _axes(self) -> None:
        left, right, bottom, top = self._x.start, self._x.end, self._y.start, self._y.end
        for value in self._y.ticks(4):
            at = float(self._y.at(value))
            self._draw.line((left, at, right, at), fill=_GRID, width=_SCALE)
            self._draw.text((left - 6 * _SCALE, at), short_number(value), FAINT_INK, self._font, anchor="rm")
        for value in self._x.ticks(8):
            at = float(self._x.at(value))
            self._draw.line((at, top, at, bottom), fill=_GRID, width=_SCALE)
            label = (at, self._size[1] * _SCALE - 20 * _SCALE)
            self._draw.text(label, f"{value:.6g}", FAINT_INK, self._font, anchor="mm")
        self._draw.line((left, bottom, right, bottom), fill=FAINT_INK, width=_SCALE)

    def band(self, start: float, end: float, colour: tuple[int, int, int], name: str) -> None:
        """Shade a stretch of x, at least two pixels wide."""
        left, right = float(self._x.at(start)), float(self._x.at(end))
        right = max(right, left + 2 * _SCALE)
        self._draw.rectangle((left, self._y.end, right, self._y.start - _SCALE), fill=colour)
        if name:
            self._draw.text(((left + right) / 2, self._y.end + 9 * _SCALE), name, WINDOW_INK, self._font, anchor="mm")

    def area(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Fill below a curve; what was drawn before shines through."""
        points = list(zip(self._x.at(x).tolist(), self._y.at(y).tolist(), strict=True))
        bottom = self._y.start - _SCALE
        mask = Image.new("L", self._image.size, 0)
        ImageDraw.Draw(mask).polygon([(points[0][0], bottom), *points, (points[-1][0], bottom)], fill=170)
        self._image.paste(Image.new("RGB", self._image.size, _AREA), mask=mask)
        self._draw.line(points, fill=_CURVE, width=round(1.5 * _SCALE), joint="curve")

    def line(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Draw a curve."""
        points = list(zip(self._x.at(x).tolist(), self._y.at(y).tolist(), strict=True))
        self._draw.line(points, fill=_CURVE, width=2 * _SCALE, joint="curve")

    def point(self, x: float, y: float) -> None:
        """A dot with a line down to the axis."""
        at, height, radius = float(self._x.at(x)), float(self._y.at(y)), 4 * _SCALE
        self._draw.line((at, height, at, self._y.start), fill=_FRAME_MARK, width=_SCALE)
        self._draw.ellipse((at - radius, height - radius, at + radius, height + radius), fill=_FRAME_MARK)

    def marks(self, x: NDArray[np.float64]) -> None:
        """A short line below the axis at each place; of very many, some."""
        shown = x if len(x) <= _MAX_FRAME_MARKS else x[:: -(-len(x) // _MAX_FRAME_MARKS)]
        for at in self._x.at(shown).tolist():
            self._draw.line(
                (at, self._y.start + 5 * _SCALE, at, self._y.start + 17 * _SCALE), fill=_FRAME_MARK, width=_SCALE
            )

    def label(self, text: str) -> None:
        """The plot's heading."""
        self._draw.text((self._x.start, 16 * _SCALE), text, INK, text_size(14 * _SCALE), anchor="lm")

    def finish(self) -> Image.Image:
        """The plot at its size."""
        return self._image.resize(self._size, Image.Resampling.LANCZOS)
