"""UNet and event ControlNet: residuals, copies, published sizes."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from evfi.models.controlnet import EventControlNet
from evfi.models.unet import EventUNet, Residuals
from tiny_models import tiny_bundle


def inputs(batch: int = 2, frames: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(batch, frames, 8, 4, 6, generator=generator)
    context = torch.randn(batch, 1, 16, generator=generator)
    return sample, torch.tensor(0.3), context, torch.tensor([[6.0, 127.0, 0.02]]).expand(batch, -1)


@torch.no_grad()
def test_without_residuals_it_is_the_published_unet() -> None:
    unet = tiny_bundle().unet
    original = UNetSpatioTemporalConditionModel.from_config(dict(unet.config)).eval()
    original.load_state_dict(unet.state_dict())
    expected = original(*inputs()).sample
    torch.testing.assert_close(unet(*inputs()), expected)


@torch.no_grad()
def test_residuals_accumulate_over_the_remaining_blocks() -> None:
    unet = tiny_bundle().unet  # two down blocks: a first block's skip gets its residual twice, a last block's once
    taken: list[Tensor] = []
    for block in unet.up_blocks:
        block.register_forward_pre_hook(
            lambda _, __, kwargs: taken.extend(kwargs["res_hidden_states_tuple"]), with_kwargs=True
        )

    def skips() -> list[Tensor]:
        made = [*taken[2:], *taken[:2]]  # the first up block takes the last skips
        taken.clear()
        return made

    unet(*inputs())
    plain = skips()
    unet(*inputs(), Residuals(tuple(torch.ones_like(skip) for skip in plain), torch.zeros(6, 32, 2, 3)))
    received = [float((after - before).mean()) for after, before in zip(skips(), plain, strict=True)]
    assert received == pytest.approx([2, 2, 2, 1], abs=1e-4)


@torch.no_grad()
def test_a_new_controlnet_adds_nothing() -> None:
    unet = tiny_bundle().unet
    controlnet = EventControlNet.from_unet(
        unet, conditioning_channels=6, conditioning_embedding_out_channels=(8, 8, 8)
    ).eval()
    features = controlnet.embed_events(torch.rand(2, 3, 6, 16, 24))
    residuals = controlnet(*inputs(), features)
    assert not any(skip.any() for skip in residuals.skips)
    torch.testing.assert_close(unet(*inputs(), residuals), unet(*inputs()))


@torch.no_grad()
def test_a_new_controlnet_copies_the_encoder() -> None:
    unet = tiny_bundle().unet
    controlnet = EventControlNet.from_unet(unet, conditioning_channels=6, conditioning_embedding_out_channels=(8, 8, 8))
    copied = {name for name in controlnet.state_dict() if not name.startswith("controlnet_")}
    assert copied
    for name in copied:
        assert torch.equal(controlnet.state_dict()[name], unet.state_dict()[name]), name


@torch.no_grad()
def test_scale_multiplies_every_residual() -> None:
    controlnet = tiny_bundle().controlnet
    features = controlnet.embed_events(torch.rand(2, 3, 6, 16, 24))
    full, part = (controlnet(*inputs(), features, scale=scale) for scale in (1.0, 0.4))
    torch.testing.assert_close(part.mid, full.mid * 0.4)
    for a, b in zip(part.skips, full.skips, strict=True):
        torch.testing.assert_close(a, b * 0.4)


@torch.no_grad()
def test_items_of_a_batch_do_not_mix() -> None:
    bundle = tiny_bundle()
    both = bundle.unet(*inputs())
    sample, timestep, context, ids = inputs()
    for item in range(2):
        single = bundle.unet(sample[item : item + 1], timestep, context[item : item + 1], ids[:1])
        torch.testing.assert_close(single[0], both[item], atol=1e-5, rtol=1e-4)


def test_published_sizes() -> None:
    with torch.device("meta"):
        unet, controlnet = EventUNet(num_attention_heads=(5, 10, 20, 20)), EventControlNet()
    assert sum(value.numel() for value in unet.parameters()) == 1_524_623_082
    assert sum(value.numel() for value in controlnet.parameters()) == 682_255_697
