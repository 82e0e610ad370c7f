"""The operations that the networks are made of, as one set with several makers.

Every activation is a tensor [B, F, h, w, C] with the channels last and contiguous: convolutions see it as channels-last
pictures or volumes, matrix products as rows, and neither needs a copy. What lies between those two (normalisation,
activation, residual sums, gates, attention over few frames) is bound by memory traffic, so that each operation here does
everything that can be done in one pass. `TorchOperators` writes them down in plain torch: it is the reference for
`TritonOperators` (on a GPU) and `CpuOperators`. Which of them runs is decided once, by `fast.make_operators`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SUMMED_ROWS: Final = 128
"""Pixels that a kernel sums up at once; a chunk is a multiple of it."""

_MOST_CHUNKS: Final = 512


def pixels_per_chunk(pixels: int) -> int:
    """Pixels of a picture whose values are summed up together, for `Feature.sums`."""
    blocks = -(-pixels // (_MOST_CHUNKS * SUMMED_ROWS))
    return blocks * SUMMED_ROWS


@dataclass(frozen=True, eq=False)
class Feature:
    """An activation and what is known of it.

    Attributes:
        values: [B, F, h, w, C].
        sums: float32 [B F, chunks, 2, C], sums of values and of their squares over chunks of pixels; None if not known.
    """

    values: Tensor
    sums: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Offset:
    """Vectors added to rows of an activation: row r gets values[(r // every) % len(values)].

    Attributes:
        values: float32 [K, C]; its rows may lie apart.
        every: rows that share a vector.
    """

    values: Tensor
    every: int

    def rows(self, number: int) -> Tensor:
        """The vectors of `number` rows, [number, C]."""
        index = torch.arange(number, device=self.values.device) // self.every % len(self.values)
        return self.values[index]


def as_pictures(values: Tensor) -> Tensor:
    """[B, F, h, w, C] as channels-last pictures [B F, C, h, w]."""
    return values.flatten(0, 1).permute(0, 3, 1, 2)


def from_pictures(pictures: Tensor, num_frames: int) -> Tensor:
    """Channels-last pictures [B F, C, h, w] as [B, F, h, w, C]."""
    rows = pictures.permute(0, 2, 3, 1).contiguous()
    return rows.view(-1, num_frames, *rows.shape[1:])


def enlarged(values: Tensor) -> Tensor:
    """[B, F, h, w, C] with every pixel repeated, [B, F, 2 h, 2 w, C]."""
    return from_pictures(F.interpolate(as_pictures(values), scale_factor=2.0, mode="nearest"), values.shape[1])


class Operators(Protocol):
    """All operations; see `TorchProducts` and `TorchOperators` for what each computes."""

    def convolve(self, values: Tensor, module: nn.Conv2d, *, bias: bool) -> Tensor:
        """See `TorchProducts.convolve`."""

    def convolve_enlarged(self, values: Tensor, module: nn.Conv2d) -> Tensor:
        """See `TorchProducts.convolve_enlarged`."""

    def convolve_frames(self, values: Tensor, module: nn.Conv3d) -> Tensor:
        """See `TorchProducts.convolve_frames`."""

    def product(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """See `TorchProducts.product`."""

    def add_product(self, total: Tensor, rows: Tensor, weight: Tensor) -> None:
        """See `TorchProducts.add_product`."""

    def add(self, base: Tensor, change: Tensor, scale: float, offset: Tensor | None) -> Feature:
        """See `TorchOperators.add`."""

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

    def sums(self, feature: Feature) -> Tensor:
        """See `TorchOperators.sums`."""

    def norm_coefficients(
        self, sums: Tensor, pixels: int, norm: nn.GroupNorm, *, frames: int, offset: Tensor | None = None
    ) -> Tensor:
        """See `TorchOperators.norm_coefficients`."""

    def scale_shift(self, values: Tensor, coefficients: Tensor, *, silu: bool) -> Tensor:
        """See `TorchOperators.scale_shift`."""

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

    def gated_product(self, rows: Tensor, module: nn.Linear) -> Tensor:
        """See `TorchOperators.gated_product`."""

    def mix(self, spatial: Tensor, temporal: Tensor, change: Tensor, spatial_share: float) -> Tensor:
        """See `TorchOperators.mix`."""

    def temporal_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """See `TorchOperators.temporal_attention`."""

    def spatial_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """See `TorchOperators.spatial_attention`."""


class TorchProducts:
    """Convolutions and matrix products in plain torch."""

    def convolve(self, values: Tensor, module: nn.Conv2d, *, bias: bool) -> Tensor:
        """A convolution of every frame of [B, F, h, w, C]; its bias may be left to the next operation."""
        added = module.bias if bias else None
        made = F.conv2d(as_pictures(values), module.weight, added, module.stride, module.padding)
        return from_pictures(made, values.shape[1])

    def convolve_enlarged(self, values: Tensor, module: nn.Conv2d) -> Tensor:
        """A convolution, its bias included, of every frame of [B, F, h, w, C] with every pixel repeated."""
        return self.convolve(enlarged(values), module, bias=True)

    def convolve_frames(self, values: Tensor, module: nn.Conv3d) -> Tensor:
        """A convolution over the frames of [B, F, h, w, C], without its bias."""
        made = F.conv3d(values.permute(0, 4, 1, 2, 3), module.weight, None, 1, module.padding)
        return made.permute(0, 2, 3, 4, 1).contiguous()

    def product(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A linear layer of [..., C], to [..., N]; its weight is [N, C]."""
        return F.linear(rows, weight, bias)

    def add_product(self, total: Tensor, rows: Tensor, weight: Tensor) -> None:
        """Add the product of [R, C] to a total [R, N]."""
        total.addmm_(rows, weight.t())


class TorchOperators(TorchProducts):
    """The operations in plain torch."""

    def add(self, base: Tensor, change: Tensor, scale: float, offset: Tensor | None) -> Feature:
        """base + scale · (change + offset), written over `change`.

        Args:
            base: [B, F, h, w, C].
            change: likewise; it is overwritten.
            scale: a factor.
            offset: float32 [C].
        """
        if offset is not None:
            change.add_(offset)
        if scale != 1.0:
            change.mul_(scale)
        return Feature(change.add_(base))

    def group_norm(
        self,
        sources: Sequence[Feature],
        norm: nn.GroupNorm,
        *,
        over_frames: bool,
        silu: bool,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Normalise groups of channels.

        Args:
            sources: activations whose channels follow each other.
            norm: number of groups, scale and shift.
            over_frames: take statistics over all frames of an item together, not frame by frame.
            silu: x · sigmoid(x) follows.
            offset: float32 [C] added first.

        Returns:
            [B, F, h, w, C].
        """
        values = sources[0].values if len(sources) == 1 else torch.cat([source.values for source in sources], dim=-1)
        if offset is not None:
            values = values + offset.to(values.dtype)
        pictures = values.flatten(2, 3) if over_frames else values.flatten(0, 1)  # [B, F, hw, C] or [BF, h, w, C]
        made = F.group_norm(pictures.permute(0, 3, 1, 2), norm.num_groups, norm.weight, norm.bias, norm.eps)
        if silu:
            made = F.silu(made, inplace=True)
        return made.permute(0, 2, 3, 1).reshape(values.shape)

    def sums(self, feature: Feature) -> Tensor:
        """What `Feature.sums` is, made if it is not known."""
        if feature.sums is not None:
            return feature.sums
        values = feature.values.flatten(0, 1).flatten(1, 2).float()  # [B F, h w, C]
        return torch.stack([values.sum(1), values.square().sum(1)], dim=1).unsqueeze(1)

    def norm_coefficients(
        self, sums: Tensor, pixels: int, norm: nn.GroupNorm, *, frames: int, offset: Tensor | None = None
    ) -> Tensor:
        """The factor and the shift that group normalisation comes down to, for activations that are made piece by piece.

        Args:
            sums: float32 [B F, chunks, 2, C], of all pieces.
            pixels: of a frame, all pieces together.
            norm: number of groups, scale and shift.
            frames: that are normalised together: 1, or all of an item.
            offset: float32 [C] added to values first.

        Returns:
            Float32 [B F / frames, 2, C]: values · factor + shift, the offset included.
        """
        totals = sums.unflatten(0, (-1, frames)).sum((1, 2)).double()  # [items, 2, C]
        added = totals.new_zeros(totals.shape[-1]) if offset is None else offset.double()
        number = frames * pixels
        total = totals[:, 0] + number * added
        squares = totals[:, 1] + 2 * added * totals[:, 0] + number * added.square()
        mean, square = (
            part.unflatten(1, (norm.num_groups, -1)).mean(2) / number for part in (total, squares)
        )  # [items, groups]
        width = len(added) // norm.num_groups
        mean, square = (part.repeat_interleave(width, dim=1) for part in (mean, square))
        factor = norm.weight.double() * (square - mean.square()).clamp(min=0).add(norm.eps).rsqrt()
        return torch.stack([factor, norm.bias.double() + (added - mean) * factor], dim=1).float()

    def scale_shift(self, values: Tensor, coefficients: Tensor, *, silu: bool) -> Tensor:
        """values · factor + shift; x · sigmoid(x) may follow.

        Args:
            values: [B, F, h, w, C].
            coefficients: float32 [items, 2, C], for consecutive frames of equal number.
            silu: whether it follows.
        """
        per_item = values.shape[0] * values.shape[1] // len(coefficients)
        factor, shift = coefficients.repeat_interleave(per_item, dim=0).to(values.dtype)[:, :, None, None].unbind(1)
        made = torch.addcmul(shift, values.flatten(0, 1), factor)
        return (F.silu(made, inplace=True) if silu else made).view(values.shape)

    def layer_norm(
        self,
        stream: Tensor,
        norm: nn.LayerNorm,
        *,
        change: Tensor | None = None,
        before: Offset | None = None,
        after: Offset | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sum up a residual stream and normalise it over its channels.

        Args:
            stream: rows [R, C].
            norm: scale and shift.
            change: [R, C], added to the stream; it may be overwritten.
            before: added to the stream.
            after: added to what is normalised, but not to the stream.

        Returns:
            The stream stream + change + before, and its normalised rows.
        """
        number = len(stream)
        if change is not None:
            stream = change.add_(stream)
        if before is not None:
            stream = stream + before.rows(number).to(stream.dtype)
        seen = stream if after is None else stream + after.rows(number).to(stream.dtype)
        return stream, F.layer_norm(seen, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    def gated_product(self, rows: Tensor, module: nn.Linear) -> Tensor:
        """The first half of a linear layer's outputs times the exact GELU of the second half.

        Args:
            rows: [R, C].
            module: the layer, from C to 2 N.

        Returns:
            [R, N].
        """
        values, gate = F.linear(rows, module.weight, module.bias).chunk(2, dim=-1)
        return values * F.gelu(gate)

    def mix(self, spatial: Tensor, temporal: Tensor, change: Tensor, spatial_share: float) -> Tensor:
        """spatial_share · spatial + (1 - spatial_share) · (temporal + change), rows [R, C]; `change` may be overwritten."""
        return torch.lerp(change.add_(temporal), spatial, spatial_share)

    def temporal_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """Self-attention over the frames of each pixel.

        Args:
            qkv: [B, F, P, 3 C], queries, keys and values.
            heads: number of heads that the C channels are divided into.

        Returns:
            [B, F, P, C].
        """
        batch, frames, pixels = qkv.shape[:3]
        parts = qkv.reshape(batch, frames, pixels, 3, heads, -1).permute(3, 0, 2, 4, 1, 5)  # [3, B, P, heads, F, D]
        query, key, value = parts.flatten(1, 2)
        made = F.scaled_dot_product_attention(query, key, value)  # [B P, heads, F, D]
        return made.unflatten(0, (batch, pixels)).permute(0, 3, 1, 2, 4).reshape(batch, frames, pixels, -1)

    def spatial_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """Self-attention over the pixels of each frame.

        Args:
            qkv: [N, P, 3 C].
            heads: number of heads.

        Returns:
            [N, P, C].
        """
        query, key, value = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
