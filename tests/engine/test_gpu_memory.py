"""On a GPU: every kind of plan gives the same frames, limits hold, and a window goes on where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from evfi.engine.base import PlainEngine
from evfi.engine.fast import FastEngine
from evfi.engine.memory import GIB, MemoryPlan, lower_plan
from evfi.models.bundle import ModelBundle
from evfi.models.random import random_bundle
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise

pytestmark = pytest.mark.gpu

STEPS = 2
SMALL = SamplingConfig(num_inference_steps=STEPS, tile_width=128, tile_height=64)


def _inputs(width: int, height: int, frames: int) -> WindowInputs:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    return WindowInputs(images, (torch.rand(2, frames, 6, height, width, generator=generator) - 0.5).round())


def _made(engine: FastEngine | PlainEngine, inputs: WindowInputs, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():  # as the interpolator calls engines, which it makes outside of it
        latents = engine.sample(inputs, config, SeededNoise(0))
        return latents.clone(), engine.decode(latents, config)


def _error(made: Tensor, expected: Tensor) -> float:
    return float((made.float() - expected.float()).norm() / expected.float().norm())


@pytest.fixture(params=[torch.float16, torch.float32], ids=str)
def bundle(request: pytest.FixtureRequest) -> ModelBundle:
    return random_bundle("small-random", dtype=request.param, device="cuda")


def _plans(engine: FastEngine) -> Iterator[MemoryPlan]:
    """The engine's plan, and one of every lower kind, with decoding in bands from the second on."""
    (key, plan), *_ = engine._plans.items()
    costs, work = engine._needs[key]
    yield plan
    lower: MemoryPlan | None = lower_plan(plan, "decode", costs, work)
    while lower is not None:
        yield lower
        lower = lower_plan(lower, "denoise", costs, work)  # several calls of one shape, too


def test_every_plan_gives_the_same_frames(bundle: ModelBundle) -> None:
    inputs = _inputs(256, 256, 3)
    expected = _made(PlainEngine(bundle), inputs, SMALL)
    engine = FastEngine(bundle)
    first = _made(engine, inputs, SMALL)
    assert _error(first[0], expected[0]) < 2e-2
    key = next(iter(engine._plans))
    offloads = set()
    for plan in list(_plans(engine)):
        engine._plans[key] = plan
        once, again = _made(engine, inputs, SMALL), _made(engine, inputs, SMALL)
        assert torch.equal(once[0], again[0])  # the same plan: the same bits
        assert torch.equal(once[1], again[1])
        assert _error(once[0], first[0]) < 1e-2
        assert _error(once[1], first[1]) < 1e-2
        offloads.add(plan.offload)
    assert offloads == {"none", "idle", "blocks"}
    engine.restore()
    after = _made(PlainEngine(bundle), inputs, SMALL)
    assert _error(after[0], expected[0]) < 1e-6


def test_a_limit_holds_and_is_lifted_afterwards() -> None:
    bundle = random_bundle("svd-random", dtype=torch.float16, device="cuda")
    inputs, config = _inputs(512, 320, 5), SamplingConfig(num_inference_steps=STEPS)
    expected = _made(FastEngine(bundle), inputs, config)
    before = torch.cuda.get_per_process_memory_fraction()
    engine = FastEngine(bundle, 6 * GIB)
    torch.cuda.empty_cache()
    _made(engine, inputs, config)  # leaves weights off the device
    torch.cuda.reset_peak_memory_stats()
    made = _made(engine, inputs, config)
    assert torch.cuda.max_memory_reserved() <= 6 * GIB
    assert torch.cuda.get_per_process_memory_fraction() == before
    assert _error(made[0], expected[0]) < 1e-2


def test_a_model_in_the_hosts_memory_runs_in_less_memory_than_it_takes() -> None:
    inputs, config = _inputs(512, 320, 5), SamplingConfig(num_inference_steps=STEPS)
    bundle = random_bundle("svd-random", dtype=torch.float16, device="cuda")
    expected = _made(FastEngine(bundle), inputs, config)
    for network in bundle.networks().values():
        network.to("cpu")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    engine = FastEngine(bundle, 3 * GIB, device=torch.device("cuda"))
    assert torch.cuda.max_memory_reserved() <= 3 * GIB
    made = _made(engine, inputs, config)
    assert torch.cuda.max_memory_reserved() <= 3 * GIB
    assert engine.plan is not None
    assert engine.plan.offload == "blocks"
    assert _error(made[0], expected[0]) < 1e-2
    assert _error(made[1], expected[1]) < 1e-2


def test_going_on_where_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    bundle = random_bundle("svd-random", dtype=torch.float16, device="cuda")
    inputs, config = _inputs(512, 320, 5), SamplingConfig(num_inference_steps=STEPS)
    engine = FastEngine(bundle)
    expected = _made(engine, inputs, config)
    engine._runner.forget()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(free - 300 * 2**20, dtype=torch.uint8, device="cuda")
    with caplog.at_level(logging.WARNING):
        made = _made(engine, inputs, config)
    assert "out of memory" in caplog.text
    assert "continuing with" in caplog.text
    assert _error(made[0], expected[0]) < 1e-2
    assert _error(made[1], expected[1]) < 1e-2
    del ballast
