"""Costs of the fast engine: simulated without touching the model, and good enough to plan by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evfi.engine.costs import AllocatingOperators, fast_costs, network_call_peak, work_of
from evfi.engine.footprint import meta_twin
from evfi.engine.memory import ALWAYS, NEEDS, UNUSED, Costs, make_plan
from evfi.engine.network import SteeredUNet
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import window_grid
from evfi.sampling.config import SamplingConfig
from evfi.sampling.tiling import TileGrid
from tiny_models import tiny_bundle

CONFIG = SamplingConfig(tile_width=64, tile_height=32)
FRAMES = 5


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return tiny_bundle(temporal_vae=True, image_encoder=True)


@pytest.fixture(scope="module")
def grid(bundle: ModelBundle) -> TileGrid:
    return window_grid(bundle, 48, 96, CONFIG)


@pytest.fixture(scope="module")
def costs(bundle: ModelBundle, grid: TileGrid) -> Costs:
    before = {name: value.clone() for name, value in bundle.unet.state_dict().items()}
    made = fast_costs(bundle, grid, FRAMES, CONFIG)
    assert all(torch.equal(value, before[name]) for name, value in bundle.unet.state_dict().items())
    return made


def test_work_counts_tiles_directions_and_halves(grid: TileGrid) -> None:
    assert len(grid.views) == 4
    work = work_of(grid, FRAMES, CONFIG)
    assert (work.items, work.pictures) == (16, 8)
    assert work_of(grid, FRAMES, SamplingConfig(min_guidance_scale=1.0, max_guidance_scale=1.0)).items == 8


def test_all_weights_are_counted_once(bundle: ModelBundle, costs: Costs) -> None:
    networks = bundle.networks().values()
    total = sum(value.numel() * value.element_size() for part in networks for value in part.state_dict().values())
    assert costs.total(tuple(costs.weights)) == pytest.approx(total, rel=0.01)
    assert set(costs.weights) == {ALWAYS, UNUSED, *(name for names in NEEDS.values() for name in names)}
    assert 0 < costs.weights[UNUSED] < costs.weights[ALWAYS] < costs.weights["unet"]
    assert 0 < costs.streamed < costs.total(NEEDS["denoise"])


def test_a_line_through_two_sizes_of_call_holds_for_larger_ones(bundle: ModelBundle, costs: Costs) -> None:
    twins = [meta_twin(part, keep_scalars=True) for part in (bundle.controlnet, bundle.unet)]
    with torch.no_grad():
        network = SteeredUNet(twins[0], twins[1], AllocatingOperators())
    for items in (4, 16):
        simulated = network_call_peak(network, bundle, items, FRAMES, (8, 16))
        assert costs.denoise.at(items) == pytest.approx(simulated, rel=0.05)
        assert simulated > items * FRAMES * 8 * 16 * 32 * 4 * 6  # more than six activations of the first level


def test_costs_make_plans(grid: TileGrid, costs: Costs) -> None:
    work = work_of(grid, FRAMES, CONFIG)
    assert make_plan(costs, work, None).items_per_call == 16


def test_reused_features_are_held(bundle: ModelBundle, grid: TileGrid, costs: Costs) -> None:
    kept = fast_costs(bundle, grid, FRAMES, replace(CONFIG, reuse_interval=2)).held - costs.held
    first, second = bundle.unet.config.block_out_channels[:2]
    skips = len(bundle.unet.up_blocks[-1].resnets)
    assert kept == 16 * FRAMES * 8 * 16 * (second + skips * first) * 4


def test_decoding_is_simulated_for_bands_that_are_asked_for(bundle: ModelBundle) -> None:
    large = window_grid(bundle, 256, 96, CONFIG)
    decode = fast_costs(bundle, large, FRAMES, CONFIG).decode
    assert list(decode) == [1, 2, 4, 8]
    assert decode[8] < decode[1]
    with pytest.raises(KeyError):
        decode[3]


def test_an_image_autoencoder_has_costs_too(grid: TileGrid) -> None:
    costs = fast_costs(tiny_bundle(), grid, FRAMES, CONFIG)
    assert "image_encoder" not in costs.weights
    assert costs.decode[1] > FRAMES * 3 * 48 * 96 * 4
