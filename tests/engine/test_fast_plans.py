"""How the fast engine goes about its plans, on a CPU that stands in for a GPU: planning, moving weights, going on.

Networks run in float64, which no kernel of the CPU's own shares with numpy: such weights can leave. Memory is told by a stub.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from evfi.engine import fast as fast_module
from evfi.engine.base import PlainEngine
from evfi.engine.fast import FastEngine
from evfi.engine.memory import MemoryPlan, lower_plan
from evfi.engine.network import SteeredUNet
from evfi.engine.operators import TorchOperators
from evfi.errors import ResourceError
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise
from tiny_models import tiny_bundle

GPU = torch.device("cuda", 0)
CONFIG = SamplingConfig(num_inference_steps=2, tile_width=64, tile_height=32)
MIB = 2**20


@dataclass
class Memory:
    """What is told of a GPU's memory, in bytes."""

    free: int = 4096 * MIB
    whole: int = 8192 * MIB
    allocated: int = 0
    share: float = 1.0


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    told = Memory()
    for name, value in {
        "mem_get_info": lambda device=None: (told.free, told.whole),
        "memory_reserved": lambda device=None: told.allocated,
        "memory_allocated": lambda device=None: told.allocated,
        "get_per_process_memory_fraction": lambda device=None: told.share,
        "set_per_process_memory_fraction": lambda share, device=None: setattr(told, "share", share),
        "get_device_properties": lambda device=None: type("Properties", (), {"total_memory": told.whole}),
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("evfi.engine.memory.MOST_RECORDED", 0)  # nothing can be recorded here
    monkeypatch.setattr("evfi.engine.memory.WORK_SPACE", 0)
    monkeypatch.setattr("evfi.engine.memory._DRIVER", 0)
    monkeypatch.setattr(fast_module, "make_operators", lambda device: TorchOperators())
    return told


@pytest.fixture
def bundle() -> ModelBundle:
    return tiny_bundle(factor=8, temporal_vae=True, image_encoder=True).to("cpu", torch.float64)


def _engine(bundle: ModelBundle, memory: Memory, limit: int | None = None) -> FastEngine:
    engine = FastEngine(bundle, limit)
    memory.allocated = engine._placement.bytes_on(torch.device("cpu"))
    engine._device = GPU
    engine._placement.bytes_on = lambda device: memory.allocated  # type: ignore[method-assign]
    return engine


def _inputs(height: int = 64, width: int = 64) -> WindowInputs:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    return WindowInputs(images, torch.rand(2, 4, 6, height, width, generator=generator) - 0.5)


def _made(engine: FastEngine | PlainEngine, inputs: WindowInputs) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():  # as the interpolator calls engines, which it makes outside of it
        latents = engine.sample(inputs, CONFIG, SeededNoise(0))
        return latents, engine.decode(latents, CONFIG)


def _error(made: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(made, expected, strict=True))


def _plan(engine: FastEngine) -> MemoryPlan:
    assert engine.plan is not None
    return engine.plan


def test_without_a_limit_all_stays(bundle: ModelBundle, memory: Memory) -> None:
    inputs = _inputs()
    expected = _made(PlainEngine(bundle), inputs)
    engine = _engine(bundle, memory)
    assert _error(_made(engine, inputs), expected) < 1e-5
    plan = _plan(engine)
    assert (plan.offload, plan.decode_bands) == ("none", 1)
    assert plan.budget == memory.free + memory.allocated
    assert memory.share == 1.0


def test_limits_change_the_plan_and_not_the_frames(bundle: ModelBundle, memory: Memory) -> None:
    inputs = _inputs()
    expected = _made(PlainEngine(bundle), inputs)
    first = _engine(bundle, memory)
    _made(first, inputs)
    full, (costs, work) = _plan(first).peak, next(iter(first._needs.values()))
    seen = set()
    for share in (1.3, 0.8, 0.6, 0.45):
        memory.share = 1.0
        engine = _engine(bundle, memory, int(share * full))
        try:
            made = [_made(engine, inputs) for _ in range(2)]
        except ResourceError as error:
            assert "frames of this size need" in str(error)
            continue
        finally:
            engine.restore()
        plan = _plan(engine)
        assert plan.peak <= share * full
        assert all(_error(one, expected) < 1e-5 for one in made)
        assert torch.equal(made[0][0], made[1][0])
        assert memory.share == 1.0  # lifted after each part
        seen.add(plan.offload)
    assert {"none", "idle"} <= seen
    engine = _engine(bundle, memory)
    _made(engine, inputs)
    lowered: MemoryPlan | None = _plan(engine)
    while lowered is not None and lowered.offload != "blocks":
        lowered = lower_plan(lowered, "denoise", costs, work)
    assert lowered is not None
    engine._plans[next(iter(engine._plans))] = replace(lowered, decode_bands=2)
    assert _error(_made(engine, inputs), expected) < 1e-5
    engine.restore()
    assert _error(_made(PlainEngine(bundle), inputs), expected) == 0.0


@pytest.mark.parametrize("inside", [True, False])
def test_planning_begun_in_inference_mode_goes_on_outside_of_it(
    bundle: ModelBundle, memory: Memory, inside: bool
) -> None:
    engines = [_engine(bundle, memory) for _ in range(2)]
    for engine in engines:
        _made(engine, _inputs())
    (costs, _), (expected, _) = (next(iter(engine._needs.values())) for engine in engines)
    for bands in costs.decode:
        with torch.inference_mode(inside):
            needed = costs.decode[bands]
        with torch.inference_mode():
            assert needed == expected.decode[bands]


def test_where_memory_runs_out_the_window_goes_on(
    bundle: ModelBundle, memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = _inputs()
    expected = _made(PlainEngine(bundle), inputs)
    engine, run, sizes = _engine(bundle, memory), SteeredUNet.__call__, []

    def scarce(self: SteeredUNet, sample: Tensor, *others: object, **named: object) -> Tensor:
        sizes.append(len(sample))
        if len(sample) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, sample, *others, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(SteeredUNet, "__call__", scarce)
    with caplog.at_level(logging.WARNING):
        assert _error(_made(engine, inputs), expected) < 1e-5
    assert "continuing with" in caplog.text
    assert max(sizes) > 3
    sizes.clear()
    assert _error(_made(engine, inputs), expected) < 1e-5
    assert max(sizes) <= 3  # what was learnt is kept


def test_memory_of_others_is_not_planned_with(bundle: ModelBundle, memory: Memory) -> None:
    engine = _engine(bundle, memory, 2048 * MIB)
    own = memory.allocated
    engine._placement.bytes_on = lambda device: own  # type: ignore[method-assign]
    memory.allocated += 512 * MIB
    engine.sample(_inputs(), CONFIG, SeededNoise(0))
    assert _plan(engine).budget == 1536 * MIB
