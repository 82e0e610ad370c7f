"""Simulated memory: every storage counted once, from its making to its end, on meta tensors as on real ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.engine.footprint import BLOCK_BYTES, block_bytes, meta_twin, simulated_peak
from evfi.models.bundle import ModelBundle, decode_latents, encode_pixels
from tiny_models import tiny_bundle

KIB = 1024


def kib(number: int, device: str = "meta") -> Tensor:
    return torch.empty(number * KIB, dtype=torch.uint8, device=device)


def test_what_lives_at_one_time_adds_up() -> None:
    def work() -> Tensor:
        first = kib(4)
        second = kib(2)
        del first
        third = kib(3)
        return second + third[: 2 * KIB]  # 2 + 3 + 2 KiB

    assert simulated_peak(work) == 7 * KIB


def test_the_peak_stays_when_memory_is_freed() -> None:
    def work() -> None:
        del_me = kib(10)
        del del_me
        kib(1)

    assert simulated_peak(work) == 10 * KIB


def test_views_and_results_in_place_take_nothing() -> None:
    def work() -> None:
        values = kib(4)
        values.view(2, -1)[0].add_(1)
        values.t()

    assert simulated_peak(work) == 4 * KIB


def test_inputs_count_only_if_held() -> None:
    given = kib(4)
    assert simulated_peak(lambda: given + 1) == 4 * KIB
    assert simulated_peak(lambda: given + 1, held=[given, given[1:]]) == 8 * KIB


def test_sizes_are_rounded_as_the_allocator_does() -> None:
    assert [block_bytes(size) for size in (0, 1, BLOCK_BYTES, BLOCK_BYTES + 1)] == [0, 512, 512, 1024]
    assert simulated_peak(lambda: torch.empty(3, device="meta")) == BLOCK_BYTES


def test_attention_takes_no_matrix_of_weights() -> None:
    query = torch.empty(1, 2, 4096, 8, device="meta")
    assert simulated_peak(lambda: F.scaled_dot_product_attention(query, query, query)) == query.numel() * 4


def test_copies_of_cuda_kernels_are_counted() -> None:
    values = torch.empty(1, 32, 16, 16, device="meta")
    weight = torch.empty(32, 32, 3, 3, device="meta").contiguous(memory_format=torch.channels_last)
    size = values.numel() * 4
    assert simulated_peak(lambda: F.conv2d(values, weight, padding=1)) == 2 * size  # result, input with channels last
    assert simulated_peak(lambda: F.conv2d(values, weight, padding=1), as_cuda=False) == size
    made = F.conv2d(values, weight, padding=1).contiguous(memory_format=torch.channels_last)
    assert simulated_peak(lambda: F.conv2d(made, weight, padding=1)) == size


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return tiny_bundle(temporal_vae=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_enlarging_pictures_takes_the_result_alone(layout: torch.memory_format) -> None:
    small = torch.empty(2, 8, 16, 16, device="meta").contiguous(memory_format=layout)
    made: list[Tensor] = []
    for arguments in ({"scale_factor": 2.0}, {"size": (32, 32)}):
        assert (
            simulated_peak(lambda a=arguments: made.append(F.interpolate(small, mode="nearest", **a))) == 32 * KIB * 2
        )  # type: ignore[misc]
    assert all(one.shape == (2, 8, 32, 32) and one.is_contiguous(memory_format=layout) for one in made)


def test_a_twin_has_layouts_but_no_values(bundle: ModelBundle) -> None:
    twin = meta_twin(bundle.unet)
    pairs = list(zip(twin.state_dict().values(), bundle.unet.state_dict().values(), strict=True))
    assert all(copy.is_meta and copy.stride() == real.stride() and copy.dtype == real.dtype for copy, real in pairs)
    assert not any(real.is_meta for _, real in pairs)


def calls(bundle: ModelBundle, device: str) -> dict[str, Callable[[], object]]:
    """Calls of the networks; on the meta device by twins."""
    unet, vae = (network if device == "cpu" else meta_twin(network) for network in (bundle.unet, bundle.vae))
    sample = torch.empty(2, 5, 8, 8, 16, device=device).zero_()
    context, ids = torch.zeros(2, 1, 16, device=device), torch.zeros(2, 3, device=device)
    latents, pixels = torch.zeros(2, 4, 8, 16, device=device), torch.zeros(3, 3, 32, 64, device=device)
    return {
        "unet": lambda: unet(sample, ids[0, 0], context, ids),
        "decode": lambda: decode_latents(vae, latents, 2),
        "encode": lambda: encode_pixels(vae, pixels),
    }


@pytest.mark.parametrize("name", ["unet", "decode", "encode"])
def test_meta_tensors_tell_what_real_ones_take(bundle: ModelBundle, name: str) -> None:
    real, simulated = (simulated_peak(calls(bundle, device)[name], as_cuda=False) for device in ("cpu", "meta"))
    assert simulated == pytest.approx(real, rel=0.02)
    assert real > 50 * KIB
