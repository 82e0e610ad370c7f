"""Noise levels and the steps between them, as pure functions.

The schedule is that of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models" (NeurIPS 2022,
equation 5, rho = 7); the step is its Euler method with churn, arranged as in diffusers' EulerDiscreteScheduler with
v-prediction: the network is evaluated on the sample *before* churn noise is added to it. There is no step counter
anywhere: a step depends on its arguments alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from evfi.errors import ModelError

KARRAS_RHO = 7.0


@dataclass(frozen=True)
class Schedule:
    """The noise levels of one sampling run.

    Attributes:
        sigmas: N + 1 standard deviations from the highest down to 0, each a float32 value.
        initial_scale: what standard normal noise is multiplied by to become the first sample.
    """

    sigmas: tuple[float, ...]
    initial_scale: float

    @property
    def num_steps(self) -> int:
        """N, the number of steps."""
        return len(self.sigmas) - 1

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The network's input at each of the N steps: a quarter of the noise level's natural logarithm."""
        return tuple(0.25 * math.log(sigma) for sigma in self.sigmas[:-1])

    def churn(self, s_churn: float) -> float:
        """Gamma of Karras et al., algorithm 2: by which share a step raises its noise level first."""
        return min(s_churn / self.num_steps, math.sqrt(2.0) - 1.0)


def karras_schedule(scheduler_config: Mapping[str, Any], num_steps: int) -> Schedule:
    """Make the noise levels that a model's scheduler config asks for.

    Args:
        scheduler_config: `scheduler_config.json` of an EulerDiscreteScheduler with Karras sigmas and v-prediction.
        num_steps: N, the number of steps.

    Raises:
        ModelError: the config asks for another kind of schedule.
    """
    _check_scheduler_config(scheduler_config)
    low, high = (float(scheduler_config[key]) ** (1 / KARRAS_RHO) for key in ("sigma_min", "sigma_max"))
    sigmas = (high + np.linspace(0, 1, num_steps) * (low - high)) ** KARRAS_RHO
    rounded = tuple(float(sigma) for sigma in np.append(sigmas, 0.0).astype(np.float32))
    leading = scheduler_config.get("timestep_spacing", "linspace") == "leading"
    return Schedule(rounded, math.hypot(rounded[0], 1.0) if leading else rounded[0])


def _check_scheduler_config(config: Mapping[str, Any]) -> None:
    expected = {"use_karras_sigmas": True, "prediction_type": "v_prediction", "timestep_type": "continuous"}
    for key, value in expected.items():
        if config.get(key) != value:
            raise ModelError(f"the scheduler config must have {key} = {value}, got {config.get(key)!r}")
    low, high = config.get("sigma_min"), config.get("sigma_max")
    if not (isinstance(low, int | float) and isinstance(high, int | float) and 0 < low < high):
        raise ModelError(f"the scheduler config needs 0 < sigma_min < sigma_max, got {low!r} and {high!r}")


def network_input(sample: Tensor, sigma: float) -> Tensor:
    """Scale a noisy sample to unit variance, as the network takes it."""
    return sample / math.sqrt(sigma**2 + 1)


def denoised_sample(sample: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    """The clean sample that a v-prediction means: c_skip · sample + c_out · velocity."""
    return sample / (sigma**2 + 1) - velocity * (sigma / math.sqrt(sigma**2 + 1))


def euler_step(
    sample: Tensor,
    velocity: Tensor,
    sigma: float,
    sigma_next: float,
    *,
    churn: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Go from one noise level to the next.

    The step is affine in (sample, velocity, noise): averages over tiles or directions may be taken before or after it.

    Args:
        sample: the sample at `sigma`, any shape.
        velocity: the network's v-prediction for `sample`.
        sigma: the sample's noise level.
        sigma_next: the noise level to reach.
        churn: gamma, by which share the noise level is raised first (see `Schedule.churn`).
        noise: standard normal noise of the sample's shape; needed where churn is above 0.

    Returns:
        The sample at `sigma_next`.
    """
    raised = sigma * (1.0 + churn)
    if churn > 0.0:
        if noise is None:
            raise ValueError("a step with churn needs noise")
        sample = sample + noise * math.sqrt(raised**2 - sigma**2)
    slope = (sample - denoised_sample(sample, velocity, sigma)) / raised
    return sample + slope * (sigma_next - raised)


def renoise(sample: Tensor, sigma: float, sigma_higher: float, noise: Tensor) -> Tensor:
    """Bring a sample from one noise level back up to a higher one by adding the noise that is missing."""
    return sample + noise * math.sqrt(sigma_higher**2 - sigma**2)
