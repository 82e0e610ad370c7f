"""Statistics of a job's video for its report: a slice through time, thumbnails, and how much key frames stand out.

All of it is gathered while the video is written, frame by frame, in memory that does not grow with its length.

A *step* is how a frame differs from the mean of the frame before and the frame after, where nothing moves: pixels that are
the same in both, within `STILL_LEVELS`. Its mean with sign is a jump of brightness; its mean without sign is a difference
of texture and noise. Pixels are looked at on a fixed grid. Key frames are recorded and the frames around them are made, so
a video whose key frames have larger steps than its interpolated frames flickers at the rate of its key frames. What moves
has no steps; `video_pulse` compares that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evfi.pipeline.video_pulse import MovingParts, MovingPartsGatherer
from evfi.report.pictures import busiest_row as busiest_of_rows
from evfi.video.geometry import LUMA, Frame

STILL_LEVELS: Final = 6.0
"""A pixel is still if its brightness before and after differs by at most this, of 255."""

FEWEST_STILL: Final = 0.05
"""A frame is counted only if at least this share of its pixels is still."""

MOST_SLICE_ROWS: Final = 1200
MOST_SLICE_COLUMNS: Final = 800
NUM_THUMBNAILS: Final = 12
THUMBNAIL_WIDTH_PX: Final = 240

_GRID_PIXELS: Final = 100_000
_BINS_PER_LEVEL: Final = 100
_SMOOTHING_ROWS: Final = 9
_LUMA: Final = np.array(LUMA, np.float32)


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A small picture of a frame.

    Attributes:
        time_us: when it was, by the recording's clock.
        is_key: whether it is a key frame.
        picture: uint8 [h, w, 3], at most `THUMBNAIL_WIDTH_PX` wide.
    """

    time_us: int
    is_key: bool
    picture: Frame


@dataclass(frozen=True)
class StepSummary:
    """The steps of all frames of a kind, in grey levels of 255.

    Attributes:
        num_frames: frames counted.
        num_moving: frames not counted, because too little of them was still.
        brightness: median and 95th percentile of the size of brightness jumps; None without frames.
        texture: the same of the differences pixel by pixel.
    """

    num_frames: int
    num_moving: int
    brightness: tuple[float, float] | None
    texture: tuple[float, float] | None


@dataclass(frozen=True)
class KeyFrameSteps:
    """How much key frames stand out.

    Attributes:
        key: steps of key frames between two interpolated frames.
        made: steps of interpolated frames between two interpolated frames.
        worst_us: time of the key frame with the largest jump of brightness; None where no key frame was counted.
        worst: its jump; positive where the key frame is brighter than the frames around it.
    """

    key: StepSummary
    made: StepSummary
    worst_us: int | None
    worst: float


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """What was gathered.

    Attributes:
        num_frames: frames of the video.
        first_us: time of the first frame.
        last_us: time of the last frame.
        row: the row of pixels of which the slice is made, 0 is the top.
        xt_slice: this row of every `xt_step`-th frame, the first on top, uint8 [T', W', 3].
        xt_is_key: which of these frames are key frames, bool [T'].
        xt_step: 1 where every frame is in the slice.
        thumbnails: sampled evenly; key frames alternate with interpolated frames.
        key_frame_steps: how much key frames stand out where nothing moves.
        moving_parts: how much they stand out in what moves.
    """

    num_frames: int
    first_us: int
    last_us: int
    row: int
    xt_slice: Frame
    xt_is_key: NDArray[np.bool_]
    xt_step: int
    thumbnails: tuple[Thumbnail, ...]
    key_frame_steps: KeyFrameSteps
    moving_parts: MovingParts


class VideoStatistics:
    """Takes every frame of a video, in order, and gives its statistics at the end."""

    def __init__(self, size: tuple[int, int], num_frames: int, row: int) -> None:
        """Lay out the memory.

        Args:
            size: (width, height) of the frames in px.
            num_frames: how many frames will come.
            row: the row of pixels for the slice through time.
        """
        self._slice = _Slice(size[0], num_frames, row)
        self._thumbnails = _Thumbnails(num_frames)
        self._steps = _Steps(size)
        self._moving = MovingPartsGatherer()
        self._num_frames = 0
        self._first_us = self._last_us = 0

    def add(self, frame: Frame, time_us: int, is_key: bool) -> None:
        """Take the next frame.

        Args:
            frame: uint8 [H, W, 3].
            time_us: when it was, by the recording's clock.
            is_key: whether it is a key frame, as opposed to one that was made.
        """
        if self._num_frames == 0:
            self._first_us = time_us
        self._slice.add(frame, self._num_frames, is_key)
        self._thumbnails.add(frame, self._num_frames, time_us, is_key)
        self._steps.add(frame, time_us, is_key)
        self._moving.add(frame, time_us, is_key)
        self._last_us = time_us
        self._num_frames += 1

    def finish(self) -> VideoFacts:
        """What there is to say, after the last frame."""
        taken = slice(0, -(-self._num_frames // self._slice.step))
        return VideoFacts(
            num_frames=self._num_frames,
            first_us=self._first_us,
            last_us=self._last_us,
            row=self._slice.row,
            xt_slice=self._slice.rows[taken],
            xt_is_key=self._slice.is_key[taken],
            xt_step=self._slice.step,
            thumbnails=self._thumbnails.finish(),
            key_frame_steps=self._steps.finish(),
            moving_parts=self._moving.finish(),
        )


def busiest_row(pairs: Sequence[tuple[Frame, Frame]]) -> int:
    """The row of pixels around which most changes from key frame to key frame, for the slice through time.

    Args:
        pairs: at least one pair of key frames, uint8 [H, W, 3], all of one size.
    """
    return busiest_of_rows(pairs, smoothing_rows=_SMOOTHING_ROWS)


class _Slice:
    """One row of every so many frames.

    The step is odd: key frames often come every second, fourth or eighth frame, and shall not be all that is seen.
    """

    def __init__(self, width: int, num_frames: int, row: int) -> None:
        self.row = row
        self.step = -(-num_frames // MOST_SLICE_ROWS)
        self.step += 1 - self.step % 2
        num_columns = min(width, MOST_SLICE_COLUMNS)
        self._columns = np.arange(num_columns) * width // num_columns
        num_rows = -(-num_frames // self.step)
        self.rows = np.zeros((num_rows, num_columns, 3), np.uint8)
        self.is_key = np.zeros(num_rows, np.bool_)

    def add(self, frame: Frame, index: int, is_key: bool) -> None:
        if index % self.step == 0:
            self.rows[index // self.step] = frame[self.row, self._columns]
            self.is_key[index // self.step] = is_key


class _Thumbnails:
    """Small pictures at even places, of the kind whose turn it is where such a frame comes before the next place."""

    def __init__(self, num_frames: int) -> None:
        count = min(NUM_THUMBNAILS, num_frames)
        self._places = [index * num_frames // count for index in range(count)]
        self._found: list[Thumbnail] = []
        self._instead: Thumbnail | None = None

    def add(self, frame: Frame, index: int, time_us: int, is_key: bool) -> None:
        number = len(self._found)
        if self._instead is not None and number + 1 < len(self._places) and index >= self._places[number + 1]:
            self._take(self._instead)
            number += 1
        if number == len(self._places) or index < self._places[number]:
            return
        wants_key = number % 2 == 0
        if is_key == wants_key:
            self._take(Thumbnail(time_us, is_key, _small(frame)))
        elif self._instead is None:
            self._instead = Thumbnail(time_us, is_key, _small(frame))

    def finish(self) -> tuple[Thumbnail, ...]:
        return tuple([*self._found, self._instead] if self._instead is not None else self._found)

    def _take(self, thumbnail: Thumbnail) -> None:
        self._found.append(thumbnail)
        self._instead = None


class _Steps:
    """Steps of key frames and of interpolated frames; a frame is measured when the next one arrives."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._every = max(1, round((size[0] * size[1] / _GRID_PIXELS) ** 0.5))
        self._before: list[tuple[NDArray[np.float32], int, bool]] = []
        self._of_kind = {True: _StepsOfKind(), False: _StepsOfKind()}
        self._worst_us: int | None = None
        self._worst = 0.0

    def add(self, frame: Frame, time_us: int, is_key: bool) -> None:
        luma = frame[:: self._every, :: self._every] @ _LUMA
        self._before.append((luma, time_us, is_key))
        if len(self._before) == 3:
            self._judge()
            del self._before[0]

    def finish(self) -> KeyFrameSteps:
        return KeyFrameSteps(self._of_kind[True].finish(), self._of_kind[False].finish(), self._worst_us, self._worst)

    def _judge(self) -> None:
        (before, _, key_before), (luma, time_us, is_key), (after, _, key_after) = self._before
        if (
            key_before or key_after
        ):  # next to a key frame, an interpolated frame would show the key frame's step, halved
            return
        still = np.abs(before - after) <= STILL_LEVELS
        if still.mean() < FEWEST_STILL:
            self._of_kind[is_key].num_moving += 1
            return
        difference = (luma - (before + after) / 2)[still]
        step = float(difference.mean(dtype=np.float64))
        self._of_kind[is_key].add(abs(step), float(np.abs(difference).mean(dtype=np.float64)))
        if is_key and (self._worst_us is None or abs(step) > abs(self._worst)):
            self._worst_us, self._worst = time_us, step


class _StepsOfKind:
    """Histograms of the steps of one kind of frames."""

    def __init__(self) -> None:
        self.num_moving = 0
        self._brightness = np.zeros(255 * _BINS_PER_LEVEL + 1, np.int64)
        self._texture = np.zeros_like(self._brightness)

    def add(self, brightness: float, texture: float) -> None:
        self._brightness[min(round(brightness * _BINS_PER_LEVEL), len(self._brightness) - 1)] += 1
        self._texture[min(round(texture * _BINS_PER_LEVEL), len(self._texture) - 1)] += 1

    def finish(self) -> StepSummary:
        return StepSummary(
            num_frames=int(self._brightness.sum()),
            num_moving=self.num_moving,
            brightness=_median_and_95th(self._brightness),
            texture=_median_and_95th(self._texture),
        )


def _median_and_95th(histogram: NDArray[np.int64]) -> tuple[float, float] | None:
    """The smallest values that half, and 95 of 100, do not exceed."""
    below = np.cumsum(histogram)
    if below[-1] == 0:
        return None
    median, high = (int(np.searchsorted(below, share * below[-1])) / _BINS_PER_LEVEL for share in (0.5, 0.95))
    return median, high


def _small(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    if width <= THUMBNAIL_WIDTH_PX:
        return frame.copy()
    size = (THUMBNAIL_WIDTH_PX, max(1, round(height * THUMBNAIL_WIDTH_PX / width)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BOX))
