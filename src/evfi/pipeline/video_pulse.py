"""Detect pulsing at key frames: sharpness and brightness of moving parts in key frames and in interpolated frames.

Gathered frame by frame, in memory that does not depend on the number of frames. A *span* reaches from a key frame of the
video to the next. When it ends, its two key frames are compared with the mean of all interpolated frames between them, over
the same pixels: those that something moved through. What moves evenly covers and uncovers as much before the middle as after
it, so the mean of the two key frames is what the mean of perfect frames would be.

- *Sharpness* is the root of the mean square of a Laplacian of luma, that is, mostly of detail with a period of 2 to 8 px: what
  an autoencoder or a mixture of two pictures loses first.
- *Noise* of key frames looks like sharpness. What key frames have more of it in flat places where nothing moves is taken off.
- *Moving* are blocks of 8x8 px that differ between the two key frames, or among the interpolated frames. A key frame is not
  compared with an interpolated frame for this, or still parts that pulse would count. Brightness is that of these blocks and
  of those around them, so that little enters or leaves.
- Of large frames every second, third, ... row of blocks is looked at, so that cost does not grow with their size.

On real frames of the three shared camera recordings, every second or fourth taken as a key frame, the median loss of
sharpness is at most 0.01 where there are 14 spans or more, and 19 of 20 spans are below 0.05. A pendulum, in three spans,
reaches 0.1: probably its own motion blur changes as it turns round.

What this cannot tell: whether detail is right or in the right place, only how much there is of it. Where hardly anything
stands still, noise is not known and counts as sharpness; so it is where noise of more than some 9 levels of standard deviation
looks like motion everywhere. Where it is known, it is taken off the key frames only as far as it
exceeds that of interpolated frames, so noise that both have makes a loss look smaller than it is, and so does noise that
grows in dark or bright parts unlike the flat ones. Things that appear or vanish between two key frames may count either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.video.geometry import LUMA, Frame

MOVING_LEVELS: Final = 8.0
"""A block of pixels moves if its pixels differ by more than this on average, of 255."""

STILL_LEVELS: Final = 5.0
"""A block stands still if they differ by less than this and no neighbouring block moves."""

BLOCK_PX: Final = 8
FEWEST_MOVING: Final = 0.005
"""A span is counted only if at least this share of its blocks moves, and `_FEWEST_BLOCKS`."""

_FEWEST_BLOCKS: Final = 6
_FEWEST_FLAT_BLOCKS: Final = 12
_MOST_PIXELS: Final = 460_000
_LEAST_SHARPNESS: Final = 1.0
"""Moving parts with less detail than this, in levels, have none that could be lost."""

_BINS: Final = 2000
_LARGEST_LOSS: Final = 1.0
_LARGEST_JUMP: Final = 50.0

Map = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Spread:
    """A signed quantity over all spans.

    Attributes:
        median: its median.
        middle: the 5th and the 95th percentile.
    """

    median: float
    middle: tuple[float, float]


@dataclass(frozen=True)
class MovingParts:
    """How moving parts of key frames differ from those of the interpolated frames between them.

    Attributes:
        num_spans: spans counted.
        num_still: spans not counted, because too little moved or it has no detail.
        num_unknown_noise: counted spans of which noise is not known, as too little stood still.
        sharpness_loss: how much less sharp interpolated frames are, as a share of the key frames' sharpness, from -1 to 1;
            negative where they are sharper. None without spans.
        brightness: how much brighter key frames are, in grey levels of 255. None without spans.
        worst_us: time of the key frame that begins the span with the largest loss of sharpness; None without spans.
        worst_loss: this loss.
    """

    num_spans: int
    num_still: int
    num_unknown_noise: int
    sharpness_loss: Spread | None
    brightness: Spread | None
    worst_us: int | None
    worst_loss: float


@dataclass(frozen=True, eq=False)
class _Maps:
    """What is looked at of a frame: R rows of C blocks.

    Attributes:
        luma: mean of every 2x2 px, float32 [R, 4, 4 C].
        energy: mean square of the Laplacian in each block, float32 [R, C].
        brightness: mean of luma in each block, float32 [R, C].
    """

    luma: Map
    energy: Map
    brightness: Map


class MovingPartsGatherer:
    """Takes every frame of a video, in order."""

    def __init__(self) -> None:
        """Begin without frames."""
        self._key: tuple[_Maps, int] | None = None
        self._made = _Made()
        self._losses = _Histogram(_LARGEST_LOSS)
        self._jumps = _Histogram(_LARGEST_JUMP)
        self._num_still = self._num_unknown_noise = 0
        self._worst: tuple[float, int] | None = None

    def add(self, frame: Frame, time_us: int, is_key: bool) -> None:
        """Take the next frame, uint8 [H, W, 3]."""
        if min(frame.shape[:2]) < BLOCK_PX + 2 or (self._key is None and not is_key):
            return
        maps = _maps_of(frame)
        if not is_key:
            self._made.add(maps)
            return
        if self._key is not None and self._made.number:
            self._judge(*self._key, maps)
        self._key, self._made = (maps, time_us), _Made()

    def finish(self) -> MovingParts:
        """What there is to say, after the last frame."""
        loss, time_us = self._worst if self._worst is not None else (0.0, None)
        return MovingParts(
            num_spans=self._losses.number,
            num_still=self._num_still,
            num_unknown_noise=self._num_unknown_noise,
            sharpness_loss=self._losses.finish(),
            brightness=self._jumps.finish(),
            worst_us=time_us,
            worst_loss=loss,
        )

    def _judge(self, start: _Maps, start_us: int, end: _Maps) -> None:
        """Compare the interpolated frames of a span with its key frames."""
        made_energy, made_brightness = self._made.energy / self._made.number, self._made.brightness / self._made.number
        key_energy, key_brightness = (start.energy + end.energy) / 2, (start.brightness + end.brightness) / 2
        range_of_luma = np.maximum(np.abs(start.luma - end.luma), self._made.highest - self._made.lowest)
        change = _in_blocks(range_of_luma, BLOCK_PX // 2)
        moving = change > MOVING_LEVELS
        around = _widened(moving)
        flat = _flat(key_brightness, ~around & (change < STILL_LEVELS))
        is_noise_known = int(flat.sum()) >= _FEWEST_FLAT_BLOCKS
        if moving.sum() < max(_FEWEST_BLOCKS, FEWEST_MOVING * moving.size):
            self._num_still += 1
            return
        noise = _mean(key_energy - made_energy, flat) if is_noise_known else 0.0
        sharpness = max(0.0, _mean(key_energy, moving) - noise) ** 0.5
        if sharpness < _LEAST_SHARPNESS:
            self._num_still += 1
            return
        self._num_unknown_noise += not is_noise_known
        loss = 1 - _mean(made_energy, moving) ** 0.5 / sharpness
        self._losses.add(loss)
        self._jumps.add(_mean(key_brightness - made_brightness, around))
        if self._worst is None or loss > self._worst[0]:
            self._worst = loss, start_us


class _Made:
    """The interpolated frames of a span, all together."""

    def __init__(self) -> None:
        self.number = 0
        self.lowest: Map = np.zeros(0, np.float32)
        self.highest = self.energy = self.brightness = self.lowest

    def add(self, maps: _Maps) -> None:
        if self.number == 0:
            self.lowest, self.highest = maps.luma.copy(), maps.luma.copy()
            self.energy, self.brightness = maps.energy.astype(np.float64), maps.brightness.astype(np.float64)
        else:
            np.minimum(self.lowest, maps.luma, out=self.lowest)
            np.maximum(self.highest, maps.luma, out=self.highest)
            self.energy += maps.energy
            self.brightness += maps.brightness
        self.number += 1


class _Histogram:
    """A signed quantity of which only a histogram is kept, so that memory does not grow."""

    def __init__(self, largest: float) -> None:
        self.number = 0
        self._largest = largest
        self._counts = np.zeros(2 * _BINS + 1, np.int64)

    def add(self, value: float) -> None:
        share = min(max(value / self._largest, -1.0), 1.0)
        self._counts[_BINS + round(share * _BINS)] += 1
        self.number += 1

    def finish(self) -> Spread | None:
        if self.number == 0:
            return None
        below = np.cumsum(self._counts)
        low, median, high = (
            (int(np.searchsorted(below, share * self.number)) - _BINS) / _BINS * self._largest
            for share in (0.05, 0.5, 0.95)
        )
        return Spread(median, (low, high))


def _maps_of(frame: Frame) -> _Maps:
    height, width = frame.shape[:2]
    every = max(1, round(height * width / _MOST_PIXELS)) * BLOCK_PX
    tops = np.arange(0, height - BLOCK_PX - 1, every)
    num_columns = (width - 2) // BLOCK_PX * BLOCK_PX
    rows = frame[tops[:, None] + np.arange(BLOCK_PX + 2), : num_columns + 2]  # a margin of 1 px for the Laplacian
    luma = rows.astype(np.float32) @ np.array(LUMA, np.float32)  # [R, 10, 8 C + 2]
    inner = np.ascontiguousarray(luma[:, 1:-1, 1:-1])
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    laplacian += luma[:, 1:-1, :-2]
    laplacian += luma[:, 1:-1, 2:]
    laplacian -= 4 * inner
    laplacian *= laplacian
    tall = inner[:, 0::2] + inner[:, 1::2]
    half = (tall[..., 0::2] + tall[..., 1::2]) / 4
    return _Maps(half, _in_blocks(laplacian, BLOCK_PX), _in_blocks(half, BLOCK_PX // 2))


def _in_blocks(values: Map, size: int) -> Map:
    """The mean of each block, [R, size, size C] -> [R, C]."""
    blocks: Map = values.mean(axis=1).reshape(len(values), -1, size).mean(axis=2)
    return blocks


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and the blocks around it."""
    padded = np.pad(mask, 1)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    return tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:]


def _flat(brightness: Map, still: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The half of the still blocks beside which brightness changes least: there, detail is noise.

    Detail itself may not choose them: blocks that have little of it by chance would have less noise than others.
    """
    slope: Map = np.zeros_like(brightness)
    across, down = np.abs(np.diff(brightness, axis=1)), np.abs(np.diff(brightness, axis=0))
    for part, step in ((slope[:, 1:], across), (slope[:, :-1], across), (slope[1:], down), (slope[:-1], down)):
        np.maximum(part, step, out=part)
    return still & (slope <= np.median(slope[still])) if still.any() else still


def _mean(values: Map, mask: NDArray[np.bool_]) -> float:
    return float(values[mask].mean(dtype=np.float64))
