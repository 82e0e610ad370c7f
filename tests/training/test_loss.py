"""The denoising loss against values computed by hand, and its way back to the ControlNet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evfi.models.controlnet import EventControlNet
from evfi.models.unet import EventUNet
from evfi.training.loss import DenoisingInputs, denoise, denoising_loss
from tiny_models import tiny_bundle

SHAPE = (2, 3, 4, 2, 2)
SIGMA = torch.tensor([0.5, 3.0])


class Velocity(nn.Module):
    """Stands in for a UNet: answers with a given velocity and keeps what it was asked."""

    def __init__(self, velocity: Tensor) -> None:
        super().__init__()
        self.velocity = velocity
        self.asked: tuple[object, ...] = ()

    def forward(self, *asked: object) -> Tensor:
        self.asked = asked
        return self.velocity


def spread(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_inputs(sigma: Tensor = SIGMA, events: Tensor | None = None, latent: int = 2) -> DenoisingInputs:
    batch, frames, channels = SHAPE[:3]
    return DenoisingInputs(
        latents=draw(batch, frames, channels, latent, latent, seed=0),
        noise=draw(batch, frames, channels, latent, latent, seed=1),
        sigma=sigma,
        image_latent=draw(batch, channels, latent, latent, seed=2),
        encoder_hidden_states=torch.zeros(batch, 1, 16),
        added_time_ids=torch.tensor([[6.0, 127.0, 0.0]]).expand(batch, 3),
        event_stacks=events,
    )


def perfect_velocity(inputs: DenoisingInputs) -> Tensor:
    """With v = (noise - sigma * latents) / sqrt(1 + sigma²), the estimate is the latents themselves."""
    sigma = spread(inputs.sigma)
    return (inputs.noise - sigma * inputs.latents) / (1 + sigma**2).sqrt()


def test_perfect_velocity_gives_the_latents_and_no_loss() -> None:
    inputs = make_inputs()
    network = Velocity(perfect_velocity(inputs))
    assert torch.allclose(denoise(network, None, inputs), inputs.latents, atol=1e-5)
    assert torch.allclose(denoising_loss(network, None, inputs), torch.zeros(2), atol=1e-9)


def test_network_sees_scaled_noisy_latents_beside_the_key_image() -> None:
    inputs = make_inputs()
    network = Velocity(perfect_velocity(inputs))
    denoise(network, None, inputs)
    sample, timestep, context, added_time_ids, residuals = network.asked
    noisy = inputs.latents + spread(SIGMA) * inputs.noise
    assert torch.allclose(sample[:, :, :4], noisy / (spread(SIGMA) ** 2 + 1).sqrt())
    for frame in range(SHAPE[1]):
        assert torch.equal(sample[:, frame, 4:], inputs.image_latent)
    assert torch.allclose(timestep, 0.25 * SIGMA.log())
    assert context is inputs.encoder_hidden_states
    assert added_time_ids is inputs.added_time_ids
    assert residuals is None


@pytest.mark.parametrize(("max_weight", "expected"), [(None, (1.0, 1.0)), (2.0, (0.4, 1.0)), (1.0, (0.2, 0.9))])
def test_an_error_of_one_in_the_velocity(max_weight: float | None, expected: tuple[float, float]) -> None:
    """It squares to sigma² / (1 + sigma²) in the latents, which the weight (1 + sigma²) / sigma² (5 and 10/9) undoes."""
    inputs = make_inputs()
    network = Velocity(perfect_velocity(inputs) + 1)
    loss = denoising_loss(network, None, inputs, max_weight=max_weight)
    assert torch.allclose(loss, torch.tensor(expected), atol=1e-5)


def tiny_networks() -> tuple[EventUNet, EventControlNet]:
    bundle = tiny_bundle()
    return bundle.unet, bundle.controlnet.requires_grad_(True)


def test_gradient_reaches_the_controlnet_and_not_the_frozen_base() -> None:
    unet, controlnet = tiny_networks()
    inputs = make_inputs(events=draw(2, 3, 6, 16, 16, seed=3), latent=4)
    loss = denoising_loss(unet, controlnet, inputs)
    assert loss.shape == (2,)
    loss.mean().backward()
    assert all(parameter.grad is None for parameter in unet.parameters())
    for name in ("controlnet_cond_embedding.conv_in.weight", "conv_in.weight", "controlnet_mid_block.weight"):
        assert controlnet.get_parameter(name).grad.abs().max() > 0, name


def test_events_change_the_estimate() -> None:
    unet, controlnet = tiny_networks()
    with torch.no_grad():
        still = denoise(unet, controlnet, make_inputs(events=torch.zeros(2, 3, 6, 16, 16), latent=4))
        moving = denoise(unet, controlnet, make_inputs(events=draw(2, 3, 6, 16, 16, seed=3), latent=4))
    assert (still - moving).abs().max() > 1e-4
