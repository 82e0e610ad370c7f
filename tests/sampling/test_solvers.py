from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from evfi.sampling.config import SamplingConfig, SolverName
from evfi.sampling.denoiser import StepMode
from evfi.sampling.noise import SeededNoise
from evfi.sampling.schedule import Schedule, karras_schedule
from evfi.sampling.solvers import solver_step
from evfi.sampling.two_sided import run_schedule
from tiny_models import SCHEDULER

SPREAD = 0.7
"""Standard deviation of the data: the clean sample that is expected of x is x · spread² / (spread² + sigma²)."""


def _velocity(sample: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    return (sample / (sigma**2 + 1) - denoised) * math.sqrt(sigma**2 + 1) / sigma


def _error(solver: SolverName, num_steps: int) -> float:
    """Of solving from sigma 20 to 0.1 on steps even in sigma^(1/7), against the closed form."""
    low, high = 0.1 ** (1 / 7), 20.0 ** (1 / 7)
    sigmas = [(high + step / num_steps * (low - high)) ** 7 for step in range(num_steps + 1)]
    sample = torch.tensor([1.0, -30.0], dtype=torch.float64)
    expected = sample * math.hypot(sigmas[-1], SPREAD) / math.hypot(sigmas[0], SPREAD)
    past = None
    for sigma, sigma_next in itertools.pairwise(sigmas):
        velocity = _velocity(sample, sample * SPREAD**2 / (SPREAD**2 + sigma**2), sigma)
        sample, past = solver_step(solver, sample, velocity, sigma, sigma_next, past)
    return float((sample - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("dpmpp_2m", 2), ("adams_bashforth", 2)])
def test_errors_fall_with_the_solvers_order(solver: SolverName, order: int) -> None:
    coarse, fine = _error(solver, 80), _error(solver, 160)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_every_solver_has_its_order_tested() -> None:
    assert set(get_args(SolverName)) == {"euler", "dpmpp_2m", "adams_bashforth"}


@pytest.mark.parametrize("solver", ["dpmpp_2m", "adams_bashforth"])
def test_ten_steps_of_second_order_are_closer_than_twenty_of_euler(solver: SolverName) -> None:
    assert _error(solver, 10) < _error("euler", 20)


@pytest.mark.parametrize("solver", get_args(SolverName))
def test_without_a_step_before_all_solvers_are_euler_and_end_at_the_clean_sample(solver: SolverName) -> None:
    sample, clean = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 0.2])
    velocity = _velocity(sample, clean, 2.0)
    expected, _ = solver_step("euler", sample, velocity, 2.0, 1.5, None)
    found, past = solver_step(solver, sample, velocity, 2.0, 1.5, None)
    torch.testing.assert_close(found, expected)
    final, _ = solver_step(solver, sample, velocity, 2.0, 0.0, past)
    torch.testing.assert_close(final, clean)


def test_churn_is_for_euler_alone() -> None:
    with pytest.raises(ValueError, match="dpmpp_2m takes no churn"):
        solver_step("dpmpp_2m", torch.zeros(1), torch.zeros(1), 2.0, 1.0, None, churn=0.1, noise=torch.zeros(1))


@pytest.mark.parametrize("solver", ["dpmpp_2m", "adams_bashforth"])
def test_a_whole_schedule_of_second_order_is_closer_than_euler(solver: SolverName) -> None:
    def error(name: SolverName) -> float:
        config = SamplingConfig(solver=name, s_churn=0.0)
        schedule = karras_schedule(SCHEDULER, 25)
        start = schedule.sigmas[0] * torch.tensor([1.0, -2.0], dtype=torch.float64).view(1, 1, 1, 2)

        def denoise(latents: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
            del timestep, mode
            return _velocity(latents, latents * SPREAD**2 / (SPREAD**2 + sigma**2), sigma)

        final = run_schedule(denoise, start, schedule, config, SeededNoise(0))
        expected = start * SPREAD / math.hypot(schedule.sigmas[0], SPREAD)
        return float((final - expected).abs().max())

    assert error(solver) < 0.6 * error("euler")


def _evaluated(config: SamplingConfig, prediction: dict[bool, float]) -> list[float]:
    """The samples that the network sees, and the last one, if it predicts one clean value with and another without guidance."""
    found: list[float] = []

    def denoise(latents: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        del timestep
        found.append(float(latents))
        return _velocity(latents, torch.full_like(latents, prediction[mode.guided]), sigma)

    schedule = Schedule((8.0, 4.0, 2.0, 1.0, 0.0), 8.0)
    final = run_schedule(denoise, torch.full((1, 1, 1, 1), 8.0), schedule, config, SeededNoise(0))
    return [*found, float(final)]


@pytest.mark.parametrize("solver", get_args(SolverName))
def test_a_jump_of_the_prediction_where_guidance_ends_is_not_carried_on(solver: SolverName) -> None:
    config = SamplingConfig(s_churn=0.0, guidance_end=0.6, solver=solver)
    found = _evaluated(config, {True: 1.0, False: 0.0})
    # half of the way to 1 in two steps; then half of the way to 0, and no further
    assert found == pytest.approx([8.0, 4.5, 2.75, 1.375, 0.0], rel=1e-5)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "adams_bashforth"])
def test_noise_that_is_injected_again_starts_anew(solver: SolverName) -> None:
    def first_steps(name: SolverName) -> list[float]:
        config = SamplingConfig(
            s_churn=0.0, solver=name, reinjection_until_step=2, num_reinjections=1, guidance_end=0.0
        )
        return _evaluated(config, {True: 1.0, False: 0.0})[:5]

    # the first step twice, the second, jumped to, twice: no step continues another
    assert first_steps(solver) == pytest.approx(first_steps("euler"), rel=1e-5)
