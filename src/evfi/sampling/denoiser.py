"""The guided network call: from noisy latents of a frame to the v-predictions of both passes.

A pass's tiles, the two passes and the two halves of classifier-free guidance are all items of one list, which goes
through the networks in batches of at most `batch_size`. Items do not see each other, so the batch size changes the
result by rounding only.

The unconditional half has a zero CLIP embedding and a zero image latent, but the same events (Classifier-Free Diffusion
Guidance, arXiv 2207.12598). The guidance scale rises linearly over the *frames of a pass*, counted from its key image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import Conditioning
from evfi.sampling.config import SamplingConfig
from evfi.sampling.schedule import network_input


@dataclass(frozen=True)
class StepMode:
    """How the networks are called in one step.

    Attributes:
        guided: with classifier-free guidance; otherwise the prediction that sees the key images is taken as it is.
        reuse: take the networks' deep features from the last step without this mark instead of computing them.
    """

    guided: bool = True
    reuse: bool = False


class Denoiser(Protocol):
    """Predicts v for both passes of one window."""

    def __call__(self, passes: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        """Predict v.

        Args:
            passes: noisy latents of both passes, each in its own order of frames, float32 [2, F, C, h, w].
            sigma: their noise level.
            timestep: what the network is told of it, a scalar on the networks' device.
            mode: how the networks are called.

        Returns:
            float32 [2, F, C, h, w], guided and averaged over tiles.
        """


MakeDenoiser: TypeAlias = Callable[[ModelBundle, Conditioning, SamplingConfig], Denoiser]
"""Makes the denoiser of one window."""


@dataclass(frozen=True)
class _Batch:
    """Items of one network call.

    Attributes:
        place: int64 [B], each item's place among the 2 T (tile, pass) pairs.
        conditional: [B, 1, 1, 1], 1 for items that see their key image and 0 for others.
    """

    place: Tensor
    conditional: Tensor


class GuidedDenoiser:
    """Predicts v for both passes of one window."""

    def __init__(self, bundle: ModelBundle, conditioning: Conditioning, config: SamplingConfig) -> None:
        """Plan the batches and put the constant inputs in order.

        Args:
            bundle: the model.
            conditioning: what steers this window.
            config: guidance, the events' strength and the batch size.
        """
        self._bundle = bundle
        self._grid = conditioning.grid
        self._scale = config.controlnet_scale
        self._embeddings = conditioning.image_embeddings
        self._ids = conditioning.added_time_ids
        self._image_latents = conditioning.image_latents.flatten(0, 1)  # [T, 2, C, h, w] -> [2 T, C, h, w]
        self._event_features = conditioning.event_features.flatten(0, 1)  # [2 T, F, C0, h, w]
        self._weights = self._grid.weights(bundle.unet.device)
        num_frames = self._event_features.shape[1]
        self._guidance: Tensor | None = None
        if config.is_guided:
            ramp = torch.linspace(config.min_guidance_scale, config.max_guidance_scale, num_frames)
            self._guidance = ramp.view(-1, 1, 1, 1).to(bundle.unet.device)
        self._batches = self._planned(config.batch_size, bundle.unet.device, bundle.unet.dtype)

    def _planned(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> list[_Batch]:
        pairs = len(self._image_latents)
        halves = 1 if self._guidance is None else 2
        number = -(-pairs * halves // batch_size)
        place = torch.arange(pairs).repeat_interleave(halves).tensor_split(number)
        conditional = torch.tensor([1.0, 0.0][:halves]).repeat(pairs).view(-1, 1, 1, 1).tensor_split(number)
        return [_Batch(p.to(device), c.to(device, dtype)) for p, c in zip(place, conditional, strict=True)]

    def __call__(self, passes: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        """See `Denoiser.__call__`."""
        tiles = self._grid.crop_all(network_input(passes, sigma)).flatten(0, 1)  # [2 T, F, C, h, w]
        tiles = tiles.to(self._bundle.unet.dtype)
        velocity = torch.cat([self._call_networks(tiles, timestep, batch).float() for batch in self._batches])
        if self._guidance is not None:
            with_image, without_image = velocity[0::2], velocity[1::2]
            velocity = without_image + self._guidance * (with_image - without_image)
        # [2 T, F, C, h, w] -> [T, 2, F, C, h, w]
        return self._grid.average(velocity.reshape(-1, 2, *velocity.shape[1:]), self._weights)

    def _call_networks(self, tiles: Tensor, timestep: Tensor, batch: _Batch) -> Tensor:
        """v-predictions [B, F, C, h, w] of one batch's items."""
        noisy = tiles[batch.place]
        images = self._image_latents[batch.place] * batch.conditional
        sample = torch.cat([noisy, images.unsqueeze(1).expand(-1, noisy.shape[1], -1, -1, -1)], dim=2)
        context = self._embeddings[batch.place % 2] * batch.conditional[:, 0]
        ids = self._ids.expand(len(batch.place), -1)
        events = self._event_features[batch.place]
        residuals = self._bundle.controlnet(sample, timestep, context, ids, events, self._scale)
        velocity: Tensor = self._bundle.unet(sample, timestep, context, ids, residuals)
        return velocity
