"""Regions of a frame that are scored in addition to the whole frame: pixels where something moved."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

REGIONS_VERSION: Final = 1
"""Raised whenever the pixels of a region change, so that kept scores are not mixed."""

MOVING: Final = "moving"
CHANGING: Final = "changing"

_MOVING_LEVELS: Final = 12
_GROW_PX: Final = 3
_CHANGING_LEVELS: Final = 20
SMALLEST_SHARE: Final = 0.001
"""Of a frame; fewer pixels say little about it."""


def regions_of(truth: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """The regions of a window.

    A region that covers less than 0.1 % of a frame says little about it and is emptied there.

    Args:
        truth: The true frames with the key frames as first and last, uint8 [F, H, W, 3].

    Returns:
        bool [F, H, W] each: `MOVING`, see `moving_pixels`; `CHANGING`, see `changing_pixels`, the same for all frames.
    """
    moving = np.stack([moving_pixels(frame, truth[0], truth[-1]) for frame in truth])
    changing = np.broadcast_to(changing_pixels(truth), truth.shape[:3]).copy()
    for mask in (moving, changing):
        mask[mask.mean(axis=(1, 2)) < SMALLEST_SHARE] = False
    return {MOVING: moving, CHANGING: changing}


def moving_pixels(
    truth: NDArray[np.uint8], start_image: NDArray[np.uint8], end_image: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Where something moved: where the ground truth differs from either key frame by more than 12 of 255, grown by 3 px.

    The difference is the mean over the channels of its absolute values. Growing takes the square of 7x7 pixels.

    Args:
        truth: The true frame, uint8 [H, W, 3].
        start_image: The key frame before, likewise.
        end_image: The key frame after, likewise.

    Returns:
        bool [H, W].
    """
    changes = [np.abs(truth.astype(np.int16) - key).mean(axis=-1) > _MOVING_LEVELS for key in (start_image, end_image)]
    mask = Image.fromarray((changes[0] | changes[1]).astype(np.uint8))
    return np.asarray(mask.filter(ImageFilter.MaxFilter(2 * _GROW_PX + 1))) > 0


def changing_pixels(truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the range of the true frames over the window exceeds 20 of 255 in some channel.

    Args:
        truth: uint8 [F, H, W, 3].

    Returns:
        bool [H, W].
    """
    ranges = truth.max(axis=0) - truth.min(axis=0)
    changing: NDArray[np.bool_] = (ranges > _CHANGING_LEVELS).any(axis=-1)
    return changing
