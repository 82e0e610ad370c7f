"""Structural similarity (SSIM), in the variants that published code computes.

All are one formula with other parameters: per pixel, with local means m, variances v and covariance c under a window,

    (2 m1 m2 + C1) (2 c + C2) / ((m1² + m2² + C1) (v1 + v2 + C2)),    C1 = (0.01 · 255)², C2 = (0.03 · 255)²

averaged over pixels and channels. The variants differ in the channels, in the window, in what happens at the borders, and in
what is done with negative values. The map is aligned with the picture: the value of a window belongs to its centre pixel.

Convention: levels 0 to 255 in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evfi.evaluation.metrics.base import ALL, Metric, Score, ScoredWindow, Values, masked_mean

_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2
_PADDING: Final = {"mirror": "reflect", "zeros": "constant", "repeat": "replicate"}


@dataclass(frozen=True)
class SsimVariant:
    """What one SSIM does.

    Attributes:
        window: weights along one axis, of odd number; the window is their product with themselves.
        on_luma: one channel, `rounded_luma`; otherwise red, green and blue each, and their mean.
        samples: pixels of the window if variances are those of a sample (n - 1), as scikit-image has them by default; 0
            for those of the weights.
        drops_negative: a negative product of contrast and structure counts as 0.
        border: what lies beyond it: "none", so that only pixels whose window lies within the picture have a value;
            "mirror", at the outermost pixel; "zeros"; "repeat" of the outermost pixel.
        as_volume: the channels are a third axis of the picture, along which the window lies too, with the same border.
    """

    window: tuple[float, ...]
    on_luma: bool = False
    samples: int = 0
    drops_negative: bool = False
    border: Literal["none", "mirror", "zeros", "repeat"] = "none"
    as_volume: bool = False

    @property
    def margin(self) -> int:
        """Pixels at each border that have no value."""
        return len(self.window) // 2 if self.border == "none" else 0


def gaussian_window(size: int = 11, sigma: float = 1.5) -> tuple[float, ...]:
    """Normalised weights of a Gaussian, `sigma` in px."""
    weights = np.exp(-0.5 * np.square((np.arange(size) - size // 2) / sigma))
    return tuple(float(weight) for weight in weights / weights.sum())


PYIQA: Final = SsimVariant(gaussian_window(), on_luma=True, drops_negative=True)
SKIMAGE_GAUSSIAN: Final = SsimVariant(gaussian_window())
SKIMAGE_UNIFORM: Final = SsimVariant((1 / 7,) * 7, samples=49)
TORCHMETRICS: Final = SsimVariant(gaussian_window(), border="mirror")
ZEROS: Final = SsimVariant(gaussian_window(), border="zeros")
VOLUME: Final = SsimVariant(gaussian_window(), border="repeat", as_volume=True)


def ssim_maps(
    pictures: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    variant: SsimVariant,
    device: torch.device,
) -> NDArray[np.float64]:
    """The similarity per pixel, mean over the channels.

    Args:
        pictures: uint8 [N, H, W, 3] RGB.
        truth: the same shape.
        variant: what is computed.
        device: where; one that has no float64 is replaced by the CPU.

    Returns:
        float64 [N, H - 2 margin, W - 2 margin]; without pixels if the picture is smaller than the window.
    """
    device = torch.device("cpu") if device.type == "mps" else device
    size = [length - 2 * variant.margin for length in truth.shape[1:3]]
    if min(truth.shape[1:3]) < len(variant.window):
        size = [0, 0]
    maps = np.empty((len(truth), *size))
    for index, pair in enumerate(zip(pictures, truth, strict=True) if maps.size else ()):
        first, second = (_channels(picture, variant.on_luma).to(device) for picture in pair)
        maps[index] = _similarity(first, second, variant).mean(dim=0).cpu().numpy()
    return maps


def rounded_luma(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """0.299 R + 0.587 G + 0.114 B, rounded to whole levels: uint8 [..., 3] to float64 [...].

    One pixel in a thousand lies halfway between two levels. So that it goes where pyiqa rounds it, the sum is that of float32,
    of channels in [0, 1], in the order of the formula.
    """
    red, green, blue = np.moveaxis(pictures.astype(np.float32) / np.float32(255), -1, 0)
    sums = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
    luma: NDArray[np.float64] = np.rint(sums * np.float32(255)).astype(np.float64)
    return luma


def score_ssim(window: ScoredWindow, variant: SsimVariant, device: torch.device) -> Values:
    """Mean of `ssim_maps` of the inserted frames, per region; of a region, pixels within the margin do not count."""
    maps = ssim_maps(window.frames[1:-1], window.truth[1:-1], variant, device)
    if not maps.size:
        return {name: np.full(window.num_inserted, np.nan) for name in (ALL, *window.regions)}
    inner = slice(variant.margin, -variant.margin or None)
    masks = {ALL: None, **{name: mask[1:-1, inner, inner] for name, mask in window.regions.items()}}
    return {name: masked_mean(maps, mask) for name, mask in masks.items()}


def _channels(picture: NDArray[np.uint8], on_luma: bool) -> Tensor:
    """uint8 [H, W, 3] to float64 [C, H, W]."""
    if on_luma:
        return torch.from_numpy(rounded_luma(picture))[None]
    return torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float64))


def _similarity(first: Tensor, second: Tensor, variant: SsimVariant) -> Tensor:
    """Two pictures [C, H, W] to their map [C, H', W']."""
    products = torch.stack([first, second, first * first + second * second, first * second])
    mean1, mean2, squares, product = _windowed(products, variant)
    unbiased = variant.samples / (variant.samples - 1) if variant.samples else 1.0
    squared_means, product_of_means = mean1**2 + mean2**2, mean1 * mean2
    structure = 2 * unbiased * (product - product_of_means) + _C2
    structure /= unbiased * (squares - squared_means) + _C2
    if variant.drops_negative:
        structure = structure.clamp(min=0)
    similarity: Tensor = structure * (2 * product_of_means + _C1) / (squared_means + _C1)
    return similarity


def _windowed(planes: Tensor, variant: SsimVariant) -> Tensor:
    """Weighted means under the window: [P, C, H, W] to [P, C, H', W']."""
    if variant.border != "none":
        beyond = (len(variant.window) // 2,) * (6 if variant.as_volume else 4)
        padded = functional.pad(planes[:, None] if variant.as_volume else planes, beyond, mode=_PADDING[variant.border])
        planes = padded.flatten(1, -3)
    for axis in (1, 2, 3) if variant.as_volume else (2, 3):
        planes = _along(planes, axis, variant.window)
    return planes


def _along(planes: Tensor, axis: int, weights: tuple[float, ...]) -> Tensor:
    """Weighted means along one axis, which gets shorter; sums of shifted planes are several times as fast as convolutions."""
    length = planes.shape[axis] - len(weights) + 1
    total = planes.narrow(axis, 0, length) * weights[0]
    for offset, weight in enumerate(weights[1:], start=1):
        total.add_(planes.narrow(axis, offset, length), alpha=weight)
    return total


def _load(device: torch.device, variant: SsimVariant) -> Score:
    return partial(score_ssim, variant=variant, device=device)


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "ssim_y_pyiqa",
        "SSIM-Y",
        "SSIM of Y = 0.299 R + 0.587 G + 0.114 B rounded to whole levels of 255; Gaussian window of 11x11 pixels with "
        "sigma 1.5; negative contrast-structure counts as 0; no value in the outer 5 pixels; equals pyiqa ssim.",
        higher_is_better=True,
        load=partial(_load, variant=PYIQA),
        decimals=4,
    ),
    Metric(
        "ssim_rgb_skimage",
        "SSIM-RGB",
        "SSIM of 8-bit R, G and B each, then their mean; Gaussian window of 11x11 pixels with sigma 1.5; no value in the "
        "outer 5 pixels; equals scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False, "
        "data_range=255, channel_axis=-1.",
        higher_is_better=True,
        load=partial(_load, variant=SKIMAGE_GAUSSIAN),
        decimals=4,
    ),
    Metric(
        "ssim_rgb_skimage_uniform",
        "SSIM-RGB 7x7",
        "SSIM of 8-bit R, G and B each, then their mean; uniform window of 7x7 pixels with variances of a sample; no "
        "value in the outer 3 pixels; equals scikit-image's defaults with data_range=255, channel_axis=-1.",
        higher_is_better=True,
        load=partial(_load, variant=SKIMAGE_UNIFORM),
        decimals=4,
        is_default=False,
    ),
    Metric(
        "ssim_rgb_torchmetrics",
        "SSIM-RGB mirrored",
        "SSIM of 8-bit R, G and B each, then their mean; Gaussian window of 11x11 pixels with sigma 1.5, borders mirrored "
        "at the outermost pixel, a value at every pixel; equals torchmetrics' defaults with data_range=1 for [0, 1].",
        higher_is_better=True,
        load=partial(_load, variant=TORCHMETRICS),
        decimals=4,
        is_default=False,
    ),
    Metric(
        "ssim_rgb_zeros",
        "SSIM-RGB zeros",
        "SSIM of 8-bit R, G and B each, then their mean; Gaussian window of 11x11 pixels with sigma 1.5, zeros beyond the "
        "borders, a value at every pixel; what CBMNet's evaluation and others with a pytorch_ssim compute.",
        higher_is_better=True,
        load=partial(_load, variant=ZEROS),
        decimals=4,
        is_default=False,
    ),
    Metric(
        "ssim_rgb_volume",
        "SSIM-RGB 3-D",
        "SSIM of 8-bit RGB as a volume of three layers; Gaussian window of 11x11x11 with sigma 1.5, borders repeated in "
        "all three directions, a value at every pixel; what RIFE's and many later evaluations of frame interpolation "
        "call ssim_matlab.",
        higher_is_better=True,
        load=partial(_load, variant=VOLUME),
        decimals=4,
        is_default=False,
    ),
)
