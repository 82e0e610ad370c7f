"""Decoding band by band: the same frames to rounding, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evfi.engine import bands
from evfi.engine.costs import AllocatingOperators
from evfi.engine.decoder import TemporalDecoder
from evfi.engine.footprint import meta_twin, simulated_peak
from evfi.engine.operators import Feature, TorchOperators
from tiny_models import tiny_bundle

SHAPE = (1, 2, 13, 6, 8)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _error(made: Tensor, expected: Tensor) -> float:
    return float((made - expected).detach().norm() / expected.detach().norm())


def test_bands_cover_the_picture() -> None:
    values = _normal(*SHAPE)
    parts = bands.cut(values, 4)
    assert [part.values.shape[2] for part in parts] == [4, 4, 4, 1]
    assert torch.equal(torch.cat([part.values for part in parts], dim=2), values)
    assert all(part.values.is_contiguous() for part in parts)


@pytest.mark.parametrize("over_frames", [True, False])
@pytest.mark.parametrize("with_offset", [True, False])
def test_pieces_are_normalised_as_the_whole(over_frames: bool, with_offset: bool) -> None:
    run, norm, values = TorchOperators(), nn.GroupNorm(4, 8), 3 * _normal(*SHAPE) + 2
    offset = _normal(8) if with_offset else None
    for parameter in norm.parameters():
        parameter.data = _normal(8)
    expected = run.group_norm([Feature(values)], norm, over_frames=over_frames, silu=True, offset=offset)
    parts = bands.cut(values, 3)
    sums = torch.cat([run.sums(part) for part in parts], dim=1)
    coefficients = run.norm_coefficients(sums, 13 * 6, norm, frames=2 if over_frames else 1, offset=offset)
    assert coefficients.shape == (1 if over_frames else 2, 2, 8)
    made = torch.cat([run.scale_shift(part.values, coefficients, silu=True) for part in parts], dim=2)
    assert _error(made, expected) < 1e-6


@pytest.fixture(scope="module")
def decoder() -> TemporalDecoder:
    return TemporalDecoder(tiny_bundle(factor=8, temporal_vae=True).vae, TorchOperators(), torch.float32)


@torch.inference_mode()
@pytest.mark.parametrize("number", [2, 3, 4, 11])
@pytest.mark.parametrize("chunk", [1, 2])
def test_frames_are_the_same_to_rounding(decoder: TemporalDecoder, number: int, chunk: int) -> None:
    latents = _normal(3, 4, 11, 10)
    expected, made = decoder.decode(latents, chunk), decoder.decode(latents, chunk, number)
    assert made.shape == (3, 3, 88, 80)
    assert _error(made, expected) < 1e-5
    assert float((made - expected).abs().max()) < 1e-4 * float(expected.abs().max())  # at borders of bands, too


def test_bands_take_less_memory() -> None:
    vae = meta_twin(tiny_bundle(factor=8, temporal_vae=True).vae, keep_scalars=True)
    decoder = TemporalDecoder(vae, AllocatingOperators(), torch.float32)
    latents = torch.empty(2, 4, 64, 64, device="meta")
    peaks = [simulated_peak(lambda number=number: decoder.decode(latents, 2, number)) for number in (1, 4, 16)]  # type: ignore[misc]
    assert peaks[1] < 0.75 * peaks[0]
    assert peaks[2] < 0.6 * peaks[0]
