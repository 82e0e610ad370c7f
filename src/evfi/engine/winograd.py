"""3 x 3 convolutions in a quarter of the multiplications, for the CPU.

Winograd's minimal filtering F(4x4, 3x3) (Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308): tiles of the
input and the kernels are transformed, multiplied value by value (36 matrix products over channels), and transformed back.
The products are one grouped 1 x 1 convolution by oneDNN, of as many tiles as stay in the processor's caches.

The result is that of a direct convolution to rounding: in float32 its error is 6e-7 where oneDNN's own is 3e-7.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from evfi.engine.threads import share
from evfi.models import onednn

SMALLEST_CHANNELS: Final = 32
"""Layers with fewer gain nothing: the transforms take as long as what they save."""

LARGEST_CHANNELS: Final = 256
"""Layers with more are left to others: their transformed kernels, four times as large, would not stay in the caches."""

_TILES_AT_ONCE: Final = 300
_EMPTY = np.zeros((0, 0, 0, 0), np.float32)


def suits(module: nn.Conv2d) -> bool:
    """Whether a convolution can be made this way."""
    from evfi.engine.winograd_loops import LANES

    channels = (module.in_channels, module.out_channels)
    return (
        onednn.has_fused()
        and module.weight.dtype == torch.float32
        and module.kernel_size == (3, 3)
        and module.stride == (1, 1)
        and module.padding == (1, 1)
        and module.dilation == (1, 1)
        and module.groups == 1
        and all(number % LANES == 0 and SMALLEST_CHANNELS <= number <= LARGEST_CHANNELS for number in channels)
    )


class WinogradConvolution:
    """A 3 x 3 convolution with stride 1 and padding 1 of channels-last pictures in float32."""

    def __init__(self, module: nn.Conv2d) -> None:
        """Take a convolution that `suits`; its kernels are transformed once and kept."""
        weight = _transformed_kernels(module.weight.detach())  # [36, K, C]
        self._bias = np.zeros(module.out_channels, np.float32)
        if module.bias is not None:
            self._bias = module.bias.detach().numpy()
        self._none = np.zeros_like(self._bias)
        self._out_channels, self._in_channels = weight.shape[1:]
        self._multiplied = onednn.GroupedProducts(weight, _TILES_AT_ONCE)

    def __call__(
        self,
        pictures: Tensor,
        *,
        bias: bool = True,
        relu: bool = False,
        base: Tensor | None = None,
        enlarge: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """Convolve.

        Args:
            pictures: [N, h, w, C], contiguous.
            bias: add the convolution's bias.
            relu: max(x, 0) follows.
            base: [N, h, w, K], added before that.
            enlarge: repeat every pixel twice along each side first.
            out: contiguous memory for the result.

        Returns:
            [N, h, w, K], or [N, 2 h, 2 w, K].
        """
        from evfi.engine.winograd_loops import gather, scatter

        number, height, width, channels = pictures.shape
        height, width = height << enlarge, width << enlarge
        made = pictures.new_empty(number, height, width, self._out_channels) if out is None else out
        size = (-(-height // 4), -(-width // 4))
        source, target = pictures.numpy(), made.numpy()
        added = _EMPTY if base is None else base.numpy()
        shift = self._bias if bias else self._none

        def convolve_part(part: tuple[int, int]) -> None:
            first, rows = part
            row = _scratch("row", 6 * (4 * size[1] + 2) * channels).view(6, -1, channels)
            tiles = _scratch("tiles", rows * size[1] * 36 * channels).view(-1, 36, channels)
            gather(source, row.numpy(), tiles.numpy(), first, size, int(enlarge))
            scatter(self._multiplied(tiles).numpy(), shift, added, target, first, size, relu)

        share(convolve_part, _parts(number * size[0], max(_TILES_AT_ONCE // size[1], 1)))
        return made


def _transformed_kernels(weight: Tensor) -> Tensor:
    """Kernels [K, C, 3, 3] as [36, K, C], computed in float64."""
    from evfi.engine.winograd_loops import FAR, NEAR

    near, far = NEAR**2, FAR**2
    rows = [[1 / (near * far), 0.0, 0.0]]
    for point, other in ((NEAR, far), (FAR, near)):
        scale = 1 / (2 * point**2 * (point**2 - other))
        rows += [[scale, sign * point * scale, point**2 * scale] for sign in (1, -1)]
    matrix = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)
    made = torch.einsum("ai,bj,kcij->abkc", matrix, matrix, weight.double())
    return made.flatten(0, 1).to(weight.dtype)


def _parts(number: int, most: int) -> list[tuple[int, int]]:
    """Evenly cut 0..number into (first, length) of at most `most`."""
    count = -(-number // most)
    edges = [number * place // count for place in range(count + 1)]
    return [(first, last - first) for first, last in pairwise(edges)]


_memory = threading.local()


def _scratch(name: str, length: int) -> Tensor:
    """This thread's memory of that name, float32 [length]; it is the same at the next call."""
    kept: Any = getattr(_memory, name, None)
    if kept is None or len(kept) < length:
        kept = torch.empty(length, dtype=torch.float32)
        setattr(_memory, name, kept)
    part: Tensor = kept[:length]
    return part
