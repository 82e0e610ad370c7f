from __future__ import annotations

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from evfi.errors import ModelError
from evfi.sampling.schedule import denoised_sample, euler_step, karras_schedule, network_input, renoise
from tiny_models import SCHEDULER


@pytest.mark.parametrize("num_steps", [1, 2, 7, 25])
def test_schedule_equals_diffusers(num_steps: int) -> None:
    reference = EulerDiscreteScheduler.from_config(SCHEDULER)
    reference.set_timesteps(num_steps)
    schedule = karras_schedule(SCHEDULER, num_steps)
    assert schedule.sigmas == pytest.approx(reference.sigmas.tolist(), rel=1e-6)
    assert schedule.timesteps == pytest.approx(reference.timesteps.tolist(), rel=1e-5)
    assert schedule.initial_scale == pytest.approx(float(reference.init_noise_sigma), rel=1e-6)


@pytest.mark.parametrize("s_churn", [0.0, 0.5, 20.0])
def test_steps_equal_diffusers(s_churn: float) -> None:
    reference = EulerDiscreteScheduler.from_config(SCHEDULER)
    reference.set_timesteps(6)
    schedule = karras_schedule(SCHEDULER, 6)
    expected = found = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)) * 700
    for step, timestep in enumerate(reference.timesteps):
        velocity = torch.randn(found.shape, generator=torch.Generator().manual_seed(50 + step))
        noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(step))
        reference.scale_model_input(expected, timestep)
        expected = reference.step(
            velocity, timestep, expected, s_churn=s_churn, generator=torch.Generator().manual_seed(step)
        ).prev_sample
        sigma, sigma_next = schedule.sigmas[step : step + 2]
        found = euler_step(found, velocity, sigma, sigma_next, churn=schedule.churn(s_churn), noise=noise)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_perfect_prediction_reaches_the_clean_sample() -> None:
    clean, noise = torch.randn(2, 5), torch.randn(2, 5)
    sigma = 3.0
    noisy = clean + sigma * noise
    velocity = (noisy / (sigma**2 + 1) - clean) * math.sqrt(sigma**2 + 1) / sigma
    torch.testing.assert_close(denoised_sample(noisy, velocity, sigma), clean, rtol=0, atol=1e-5)
    torch.testing.assert_close(euler_step(noisy, velocity, sigma, 0.0), clean, rtol=0, atol=1e-5)
    torch.testing.assert_close(euler_step(noisy, velocity, sigma, 1.0), clean + noise, rtol=0, atol=1e-5)


def test_network_input_has_unit_variance() -> None:
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    clean = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    assert float(network_input(clean + 5.0 * noise, 5.0).std()) == pytest.approx(1.0, abs=0.01)


def test_renoising_adds_the_missing_variance() -> None:
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    sample = 2.0 * torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    assert float(renoise(sample, 2.0, 5.0, noise).std()) == pytest.approx(5.0, abs=0.05)


def test_churn_without_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="needs noise"):
        euler_step(torch.zeros(1), torch.zeros(1), 1.0, 0.5, churn=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "epsilon"}, "prediction_type = v_prediction, got 'epsilon'"),
        ({"use_karras_sigmas": None}, "use_karras_sigmas"),
        ({"sigma_min": None}, "0 < sigma_min < sigma_max"),
        ({"sigma_min": 800.0}, "0 < sigma_min < sigma_max"),
    ],
)
def test_other_schedules_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        karras_schedule({**SCHEDULER, **change}, 5)
