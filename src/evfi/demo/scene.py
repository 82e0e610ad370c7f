"""The demo's scene: a pinwheel and two balls in front of hills at sunset, rendered procedurally at any time.

Conventions: coordinates in units of the picture's height, x to the right, y down; time in seconds from 0. Pictures are
rendered in linear light with 2×2 samples per pixel, so that sub-frames blend as light does and edges are smooth.
Everything is a function of time alone; two renderings are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
"""Linear light in [0, 1], float32 [..., 3]."""

_SAMPLES: Final = 2
_BALL_COLOURS: Final = ("#e4572e", "#f7f3e3", "#17bebb", "#f7f3e3", "#ffc914", "#f7f3e3")
_SMALL_BALL_COLOURS: Final = ("#76b041", "#1d3557", "#76b041", "#f1faee")
_PINWHEEL_COLOURS: Final = ("#ef476f", "#ffd166", "#06d6a0", "#118ab2", "#9b5de5", "#f15bb5")


@dataclass(frozen=True)
class Scene:
    """The scene at one size.

    Attributes:
        width: Of the picture in px.
        height: Of the picture in px.
    """

    width: int
    height: int
    _x: Pixels = field(init=False, repr=False)
    _y: Pixels = field(init=False, repr=False)
    _background: Pixels = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows, columns = _SAMPLES * self.height, _SAMPLES * self.width
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        object.__setattr__(self, "_x", (x + 0.5) / rows)
        object.__setattr__(self, "_y", (y + 0.5) / rows)
        background = _paint_background(self._x, self._y)
        _paint_pole(background, self._x, self._y, self._pinwheel)
        object.__setattr__(self, "_background", background)

    @property
    def _pinwheel(self) -> tuple[float, float]:
        return 0.30 * self.width / self.height, 0.48

    def render(self, time_s: float) -> Pixels:
        """The scene at one time, float32 [height, width, 3], linear light.

        Args:
            time_s: Seconds from the beginning.
        """
        canvas = self._background.copy()
        aspect = self.width / self.height
        self._paint_disc(canvas, self._pinwheel, 0.27, -2.2 - 7.5 * time_s, _PINWHEEL_COLOURS, petals=6)
        arc = time_s / 0.24 - 0.2  # 0: the top of the ball's flight
        self._paint_disc(canvas, ((0.62 + 0.52 * arc) * aspect, 0.27 + 1.35 * arc**2), 0.115, 9 * time_s, _BALL_COLOURS)
        angle = 12 * time_s + 0.6
        orbit = (0.76 * aspect + 0.17 * np.cos(angle), 0.71 + 0.13 * np.sin(angle))
        self._paint_disc(canvas, (float(orbit[0]), float(orbit[1])), 0.07, -12 * time_s, _SMALL_BALL_COLOURS)
        shape = (self.height, _SAMPLES, self.width, _SAMPLES, 3)
        rendered: Pixels = canvas.reshape(shape).mean(axis=(1, 3))
        return rendered

    def _paint_disc(
        self,
        canvas: Pixels,
        centre: tuple[float, float],
        radius: float,
        turned: float,
        colours: tuple[str, ...],
        petals: int = 0,
    ) -> None:
        """Paint a ball (or, with petals, a flat pinwheel) into the canvas, touching only its bounding box."""
        rows = len(canvas)
        left, top = (max(int((at - radius) * rows), 0) for at in centre)
        right, bottom = (int((at + radius) * rows) + 2 for at in centre)
        box = (slice(top, bottom), slice(left, right))
        x, y = (self._x[box] - centre[0]) / radius, (self._y[box] - centre[1]) / radius
        if not x.size:
            return
        distance, angle = np.hypot(x, y), np.arctan2(y, x) - turned
        colour = _sectors(angle + (0.9 * distance if petals else 0.0), colours)
        edge = np.abs(np.cos(angle * petals / 2 + 0.9)) * 0.22 + 0.78 if petals else np.ones_like(distance)
        if petals:
            colour = colour * (0.72 + 0.28 * np.cos(distance * 26))[..., None]
            colour[distance < 0.13] = _linear("#3d2c2e")
        else:
            colour = _shaded(colour, x, y, distance)
        inside = np.clip((edge - distance) * radius * rows + 0.5, 0, 1)[..., None]
        canvas[box] = canvas[box] * (1 - inside) + colour * inside


def to_srgb(linear: Pixels) -> NDArray[np.uint8]:
    """Linear light in [0, 1] as 8-bit sRGB (IEC 61966-2-1)."""
    light = np.clip(linear, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    levels: NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return levels


def _linear(colour: str) -> Pixels:
    """A colour written as #rrggbb, in linear light [3]."""
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32) / 255
    light: Pixels = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return light


def _sectors(angle: Pixels, colours: tuple[str, ...]) -> Pixels:
    palette = np.stack([_linear(colour) for colour in colours])
    painted: Pixels = palette[np.floor(angle / (2 * np.pi) * len(colours)).astype(int) % len(colours)]
    return painted


def _shaded(colour: Pixels, x: Pixels, y: Pixels, distance: Pixels) -> Pixels:
    """Light from the upper left on a sphere of radius 1."""
    z = np.sqrt(np.clip(1 - distance**2, 0, 1))
    light = np.clip(-0.45 * x - 0.55 * y + 0.7 * z, 0, 1)
    lit = colour * (0.3 + 0.75 * light)[..., None] + 0.5 * (light**24)[..., None]
    return lit.astype(np.float32)


def _paint_background(x: Pixels, y: Pixels) -> Pixels:
    """Sky, sun, three ranges of hills and a meadow."""
    height = np.clip(y / 0.62, 0, 1)[..., None]
    sky = _linear("#274c77") * (1 - height) + _linear("#ffb385") * height
    sun = np.hypot(x - 0.98, y - 0.43)
    sky = sky + _linear("#ffd9a0") * (0.55 * np.exp(-((sun / 0.16) ** 2)))[..., None]
    picture = sky * (0.92 + 0.16 * _noise(x * 3, y * 9, 1))[..., None]
    ranges = (("#7a6c9c", 0.52, 0.07, 2.1), ("#4b4a7a", 0.62, 0.06, 3.7), ("#2b5d54", 0.74, 0.05, 5.3))
    for number, (colour, level, swing, waves) in enumerate(ranges):
        ridge = level + swing * (np.sin(waves * x + number) * 0.6 + 1.2 * (_noise(x * 4, 0 * x + number, 2) - 0.5))
        texture = 0.55 + 0.9 * _noise(x * 22, y * 22, 3 + number)
        cover = np.clip((y - ridge) * len(y) / 2 + 0.5, 0, 1)[..., None]
        picture = picture * (1 - cover) + _linear(colour) * texture[..., None] * cover
    blades = 0.45 + 1.1 * _noise(x * 60, y * 24, 7)
    meadow = np.clip((y - 0.86 - 0.02 * np.sin(5 * x)) * len(y) / 2, 0, 1)[..., None]
    painted: Pixels = picture * (1 - meadow) + _linear("#6a994e") * blades[..., None] * meadow
    return painted.astype(np.float32)


def _paint_pole(picture: Pixels, x: Pixels, y: Pixels, top: tuple[float, float]) -> None:
    """Paint the stick of the pinwheel down to the meadow."""
    across = (x - top[0]) / 0.013
    inside = np.clip((1 - np.abs(across)) * 0.013 * len(x) + 0.5, 0, 1) * (y > top[1]) * (y < 0.93)
    round_wood = _linear("#a47148") * np.clip(1.0 - 0.55 * np.abs(across + 0.3), 0, 1)[..., None]
    picture += (round_wood - picture) * inside[..., None]


def _noise(x: Pixels, y: Pixels, seed: int) -> Pixels:
    """Smooth value noise of two octaves, in [0, 1]; one lattice cell per unit."""
    total = np.zeros_like(x)
    for octave, weight in enumerate((0.65, 0.35)):
        u, v = x * 2**octave, y * 2**octave
        column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
        s, t = (3 * f**2 - 2 * f**3 for f in (u - column, v - row))
        corners = [[_lattice(column + i, row + j, seed + 31 * octave) for i in (0, 1)] for j in (0, 1)]
        upper, lower = (low * (1 - s) + high * s for low, high in corners)
        total += weight * (upper * (1 - t) + lower * t)
    return total.astype(np.float32)


def _lattice(column: NDArray[np.int64], row: NDArray[np.int64], seed: int) -> Pixels:
    """A number in [0, 1) per lattice point, by hashing its coordinates."""
    mixed = (column * 374_761_393 + row * 668_265_263 + seed * 2_246_822_519) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 13)) * 1_274_126_177) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFF).astype(np.float32) / np.float32(65536)
