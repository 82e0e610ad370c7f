"""The denoising loss: EDM preconditioning around a v-predicting video UNet.

With the noisy latents x = latents + sigma * noise, the network sees x / sqrt(sigma^2 + 1) at timestep 0.25 ln sigma and
predicts v; denoised = x / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) * v, and the squared error is weighted by
(1 + sigma^2) / sigma^2. (Elucidating the Design Space of Diffusion-Based Generative Models, arXiv 2206.00364, with
sigma_data = 1; Stable Video Diffusion, arXiv 2311.15127.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evfi.models.controlnet import EventControlNet
from evfi.models.unet import EventUNet


@dataclass(frozen=True)
class DenoisingInputs:
    """What one loss is computed from.

    Attributes:
        latents: [B, F, C, h, w] scaled latents of the true frames.
        noise: like latents, standard normal.
        sigma: [B] noise levels.
        image_latent: [B, C, h, w] unscaled latent of the key image.
        encoder_hidden_states: [B, 1, D] embedding of the key image.
        added_time_ids: [B, 3].
        event_stacks: [B, F, K, H, W], or None for a loss of the base alone.
    """

    latents: Tensor
    noise: Tensor
    sigma: Tensor
    image_latent: Tensor
    encoder_hidden_states: Tensor
    added_time_ids: Tensor
    event_stacks: Tensor | None = None


def denoise(unet: EventUNet, controlnet: EventControlNet | None, inputs: DenoisingInputs) -> Tensor:
    """The estimate of the clean latents.

    Args:
        unet: the base network.
        controlnet: steers it; None runs the base alone.
        inputs: see `DenoisingInputs`.

    Returns:
        [B, F, C, h, w] float32.
    """
    sigma = inputs.sigma.float()[:, None, None, None, None]
    noisy = inputs.latents + sigma * inputs.noise
    image = inputs.image_latent[:, None].expand(-1, noisy.shape[1], -1, -1, -1)
    sample = torch.cat([noisy / (sigma**2 + 1).sqrt(), image], dim=2)
    timestep = 0.25 * inputs.sigma.float().log()
    context = (timestep, inputs.encoder_hidden_states, inputs.added_time_ids)
    residuals = None
    if controlnet is not None:
        assert inputs.event_stacks is not None
        residuals = controlnet(sample, *context, controlnet.embed_events(inputs.event_stacks))
    velocity = unet(sample, *context, residuals).float()
    return noisy / (sigma**2 + 1) - sigma / (sigma**2 + 1).sqrt() * velocity


def denoising_loss(
    unet: EventUNet,
    controlnet: EventControlNet | None,
    inputs: DenoisingInputs,
    *,
    max_weight: float | None = None,
) -> Tensor:
    """The weighted squared error of the estimate, per item of the batch.

    Args:
        unet: the base network.
        controlnet: steers it; None trains the base alone.
        inputs: see `DenoisingInputs`.
        max_weight: bound on the weight (1 + sigma^2) / sigma^2; None for none, as the published training has it.

    Returns:
        [B] float32.
    """
    sigma = inputs.sigma.float()
    weight = (1 + sigma**2) / sigma**2
    if max_weight is not None:
        weight = weight.clamp(max=max_weight)
    error = denoise(unet, controlnet, inputs) - inputs.latents
    return weight * error.square().flatten(1).mean(1)
