"""Gated products in eight bits: rounding as documented, a small change of the result, counted in the costs."""

from __future__ import annotations

import torch
from torch import Tensor

from evfi.engine.costs import fast_costs
from evfi.engine.fast import FastEngine
from evfi.engine.memory import ALWAYS
from evfi.engine.operators import Float8Rows
from evfi.sampling.conditioning import WindowInputs, window_grid
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise
from tiny_models import tiny_bundle

CONFIG = SamplingConfig(num_inference_steps=2, tile_width=64, tile_height=32)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_rows_are_scaled_to_the_range_and_rounded() -> None:
    rows = _normal(6, 64) * torch.tensor([1e-3, 1.0, 1e3, 7.0, 1.0, 0.0])[:, None]
    made = Float8Rows.of(rows)
    assert made.values.dtype == torch.float8_e4m3fn
    assert torch.equal(made.values.float().abs().amax(1)[:5], torch.full((5,), 448.0))
    error = (made.to(torch.float32) - rows).abs()
    assert bool((error <= rows.abs() / 16 + made.scales[:, None] * 2**-10).all())  # half a step of three bits
    assert not made.to(torch.float16)[5].any()


def test_results_differ_a_little_and_always_alike() -> None:
    bundle, generator = tiny_bundle(), torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 32, 64, generator=generator) * 2 - 1
    inputs = WindowInputs(images, torch.rand(2, 3, 6, 32, 64, generator=generator) - 0.5)
    exact = FastEngine(bundle).sample(inputs, CONFIG, SeededNoise(0))
    engine = FastEngine(bundle, float8=True)
    made = engine.sample(inputs, CONFIG, SeededNoise(0))
    error = float((made - exact).norm() / exact.norm())
    assert 1e-5 < error < 3e-2
    assert torch.equal(engine.sample(inputs, CONFIG, SeededNoise(0)), made)


def test_copies_of_weights_are_counted() -> None:
    bundle = tiny_bundle()
    grid = window_grid(bundle, 48, 96, CONFIG)
    FastEngine(bundle)
    plain = fast_costs(bundle, grid, 3, CONFIG)
    FastEngine(bundle, float8=True)
    rounded = fast_costs(bundle, grid, 3, CONFIG, float8=True)
    layers = [
        module.net[0].proj
        for network in (bundle.controlnet, bundle.unet)
        for name, module in network.named_modules()
        if name.endswith((".ff", ".ff_in"))
    ]
    expected = sum(layer.weight.numel() + 4 * layer.out_features for layer in layers)
    assert rounded.weights[ALWAYS] - plain.weights[ALWAYS] == expected
    assert rounded.denoise.at(1) <= plain.denoise.at(1)
