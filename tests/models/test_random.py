"""Networks with random weights: sizes, dtypes, values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evfi.errors import ModelError
from evfi.models.random import random_bundle


class TestRandomBundle:
    def test_weights_are_finite_and_never_all_zero_where_layers_mix(self):
        for network in random_bundle("small-random").networks().values():
            for module in network.modules():
                if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
                    assert module.weight.any()
            assert all(parameter.isfinite().all() for parameter in network.parameters())
            assert not any(parameter.requires_grad for parameter in network.parameters())
            assert all(buffer.device.type == "cpu" for buffer in network.buffers())

    def test_other_dtypes_hold_the_same_weights_to_rounding(self):
        exact, half = random_bundle("small-random"), random_bundle("small-random", dtype=torch.float16)
        assert half.unet.dtype == half.controlnet.dtype == torch.float16
        assert half.vae.dtype == torch.float32  # it asks to be left in float32
        for name in ("unet", "controlnet", "vae", "image_encoder"):
            pairs = zip(getattr(exact, name).parameters(), getattr(half, name).parameters(), strict=True)
            assert all(torch.equal(one.to(other.dtype), other) for one, other in pairs)

    def test_seed(self):
        weights = [random_bundle("small-random", seed=seed).unet.conv_in.weight for seed in (0, 0, 1)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_published_sizes_take_no_memory_on_meta(self):
        bundle = random_bundle("svd-random", device="meta", dtype=torch.float16)
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in bundle.networks().items()}
        assert all(p.device.type == "meta" for part in bundle.networks().values() for p in part.parameters())
        # 2.84, 1.27 and 1.18 GiB in float16, 0.36 in float32
        gib = {name: round(size * (4 if name == "vae" else 2) / 2**30, 2) for name, size in sizes.items()}
        assert gib == {"unet": 2.84, "controlnet": 1.27, "image_encoder": 1.18, "vae": 0.36}

    def test_unknown_name(self):
        with pytest.raises(ModelError, match="no model with random weights named 'big'; expected one of svd-random"):
            random_bundle("big")
