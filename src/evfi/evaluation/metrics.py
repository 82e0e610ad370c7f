"""How close pictures are to the truth.

Convention: pictures are uint8 [F, H, W, 3]; PSNR is that of RGB in [0, 1], in dB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from evfi.errors import ConfigError

_SMALLEST_MSE = 1e-10
_MOVING_LEVELS = 12
_GROW_PX = 3


def psnr(
    pictures: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio per picture.

    Args:
        pictures: uint8 [F, H, W, 3].
        truth: The same shape.
        mask: Count only these pixels: bool [H, W] or [F, H, W]; None counts all.

    Returns:
        float64 [F], dB; 100 for equal pictures, NaN where the mask is empty.

    Raises:
        ConfigError: Shapes differ.
    """
    if pictures.shape != truth.shape or pictures.ndim != 4:
        raise ConfigError(
            f"pictures and truth must have one shape [F, H, W, 3], got {pictures.shape} and {truth.shape}"
        )
    squares = np.square((pictures.astype(np.float64) - truth) / 255).mean(axis=-1)  # [F, H, W]
    weights = np.broadcast_to(np.ones(()) if mask is None else mask.astype(np.float64), squares.shape)
    counts = weights.sum(axis=(1, 2))
    mse = np.divide((squares * weights).sum(axis=(1, 2)), counts, out=np.full(len(counts), np.nan), where=counts > 0)
    decibels: NDArray[np.float64] = -10 * np.log10(np.maximum(mse, _SMALLEST_MSE))
    return decibels


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
