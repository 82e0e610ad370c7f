"""Pictures of a report: sources, error maps, slices through time, details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from evfi.evaluation.results import WindowRecord
from evfi.report.pictures import LARGEST_EDGE_PX, shown_size

ERROR_TOP: Final = 64
"""Levels of 255 from which on an error has the last colour."""

Box: TypeAlias = tuple[int, int, int, int]
"""(left, top, right, bottom) in px; the last two are outside."""

_SLICE_HEIGHT_PX: Final = 112
_SMALLEST_BOX_PX: Final = 48
_BOX_COLOUR: Final = (255, 196, 0)
_ANCHORS: Final = (0x000004, 0x1C1044, 0x4F127B, 0x812581, 0xB5367A, 0xE55964, 0xFB8761, 0xFEC287, 0xFCFDBF)
"""Nine colours of the map "magma" (public domain), dark to light in even perceived steps."""


@dataclass(frozen=True, eq=False)
class WindowPictures:
    """All pictures of one window.

    Attributes:
        truth: the true frames, key frames included, uint8 [F, H, W, 3].
        frames: the same as each system made it, by the system's name.
        events: its events drawn, uint8 [H', W', 3]; None where there are none.
    """

    truth: NDArray[np.uint8]
    frames: dict[str, NDArray[np.uint8]]
    events: NDArray[np.uint8] | None = None


class PictureSource(Protocol):
    """Gives the pictures of windows."""

    def window(self, record: WindowRecord) -> WindowPictures:
        """The pictures of one window."""


def error_map(frame: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of the error: mean over channels of the absolute difference, 0 to `ERROR_TOP` levels; larger is the last.

    Args:
        frame: uint8 [H, W, 3].
        truth: the same shape.

    Returns:
        uint8 [h, w, 3], made smaller like other pictures, but before it is coloured.
    """
    errors = np.abs(frame.astype(np.int16) - truth).mean(axis=-1).astype(np.float32)
    small = Image.fromarray(errors).resize(shown_size(frame), Image.Resampling.BOX)
    levels = np.clip(np.asarray(small) / ERROR_TOP, 0, 1) * 255
    return error_colours()[np.rint(levels).astype(np.intp)]


def error_colours() -> NDArray[np.uint8]:
    """The colours of errors from none to `ERROR_TOP`, uint8 [256, 3]."""
    anchors = np.array([[colour >> 16, colour >> 8 & 255, colour & 255] for colour in _ANCHORS], np.float64)
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def slice_through_time(frames: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
    """One row of pixels of every frame, the first frame on top, each as a stripe; uint8 [h, w, 3]."""
    stripe = max(2, round(_SLICE_HEIGHT_PX / len(frames)))
    width, _ = shown_size(frames[0])
    rows = Image.fromarray(np.ascontiguousarray(frames[:, row]))
    narrow = rows.resize((width, len(frames)), Image.Resampling.BOX)
    return np.repeat(np.asarray(narrow), stripe, axis=0)


def telling_box(frames: Sequence[NDArray[np.uint8]], truth: NDArray[np.uint8]) -> Box:
    """The box of a quarter of each side, at least 48 px, in which all frames together differ most from the ground truth."""
    height, width = truth.shape[:2]
    errors = np.zeros((height, width))
    for frame in frames:
        errors += np.abs(frame.astype(np.int16) - truth).mean(axis=-1)
    box_width, box_height = (min(side, max(_SMALLEST_BOX_PX, side // 4)) for side in (width, height))
    sums = np.pad(errors, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = sums[box_height:, box_width:] - sums[:-box_height, box_width:]
    inside += sums[:-box_height, :-box_width] - sums[box_height:, :-box_width]
    top, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(left), int(top), int(left) + box_width, int(top) + box_height


def cut_out(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A part of a picture, its pixels made larger by a whole number where there is room."""
    left, top, right, bottom = box
    part = picture[top:bottom, left:right]
    factor = max(1, LARGEST_EDGE_PX // max(part.shape[:2]))
    return part.repeat(factor, axis=0).repeat(factor, axis=1)


def with_box(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A picture with a frame around a part of it."""
    image = Image.fromarray(picture.copy())
    ImageDraw.Draw(image).rectangle(box, outline=_BOX_COLOUR, width=max(1, round(max(image.size) / LARGEST_EDGE_PX)))
    return np.asarray(image)
