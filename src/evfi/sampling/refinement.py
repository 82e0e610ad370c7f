"""Refining a window: its events as the refiner sees them, its key frames and the model's frames in, frames out.

Frames are refined in the order of time, a few at once, so that event images of a few frames exist at a time. What is computed
for a frame does not depend on which others are computed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.errors import ModelError
from evfi.events.stacks import event_columns, interval_stacks
from evfi.events.stream import EventStream
from evfi.events.sums import compressed_counts, event_counts
from evfi.models.refiner import EVENT_STACK, Refiner, RefinerInputs
from evfi.recordings.recording import Window


class FrameEvents(NamedTuple):
    """The events of one output frame.

    Attributes:
        stacks: forward and backward stack, float32 [12, H, W].
        sums: since the start and until the end, float32 [4, H, W].
    """

    stacks: Tensor
    sums: Tensor


class WindowEvents:
    """A window's events as images of the frame's size, made one output time after the other."""

    def __init__(self, events: EventStream, times_us: np.ndarray, size: tuple[int, int], device: torch.device) -> None:
        """Take a window's events.

        Args:
            events: time-ordered; their grid covers the frame.
            times_us: output times [F]; first and last are the key frames'.
            size: (height, width) of the images.
            device: where the images are made.
        """
        self._events, self._size, self._device = events, size, device
        edges = np.searchsorted(events.t, times_us, side="left").tolist()
        self._intervals = list(pairwise(edges))
        self._before_first: Tensor | None = None
        self._after_last: Tensor | None = None

    def key_stacks(self) -> Tensor:
        """The events right after the start and right before the end key frame, float32 [2, 6, H, W]."""
        self._before_first, after_start = self._stacks(0)
        before_end, self._after_last = self._stacks(len(self._intervals) - 1)
        return torch.stack([after_start, before_end])

    def frames(self) -> Iterator[FrameEvents]:
        """The events of each inserted frame."""
        if self._before_first is None or self._after_last is None:
            self.key_stacks()  # which makes these, too
        assert self._before_first is not None and self._after_last is not None
        total = self._counts(self._intervals[0][0], self._intervals[-1][1])
        since = torch.zeros_like(total)
        before, last = self._before_first, len(self._intervals) - 1
        for number in range(1, last + 1):
            since = since + self._counts(*self._intervals[number - 1])
            following, after = (None, self._after_last) if number == last else self._stacks(number)
            stacks = torch.cat([before, after])
            if following is not None:
                before = following
            del following, after  # large frames have large images; each goes as soon as it may
            yield FrameEvents(stacks, self._fitted(compressed_counts(torch.cat([since, total - since]))))
            del stacks

    def _stacks(self, number: int) -> tuple[Tensor, Tensor]:
        """Forward and backward stack of an interval."""
        forward, backward = interval_stacks(self._events, *self._intervals[number], EVENT_STACK, self._device)
        return self._fitted(forward), self._fitted(backward)

    def _counts(self, start: int, stop: int) -> Tensor:
        x, y, p = (column.to(self._device) for column in event_columns(self._events, start, stop))
        return event_counts(x, y, p, self._events.sensor_size)

    def _fitted(self, images: Tensor) -> Tensor:
        """Images [C, h, w] at the frame's size, where the events' grid is another."""
        if tuple(images.shape[-2:]) == self._size:
            return images
        return F.interpolate(images[None], self._size, mode="bilinear", align_corners=False, antialias=True)[0]


_Chunk: TypeAlias = list[tuple[int, FrameEvents]]
Each: TypeAlias = Callable[[Callable[[_Chunk], Tensor], list[_Chunk]], list[Tensor]]
"""Calls a function for each item of a list and gives the results in the list's order."""


def refine_window(
    refiner: Refiner,
    window: Window,
    prediction: Tensor | None,
    *,
    frames_at_once: int = 1,
    bands: int = 1,
    each: Each | None = None,
    lanes: int = 1,
) -> Tensor:
    """Make the inserted frames of a window.

    Args:
        refiner: the network, in the dtype and on the device it shall run in and on.
        window: key frames, events and output times.
        prediction: the model's frames [F, 3, H, W] in 0..255, the key frames among them; None to do without.
        frames_at_once: frames per network call.
        bands: horizontal bands in which the finest levels are computed; more need less memory.
        each: makes several network calls, in threads of their own for example; one after the other by default.
        lanes: how many calls `each` is given at a time.

    Returns:
        uint8 [F - 2, 3, H, W], on the refiner's device.
    """
    work = _WindowWork(refiner, window, prediction, bands)
    each = each or (lambda call, chunks: [call(chunk) for chunk in chunks])
    numbered = enumerate(work.events.frames(), 1)
    made: list[Tensor] = []
    while chunks := [chunk for _ in range(lanes) if (chunk := list(islice(numbered, frames_at_once)))]:
        made += each(work.refined, chunks)
        del chunks  # before the next ones are made
    return torch.cat(made)


class _WindowWork:
    """What all frames of a window have in common."""

    def __init__(self, refiner: Refiner, window: Window, prediction: Tensor | None, bands: int) -> None:
        self._refiner, self._prediction, self._bands = refiner, prediction, bands
        height, width = self._size = window.start_image.shape[:2]
        times = window.spec.times_us
        self._shares = ((times - times[0]) / (times[-1] - times[0])).tolist()
        self.events = WindowEvents(window.events, times, (height, width), refiner.device)
        self._fit = _Padding(height, width, refiner.multiple)
        pictures = torch.from_numpy(np.stack([window.start_image, window.end_image])).to(refiner.device)
        self._keys = self._fit.padded(_levels(pictures.permute(0, 3, 1, 2), refiner.dtype)).unsqueeze(0)
        features = refiner.key_features(self._keys, self._fit.images([self.events.key_stacks()], refiner.dtype))
        self._features = [level.unsqueeze(0) for level in features]

    def refined(self, chunk: _Chunk) -> Tensor:
        """Some frames, uint8 [N, 3, H, W]."""
        refiner, fit = self._refiner, self._fit
        numbers = [number for number, _ in chunk]
        stacks, sums = (
            fit.images(images, refiner.dtype).unsqueeze(0) for images in zip(*(item for _, item in chunk), strict=True)
        )
        own = None
        if self._prediction is not None:
            own = fit.padded(_levels(self._prediction[numbers].to(refiner.device), refiner.dtype)).unsqueeze(0)
        share = torch.tensor([[self._shares[number] for number in numbers]]).to(refiner.device)
        inputs = RefinerInputs(self._keys, None, own, stacks, sums, share)
        frames = refiner.refine(inputs, self._features, bands=self._bands).frames
        height, width = self._size
        return rounded_levels(frames[..., :height, :width].float().mul_(127.5).add_(127.5))


class _Padding:
    """Frames padded below and on the right to multiples of the network's coarsest pixel."""

    def __init__(self, height: int, width: int, multiple: int) -> None:
        self._amount = (0, -width % multiple, 0, -height % multiple)

    def padded(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W] with their last row and column repeated."""
        return F.pad(pictures, self._amount, mode="replicate") if any(self._amount) else pictures

    def images(self, images: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """Images of events [..., H, W] as one batch, with zeros below and on the right, in one copy."""
        (*inner, height, width), (_, right, _, below) = images[0].shape, self._amount
        shape = (len(images), *inner, height + below, width + right)
        batch = torch.zeros(shape, dtype=dtype, device=images[0].device)
        for place, image in zip(batch, images, strict=True):
            place[..., :height, :width] = image
        return batch


def rounded_levels(levels: Tensor) -> Tensor:
    """Levels in 0..255 (others are clamped) as uint8.

    Raises:
        ModelError: some are not finite; they would be black.
    """
    if not bool(levels.isfinite().all()):
        raise ModelError(
            "the model's result is not finite: its weights are damaged, or it overflows in float16; use another model, or "
            "--dtype float32"
        )
    return levels.round().clamp_(0, 255).to(torch.uint8)


def _levels(pictures: Tensor, dtype: torch.dtype) -> Tensor:
    """Levels 0..255 as numbers in [-1, 1]."""
    return (pictures.to(torch.float32) / 127.5 - 1).to(dtype)
