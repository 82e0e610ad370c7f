"""Errors of single pixels.

Convention: pictures are uint8 [F, H, W, 3] RGB; PSNR is in dB, 100 for equal pictures.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from evfi.errors import ConfigError
from evfi.evaluation.metrics.base import ALL, Metric, Score, ScoredWindow, Values, masked_mean

_SMALLEST_MSE: Final = 1e-10
_STUDIO_LUMA: Final = (65.481, 128.553, 24.966)
_STUDIO_BLACK: Final = 16.0


def psnr(
    pictures: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio per picture, over RGB in [0, 1].

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
    squares = squared_errors_rgb(pictures, truth)
    return decibels(masked_mean(squares, None if mask is None else np.broadcast_to(mask, squares.shape)))


def squared_errors_rgb(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Squared error per pixel, mean over the channels, of [0, 1]: uint8 [F, H, W, 3] twice to float64 [F, H, W]."""
    errors = pictures.astype(np.float64) - truth
    squares: NDArray[np.float64] = np.einsum("fhwc,fhwc->fhw", errors, errors) / (3 * 255**2)
    return squares


def squared_errors_y(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Squared error of `studio_luma` per pixel, divided by 255: uint8 [F, H, W, 3] twice to float64 [F, H, W]."""
    return np.square((studio_luma(pictures) - studio_luma(truth)) / 255)


def studio_luma(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Y of BT.601 in studio range, as MATLAB's rgb2ycbcr gives it for floating-point pictures, times 255; not rounded.

    Args:
        pictures: uint8 [..., 3] RGB.

    Returns:
        float64 [...], 16 for black to 235 for white.
    """
    return _STUDIO_BLACK + pictures.astype(np.float64) @ (np.array(_STUDIO_LUMA) / 255)


def decibels(mse: NDArray[np.float64]) -> NDArray[np.float64]:
    """PSNR of mean squared errors of [0, 1]; never more than 100 dB, which equal pictures have."""
    values: NDArray[np.float64] = 10 * np.log10(1 / np.maximum(mse, _SMALLEST_MSE))
    return values


def score_psnr_rgb(window: ScoredWindow) -> Values:
    """`psnr` of the inserted frames, per region."""
    return _score(window, squared_errors_rgb(window.frames[1:-1], window.truth[1:-1]))


def score_psnr_y(window: ScoredWindow) -> Values:
    """PSNR of `studio_luma` of the inserted frames, per region."""
    return _score(window, squared_errors_y(window.frames[1:-1], window.truth[1:-1]))


def _score(window: ScoredWindow, squares: NDArray[np.float64]) -> Values:
    masks = {ALL: None, **{name: mask[1:-1] for name, mask in window.regions.items()}}
    return {name: decibels(masked_mean(squares, mask)) for name, mask in masks.items()}


def _load_psnr_rgb(_device: torch.device) -> Score:
    return score_psnr_rgb


def _load_psnr_y(_device: torch.device) -> Score:
    return score_psnr_y


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "psnr_rgb",
        "PSNR",
        "Peak signal-to-noise ratio of 8-bit RGB, peak 255; the squared error is averaged over the three channels and "
        "the pixels of the region before the logarithm; 100 dB for equal pictures.",
        higher_is_better=True,
        load=_load_psnr_rgb,
        unit="dB",
        decimals=2,
    ),
    Metric(
        "psnr_y",
        "PSNR-Y",
        "Peak signal-to-noise ratio of Y of BT.601 in studio range (16 for black to 235 for white, not rounded), peak "
        "255; equals pyiqa psnry with color_space='ycbcr', and is 1.32 dB above its default; 100 dB for equal pictures.",
        higher_is_better=True,
        load=_load_psnr_y,
        unit="dB",
        decimals=2,
    ),
)
