"""From one noise level to the next: the solvers of the probability-flow equation dx/dsigma = (x - D(x, sigma)) / sigma.

`euler` is the published method and the only one that takes churn. The others are of second order: they use the
prediction of the step before, so that a step still costs one prediction.

- `dpmpp_2m`: DPM-Solver++(2M), arXiv 2211.01095, algorithm 2, for alpha = 1: linear in the clean sample over log sigma.
- `adams_bashforth`: the two-step Adams-Bashforth method for uneven steps on the equation above, over sigma.

Both fall back to first order where there is no step before, and in the last step, to sigma = 0, whose result is the
predicted clean sample. There is no counter: what a step leaves for the next is returned and passed on (`Past`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from evfi.sampling.config import SolverName
from evfi.sampling.schedule import denoised_sample, euler_step


class Past(NamedTuple):
    """What a step leaves for the next one.

    Attributes:
        sigma: the noise level at which it began.
        denoised: the clean sample that it predicted.
        slope: dx/dsigma there.
    """

    sigma: float
    denoised: Tensor
    slope: Tensor


def solver_step(
    solver: SolverName,
    sample: Tensor,
    velocity: Tensor,
    sigma: float,
    sigma_next: float,
    past: Past | None,
    *,
    churn: float = 0.0,
    noise: Tensor | None = None,
) -> tuple[Tensor, Past | None]:
    """Go from one noise level to the next.

    Args:
        solver: the method.
        sample: the sample at `sigma`, any shape.
        velocity: the v-prediction for `sample`.
        sigma: the sample's noise level.
        sigma_next: the noise level to reach, lower.
        past: what the step before left; None where the sample does not continue one.
        churn: as of `euler_step`; 0 for other solvers.
        noise: as of `euler_step`.

    Returns:
        The sample at `sigma_next`, and what this step leaves for the next.
    """
    if solver == "euler":
        return euler_step(sample, velocity, sigma, sigma_next, churn=churn, noise=noise), None
    if churn > 0.0:
        raise ValueError(f"solver {solver} takes no churn")
    denoised = denoised_sample(sample, velocity, sigma)
    now = Past(sigma, denoised, (sample - denoised) / sigma)
    if sigma_next == 0.0:
        return denoised, now
    step = _dpmpp_2m if solver == "dpmpp_2m" else _adams_bashforth
    return step(sample, now, sigma_next, past), now


def _dpmpp_2m(sample: Tensor, now: Past, sigma_next: float, past: Past | None) -> Tensor:
    clean = now.denoised
    if past is not None:
        # the step's length in log sigma by twice that of the step before
        ratio = 0.5 * math.log(now.sigma / sigma_next) / math.log(past.sigma / now.sigma)
        clean = clean + ratio * (clean - past.denoised)
    remaining = sigma_next / now.sigma
    return remaining * sample + (1.0 - remaining) * clean


def _adams_bashforth(sample: Tensor, now: Past, sigma_next: float, past: Past | None) -> Tensor:
    slope = now.slope
    if past is not None:
        slope = slope + 0.5 * (sigma_next - now.sigma) / (now.sigma - past.sigma) * (slope - past.slope)
    return sample + slope * (sigma_next - now.sigma)
