"""The fast engine computes what the plain one computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from evfi.engine.base import PlainEngine
from evfi.engine.fast import FastEngine
from evfi.errors import ConfigError
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise
from tiny_models import tiny_bundle

CONFIG = SamplingConfig(num_inference_steps=3, tile_width=64, tile_height=32)


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return tiny_bundle(factor=8, temporal_vae=True, image_encoder=True)


def _inputs(num_frames: int = 4, height: int = 48, width: int = 80) -> WindowInputs:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    return WindowInputs(images, torch.rand(2, num_frames, 6, height, width, generator=generator) - 0.5)


def _error(made: Tensor, expected: Tensor) -> float:
    return float((made - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_guidance_scale": 1.0},
        {"controlnet_scale": 0.4, "batch_size": 3},
        {"guidance_start": 0.4, "guidance_end": 0.9},
        {"reuse_interval": 2, "num_inference_steps": 4},
    ],
)
def test_latents_equal_the_plain_ones(bundle: ModelBundle, changes: dict[str, float]) -> None:
    config = SamplingConfig.from_defaults({**vars(CONFIG), **changes})
    expected = PlainEngine(bundle).sample(_inputs(), config, SeededNoise(0))
    made = FastEngine(bundle).sample(_inputs(), config, SeededNoise(0))
    assert _error(made, expected) < 2e-5


def test_reused_features_change_the_result(bundle: ModelBundle) -> None:
    engine, config = FastEngine(bundle), replace(CONFIG, num_inference_steps=4)
    whole = engine.sample(_inputs(), config, SeededNoise(0))
    reused = engine.sample(_inputs(), replace(config, reuse_interval=2), SeededNoise(0))
    assert _error(reused, whole) > 1e-3


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_decoded_frames_equal_the_plain_ones(bundle: ModelBundle, chunk: int) -> None:
    latents = torch.randn(5, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, decode_chunk_size=chunk)
    expected, made = (engine.decode(latents, config) for engine in (PlainEngine(bundle), FastEngine(bundle)))
    assert made.shape == (5, 3, 48, 80)
    assert _error(made, expected) < 2e-5


def test_pictures_decoded_on_their_own_equal_the_plain_ones() -> None:
    bundle = tiny_bundle()
    latents = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    expected, made = (engine.decode(latents, CONFIG) for engine in (PlainEngine(bundle), FastEngine(bundle)))
    assert _error(made, expected) < 2e-6


def test_the_plain_engine_is_the_same_beside_the_fast_one(bundle: ModelBundle) -> None:
    before = PlainEngine(bundle).sample(_inputs(), CONFIG, SeededNoise(0))
    first, second = FastEngine(bundle), FastEngine(bundle)  # each lays out the weights
    assert torch.equal(PlainEngine(bundle).sample(_inputs(), CONFIG, SeededNoise(0)), before)
    made = first.sample(_inputs(), CONFIG, SeededNoise(0))
    assert torch.equal(second.sample(_inputs(), CONFIG, SeededNoise(0)), made)


def test_a_second_engine_leaves_what_the_first_one_reads_where_it_is(bundle: ModelBundle) -> None:
    def places() -> dict[str, int]:
        return {name: buffer.data_ptr() for name, buffer in bundle.unet.named_buffers()}

    FastEngine(bundle)
    before = places()
    assert any(name.endswith("summed_bias") for name in before)
    FastEngine(bundle)
    assert places() == before


def test_weights_that_are_away_are_refused() -> None:
    bundle = tiny_bundle()
    next(bundle.unet.parameters()).untyped_storage().resize_(0)
    with pytest.raises(ConfigError, match="call restore"):
        FastEngine(bundle)


def test_engines_share_the_weights(bundle: ModelBundle) -> None:
    FastEngine(bundle)
    attention = bundle.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    first = attention.to_q.weight.untyped_storage().data_ptr()
    assert attention.to_v.weight.untyped_storage().data_ptr() == first
    FastEngine(bundle)
    assert attention.to_q.weight.untyped_storage().data_ptr() == first


def test_the_result_depends_on_the_batch_size_by_rounding_only(bundle: ModelBundle) -> None:
    engine = FastEngine(bundle)
    one, all_ = (engine.sample(_inputs(), replace(CONFIG, batch_size=size), SeededNoise(0)) for size in (1, 64))
    assert _error(one, all_) < 2e-5
    assert torch.equal(all_, engine.sample(_inputs(), replace(CONFIG, batch_size=64), SeededNoise(0)))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_on_a_gpu_the_error_is_not_above_the_plain_one(dtype: torch.dtype) -> None:
    inputs = _inputs()
    expected = PlainEngine(tiny_bundle(factor=8, temporal_vae=True).to("cuda")).sample(inputs, CONFIG, SeededNoise(0))
    bundle = tiny_bundle(factor=8, temporal_vae=True).to("cuda", dtype)
    plain, fast = (kind(bundle).sample(inputs, CONFIG, SeededNoise(0)) for kind in (PlainEngine, FastEngine))
    assert _error(fast, expected) < 1.2 * _error(plain, expected)
