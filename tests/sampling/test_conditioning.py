from __future__ import annotations

import pytest
import torch

from evfi.errors import ConfigError
from evfi.sampling.conditioning import (
    WindowInputs,
    embed_images,
    encode_conditioning,
    resize_antialiased,
    window_grid,
)
from evfi.sampling.config import SamplingConfig
from tiny_models import tiny_bundle

CONFIG = SamplingConfig(tile_width=32, tile_height=16, tile_overlap=0.25)


def _inputs(height: int, width: int, num_frames: int = 3) -> WindowInputs:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    stacks = torch.rand(2, num_frames, 6, height, width, generator=generator) * 2 - 1
    return WindowInputs(images, stacks)


@pytest.mark.parametrize("size", [(64, 128), (480, 300), (100, 777)])
def test_resizing_equals_diffusers(size: tuple[int, int]) -> None:
    pipeline = pytest.importorskip("diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion")
    images = torch.rand(2, 3, *size)
    expected = pipeline._resize_with_antialiasing(images, (224, 224))
    torch.testing.assert_close(resize_antialiased(images, 224), expected, rtol=0, atol=1e-5)


def test_embedding_normalises_with_clips_statistics() -> None:
    bundle = tiny_bundle(image_encoder=True)
    assert bundle.image_encoder is not None
    seen = []
    bundle.image_encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    embeddings = embed_images(bundle, torch.full((2, 3, 40, 60), 2 * 0.48145466 - 1))
    assert embeddings.shape == (2, 1, 16)
    torch.testing.assert_close(seen[0][:, 0], torch.zeros(2, 224, 224), rtol=0, atol=1e-5)


def test_without_image_encoder_the_embedding_is_zero() -> None:
    assert not embed_images(tiny_bundle(), torch.rand(2, 3, 40, 60)).any()


@torch.inference_mode()
def test_each_tile_is_encoded_from_its_own_pixels() -> None:
    bundle, inputs = tiny_bundle(), _inputs(32, 48)
    grid = window_grid(bundle, 32, 48, CONFIG)
    conditioning = encode_conditioning(bundle, inputs, grid, CONFIG, torch.zeros(1, 3, 32, 48))
    assert conditioning.image_latents.shape == (len(grid.views), 2, 4, 4, 8)
    assert conditioning.event_features.shape == (len(grid.views), 2, 3, 32, 4, 8)
    last = inputs.key_images[1:, :, 16:, 16:]
    torch.testing.assert_close(conditioning.image_latents[-1, 1], bundle.encode_image(last)[0])
    assert conditioning.added_time_ids.tolist() == pytest.approx([6.0, 127.0, 0.02])


@torch.inference_mode()
def test_both_images_get_the_same_noise() -> None:
    bundle = tiny_bundle()
    inputs = _inputs(16, 32)
    inputs.key_images[1] = inputs.key_images[0]
    grid = window_grid(bundle, 16, 32, CONFIG)
    latents = encode_conditioning(bundle, inputs, grid, CONFIG, torch.randn(1, 3, 16, 32)).image_latents
    torch.testing.assert_close(latents[:, 0], latents[:, 1])
    still = encode_conditioning(bundle, inputs, grid, CONFIG, torch.zeros(1, 3, 16, 32)).image_latents
    assert not torch.equal(latents, still)


@torch.inference_mode()
def test_a_small_frame_is_extended_to_what_the_network_needs() -> None:
    bundle = tiny_bundle()
    grid = window_grid(bundle, 12, 20, CONFIG)
    conditioning = encode_conditioning(bundle, _inputs(12, 20), grid, CONFIG, torch.randn(1, 3, 12, 20))
    assert grid.size == (6, 4)
    assert conditioning.image_latents.shape[-2:] == (4, 6)
    assert conditioning.event_features.shape[-2:] == (4, 6)


def test_tiles_that_do_not_suit_the_model_are_errors() -> None:
    config = SamplingConfig(tile_width=100)
    with pytest.raises(ConfigError, match="must be multiples of 8 for model test model, got 100 and 320"):
        window_grid(tiny_bundle(), 64, 64, config)
