"""Predictions of a frozen model for many rendered windows at once, and predictions that stand for those of other models.

The refiner learns on what a diffusion model makes. `Predictor` runs a model over a whole batch of windows, without
tiles; it computes what `evfi.sampling.two_sided` computes for each window. Models whose weights are not at hand make other
errors: a large frozen autoencoder loses texture and shifts colours, a pass that fits badly misplaces parts.
`degraded_predictions` makes such pictures from the true frames.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.engine.fast import make_operators
from evfi.engine.network import Constants, SteeredUNet
from evfi.errors import ConfigError
from evfi.models.bundle import ModelBundle, decode_latents, encode_pixels
from evfi.models.refiner import warp
from evfi.sampling.config import SamplingConfig
from evfi.sampling.schedule import karras_schedule
from evfi.sampling.two_sided import fusion_weights
from evfi.training.motion import Draw

_DECODED_AT_ONCE = 64
PREDICTION_MULTIPLE = 4
"""Sides of pictures that `degraded_predictions` takes must be multiples of this."""


def check_model(bundle: ModelBundle) -> SamplingConfig:
    """The settings that a model samples with by default.

    Raises:
        ConfigError: it needs what sampling in batches does without.
    """
    config = SamplingConfig.from_defaults(bundle.sampling)
    if config.is_guided or bundle.image_encoder is not None:
        raise ConfigError(
            f"the refiner is trained on a model that samples without guidance and image encoder, but {bundle.info.name} has "
            "them; pass a small model such as evfi-tiny as --init"
        )
    needed: dict[str, object] = {"solver": "euler", "s_churn": 0.0, "noise_aug_strength": 0.0, "num_reinjections": 0}
    other = [f"{name} {getattr(config, name)}" for name, value in needed.items() if getattr(config, name) != value]
    if other:
        raise ConfigError(
            f"the refiner is trained on a model that samples with {needed}, but {bundle.info.name} has {', '.join(other)}; "
            "pass a small model such as evfi-tiny as --init"
        )
    return config


class Predictor:
    """A frozen model that samples batches of windows."""

    def __init__(self, bundle: ModelBundle) -> None:
        """Take a model, on the device and in the dtype it shall run in.

        Raises:
            ConfigError: it needs guidance, which sampling in batches does without.
        """
        self.bundle = bundle
        self._config = check_model(bundle)
        with torch.inference_mode():
            self._network = SteeredUNet(bundle.controlnet, bundle.unet, make_operators(bundle.unet.device))

    @torch.inference_mode()
    def sample(self, keys: Tensor, forward: Tensor, backward: Tensor, times_us: Tensor, noise: Tensor) -> Tensor:
        """Sample all frames of a batch of windows.

        Args:
            keys: start and end key frames [B, 2, 3, H, W] in [-1, 1].
            forward: event stacks [B, F, K, H, W].
            backward: event stacks from the end.
            times_us: output times [B, F].
            noise: standard normal [B, F, C, h, w].

        Returns:
            float32 [B, F, 3, H, W] in [-1, 1].
        """
        bundle = self.bundle
        batch, frames = forward.shape[:2]
        latent = encode_pixels(bundle.vae, keys.flatten(0, 1)).unflatten(0, (batch, 2))
        images = torch.cat([latent[:, 0], latent[:, 1]]).unsqueeze(1).expand(-1, frames, -1, -1, -1)
        events = bundle.controlnet.embed_events(torch.cat([forward, backward]).to(bundle.unet.dtype))
        weights = torch.stack([fusion_weights(row) for row in times_us.cpu()]).to(keys.device)[..., None, None, None]
        schedule = karras_schedule(bundle.scheduler, self._config.num_inference_steps)
        latents = noise * schedule.initial_scale
        for sigma, timestep, following in zip(
            schedule.sigmas[:-1], schedule.timesteps, schedule.sigmas[1:], strict=True
        ):
            both = torch.cat([latents, latents.flip(1)]) / math.sqrt(sigma**2 + 1)
            passes = self._velocity(torch.cat([both.to(images.dtype), images], 2), events, timestep)
            velocity = torch.lerp(passes[batch:].flip(1), passes[:batch], weights)
            denoised = latents / (sigma**2 + 1) - velocity * sigma / math.sqrt(sigma**2 + 1)
            latents = latents + (latents - denoised) / sigma * (following - sigma)
        decoded = decode_latents(bundle.vae, latents.flatten(0, 1), _DECODED_AT_ONCE)
        return decoded.float().clamp(-1, 1).unflatten(0, (batch, frames))

    def _velocity(self, sample: Tensor, events: Tensor, timestep: float) -> Tensor:
        """The networks' v-prediction float32 [2B, F, C, h, w] for both passes of all windows."""
        config, dtype, device = self._config, self.bundle.unet.dtype, sample.device
        ids = torch.tensor([config.fps - 1.0, config.motion_bucket_id, config.noise_aug_strength], device=device)
        steps = self._network.step_vectors(torch.tensor(timestep, device=device), ids.to(dtype))
        contexts = self._network.context_vectors(
            torch.zeros(len(sample), self.bundle.context_dim, device=device, dtype=dtype)
        )
        control, unet = (Constants(*both) for both in zip(steps, contexts, strict=True))
        activations, conditions = (part.permute(0, 1, 3, 4, 2).contiguous() for part in (sample, events))
        made = self._network(activations, conditions, control, unet, config.controlnet_scale)
        return made.permute(0, 1, 4, 2, 3).float()


@torch.inference_mode()
def degraded_predictions(truth: Tensor, autoencoder: Any | None, draw: Draw) -> Tensor:
    """Pictures that err as models whose weights are not at hand may err.

    Args:
        truth: true frames [B, T, 3, H, W] in [-1, 1].
        autoencoder: what half of the windows pass through, or None for none.
        draw: random numbers.

    Returns:
        The same shape; frames of one window err alike.
    """
    batch, number = truth.shape[:2]
    pictures = truth.flatten(0, 1)
    flow = _smooth_noise(batch, 2, truth, draw) * draw.log_uniform((batch, 1, 1, 1), 0.2, 4.0).to(truth.device)
    pictures = warp(pictures, flow.repeat_interleave(number, 0))
    if autoencoder is not None:
        passed = decode_latents(autoencoder, _scaled_latents(autoencoder, pictures), _DECODED_AT_ONCE).float()
        chosen = draw.chance((batch, 1, 1, 1), 0.5).to(truth.device).repeat_interleave(number, 0)
        pictures = torch.where(chosen, passed, pictures)
    blurred = F.interpolate(F.avg_pool2d(pictures, 4), scale_factor=4.0, mode="bilinear")
    slightly = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    share = torch.rand((batch, 1, 1, 1), generator=draw.generator).to(truth.device).repeat_interleave(number, 0)
    pictures = torch.lerp(
        torch.lerp(pictures, slightly, (2 * share).clamp(max=1)), blurred, (2 * share - 1).clamp(min=0)
    )
    tint = _smooth_noise(batch, 3, truth, draw) * draw.uniform((batch, 1, 1, 1), 0.0, 0.08).to(truth.device)
    gain = 1 + 0.05 * draw.normal((batch, 3, 1, 1)).to(truth.device)
    pictures = pictures * gain.repeat_interleave(number, 0) + tint.repeat_interleave(number, 0)
    return pictures.clamp(-1, 1).unflatten(0, (batch, number))


def _scaled_latents(autoencoder: Any, pictures: Tensor) -> Tensor:
    latents = [encode_pixels(autoencoder, part) for part in pictures.split(_DECODED_AT_ONCE)]
    return torch.cat(latents) * autoencoder.config.scaling_factor


def _smooth_noise(batch: int, channels: int, like: Tensor, draw: Draw) -> Tensor:
    """Noise of standard deviation about 1 that varies slowly over the picture: [batch, channels, H, W]."""
    coarse = draw.normal((batch, channels, 5, 5)).to(like.device)
    return F.interpolate(coarse, size=like.shape[-2:], mode="bicubic", align_corners=False)
