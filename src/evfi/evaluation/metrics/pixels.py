"""Errors of single pixels.

Convention: pictures are uint8 [F, H, W, 3]; PSNR is that of RGB in [0, 1], in dB.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError

_SMALLEST_MSE: Final = 1e-10


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
