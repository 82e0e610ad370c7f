"""Which pixels of a frame are scored: all, or those where something moved."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_MOVING_LEVELS: Final = 12
_GROW_PX: Final = 3


def moving_pixels(
    truth: NDArray[np.uint8], start_image: NDArray[np.uint8], end_image: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Where something moved: where the truth differs from either key frame by more than 12 of 255, grown by 3 px.

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
