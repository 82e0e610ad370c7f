"""LDR-FLIP: how different two pictures look when one flips between them.

The library of its authors computes it: flip-evaluator (BSD-3-Clause, NVIDIA), in the extra ``eval``. It takes 1 to 2 µs per
pixel, and is therefore not among the default metrics.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ModelError
from evfi.evaluation.metrics.base import ALL, Metric, Score, ScoredWindow, Values, masked_mean

if TYPE_CHECKING:
    import torch

PIXELS_PER_DEGREE: Final = 3840 * math.pi / 180
"""Of the viewer's field of view, 67.02: the library's default, a screen 3840 pixels and 0.7 m wide seen from 0.7 m."""


def flip_maps(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The difference per pixel.

    Args:
        pictures: uint8 [N, H, W, 3], sRGB.
        truth: the reference, the same shape.

    Returns:
        float32 [N, H, W] in [0, 1].

    Raises:
        ModelError: the library is not installed.
    """
    library = _library()
    maps = [_map(library, picture, true_one) for picture, true_one in zip(pictures, truth, strict=True)]
    return np.stack(maps)


def score_flip(window: ScoredWindow) -> Values:
    """Mean of `flip_maps` of the inserted frames, per region."""
    maps = flip_maps(window.frames[1:-1], window.truth[1:-1])
    masks = {ALL: None, **{name: mask[1:-1] for name, mask in window.regions.items()}}
    return {name: masked_mean(maps, mask) for name, mask in masks.items()}


def _map(library: Any, picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float32]:
    reference, test = (np.ascontiguousarray(levels, np.float32) / 255 for levels in (truth, picture))
    errors, _, _ = library.evaluate(
        reference, test, "LDR", applyMagma=False, computeMeanError=False, parameters={"ppd": PIXELS_PER_DEGREE}
    )
    return cast("NDArray[np.float32]", np.array(errors[..., 0], np.float32))


def _library() -> Any:
    try:
        return import_module("flip_evaluator")
    except ImportError:
        raise ModelError(
            "the metric flip needs the package flip-evaluator, which is not installed: pip install 'evfi[eval]'"
        ) from None


def _load(_device: torch.device) -> Score:
    _library()
    return score_flip


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "flip",
        "FLIP",
        "Mean of the LDR-FLIP error map of sRGB pictures at 67.02 pixels per degree, with the ground truth as reference; 0 for "
        "equal pictures, at most 1; computed by flip-evaluator.",
        higher_is_better=False,
        load=_load,
        decimals=4,
        is_default=False,
    ),
)
