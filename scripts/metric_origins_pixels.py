"""Origins of PSNR, SSIM and FLIP."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from metric_origins import Origin, PairFunction, as_tensor


def _skimage_psnr() -> PairFunction:
    from skimage.metrics import peak_signal_noise_ratio

    return lambda picture, truth: peak_signal_noise_ratio(truth, picture, data_range=255)


def _skimage_psnr_y() -> PairFunction:
    from skimage.color import rgb2ycbcr
    from skimage.metrics import peak_signal_noise_ratio

    return lambda picture, truth: peak_signal_noise_ratio(
        rgb2ycbcr(truth)[..., 0], rgb2ycbcr(picture)[..., 0], data_range=255
    )


def _skimage_ssim(**settings: Any) -> PairFunction:
    from skimage.metrics import structural_similarity

    return lambda picture, truth: structural_similarity(truth, picture, data_range=255, channel_axis=-1, **settings)


def _pyiqa(name: str, **settings: Any) -> PairFunction:
    import pyiqa

    metric = pyiqa.create_metric(name, device=torch.device("cpu"), **settings)
    return lambda picture, truth: float(metric(as_tensor(picture), as_tensor(truth)))


def _torchmetrics_psnr() -> PairFunction:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return lambda picture, truth: float(
        peak_signal_noise_ratio(as_tensor(picture).double(), as_tensor(truth).double(), data_range=1.0)
    )


def _torchmetrics_ssim(data_range: float | None) -> PairFunction:
    from torchmetrics.functional.image import structural_similarity_index_measure

    return lambda picture, truth: float(
        structural_similarity_index_measure(
            as_tensor(picture).double(), as_tensor(truth).double(), data_range=data_range
        )
    )


def _full_kernel(dimensions: int, padding: str) -> PairFunction:
    """SSIM by one convolution with all weights of the window, over planes or over the volume of the three channels."""
    steps = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(steps**2) / 4.5)
    weights = torch.einsum("i,j->ij", line, line) if dimensions == 2 else torch.einsum("i,j,k->ijk", line, line, line)
    weights = (weights / weights.sum())[None, None]
    convolve = functional.conv2d if dimensions == 2 else functional.conv3d

    def mean(picture: torch.Tensor) -> torch.Tensor:
        return convolve(functional.pad(picture, (5,) * (2 * dimensions), mode=padding), weights)

    def ssim(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
        a, b = (torch.from_numpy(side.transpose(2, 0, 1).astype(np.float64)) for side in (picture, truth))
        a, b = (a[:, None], b[:, None]) if dimensions == 2 else (a[None, None], b[None, None])
        mean_a, mean_b = mean(a), mean(b)
        contrast = (2 * (mean(a * b) - mean_a * mean_b) + 58.5225) / (
            mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2 + 58.5225
        )
        return float((contrast * (2 * mean_a * mean_b + 6.5025) / (mean_a**2 + mean_b**2 + 6.5025)).mean())

    return ssim


def _flip(**parameters: float) -> PairFunction:
    import flip_evaluator

    def flip(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
        reference, test = truth.astype(np.float32) / 255, picture.astype(np.float32) / 255
        return float(flip_evaluator.evaluate(reference, test, "LDR", parameters=parameters)[1])

    return flip


_PYIQA_PSNR_Y = partial(_pyiqa, "psnry", color_space="ycbcr")  # adds 1e-8 to the error: 2 dB for one pixel
_GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

ORIGINS = (
    Origin("psnr_rgb", "scikit-image peak_signal_noise_ratio", "scikit-image", _skimage_psnr, 1e-9),
    Origin("psnr_rgb", "torchmetrics peak_signal_noise_ratio", "torchmetrics", _torchmetrics_psnr, 1e-5),
    Origin("psnr_rgb", "pyiqa psnr", "pyiqa", partial(_pyiqa, "psnr"), 2e-3),
    Origin("psnr_y", "scikit-image, Y of rgb2ycbcr", "scikit-image", _skimage_psnr_y, 1e-6),
    Origin(
        "psnr_y",
        "pyiqa psnry, color_space=ycbcr",
        "pyiqa",
        partial(_pyiqa, "psnry", color_space="ycbcr"),
        2e-4,
        ("one_pixel",),
    ),
    Origin("psnr_y", "pyiqa psnry", "pyiqa", partial(_pyiqa, "psnry"), None),
    Origin("ssim_y_pyiqa", "pyiqa ssim", "pyiqa", partial(_pyiqa, "ssim"), 2e-6),
    Origin(
        "ssim_y_pyiqa", "pyiqa ssim, color_space=ycbcr", "pyiqa", partial(_pyiqa, "ssim", color_space="ycbcr"), None
    ),
    Origin("ssim_rgb_skimage", "scikit-image Gaussian", "scikit-image", partial(_skimage_ssim, **_GAUSSIAN), 1e-9),
    Origin("ssim_rgb_skimage", "torchmetrics, data_range=1", "torchmetrics", partial(_torchmetrics_ssim, 1.0), None),
    Origin(
        "ssim_rgb_torchmetrics", "torchmetrics, data_range=1", "torchmetrics", partial(_torchmetrics_ssim, 1.0), 1e-6
    ),
    Origin(
        "ssim_rgb_torchmetrics", "torchmetrics, no data_range", "torchmetrics", partial(_torchmetrics_ssim, None), None
    ),
    Origin("ssim_rgb_skimage", "pyiqa ssimc", "pyiqa", partial(_pyiqa, "ssimc"), None),
    Origin("ssim_rgb_skimage_uniform", "scikit-image defaults", "scikit-image", _skimage_ssim, 1e-9),
    Origin("ssim_rgb_zeros", "one 11x11 convolution", "torch", partial(_full_kernel, 2, "constant"), 1e-9),
    Origin("ssim_rgb_volume", "one 11x11x11 convolution", "torch", partial(_full_kernel, 3, "replicate"), 1e-9),
    Origin("flip", "flip-evaluator defaults", "flip-evaluator", _flip, 1e-4),
    Origin("flip", "flip-evaluator, ppd=33.5", "flip-evaluator", partial(_flip, ppd=33.5), None),
)
