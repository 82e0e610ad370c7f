"""Convolutions with fewer multiplications, compiled norms and threads of the CPU's fast engine compute what torch computes."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evfi.engine import threads
from evfi.engine.base import PlainEngine
from evfi.engine.cpu_layers import CpuOperators
from evfi.engine.fast import FastEngine
from evfi.engine.operators import Feature, TorchOperators
from evfi.engine.winograd import WinogradConvolution, suits
from evfi.interpolator import Interpolator, make_engine
from evfi.models import onednn
from stand_ins import memory_recording
from tiny_models import tiny_bundle


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _error(made: Tensor, expected: Tensor) -> float:
    return float((made - expected).norm() / expected.norm())


def _convolution(inputs: int, outputs: int, **options: int) -> nn.Conv2d:
    module = nn.Conv2d(inputs, outputs, 3, padding=1, **options).requires_grad_(False)
    module.weight.copy_(_normal(*module.weight.shape, seed=1))
    return module


needs_mkldnn = pytest.mark.skipif(not onednn.has_fused(), reason="needs oneDNN")


@needs_mkldnn
@pytest.mark.parametrize("size", [(8, 12), (9, 11), (1, 1), (3, 50), (70, 66)])
@pytest.mark.parametrize("channels", [(32, 32), (48, 32), (32, 64)])
@torch.inference_mode()
def test_winograd_convolutions_equal_direct_ones(size: tuple[int, int], channels: tuple[int, int]) -> None:
    module = _convolution(*channels)
    pictures, base = _normal(3, *size, channels[0]), _normal(3, *size, channels[1], seed=2)
    quick = WinogradConvolution(module)
    direct = F.conv2d(pictures.permute(0, 3, 1, 2).double(), module.weight.double(), padding=1).permute(0, 2, 3, 1)
    biased = direct + module.bias.double()
    assert _error(quick(pictures, bias=False), direct) < 2e-6
    assert _error(quick(pictures), biased) < 2e-6
    assert _error(quick(pictures, relu=True, base=base), (biased + base).relu()) < 2e-6


@needs_mkldnn
@torch.inference_mode()
def test_winograd_convolutions_of_enlarged_pictures() -> None:
    module, pictures = _convolution(32, 32), _normal(2, 5, 7, 32)
    large = F.interpolate(pictures.permute(0, 3, 1, 2), scale_factor=2.0, mode="nearest")
    expected = module(large).permute(0, 2, 3, 1)
    assert _error(WinogradConvolution(module)(pictures, enlarge=True), expected) < 2e-6


@pytest.mark.parametrize(
    "module",
    [
        _convolution(32, 32, stride=2),
        _convolution(32, 32, groups=2),
        _convolution(8, 32),
        _convolution(40, 32),
        _convolution(32, 512),
        _convolution(32, 32).half(),
    ],
)
def test_other_convolutions_are_left_alone(module: nn.Conv2d) -> None:
    assert not suits(module)


@needs_mkldnn
def test_transformed_kernels_follow_the_weights() -> None:
    module, values = _convolution(32, 32), _normal(1, 1, 8, 8, 32)
    with torch.inference_mode():
        first = CpuOperators().convolve(values, module, bias=True)
    module.weight.mul_(2)
    module.bias.mul_(2)
    with torch.inference_mode():
        assert _error(CpuOperators().convolve(values, module, bias=True), 2 * first) < 2e-6


@pytest.mark.parametrize("over_frames", [True, False])
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("widths", [(32,), (48, 16)])
@torch.inference_mode()
def test_group_norm_equals_torch(over_frames: bool, silu: bool, widths: tuple[int, ...]) -> None:
    sources = [Feature(3 * _normal(2, 3, 5, 7, width, seed=width) + 1) for width in widths]
    norm = nn.GroupNorm(8, sum(widths))
    norm.weight.copy_(_normal(sum(widths)))
    offset = _normal(sum(widths), seed=5) if len(widths) == 1 else None
    made, expected = (
        run.group_norm(sources, norm, over_frames=over_frames, silu=silu, offset=offset)
        for run in (CpuOperators(), TorchOperators())
    )
    assert _error(made, expected) < 1e-6


@torch.inference_mode()
def test_silu_of_large_values_is_finite() -> None:
    values = torch.tensor([-1e4, -100.0, -88.0, 0.0, 1e-6, 88.0, 100.0, 1e4]).repeat(2).view(1, 1, 1, 1, 16)
    norm = nn.GroupNorm(1, 16)
    norm.weight.mul_(100.0)
    made, expected = (
        run.group_norm([Feature(values)], norm, over_frames=False, silu=True)
        for run in (CpuOperators(), TorchOperators())
    )
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_sums_equal_torch() -> None:
    base, change, offset = _normal(1, 2, 3, 4, 32), _normal(1, 2, 3, 4, 32, seed=1), _normal(32, seed=2)
    made, expected = (run.add(base, change.clone(), 0.3, offset).values for run in (CpuOperators(), TorchOperators()))
    assert _error(made, expected) < 1e-6


@torch.inference_mode()
def test_convolutions_over_frames_equal_torch() -> None:
    module = nn.Conv3d(32, 32, (3, 1, 1), padding=(1, 0, 0))
    values = _normal(2, 4, 3, 5, 32)
    expected = F.conv3d(values.permute(0, 4, 1, 2, 3), module.weight, padding=(1, 0, 0)).permute(0, 2, 3, 4, 1)
    assert _error(CpuOperators().convolve_frames(values, module), expected) < 1e-6


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5])
def test_threads_keep_the_order_and_torch_its_number(number: int) -> None:
    before = torch.get_num_threads()
    workers = threads.Workers(2)
    found = workers.map(lambda item: (item, torch.get_num_threads(), torch.is_inference_mode_enabled()), range(number))
    each = 2 if number == 1 else 1  # a single item has both
    assert found == [(item, each, True) for item in range(number)]
    assert torch.get_num_threads() == before


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        threads.workers().map(lambda item: 1 // item, [1, 0])


def test_parts_left_over_are_shared() -> None:
    done: list[int] = []
    threads.workers().map(lambda item: threads.share(done.append, range(10 * item, 10 * item + 4)), [0, 1, 2])
    assert sorted(done) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]


def test_the_fast_engine_is_the_default() -> None:
    bundle = tiny_bundle()
    assert isinstance(make_engine(None, bundle), FastEngine)
    assert isinstance(make_engine("plain", bundle), PlainEngine)


@torch.inference_mode()
def test_encoders_equal_the_plain_ones() -> None:
    bundle = tiny_bundle()
    engine = FastEngine(bundle)
    assert engine._cpu is not None
    pictures, stacks = _normal(3, 3, 16, 24), _normal(2, 3, 6, 16, 24)
    stacks[:, 0] = 0.0  # as first frames are
    assert _error(engine._cpu.encoders.encode_images(pictures), bundle.encode_image(pictures)) < 2e-6
    expected = bundle.controlnet.embed_events(stacks)
    assert _error(engine._cpu.encoders.embed_events(stacks), expected) < 2e-6


def test_each_thread_has_an_item_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from evfi.engine.network import SteeredUNet
    from evfi.sampling.conditioning import WindowInputs
    from evfi.sampling.config import SamplingConfig
    from evfi.sampling.noise import SeededNoise

    calls: list[tuple[int, str]] = []
    run = SteeredUNet.__call__

    def noted(self: SteeredUNet, sample: Tensor, *others: object, **named: object) -> Tensor:
        calls.append((len(sample), threading.current_thread().name))
        return run(self, sample, *others, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(SteeredUNet, "__call__", noted)
    inputs = WindowInputs(_normal(2, 3, 32, 64), _normal(2, 3, 6, 32, 64))
    config = SamplingConfig(num_inference_steps=1, tile_width=64, tile_height=32)
    FastEngine(tiny_bundle()).sample(inputs, config, SeededNoise(0))
    assert [items for items, _ in calls] == [1, 1, 1, 1]  # two directions, two guidance halves
    assert all(name.startswith("evfi") for _, name in calls)


def test_without_onednn_s_private_operations_plain_ones_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = memory_recording(2)
    (window,) = (recording.load_window(spec) for spec in recording.plan_windows(insert=2))
    made = []
    for has_fused in (True, False):
        if not has_fused:
            monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())  # as in a PyTorch that has renamed them
            onednn.has_fused.cache_clear()
            assert not onednn.has_fused()
        try:
            made.append(Interpolator.from_pretrained("evfi-tiny", "cpu").interpolate_window(window).astype(int))
        finally:
            monkeypatch.undo()
            onednn.has_fused.cache_clear()
    assert abs(made[0] - made[1]).max() <= 1
