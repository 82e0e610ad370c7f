"""The spatio-temporal UNet of Stable Video Diffusion, taking a ControlNet's residuals.

Built by subclassing diffusers' `UNetSpatioTemporalConditionModel`: parameter names and shapes are those of the published
weights. Only `forward` differs, and its encoder half (`encode`) is shared with the event ControlNet.

Notable: **residuals accumulate.** The published checkpoints were trained with the ControlNet's skip residuals added after
*each* down block to *all* skips made so far. With n down blocks, a skip of block i (the input convolution counts as block 0)
therefore receives its residual n - i times; the residual of the mid block is added once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn


class Residuals(NamedTuple):
    """What a ControlNet adds to a UNet: one tensor per skip, and one for the mid block, each [B*F, C, h, w]."""

    skips: tuple[Tensor, ...]
    mid: Tensor


class DeepFeatures(NamedTuple):
    """What one prediction leaves for others at nearby noise levels (DeepCache, arXiv 2312.00858).

    Attributes:
        hidden: what the last up block was given, [B*F, C, h, w].
        skips: the residuals of that block's skips as they were added, each [B*F, C, h, w]; none without a ControlNet.
    """

    hidden: Tensor
    skips: tuple[Tensor, ...]


class Encoder(Protocol):
    """The parts that UNet and ControlNet have in common, by their diffusers names."""

    time_proj: nn.Module
    time_embedding: nn.Module
    add_time_proj: nn.Module
    add_embedding: nn.Module
    conv_in: nn.Module
    down_blocks: nn.ModuleList
    mid_block: nn.Module


class Given(NamedTuple):
    """What every block is given beside features: embedding and context [B*F, ...], and which items are single images."""

    embedding: Tensor
    context: Tensor
    image_only: Tensor

    def arguments(self, block: nn.Module | None) -> dict[str, Tensor]:
        """Keyword arguments of a block; the context is for those that look at it."""
        arguments = {"temb": self.embedding, "image_only_indicator": self.image_only}
        if getattr(block, "has_cross_attention", False):
            arguments["encoder_hidden_states"] = self.context
        return arguments


class Encoded(NamedTuple):
    """The encoder half's result: mid features, skips grouped by the block that made them, and what the blocks were given."""

    mid: Tensor
    skips: tuple[tuple[Tensor, ...], ...]
    given: Given


def encode(
    network: Encoder,
    sample: Tensor,
    timestep: Tensor,
    encoder_hidden_states: Tensor,
    added_time_ids: Tensor,
    added_features: Tensor | None = None,
) -> Encoded:
    """Run time embeddings, input convolution, down blocks and mid block.

    Args:
        network: a UNet or ControlNet.
        sample: [B, F, C, h, w] noisy latents with the key image's latent concatenated.
        timestep: scalar or [B], 0.25 ln sigma.
        encoder_hidden_states: [B, 1, D] CLIP embedding of the key image.
        added_time_ids: [B, 3] (fps - 1, motion bucket id, noise augmentation strength).
        added_features: [B*F, C0, h, w] added to the input convolution's output.
    """
    given = _given(network, sample, timestep, encoder_hidden_states, added_time_ids)
    hidden = network.conv_in(sample.flatten(0, 1))  # [B, F, C, h, w] -> [B*F, C0, h, w]
    if added_features is not None:
        hidden = hidden + added_features
    skips: list[tuple[Tensor, ...]] = []
    for index, block in enumerate(network.down_blocks):
        first = (hidden,) if index == 0 else ()
        hidden, made = block(hidden, **given.arguments(block))
        skips.append((*first, *made))
    # the mid block always looks at the context
    mid = network.mid_block(hidden, encoder_hidden_states=given.context, **given.arguments(None))
    return Encoded(mid, tuple(skips), given)


def _given(network: Encoder, sample: Tensor, timestep: Tensor, context: Tensor, added_time_ids: Tensor) -> Given:
    """What every block is given, from the arguments of `encode`."""
    batch, num_frames = sample.shape[:2]
    embedding = time_embedding(network, timestep, added_time_ids, batch, sample.dtype)
    embedding = embedding.repeat_interleave(num_frames, dim=0, output_size=batch * num_frames)
    context = context.repeat_interleave(num_frames, dim=0, output_size=batch * num_frames)
    return Given(embedding, context, torch.zeros(batch, num_frames, dtype=sample.dtype, device=sample.device))


def time_embedding(network: Encoder, timestep: Tensor, ids: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    """[B, time channels]: the sum of the noise level's and the added ids' embeddings."""
    noise = network.time_proj(timestep.expand(batch)).to(dtype)
    added = network.add_time_proj(ids.flatten()).reshape(batch, -1).to(dtype)
    embedding: Tensor = network.time_embedding(noise) + network.add_embedding(added)
    return embedding


class EventUNet(UNetSpatioTemporalConditionModel):
    """Stable Video Diffusion's UNet with ControlNet residuals; see the module's docstring."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        residuals: Residuals | None = None,
        *,
        reuse: DeepFeatures | None = None,
        keep: Callable[[DeepFeatures], None] | None = None,
    ) -> Tensor:
        """Predict v for noisy latents.

        Args:
            sample: [B, F, in_channels, h, w]; h and w multiples of 2**(number of down blocks - 1).
            timestep: scalar or [B].
            encoder_hidden_states: [B, 1, D].
            added_time_ids: [B, 3].
            residuals: the ControlNet's, already scaled.
            reuse: deep features of an earlier prediction for the same items: only the input convolution, the first down
                block and the last up block are computed; `residuals` are not looked at.
            keep: called with this prediction's deep features; not with `reuse`.

        Returns:
            [B, F, out_channels, h, w].
        """
        if reuse is not None:
            given = _given(self, sample, timestep, encoder_hidden_states, added_time_ids)
            return self._finish(reuse.hidden, self._first_skips(sample, given, reuse.skips), given, sample)
        encoded = encode(self, sample, timestep, encoder_hidden_states, added_time_ids)
        hidden, skips = encoded.mid, [skip for made in encoded.skips for skip in made]
        if residuals is not None:
            hidden = hidden + residuals.mid
            skips = _accumulated(encoded.skips, residuals.skips)
        for block in list(self.up_blocks)[:-1]:
            number = len(block.resnets)
            skips, taken = skips[:-number], tuple(skips[-number:])
            hidden = block(hidden, res_hidden_states_tuple=taken, **encoded.given.arguments(block))
        if keep is not None:
            changes = () if residuals is None else residuals.skips[: len(skips)]
            keep(DeepFeatures(hidden, tuple(len(encoded.skips) * change for change in changes)))
        return self._finish(hidden, tuple(skips), encoded.given, sample)

    def _first_skips(self, sample: Tensor, given: Given, changes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The skips that the last up block takes: the input convolution's and the first down block's, changes added."""
        first = self.conv_in(sample.flatten(0, 1))
        block, number = self.down_blocks[0], len(self.up_blocks[-1].resnets)
        _, made = block(first, **given.arguments(block))
        skips = (first, *made)[:number]  # without the downsampler's
        return tuple(skip + change for skip, change in zip(skips, changes, strict=True)) if changes else skips

    def _finish(self, hidden: Tensor, skips: tuple[Tensor, ...], given: Given, sample: Tensor) -> Tensor:
        """The last up block and the output."""
        block = self.up_blocks[-1]
        hidden = block(hidden, res_hidden_states_tuple=skips, **given.arguments(block))
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, sample.shape[:2])  # [B*F, C, h, w] -> [B, F, C, h, w]


def _accumulated(skips: tuple[tuple[Tensor, ...], ...], residuals: tuple[Tensor, ...]) -> list[Tensor]:
    """Skips with their residuals, each added once for every down block from its own to the last."""
    remaining = iter(residuals)
    return [skip + (len(skips) - index) * next(remaining) for index, made in enumerate(skips) for skip in made]
