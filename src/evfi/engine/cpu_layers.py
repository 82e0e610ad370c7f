"""How the fast engine's layers run on a CPU: over activations [B, F, h, w, C] in float32.

Notable:
- 3 x 3 convolutions take a quarter of the multiplications (`evfi.engine.winograd`);
- a convolution over frames is one over the rows of a picture [F, h w];
- products and convolutions are oneDNN's, which use all of a processor's vector width whoever made it;
- group norm and SiLU are two passes over memory, a residual sum with scale and offset is one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evfi.engine.operators import Feature, TorchOperators
from evfi.engine.winograd import WinogradConvolution, suits
from evfi.models import onednn

_LANES = 16
_made: WeakKeyDictionary[nn.Module, tuple[object, WinogradConvolution | None]] = WeakKeyDictionary()
_lock = threading.Lock()


def is_served(values: Tensor) -> bool:
    """Whether this module computes an activation faster than plain torch."""
    return values.device.type == "cpu" and values.dtype == torch.float32 and torch.is_inference_mode_enabled()


def winograd(module: nn.Conv2d) -> WinogradConvolution | None:
    """The convolution with fewer multiplications, made anew when weights change; None where there is none."""
    weight = module.weight
    state = (weight.data_ptr(), None if weight.is_inference() else weight._version)
    with _lock:
        kept = _made.get(module)
        if kept is None or kept[0] != state:
            kept = _made[module] = (state, WinogradConvolution(module) if suits(module) else None)
    return kept[1]


def forget(network: nn.Module) -> None:
    """Drop what was derived from a network's weights."""
    for module in network.modules():
        _made.pop(module, None)


class CpuOperators(TorchOperators):
    """The operations on a CPU; in plain torch where they are no bottleneck, and where an activation is not `is_served`."""

    def convolve(self, values: Tensor, module: nn.Conv2d, *, bias: bool) -> Tensor:
        """See `TorchProducts.convolve`."""
        convolution = winograd(module) if is_served(values) else None
        if convolution is None:
            return super().convolve(values, module, bias=bias)
        return convolution(values.flatten(0, 1).contiguous(), bias=bias).unflatten(0, values.shape[:2])

    def convolve_enlarged(self, values: Tensor, module: nn.Conv2d) -> Tensor:
        """See `TorchProducts.convolve_enlarged`."""
        convolution = winograd(module) if is_served(values) else None
        if convolution is None:
            return super().convolve_enlarged(values, module)
        frames = values.flatten(0, 1).contiguous()
        return convolution(frames, bias=True, enlarge=True).unflatten(0, values.shape[:2])

    def convolve_frames(self, values: Tensor, module: nn.Conv3d) -> Tensor:
        """See `TorchProducts.convolve_frames`."""
        if not is_served(values):
            return super().convolve_frames(values, module)
        pictures = values.flatten(2, 3).permute(0, 3, 1, 2)  # [B, C, F, h w]
        made = F.conv2d(pictures, module.weight[..., 0], None, 1, module.padding[:2])
        return made.permute(0, 2, 3, 1).contiguous().unflatten(2, values.shape[2:4])

    def product(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `TorchProducts.product`."""
        if not is_served(rows) or not onednn.has_fused():
            return super().product(rows, weight, bias)
        return onednn.product(rows, weight, bias)

    def add_product(self, total: Tensor, rows: Tensor, weight: Tensor) -> None:
        """See `TorchProducts.add_product`."""
        if is_served(rows):
            total.add_(self.product(rows, weight))
        else:
            super().add_product(total, rows, weight)

    def add(self, base: Tensor, change: Tensor, scale: float, offset: Tensor | None) -> Feature:
        """See `TorchOperators.add`."""
        if not is_served(change) or not change.is_contiguous() or not base.is_contiguous():
            return super().add(base, change, scale, offset)
        from evfi.engine.cpu_loops import add_rows

        shift = base.new_zeros(base.shape[-1]) if offset is None else offset
        add_rows(_rows(base), _rows(change), scale, shift.detach().numpy())
        return Feature(change)

    def group_norm(
        self,
        sources: Sequence[Feature],
        norm: nn.GroupNorm,
        *,
        over_frames: bool,
        silu: bool,
        offset: Tensor | None = None,
    ) -> Tensor:
        """See `TorchOperators.group_norm`."""
        widths = [source.values.shape[-1] for source in sources]
        if not is_served(sources[0].values) or any(width % _LANES for width in widths):
            return super().group_norm(sources, norm, over_frames=over_frames, silu=silu, offset=offset)
        from evfi.engine.cpu_loops import channel_sums, coefficients, scale_rows

        shape = sources[0].values.shape
        sets = shape[0] if over_frames else shape[0] * shape[1]
        values = [
            source.values.contiguous().view(sets, -1, width).numpy()
            for source, width in zip(sources, widths, strict=True)
        ]
        channels, rows = sum(widths), values[0].shape[1]
        shift = np.zeros(channels, np.float32) if offset is None else offset.numpy()
        starts = [sum(widths[:place]) for place in range(len(widths))]
        sums = [np.empty((sets, 2, width)) for width in widths]
        for value, start, total in zip(values, starts, sums, strict=True):
            channel_sums(value, shift[start : start + value.shape[2]], total)
        factors = np.empty((sets, 2, channels), np.float32)
        affine = np.stack([norm.weight.detach().numpy(), norm.bias.detach().numpy()])
        coefficients(np.concatenate(sums, axis=2), rows, norm.num_groups, norm.eps, affine, shift, factors)
        made = sources[0].values.new_empty(*shape[:-1], channels)
        target = made.view(sets, rows, channels).numpy()
        for value, start in zip(values, starts, strict=True):
            part = np.ascontiguousarray(factors[:, :, start : start + value.shape[2]])
            scale_rows(value, part, target, start, silu)
        return made

    def gated_product(self, rows: Tensor, module: nn.Linear) -> Tensor:
        """See `TorchOperators.gated_product`."""
        values, gate = self.product(rows, module.weight, module.bias).chunk(2, dim=-1)
        return values * F.gelu(gate)


def _rows(values: Tensor) -> Any:
    return values.detach().view(-1, values.shape[-1]).numpy()
