"""Operations, against a count by hand, published sizes, and what the networks really do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from evfi.benchmark.operations import OperationCounter, count
from evfi.models.random import random_bundle
from evfi.sampling.conditioning import CLIP_SIDE_PX, WindowInputs, resize_antialiased, window_grid
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise
from evfi.sampling.two_sided import sample_window
from tiny_models import tiny_bundle


def test_count_of_a_product():
    assert count(lambda: torch.empty(3, 5, device="meta") @ torch.empty(5, 7, device="meta")) == 2 * 3 * 5 * 7


class TestAgainstRealRuns:
    """The counter sees the plain engine's own operations on the CPU, where nothing is folded away."""

    WIDTH, HEIGHT, FRAMES = 96, 48, 3

    def counted(self, config: SamplingConfig) -> tuple[int, int]:
        """Operations as they are predicted and as they happen: sampling and decoding."""
        bundle = tiny_bundle(temporal_vae=True, image_encoder=True)
        size = (self.WIDTH // bundle.vae_factor, self.HEIGHT // bundle.vae_factor)
        grid = window_grid(bundle, self.HEIGHT, self.WIDTH, config)
        assert len(grid.views) == 4
        predicted = OperationCounter(bundle, grid, size, self.FRAMES).count(config)
        inputs = WindowInputs(
            torch.rand(2, 3, self.HEIGHT, self.WIDTH), torch.zeros(2, self.FRAMES, 6, self.HEIGHT, self.WIDTH)
        )
        blur = FlopCounterMode(display=False)  # CLIP's antialiasing is done to each pixel, but written as a convolution
        with torch.no_grad(), blur:
            resize_antialiased(inputs.key_images, CLIP_SIDE_PX)
        written_out = sdpa_kernel(SDPBackend.MATH)  # the CPU's own attention is not counted
        with FlopCounterMode(display=False) as counter, torch.no_grad(), written_out:
            latents = sample_window.__wrapped__(bundle, inputs, config, SeededNoise(0))
            bundle.decode(latents, config.decode_chunk_size)
        return predicted.total, counter.get_total_flops() - blur.get_total_flops()

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"max_guidance_scale": 1.0},
            {"guidance_start": 0.5},
            {"reuse_interval": 2},
            {"decode_chunk_size": 4, "reinjection_until_step": 1, "num_reinjections": 1},
        ],
        ids=lambda settings: "-".join(settings) or "plain",
    )
    def test_prediction(self, settings):
        config = replace(SamplingConfig(num_inference_steps=2, tile_width=64, tile_height=32, s_churn=0.0), **settings)
        predicted, happened = self.counted(config)
        assert predicted == happened


class TestPublishedSizes:
    """One tile, direction and step with guidance: an independent count found 7.20 TFLOP in the UNet, 2.76 in the ControlNet.

    It left out the products of queries, keys and values, and embedded the events anew in every step.
    """

    def test_five_frames(self):
        bundle = random_bundle("svd-random", device="meta", dtype=torch.float16)
        place = {"device": "meta", "dtype": torch.float16}
        sample = torch.empty(2, 5, 8, 40, 64, **place)
        given = (sample, torch.empty((), device="meta"), torch.empty(2, 1, 1024, **place), torch.empty(2, 3, **place))
        stacks = torch.empty(2, 5, 6, 320, 512, **place)
        made = {}
        with torch.no_grad(), Attention() as in_controlnet:
            embedding = count(lambda: made.update(events=bundle.controlnet.embed_events(stacks)))
            controlnet = count(lambda: made.update(residuals=bundle.controlnet(*given, made["events"])))
        with torch.no_grad(), Attention() as in_unet:
            unet = count(lambda: bundle.unet(*given, made["residuals"]))
        assert (unet - in_unet.operations) / 1e12 == pytest.approx(7.20, abs=0.005)
        assert (controlnet + embedding - in_controlnet.operations) / 1e12 == pytest.approx(2.76, abs=0.005)
        assert unet / 1e12 == pytest.approx(7.68, abs=0.005)
        assert controlnet / 1e12 == pytest.approx(2.78, abs=0.005)


class Attention(TorchFunctionMode):
    """Adds up the two products of every attention."""

    operations = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            query, key = args[:2]
            self.operations += 4 * query.numel() * key.shape[-2]
        return function(*args, **(kwargs or {}))
