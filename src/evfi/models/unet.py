"""The spatio-temporal UNet of Stable Video Diffusion, taking a ControlNet's residuals.

Built by subclassing diffusers' `UNetSpatioTemporalConditionModel`: parameter names and shapes are those of the published
weights. Only `forward` differs, and its encoder half (`encode`) is shared with the event ControlNet.

Notable: **residuals accumulate.** The published checkpoints were trained with the ControlNet's skip residuals added after
*each* down block to *all* skips made so far. With n down blocks, a skip of block i (the input convolution counts as block 0)
therefore receives its residual n - i times; the residual of the mid block is added once.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn


class Residuals(NamedTuple):
    """What a ControlNet adds to a UNet: one tensor per skip, and one for the mid block, each [B*F, C, h, w]."""

    skips: tuple[Tensor, ...]
    mid: Tensor


class Encoder(Protocol):
    """The parts that UNet and ControlNet have in common, by their diffusers names."""

    time_proj: nn.Module
    time_embedding: nn.Module
    add_time_proj: nn.Module
    add_embedding: nn.Module
    conv_in: nn.Module
    down_blocks: nn.ModuleList
    mid_block: nn.Module


class Encoded(NamedTuple):
    """The encoder half's result: mid features, skips grouped by the block that made them, and what the blocks were given."""

    mid: Tensor
    skips: tuple[tuple[Tensor, ...], ...]
    embedding: Tensor
    context: Tensor
    image_only: Tensor


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
    batch, num_frames = sample.shape[:2]
    embedding = _time_embedding(network, timestep, added_time_ids, batch, sample.dtype)
    embedding = embedding.repeat_interleave(num_frames, dim=0, output_size=batch * num_frames)
    context = encoder_hidden_states.repeat_interleave(num_frames, dim=0, output_size=batch * num_frames)
    image_only = torch.zeros(batch, num_frames, dtype=sample.dtype, device=sample.device)

    hidden = network.conv_in(sample.flatten(0, 1))  # [B, F, C, h, w] -> [B*F, C0, h, w]
    if added_features is not None:
        hidden = hidden + added_features
    skips: list[tuple[Tensor, ...]] = []
    for index, block in enumerate(network.down_blocks):
        first = (hidden,) if index == 0 else ()
        hidden, made = block(hidden, temb=embedding, image_only_indicator=image_only, **_context(block, context))
        skips.append((*first, *made))
    mid = network.mid_block(hidden, temb=embedding, encoder_hidden_states=context, image_only_indicator=image_only)
    return Encoded(mid, tuple(skips), embedding, context, image_only)


def _time_embedding(network: Encoder, timestep: Tensor, ids: Tensor, batch: int, dtype: torch.dtype) -> Tensor:
    """[B, time channels]: the sum of the noise level's and the added ids' embeddings."""
    noise = network.time_proj(timestep.expand(batch)).to(dtype)
    added = network.add_time_proj(ids.flatten()).reshape(batch, -1).to(dtype)
    embedding: Tensor = network.time_embedding(noise) + network.add_embedding(added)
    return embedding


def _context(block: nn.Module, context: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}


class EventUNet(UNetSpatioTemporalConditionModel):
    """Stable Video Diffusion's UNet with ControlNet residuals; see the module's docstring."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """Predict v for noisy latents.

        Args:
            sample: [B, F, in_channels, h, w]; h and w multiples of 2**(number of down blocks - 1).
            timestep: scalar or [B].
            encoder_hidden_states: [B, 1, D].
            added_time_ids: [B, 3].
            residuals: the ControlNet's, already scaled.

        Returns:
            [B, F, out_channels, h, w].
        """
        encoded = encode(self, sample, timestep, encoder_hidden_states, added_time_ids)
        hidden, skips = encoded.mid, [skip for made in encoded.skips for skip in made]
        if residuals is not None:
            hidden = hidden + residuals.mid
            skips = _accumulated(encoded.skips, residuals.skips)
        for block in self.up_blocks:
            number = len(block.resnets)
            skips, taken = skips[:-number], tuple(skips[-number:])
            hidden = block(
                hidden,
                res_hidden_states_tuple=taken,
                temb=encoded.embedding,
                image_only_indicator=encoded.image_only,
                **_context(block, encoded.context),
            )
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, sample.shape[:2])  # [B*F, C, h, w] -> [B, F, C, h, w]


def _accumulated(skips: tuple[tuple[Tensor, ...], ...], residuals: tuple[Tensor, ...]) -> list[Tensor]:
    """Skips with their residuals, each added once for every down block from its own to the last."""
    remaining = iter(residuals)
    return [skip + (len(skips) - index) * next(remaining) for index, made in enumerate(skips) for skip in made]
