"""oneDNN's fused operations on a CPU. PyTorch has them under private names only: where one is missing, plain operations run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import torch
from torch import Tensor, nn

_NAMES: Final = ("_convolution_pointwise", "_linear_pointwise", "_reorder_convolution_weight")


@cache
def has_fused() -> bool:
    """Whether this PyTorch, on this processor, has the fused operations."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _NAMES)


def convolved(pictures: Tensor, module: nn.Conv2d, activation: str = "none", scalars: Sequence[float] = ()) -> Tensor:
    """A convolution and what follows it, in one operation.

    Args:
        pictures: [N, C, H, W], channels last.
        module: the convolution.
        activation: oneDNN's name for what follows: "none", "swish", "leaky_relu".
        scalars: its parameters.
    """
    made: Tensor = torch.ops.mkldnn._convolution_pointwise(
        pictures,
        module.weight,
        module.bias,
        list(module.padding),
        list(module.stride),
        list(module.dilation),
        module.groups,
        activation,
        list(scalars),
        "",
    )
    return made


def product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer of [..., C]."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(rows.contiguous(), weight.contiguous(), bias, "none", [], "")
    return made


class GroupedProducts:
    """Products of rows with one matrix per group."""

    def __init__(self, matrices: Tensor, rows_at_once: int) -> None:
        """Take matrices [G, K, C] and bring them into oneDNN's order for so many rows."""
        self._groups, _, channels = matrices.shape
        shape = [1, self._groups * channels, 1, rows_at_once]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            matrices.flatten(0, 1)[:, :, None, None], [0, 0], [1, 1], [1, 1], self._groups, shape
        )

    def __call__(self, rows: Tensor) -> Tensor:
        """[T, G, C] to [T, G, K]."""
        pictures = rows.view(1, 1, len(rows), -1).permute(0, 3, 1, 2)
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            pictures, self._weight, None, [0, 0], [1, 1], [1, 1], self._groups, "none", [], ""
        )
        return made.permute(0, 2, 3, 1).view(len(rows), self._groups, -1)
