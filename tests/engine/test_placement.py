"""Weights lie where a plan wants them, and networks compute the same with weights that come block by block."""

from __future__ import annotations

import copy

import pytest
import torch

from evfi.engine.costs import fast_costs, work_of
from evfi.engine.memory import MemoryPlan, lower_plan, make_plan
from evfi.engine.network import Constants, SteeredUNet
from evfi.engine.operators import TorchOperators
from evfi.engine.placement import Placement
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import window_grid
from evfi.sampling.config import SamplingConfig
from tiny_models import tiny_bundle

CONFIG = SamplingConfig(tile_width=64, tile_height=32)


class Model:
    """A model whose weights are placed by plans."""

    def __init__(self) -> None:
        self.bundle: ModelBundle = tiny_bundle(temporal_vae=True, image_encoder=True)
        with torch.inference_mode():
            self.network = SteeredUNet(self.bundle.controlnet, self.bundle.unet, TorchOperators())
        self.placement = Placement(self.bundle, self.network, self.bundle.vae.decoder)
        grid = window_grid(self.bundle, 48, 96, CONFIG)
        self.costs, self.work = fast_costs(self.bundle, grid, 5, CONFIG), work_of(grid, 5, CONFIG)

    def plan(self, offload: str) -> MemoryPlan:
        """The first plan that takes weights off the device in that way."""
        plan: MemoryPlan | None = make_plan(self.costs, self.work, None)
        while plan is not None and plan.offload != offload:
            plan = lower_plan(plan, "denoise", self.costs, self.work)
        assert plan is not None
        return plan

    def here(self) -> set[str]:
        """Names of networks with all weights of their blocks, and of decoder and encoders."""
        bundle = self.bundle
        parts = {
            "unet": bundle.unet.up_blocks[0].resnets[0].spatial_res_block.conv1,
            "controlnet": bundle.controlnet.mid_block.resnets[0].spatial_res_block.conv1,
            "vae_decoder": bundle.vae.decoder.conv_in,
            "vae_encoder": bundle.vae.encoder.conv_in,
            "image_encoder": bundle.image_encoder,
            "unused": bundle.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_q,
        }
        return {
            name for name, part in parts.items() if all(p.untyped_storage().nbytes() > 0 for p in part.parameters())
        }

    @torch.no_grad()  # in inference mode a CPU shares weights with numpy, and such weights cannot leave
    def predict(self) -> torch.Tensor:
        unet, generator = self.bundle.unet, torch.Generator().manual_seed(0)
        steps = self.network.step_vectors(torch.tensor(0.3), torch.tensor([6.0, 127.0, 0.02]))
        contexts = self.network.context_vectors(torch.randn(2, self.bundle.context_dim, generator=generator))
        control, constants = (Constants(*pair) for pair in zip(steps, contexts, strict=True))
        sample = torch.randn(2, 3, 4, 8, int(unet.config.in_channels), generator=generator)
        events = torch.randn(2, 3, 4, 8, int(unet.config.block_out_channels[0]), generator=generator)
        return self.network(sample, events, control, constants, 1.0)


@pytest.fixture
def model() -> Model:
    return Model()


def test_nothing_is_touched_while_all_stays(model: Model) -> None:
    plan = make_plan(model.costs, model.work, None)
    for phase in plan.estimates:
        model.placement.enter(plan, phase)
        assert len(model.here()) == 6


def test_idle_networks_leave(model: Model) -> None:
    plan, expected = model.plan("idle"), model.predict()
    whole = model.placement.bytes_on(torch.device("cpu"))
    assert whole >= sum(weight.nbytes for part in model.bundle.networks().values() for weight in part.parameters())
    model.placement.enter(plan, "condition")
    assert model.here() == {"image_encoder", "vae_encoder"}
    model.placement.enter(plan, "denoise")
    assert model.here() == {"controlnet", "unet"}
    assert torch.equal(model.predict(), expected)
    model.placement.enter(plan, "decode")
    assert model.here() == {"vae_decoder"}
    assert model.placement.bytes_on(torch.device("cpu")) < 0.5 * whole
    model.placement.restore()
    assert model.placement.bytes_on(torch.device("cpu")) == whole
    assert len(model.here()) == 6
    assert torch.equal(model.predict(), expected)


def test_streamed_blocks_compute_the_same(model: Model) -> None:
    plan, expected = model.plan("blocks"), model.predict()
    for _ in range(2):
        model.placement.enter(plan, "condition")
        model.placement.enter(plan, "denoise")
        assert model.here() == set()
        assert torch.equal(model.predict(), expected)
        assert torch.equal(model.predict(), expected)
        model.placement.enter(plan, "decode")
        assert model.here() == {"vae_decoder"}
    model.placement.enter(make_plan(model.costs, model.work, None), "denoise")
    assert len(model.here()) == 6
    assert torch.equal(model.predict(), expected)


def test_streamed_weights_are_those_of_two_blocks_at_a_time(model: Model) -> None:
    blocks = model.network.blocks()
    assert len(blocks) == 2 * len(model.bundle.unet.down_blocks) + 2 + len(model.bundle.unet.up_blocks)
    sizes = [sum(weight.nbytes for weight in block) for block in blocks]
    assert model.costs.streamed == max(a + b for a, b in zip(sizes, [*sizes[1:], sizes[0]], strict=True))
    known = {id(weight) for block in blocks for weight in block}
    assert not known & {id(weight) for weight in model.network.unused()}


def test_a_decoder_that_a_copy_stands_for_is_not_needed() -> None:
    bundle = tiny_bundle(temporal_vae=True)
    copied = copy.deepcopy(bundle.vae.decoder).half()
    with torch.inference_mode():
        network = SteeredUNet(bundle.controlnet, bundle.unet, TorchOperators())
    model = Model()
    placement = Placement(bundle, network, copied)
    placement.enter(model.plan("idle"), "decode")
    assert bundle.vae.decoder.conv_in.weight.untyped_storage().nbytes() == 0
    assert copied.conv_in.weight.untyped_storage().nbytes() > 0
    placement.restore()
    assert bundle.vae.decoder.conv_in.weight.untyped_storage().nbytes() > 0


def test_plans_can_be_made_while_weights_are_away(model: Model) -> None:
    model.placement.enter(model.plan("blocks"), "denoise")
    grid = window_grid(model.bundle, 64, 64, CONFIG)
    away = fast_costs(model.bundle, grid, 5, CONFIG)
    model.placement.restore()
    here = fast_costs(model.bundle, grid, 5, CONFIG)
    assert dict(away.decode) == dict(here.decode)
    assert (away.denoise, away.weights) == (here.denoise, here.weights)


def test_a_model_in_the_hosts_memory_is_sent_and_computes_the_same() -> None:
    expected = Model().predict()
    model = Model()
    model.placement.send(torch.device("cpu"))
    assert model.here() == set()
    model.placement.enter(model.plan("blocks"), "denoise")
    assert model.here() == set()
    assert torch.equal(model.predict(), expected)
    model.placement.enter(make_plan(model.costs, model.work, None), "denoise")
    assert len(model.here()) == 6
    assert torch.equal(model.predict(), expected)
