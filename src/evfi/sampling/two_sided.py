"""Two-sided sampling: the one loop.

One set of latents is denoised from both ends at every step: forward in the order of time from the start image, and
backward, flipped in time, from the end image. The two predictions are fused, frame by frame, with a weight that falls
from 1 at the start to 0 at the end. (Explorative Inbetweening of Time and Space, ECCV 2024, arXiv 2403.14611, "time
reversal fusion"; Repurposing Pre-trained Video Diffusion Models for Event-based Video Interpolation, CVPR 2025.)

Notable: a step of each solver is affine in (sample, prediction, noise), the sample is the same for both passes and all tiles,
and weights sum to one. So tiles are averaged and passes fused on the *prediction*, and one step follows; without churn
this equals stepping each tile and pass on its own and fusing the results. With churn it differs on purpose: the noise of
a step is drawn once for the whole frame, so that its variance survives averaging.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import Encoders, WindowInputs, encode_conditioning, window_grid
from evfi.sampling.config import SamplingConfig
from evfi.sampling.denoiser import Denoiser, GuidedDenoiser, MakeDenoiser, StepMode, step_modes
from evfi.sampling.noise import NoiseSource, to_device
from evfi.sampling.schedule import Schedule, karras_schedule, renoise
from evfi.sampling.solvers import Past, solver_step

Denoise = Callable[[Tensor, float, Tensor, StepMode], Tensor]
"""(latents [F, C, h, w], sigma, timestep, mode) -> fused v-prediction [F, C, h, w]."""

OnStep = Callable[[int, int], None]
"""Called after each step with (steps done, steps in all)."""


@torch.inference_mode()
def sample_window(
    bundle: ModelBundle,
    inputs: WindowInputs,
    config: SamplingConfig,
    noise: NoiseSource,
    *,
    weights: Tensor | None = None,
    on_step: OnStep | None = None,
    make_denoiser: MakeDenoiser = GuidedDenoiser,
    encoders: Encoders | None = None,
) -> Tensor:
    """Sample the latents of one window's frames.

    Args:
        bundle: the model.
        inputs: key images and event stacks.
        config: the settings.
        noise: where random numbers come from.
        weights: weight [F] of the forward pass in each frame; by default linear from 1 to 0 (see `fusion_weights`).
        on_step: called after each step.
        make_denoiser: what calls the networks; an engine brings its own.
        encoders: what encodes images and events; likewise.

    Returns:
        Latents float32 [F, C, h, w], multiplied by the autoencoder's scaling factor, of the images' size.

    Raises:
        ConfigError: the tile size does not suit the model.
    """
    height, width = inputs.key_images.shape[-2:]
    grid = window_grid(bundle, height, width, config)
    image_noise = noise.draw("image", (1, 3, height, width))
    conditioning = encode_conditioning(bundle, inputs, grid, config, image_noise, encoders)
    if weights is None:
        weights = torch.linspace(1.0, 0.0, inputs.num_frames)
    denoise = two_sided(make_denoiser(bundle, conditioning, config), weights.to(bundle.unet.device))
    schedule = karras_schedule(bundle.scheduler, config.num_inference_steps)
    shape = (inputs.num_frames, bundle.latent_channels, grid.size[1], grid.size[0])
    initial = to_device(noise.draw("initial", shape), bundle.unet.device) * schedule.initial_scale
    latents = run_schedule(denoise, initial, schedule, config, noise, on_step)
    return latents[..., : height // bundle.vae_factor, : width // bundle.vae_factor]


def run_schedule(
    denoise: Denoise,
    latents: Tensor,
    schedule: Schedule,
    config: SamplingConfig,
    noise: NoiseSource,
    on_step: OnStep | None = None,
) -> Tensor:
    """Denoise latents over a whole schedule.

    In the first `reinjection_until_step` steps the result is renoised to where the step began and the step is made again,
    `num_reinjections` times: the passes' disagreement is then denoised jointly (arXiv 2403.14611, section 3.3). Repeats of a
    step call the networks as the step does.

    A step continues the one before unless noise was re-injected between, or guidance set in or ended there: predictions
    then jump, and a solver of second order would carry the jump on. Such a step is of first order.

    Args:
        denoise: the prediction.
        latents: the first sample [F, C, h, w], at the schedule's highest noise level.
        schedule: the noise levels.
        config: solver, churn, re-injection, and how the networks are called.
        noise: where churn's and re-injection's noise comes from.
        on_step: called after each step.

    Returns:
        The clean latents [F, C, h, w].
    """
    churn = schedule.churn(config.s_churn)
    timesteps = torch.tensor(schedule.timesteps, dtype=torch.float32).to(latents.device)
    shape, device = tuple(latents.shape), latents.device
    modes = step_modes(config, schedule.num_steps)
    past: Past | None = None
    for step, (sigma, sigma_next) in enumerate(zip(schedule.sigmas[:-1], schedule.sigmas[1:], strict=True)):
        if step > 0 and modes[step].guided != modes[step - 1].guided:
            past = None
        repeats = config.num_reinjections if step < config.reinjection_until_step else 0
        for repeat in range(repeats + 1):
            velocity = denoise(latents, sigma, timesteps[step], modes[step])
            extra = to_device(noise.draw("churn", shape, step, repeat), device) if churn > 0 else None
            latents, past = solver_step(
                config.solver, latents, velocity, sigma, sigma_next, past, churn=churn, noise=extra
            )
            if repeat < repeats:
                again = to_device(noise.draw("reinjection", shape, step, repeat), device)
                latents, past = renoise(latents, sigma_next, sigma, again), None
        if on_step is not None:
            on_step(step + 1, schedule.num_steps)
    return latents


def two_sided(denoiser: Denoiser, weights: Tensor) -> Denoise:
    """Make the fused prediction of latents out of the two passes' predictions.

    Args:
        denoiser: predicts both passes, [2, F, C, h, w] -> [2, F, C, h, w], each in its own order of frames.
        weights: weight [F] of the forward pass in each frame.
    """
    forward_weight = weights.view(-1, 1, 1, 1)

    def denoise(latents: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        forward, backward = denoiser(torch.stack([latents, latents.flip(0)]), sigma, timestep, mode).unbind(0)
        return torch.lerp(backward.flip(0), forward, forward_weight)

    return denoise


def fusion_weights(times: Tensor) -> Tensor:
    """Weight [F] of the forward pass: the share of the window's time that is still to come, 1 at the start, 0 at the end.

    For evenly spaced frames this is linear in the frame's index, as published; for others it follows time, so that a frame
    close to a key frame trusts the pass which starts there.

    Args:
        times: output times [F], strictly increasing, any unit.
    """
    times = times.to(torch.float64)
    return ((times[-1] - times) / (times[-1] - times[0])).to(torch.float32)
