"""The operations as GPU kernels; see `evfi.engine.operators.TorchOperators` for what each computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from evfi.engine import triton_kernels as kernels
from evfi.engine.operators import SUMMED_ROWS, Feature, Offset, TorchProducts, pixels_per_chunk

_ROWS: Final = 32
_CHANNELS: Final = 64
_TILE: Final = 4096
"""Values of a row-wise program: four warps with 32 each per thread."""

_ATTENTION: Final = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
"""By preference for rows of many keys: on Hopper cuDNN's is 1.5 times as fast as the others; docs/performance.md."""

_PAIRED_ROWS: Final = 64
"""Rows, of several pixels and all their frames, whose pairs a program of temporal attention looks at."""

_PRODUCT: Final = {
    "BLOCK_ROWS": 128,
    "BLOCK_WIDTH": 128,
    "BLOCK_DEPTH": 64,
    "GROUP": 8,
    "num_warps": 8,
    "num_stages": 3,
}
"""The gated product's blocks: the fastest of eight in all three widths of the published networks."""

_FEW_KEYS: Final = 64
"""Up to here the memory-efficient kernel is the fastest."""


class TritonOperators(TorchProducts):
    """The operations between convolutions and matrix products as GPU kernels; those two are torch's."""

    def add(self, base: Tensor, change: Tensor, scale: float, offset: Tensor | None) -> Feature:
        """See `TorchOperators.add`."""
        return Feature(change, self._sums(base, change, scale, offset))

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
        batch, frames, height, width, _ = sources[0].values.shape
        per_item = frames if over_frames else 1
        coefficients = _coefficients([self.sums(source) for source in sources], height * width, norm, per_item, offset)
        channels = sum(source.values.shape[-1] for source in sources)
        made = sources[0].values.new_empty(batch, frames, height, width, channels)
        first = 0
        for source in sources:
            _scale_shift(source.values, coefficients, made, first, silu=silu)
            first += source.values.shape[-1]
        return made

    def sums(self, feature: Feature) -> Tensor:
        """See `TorchOperators.sums`."""
        return self._sums(feature.values) if feature.sums is None else feature.sums

    def norm_coefficients(
        self, sums: Tensor, pixels: int, norm: nn.GroupNorm, *, frames: int, offset: Tensor | None = None
    ) -> Tensor:
        """See `TorchOperators.norm_coefficients`."""
        return _coefficients([sums], pixels, norm, frames, offset)

    def scale_shift(self, values: Tensor, coefficients: Tensor, *, silu: bool) -> Tensor:
        """See `TorchOperators.scale_shift`."""
        made = torch.empty_like(values)
        _scale_shift(values, coefficients, made, 0, silu=silu)
        return made

    def layer_norm(
        self,
        stream: Tensor,
        norm: nn.LayerNorm,
        *,
        change: Tensor | None = None,
        before: Offset | None = None,
        after: Offset | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `TorchOperators.layer_norm`."""
        rows, channels = stream.shape
        made = torch.empty_like(stream)
        is_new = change is not None or before is not None
        summed = stream if not is_new else torch.empty_like(stream) if change is None else change
        block = _power_of_two(channels)
        rows_at_once = max(_TILE // block, 1)
        kernels.add_layer_norm[(_parts(rows, rows_at_once),)](
            stream,
            stream if change is None else change,
            stream if before is None else before.values,
            stream if after is None else after.values,
            norm.weight,
            norm.bias,
            summed,
            made,
            rows,
            channels,
            *_places(before),
            *_places(after),
            norm.eps,
            HAS_CHANGE=change is not None,
            HAS_BEFORE=before is not None,
            HAS_AFTER=after is not None,
            BLOCK_ROWS=rows_at_once,
            BLOCK_CHANNELS=block,
        )
        return summed, made

    def gated_product(self, rows: Tensor, module: nn.Linear) -> Tensor:
        """See `TorchOperators.gated_product`."""
        if not _suits_gated_product(rows, module):
            return self._gated_gelu(F.linear(rows, module.weight, module.bias))
        from triton.tools.tensor_descriptor import TensorDescriptor

        (number, depth), width = rows.shape, module.out_features // 2
        made = rows.new_empty(number, width)
        block_rows, block_width, block_depth = (_PRODUCT[f"BLOCK_{name}"] for name in ("ROWS", "WIDTH", "DEPTH"))
        kernels.gated_product[(_parts(number, block_rows) * (width // block_width),)](
            TensorDescriptor.from_tensor(rows, [block_rows, block_depth]),
            TensorDescriptor.from_tensor(module.weight, [block_width, block_depth]),
            module.bias,
            TensorDescriptor.from_tensor(made, [block_rows, block_width]),
            number,
            depth,
            width,
            **_PRODUCT,
        )
        return made

    def _gated_gelu(self, rows: Tensor) -> Tensor:
        number, width = rows.shape[0], rows.shape[1] // 2
        made = rows.new_empty(number, width)
        block = min(_power_of_two(width), 256)
        rows_at_once = max(_TILE // 2 // block, 1)
        kernels.gate_gelu[(_parts(number, rows_at_once), _parts(width, block))](
            rows, made, number, width, BLOCK_ROWS=rows_at_once, BLOCK_CHANNELS=block
        )
        return made

    def mix(self, spatial: Tensor, temporal: Tensor, change: Tensor, spatial_share: float) -> Tensor:
        """See `TorchOperators.mix`."""
        kernels.mix_rows[(_parts(change.numel(), _TILE),)](
            spatial, temporal, change, change, change.numel(), spatial_share, BLOCK=_TILE
        )
        return change

    def temporal_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """See `TorchOperators.temporal_attention`."""
        batch, frames, pixels, width = qkv.shape
        channels = width // 3
        made = qkv.new_empty(batch, frames, pixels, channels)
        block_frames = _power_of_two(frames)
        pixels_at_once = max(_PAIRED_ROWS // block_frames, 1)
        kernels.attend_over_frames[(_parts(pixels, pixels_at_once), batch * heads)](
            qkv,
            made,
            pixels,
            channels,
            heads,
            1.0 / math.sqrt(channels // heads),
            FRAMES=frames,
            HEAD_WIDTH=channels // heads,
            BLOCK_PIXELS=pixels_at_once,
            BLOCK_FRAMES=block_frames,
            BLOCK_WIDTH=max(_power_of_two(channels // heads), 16),
        )
        return made

    def spatial_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """See `TorchOperators.spatial_attention`."""
        query, key, value = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        order = _ATTENTION if qkv.shape[1] > _FEW_KEYS else _ATTENTION[::-1]
        with sdpa_kernel(order, set_priority=True):
            return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    def _sums(
        self, base: Tensor, change: Tensor | None = None, scale: float = 1.0, offset: Tensor | None = None
    ) -> Tensor:
        """Sums over chunks of each picture's pixels; with a change, the sum of both is written over it."""
        batch, frames, height, width, channels = base.shape
        pixels = height * width
        rows_per_chunk = pixels_per_chunk(pixels)
        chunks = _parts(pixels, rows_per_chunk)
        sums = torch.empty(batch * frames, chunks, 2, channels, device=base.device, dtype=torch.float32)
        kernels.add_and_sum[(batch * frames, chunks, _parts(channels, _CHANNELS))](
            base,
            base if change is None else change,
            base if offset is None else offset,
            base if change is None else change,
            sums,
            pixels,
            channels,
            rows_per_chunk,
            scale,
            HAS_CHANGE=change is not None,
            HAS_OFFSET=offset is not None,
            BLOCK_ROWS=SUMMED_ROWS,
            BLOCK_CHANNELS=_CHANNELS,
        )
        return sums


def _coefficients(
    sums: Sequence[Tensor], pixels: int, norm: nn.GroupNorm, per_item: int, offset: Tensor | None
) -> Tensor:
    """Factor and shift float32 [items, 2, C] of one or two sources, whose channels follow each other."""
    first, last = sums[0], sums[-1]
    channels = sum(own.shape[-1] for own in sums)
    made = first.new_empty(len(first) // per_item, 2, channels)
    group_width = channels // norm.num_groups
    kernels.group_coefficients[(len(made), norm.num_groups)](
        first,
        last,
        norm.weight,
        norm.bias,
        made if offset is None else offset,
        made,
        per_item * first.shape[1],
        float(per_item * pixels),
        first.shape[-1],
        channels - first.shape[-1],
        group_width,
        norm.eps,
        HAS_OFFSET=offset is not None,
        BLOCK_ROWS=_ROWS,
        BLOCK_CHANNELS=_power_of_two(group_width),
    )
    return made


def _scale_shift(values: Tensor, coefficients: Tensor, out: Tensor, first_channel: int, *, silu: bool) -> None:
    """Write one source's normalised values into the channels of `out` from `first_channel` on."""
    batch, frames, height, width, channels = values.shape
    grid = (_parts(height * width, _ROWS), batch * frames, _parts(channels, _CHANNELS))
    kernels.scale_shift[grid](
        values,
        coefficients,
        out,
        height * width,
        channels,
        out.shape[-1],
        first_channel,
        batch * frames // len(coefficients),
        SILU=silu,
        BLOCK_ROWS=_ROWS,
        BLOCK_CHANNELS=_CHANNELS,
    )


def _suits_gated_product(rows: Tensor, module: nn.Linear) -> bool:
    """Whether the fused kernel can be used: whole blocks, half precision, and a GPU that copies blocks (Hopper on)."""
    whole = rows.shape[1] % _PRODUCT["BLOCK_DEPTH"] == 0 and module.out_features % (2 * _PRODUCT["BLOCK_WIDTH"]) == 0
    return (
        whole
        and rows.dtype != torch.float32
        and rows.is_cuda
        and torch.cuda.get_device_capability(rows.device) >= (9, 0)
    )


def _parts(number: int, size: int) -> int:
    return -(-number // size)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _places(offset: Offset | None) -> tuple[int, int, int]:
    """Rows per vector, vectors, and the distance between them."""
    return (1, 1, 0) if offset is None else (offset.every, len(offset.values), offset.values.stride(0))
