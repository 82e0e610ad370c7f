from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import WindowInputs, encode_conditioning, window_grid
from evfi.sampling.config import SamplingConfig
from evfi.sampling.denoiser import GuidedDenoiser, StepMode, step_modes
from evfi.sampling.noise import NoiseSource, Purpose, SeededNoise
from evfi.sampling.schedule import Schedule
from evfi.sampling.two_sided import fusion_weights, run_schedule, sample_window, two_sided
from tiny_models import tiny_bundle

CONFIG = SamplingConfig(num_inference_steps=2, tile_width=32, tile_height=16, tile_overlap=0.25, batch_size=64)


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return tiny_bundle()


def _inputs(height: int = 24, width: int = 40, num_frames: int = 4) -> WindowInputs:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    stacks = torch.rand(2, num_frames, 6, height, width, generator=generator) * 2 - 1
    return WindowInputs(images, stacks)


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_the_batch_size_has_no_effect(bundle: ModelBundle, batch_size: int) -> None:
    expected = sample_window(bundle, _inputs(), CONFIG, SeededNoise(0))
    found = sample_window(bundle, _inputs(), replace(CONFIG, batch_size=batch_size), SeededNoise(0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_calls_hold_at_most_batch_size_items(bundle: ModelBundle) -> None:
    sizes = []
    hook = bundle.unet.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    sample_window(bundle, _inputs(), replace(CONFIG, num_inference_steps=1, batch_size=7), SeededNoise(0))
    hook.remove()
    assert max(sizes) <= 7
    assert sum(sizes) == 4 * 2 * 2  # tiles, passes, guidance halves


def test_without_guidance_the_unconditional_half_is_not_computed(bundle: ModelBundle) -> None:
    items = []
    hook = bundle.unet.register_forward_pre_hook(lambda _, arguments: items.append(len(arguments[0])))
    config = replace(CONFIG, num_inference_steps=1, max_guidance_scale=1.0)
    unguided = sample_window(bundle, _inputs(), config, SeededNoise(0))
    hook.remove()
    assert sum(items) == 4 * 2
    nearly = sample_window(bundle, _inputs(), replace(config, max_guidance_scale=1.0 + 1e-6), SeededNoise(0))
    torch.testing.assert_close(unguided, nearly, rtol=1e-3, atol=1e-3)


def test_key_images_and_events_are_encoded_once_per_window(bundle: ModelBundle) -> None:
    calls = []
    embedding = bundle.controlnet.controlnet_cond_embedding
    hook = embedding.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    sample_window(bundle, _inputs(num_frames=4), replace(CONFIG, num_inference_steps=3), SeededNoise(0))
    hook.remove()
    assert sum(calls) == 4 * 2 * 4  # tiles, passes, frames


def test_the_same_seed_gives_the_same_result_and_another_one_another(bundle: ModelBundle) -> None:
    first, same, other = (sample_window(bundle, _inputs(), CONFIG, SeededNoise(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


class _FlippedNoise:
    """The noise of a window traversed in reverse."""

    def __init__(self, noise: NoiseSource) -> None:
        self._noise = noise

    def draw(self, purpose: Purpose, shape: tuple[int, ...], step: int = 0, repeat: int = 0) -> Tensor:
        noise = self._noise.draw(purpose, shape, step, repeat)
        return noise if purpose == "image" else noise.flip(0)


@pytest.mark.parametrize("s_churn", [0.0, 0.5])
def test_a_window_traversed_in_reverse_gives_the_reversed_frames(bundle: ModelBundle, s_churn: float) -> None:
    config, inputs = replace(CONFIG, s_churn=s_churn), _inputs()
    reverse = WindowInputs(inputs.key_images.flip(0), inputs.event_stacks.flip(0))
    expected = sample_window(bundle, inputs, config, SeededNoise(0)).flip(0)
    found = sample_window(bundle, reverse, config, _FlippedNoise(SeededNoise(0)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (20, 100), (64, 16)])
def test_any_size_works(bundle: ModelBundle, height: int, width: int) -> None:
    latents = sample_window(bundle, _inputs(height, width), replace(CONFIG, num_inference_steps=1), SeededNoise(0))
    assert latents.shape == (4, 4, height // 4, width // 4)
    assert latents.isfinite().all()


@pytest.mark.parametrize("num_frames", [3, 9])
def test_any_number_of_frames_works(bundle: ModelBundle, num_frames: int) -> None:
    latents = sample_window(bundle, _inputs(8, 16, num_frames), CONFIG, SeededNoise(0))
    assert latents.shape[0] == num_frames


def test_events_and_their_scale_matter(bundle: ModelBundle) -> None:
    inputs = _inputs()
    silent = WindowInputs(inputs.key_images, torch.zeros_like(inputs.event_stacks))
    with_events = sample_window(bundle, inputs, CONFIG, SeededNoise(0))
    assert not torch.allclose(sample_window(bundle, silent, CONFIG, SeededNoise(0)), with_events)
    off = replace(CONFIG, controlnet_scale=0.0)
    torch.testing.assert_close(
        sample_window(bundle, silent, off, SeededNoise(0)), sample_window(bundle, inputs, off, SeededNoise(0))
    )


def test_bfloat16_is_near_float32() -> None:
    bundle = tiny_bundle()
    expected = sample_window(bundle, _inputs(), CONFIG, SeededNoise(0))
    found = sample_window(bundle.to("cpu", torch.bfloat16), _inputs(), CONFIG, SeededNoise(0))
    assert found.dtype == torch.float32
    assert float((found - expected).abs().mean()) < 0.1 * float(expected.abs().mean())


def test_progress_is_told_after_each_step(bundle: ModelBundle) -> None:
    told: list[tuple[int, int]] = []
    sample_window(bundle, _inputs(8, 16), CONFIG, SeededNoise(0), on_step=lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]


def test_fusion_weights_are_linear_for_even_and_follow_time_for_uneven_frames() -> None:
    assert fusion_weights(torch.tensor([10, 20, 30, 40, 50])).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert fusion_weights(torch.tensor([0, 10, 80, 100])).tolist() == pytest.approx([1.0, 0.9, 0.2, 0.0])


def test_passes_are_fused_in_the_order_of_time() -> None:
    latents = torch.arange(3.0).view(3, 1, 1, 1)

    def identity(passes: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        del sigma, timestep, mode
        assert passes.flatten().tolist() == [0.0, 1.0, 2.0, 2.0, 1.0, 0.0]
        return passes

    fused = two_sided(identity, torch.tensor([1.0, 0.5, 0.0]))(latents, 1.0, torch.zeros(()), StepMode())
    assert torch.equal(fused, latents)


class _CountedNoise:
    """Zero noise that notes what was drawn."""

    def __init__(self) -> None:
        self.draws: list[tuple[Any, ...]] = []

    def draw(self, purpose: Purpose, shape: tuple[int, ...], step: int = 0, repeat: int = 0) -> Tensor:
        self.draws.append((purpose, step, repeat))
        return torch.zeros(shape)


def test_reinjection_repeats_the_first_steps() -> None:
    sigmas: list[float] = []

    def denoise(latents: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        sigmas.append(sigma)
        assert float(timestep) == pytest.approx(0.25 * float(torch.tensor(sigma).log()))
        return latents

    noise = _CountedNoise()
    config = SamplingConfig(s_churn=0.0, reinjection_until_step=1, num_reinjections=2)
    run_schedule(denoise, torch.zeros(1, 1, 2, 2), Schedule((4.0, 2.0, 0.0), 4.0), config, noise)
    assert sigmas == [4.0, 4.0, 4.0, 2.0]
    assert noise.draws == [("reinjection", 0, 0), ("reinjection", 0, 1)]


def test_reinjected_samples_have_the_noise_level_of_their_step() -> None:
    """With the exact prediction for a clean sample of zero, every evaluated sample is sigma times unit noise."""
    levels: list[float] = []

    def denoise(latents: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        del timestep
        levels.append(float(latents.std()) / sigma)
        return latents / (sigma * (sigma**2 + 1) ** 0.5)

    config = SamplingConfig(s_churn=0.0, reinjection_until_step=2, num_reinjections=2)
    schedule = Schedule((8.0, 4.0, 2.0, 0.0), 8.0)
    noise = SeededNoise(0)
    final = run_schedule(denoise, 8.0 * noise.draw("initial", (1, 1, 100, 100)), schedule, config, noise)
    assert levels == pytest.approx([1.0] * 7, abs=0.05)
    assert float(final.abs().max()) < 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float16, 0.05), (torch.bfloat16, 0.2)])
def test_the_gpu_agrees_with_the_cpu(dtype: torch.dtype, tolerance: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    expected = sample_window(tiny_bundle(), _inputs(), CONFIG, SeededNoise(0))
    found = sample_window(tiny_bundle().to("cuda", dtype), _inputs(), CONFIG, SeededNoise(0)).cpu()
    assert float((found - expected).abs().mean()) < tolerance * float(expected.abs().mean())


def _modes(**settings: Any) -> list[tuple[bool, bool]]:
    config = SamplingConfig(**settings)
    return [(mode.guided, mode.reuse) for mode in step_modes(config, config.num_inference_steps)]


def test_by_default_every_step_is_guided_and_computed_in_full() -> None:
    assert _modes() == [(True, False)] * 25
    assert _modes(max_guidance_scale=1.0) == [(False, False)] * 25


def test_guidance_acts_in_its_interval_of_places() -> None:
    assert [guided for guided, _ in _modes(num_inference_steps=6, guidance_start=0.2, guidance_end=0.6)] == [
        False, True, True, True, False, False,
    ]  # fmt: skip
    assert _modes(num_inference_steps=1, guidance_start=0.1) == [(False, False)]


def test_every_nth_step_is_computed_in_full() -> None:
    assert [reuse for _, reuse in _modes(num_inference_steps=7, reuse_interval=3)] == [
        False, True, True, False, True, True, False,
    ]  # fmt: skip


def test_a_step_with_other_guidance_than_the_one_before_is_computed_in_full() -> None:
    modes = _modes(num_inference_steps=6, reuse_interval=4, guidance_end=0.5)
    assert modes == [(True, False), (True, True), (True, True), (False, False), (False, True), (False, True)]


def test_unguided_steps_compute_half_the_items_and_reusing_ones_no_controlnet(bundle: ModelBundle) -> None:
    calls: dict[str, list[int]] = {"unet": [], "controlnet": [], "mid": []}
    hooks = [
        bundle.unet.register_forward_pre_hook(lambda _, given: calls["unet"].append(len(given[0]))),
        bundle.controlnet.register_forward_pre_hook(lambda _, given: calls["controlnet"].append(len(given[0]))),
        bundle.unet.mid_block.register_forward_pre_hook(lambda _, given: calls["mid"].append(len(given[0]) // 4)),
    ]
    config = replace(CONFIG, num_inference_steps=4, guidance_end=0.4, reuse_interval=2)
    sample_window(bundle, _inputs(), config, SeededNoise(0))
    for hook in hooks:
        hook.remove()
    assert calls == {"unet": [16, 16, 8, 8], "controlnet": [16, 8], "mid": [16, 8]}


@pytest.mark.parametrize("batch_size", [3, 64])
def test_features_reused_at_the_same_noise_level_change_nothing(bundle: ModelBundle, batch_size: int) -> None:
    config = replace(CONFIG, reuse_interval=2, batch_size=batch_size)
    full, reusing = (_prediction(bundle, config, mode) for mode in (StepMode(), StepMode(reuse=True)))
    torch.testing.assert_close(reusing, full, rtol=1e-4, atol=1e-5)


def test_reused_features_are_those_of_the_earlier_sample(bundle: ModelBundle) -> None:
    config = replace(CONFIG, reuse_interval=2)
    full, reusing = (_prediction(bundle, config, mode, change=0.5) for mode in (StepMode(), StepMode(reuse=True)))
    assert not torch.allclose(full, reusing, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("mode", [StepMode(guided=False, reuse=True), StepMode(reuse=True)])
def test_without_features_of_the_same_items_a_step_is_computed_in_full(bundle: ModelBundle, mode: StepMode) -> None:
    config = replace(CONFIG, reuse_interval=2 if not mode.guided else 1)
    full, reusing = (_prediction(bundle, config, way) for way in (replace(mode, reuse=False), mode))
    assert torch.equal(full, reusing)


@torch.inference_mode()
def _prediction(bundle: ModelBundle, config: SamplingConfig, mode: StepMode, change: float = 0.0) -> Tensor:
    """The second of two predictions, the first of which is guided and computed in full."""
    inputs = _inputs()
    grid = window_grid(bundle, *inputs.key_images.shape[-2:], config)
    conditioning = encode_conditioning(bundle, inputs, grid, config, torch.zeros(1, 3, 24, 40))
    denoiser = GuidedDenoiser(bundle, conditioning, config)
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, 2, 4, 4, grid.size[1], grid.size[0], generator=generator)
    denoiser(first, 1.0, torch.tensor(0.0), StepMode())
    return denoiser(first + change * other, 1.0, torch.tensor(0.0), mode)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "adams_bashforth"])
def test_other_solvers_sample_deterministically(bundle: ModelBundle, solver: Any) -> None:
    config = replace(CONFIG, num_inference_steps=3, solver=solver, s_churn=0.0)
    first, same = (sample_window(bundle, _inputs(8, 16), config, SeededNoise(0)) for _ in range(2))
    assert torch.equal(first, same)
    assert first.isfinite().all()
