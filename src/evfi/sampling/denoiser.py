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
from functools import partial
from typing import Any, Protocol, TypeAlias

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
        reuse: take the networks' deep features from the last step without this mark instead of computing them; where they
            are not at hand for the same items (another guidance), the step is computed in full.
    """

    guided: bool = True
    reuse: bool = False


def step_modes(config: SamplingConfig, num_steps: int) -> tuple[StepMode, ...]:
    """How the networks are called in each step.

    A step is guided if guidance is on at all and the step's place, 0 for the first and 1 for the last, is in the settings'
    interval. Places stand for noise levels: a Karras schedule of any number of steps has the same level at the same place.
    A step reuses deep features if fewer than `reuse_interval` - 1 steps did since they were computed, and if it is guided
    as that step was: it then has the same items.

    Args:
        config: guidance and reuse.
        num_steps: N, the number of steps.
    """
    modes: list[StepMode] = []
    since_full = 0
    for step in range(num_steps):
        place = step / max(num_steps - 1, 1)
        guided = config.is_guided and config.guidance_start <= place <= config.guidance_end
        reuse = bool(modes) and since_full + 1 < config.reuse_interval and modes[-1].guided == guided
        since_full = since_full + 1 if reuse else 0
        modes.append(StepMode(guided, reuse))
    return tuple(modes)


class Denoiser(Protocol):
    """Predicts v for both passes of one window."""

    def __call__(self, passes: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        """Predict v.

        Args:
            passes: noisy latents of both passes, each in its own order of frames, float32 [2, F, C, h, w].
            sigma: their noise level.
            timestep: its input to the network, a scalar on the networks' device.
            mode: how the networks are called.

        Returns:
            float32 [2, F, C, h, w], guided and averaged over tiles.
        """


MakeDenoiser: TypeAlias = Callable[[ModelBundle, Conditioning, SamplingConfig], Denoiser]
"""Makes the denoiser of one window."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Items of one network call.

    Attributes:
        place: int64 [B], each item's place among the 2 T (tile, pass) pairs.
        conditional: [B, 1, 1, 1], 1 for items that see their key image and 0 for others.
    """

    place: Tensor
    conditional: Tensor


class GuidedDenoiser:
    """Predicts v for both passes of one window; what a network call is, engines may say in their own way."""

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
        pairs, place = len(self._image_latents), bundle.unet.device
        self._batches = {
            guided: _planned(pairs, 2 if guided else 1, config.batch_size, place, bundle.unet.dtype)
            for guided in {False, self._guidance is not None}
        }
        self._keeps_features = config.reuse_interval > 1
        self._features: dict[Batch, Any] = {}  # what an engine keeps; here `DeepFeatures`

    def __call__(self, passes: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        """See `Denoiser.__call__`."""
        tiles = self._grid.crop_all(network_input(passes, sigma)).flatten(0, 1)  # [2 T, F, C, h, w]
        tiles = tiles.to(self._bundle.unet.dtype)
        guidance = self._guidance if mode.guided else None
        batches = self._batches[guidance is not None]
        reuse = mode.reuse and all(batch in self._features for batch in batches)
        if not reuse:
            self._features.clear()
        call = self._refine if reuse else self._call_networks
        velocity = torch.cat([made.float() for made in self._each(partial(call, tiles, timestep), batches)])
        if guidance is not None:
            with_image, without_image = velocity[0::2], velocity[1::2]
            velocity = without_image + guidance * (with_image - without_image)
        # [2 T, F, C, h, w] -> [T, 2, F, C, h, w]
        return self._grid.average(velocity.reshape(-1, 2, *velocity.shape[1:]), self._weights)

    def _each(self, call: Callable[[Batch], Tensor], batches: list[Batch]) -> list[Tensor]:
        """The results of all batches, one after the other."""
        return [call(batch) for batch in batches]

    def _call_networks(self, tiles: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """v-predictions [B, F, C, h, w] of one batch's items."""
        sample, context, ids = self._inputs(tiles, batch)
        events = self._event_features[batch.place]
        residuals = self._bundle.controlnet(sample, timestep, context, ids, events, self._scale)
        keep = partial(self._features.__setitem__, batch) if self._keeps_features else None
        velocity: Tensor = self._bundle.unet(sample, timestep, context, ids, residuals, keep=keep)
        return velocity

    def _refine(self, tiles: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """v-predictions [B, F, C, h, w] of one batch's items with the deep features of its last full computation."""
        sample, context, ids = self._inputs(tiles, batch)
        velocity: Tensor = self._bundle.unet(sample, timestep, context, ids, reuse=self._features[batch])
        return velocity

    def _inputs(self, tiles: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy sample with the key image's latent [B, F, 2 C, h, w], context [B, 1, D] and added ids [B, 3]."""
        context = self._embeddings[batch.place % 2] * batch.conditional[:, 0]
        return self._with_images(tiles, batch), context, self._ids.expand(len(batch.place), -1)

    def _with_images(self, tiles: Tensor, batch: Batch) -> Tensor:
        """Noisy samples with the key images' latents, [B, F, 2 C, h, w]."""
        noisy = tiles[batch.place]
        images = self._image_latents[batch.place] * batch.conditional
        return torch.cat([noisy, images.unsqueeze(1).expand(-1, noisy.shape[1], -1, -1, -1)], dim=2)


def _planned(pairs: int, halves: int, batch_size: int, device: torch.device, dtype: torch.dtype) -> list[Batch]:
    """Batches of all (tile, pass) pairs, each with its guidance halves side by side."""
    number = -(-pairs * halves // batch_size)
    place = torch.arange(pairs).repeat_interleave(halves).tensor_split(number)
    conditional = torch.tensor([1.0, 0.0][:halves]).repeat(pairs).view(-1, 1, 1, 1).tensor_split(number)
    return [Batch(p.to(device), c.to(device, dtype)) for p, c in zip(place, conditional, strict=True)]
