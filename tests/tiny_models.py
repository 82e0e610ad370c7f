"""Small real networks with random weights, for tests that need no files."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, AutoencoderTiny
from torch import nn

from evfi.events.stacks import StackConfig
from evfi.models.bundle import ModelBundle
from evfi.models.controlnet import EventControlNet
from evfi.models.info import ModelInfo
from evfi.models.refiner import Refiner
from evfi.models.unet import EventUNet

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}


def tiny_bundle(*, factor: int = 4, temporal_vae: bool = False, image_encoder: bool = False) -> ModelBundle:
    """A model of two levels whose weights are random but always the same.

    Args:
        factor: pixels per latent along each side, 4 or 8.
        temporal_vae: an autoencoder with a temporal decoder instead of an image one.
        image_encoder: whether key images have a CLIP embedding.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = _temporal_vae(factor) if temporal_vae else _image_vae(factor)
        unet = EventUNet(
            in_channels=8,
            out_channels=4,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            block_out_channels=(32, 32),
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            layers_per_block=1,
            cross_attention_dim=16,
            num_attention_heads=(2, 2),
            num_frames=5,
        )
        widths = (8,) * (factor.bit_length())
        controlnet = EventControlNet.from_unet(
            unet, conditioning_channels=6, conditioning_embedding_out_channels=widths
        )
        _randomise_zeros(controlnet)
        encoder = _image_encoder() if image_encoder else None
    return ModelBundle(
        vae=vae,
        unet=unet,
        controlnet=controlnet,
        scheduler=dict(SCHEDULER),
        event_stack=StackConfig(),
        info=ModelInfo("test model", "none", "random", 5),
        sampling={"num_inference_steps": 3, "tile_width": 64, "tile_height": 32},
        image_encoder=encoder,
    ).eval()


def tiny_refiner(**sizes: Any) -> Refiner:
    """A refiner of few channels whose weights are random but always the same, and whose flows are pixels long.

    Args:
        **sizes: of the network, where they shall be others.
    """
    refiner = Refiner(
        **{"widths": (8,) * 5, "fusion_widths": (8, 8, 8), "matching_levels": 3, "matching_radius": 1, **sizes}
    )
    generator = torch.Generator().manual_seed(0)
    for layer in refiner.modules():
        if isinstance(layer, nn.Conv2d):
            reserved = layer.weight == 0
            nn.init.kaiming_normal_(layer.weight, 0.1, generator=generator)
            layer.weight.data.masked_fill_(reserved, 0)
            nn.init.normal_(layer.bias, std=0.05, generator=generator)
    for layer in [refiner.fusion.choose, *(decoder.correct for decoder in refiner.decoders)]:
        nn.init.normal_(layer.weight, std=0.05, generator=generator)
    return refiner.eval().requires_grad_(False)


def _image_vae(factor: int) -> AutoencoderTiny:
    levels = factor.bit_length()
    return AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8,) * levels,
        decoder_block_out_channels=(8,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
        scaling_factor=0.5,
    )


def _temporal_vae(factor: int) -> AutoencoderKLTemporalDecoder:
    levels = factor.bit_length()
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * levels,
        block_out_channels=(32,) * levels,
        layers_per_block=1,
        latent_channels=4,
        force_upcast=False,
    )


def _image_encoder() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
    )
    return CLIPVisionModelWithProjection(config)  # type: ignore[no-any-return]


def _randomise_zeros(network: nn.Module) -> None:
    """Give parameters that start at zero a value, so that the ControlNet has an effect."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
