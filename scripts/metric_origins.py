"""What one of our metrics is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PairFunction = Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]


@dataclass(frozen=True)
class Origin:
    """One function of one library.

    Attributes:
        metric: ours, by its name in the registry.
        name: how theirs is called, with the settings that matter.
        distribution: the package on PyPI.
        load: gives the function of (picture, truth), uint8 [H, W, 3]; imports the library.
        tolerance: the largest difference that is rounding; None where theirs is defined differently, and is listed to show
            by how much.
        without: golden pairs that it cannot take.
        ours: what is compared with it instead of the metric as it is; no golden values are kept of such.
    """

    metric: str
    name: str
    distribution: str
    load: Callable[[], PairFunction]
    tolerance: float | None
    without: tuple[str, ...] = ()
    ours: Callable[[], PairFunction] | None = None


def as_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] to float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float()[None] / 255
