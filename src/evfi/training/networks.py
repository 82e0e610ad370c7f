"""New, untrained networks of given sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

from diffusers import AutoencoderTiny

from evfi.errors import ConfigError
from evfi.models.refiner import Refiner
from evfi.models.unet import EventUNet
from evfi.training.config import AutoencoderNetwork, DenoiserNetwork, RefinerNetwork

NUM_ADDED_IDS = 3
_NORM_GROUPS = 32  # of diffusers' video blocks


def new_autoencoder(size: AutoencoderNetwork) -> Any:
    """An `AutoencoderTiny` with random weights."""
    if len(size.encoder_blocks) != len(size.decoder_blocks):
        raise ConfigError(
            f"the autoencoder needs as many encoder as decoder scales, got {size.encoder_blocks} and {size.decoder_blocks}"
        )
    scales = len(size.encoder_blocks)
    return AutoencoderTiny(
        encoder_block_out_channels=(size.width,) * scales,
        decoder_block_out_channels=(size.width,) * scales,
        num_encoder_blocks=size.encoder_blocks,
        num_decoder_blocks=size.decoder_blocks,
        latent_channels=size.latent_channels,
    )


def new_unet(size: DenoiserNetwork, latent_channels: int, num_frames: int) -> EventUNet:
    """A video UNet with random weights that reads latents with the key image's latent beside them."""
    if len(size.widths) != len(size.attention):
        raise ConfigError(f"the UNet needs one attention flag per width, got {size.widths} and {size.attention}")
    if not size.widths or any(width % _NORM_GROUPS or width % size.head_dim for width in size.widths):
        raise ConfigError(
            f"UNet widths must be multiples of {_NORM_GROUPS} and of head_dim {size.head_dim}, got {size.widths}"
        )
    down = tuple("CrossAttnDownBlockSpatioTemporal" if on else "DownBlockSpatioTemporal" for on in size.attention)
    up = tuple("CrossAttnUpBlockSpatioTemporal" if on else "UpBlockSpatioTemporal" for on in reversed(size.attention))
    return EventUNet(
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        block_out_channels=size.widths,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=size.layers_per_block,
        cross_attention_dim=size.context_dim,
        num_attention_heads=tuple(width // size.head_dim for width in size.widths),
        addition_time_embed_dim=size.time_dim,
        projection_class_embeddings_input_dim=NUM_ADDED_IDS * size.time_dim,
        num_frames=num_frames,
    )


def new_refiner(size: RefinerNetwork) -> Refiner:
    """A refiner with random weights.

    Raises:
        ConfigError: a size is out of range.
    """
    try:
        return Refiner(**dataclasses.asdict(size))
    except ValueError as error:
        raise ConfigError(str(error)) from error
