"""What steers the denoising of one window, encoded once before the first step.

Two passes share one set of latents: *forward* sees the start image and the forward event stacks, *backward* the end
image and the backward stacks. Each sees its key image as a CLIP embedding of the whole picture and, per tile, as the
autoencoder's latents of that tile's pixels with a little noise (the same for both ends), not multiplied by the scaling
factor. Wherever a tensor has an axis of length 2 for the passes, forward comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evfi.errors import ConfigError
from evfi.models.bundle import ModelBundle
from evfi.sampling.config import ENCODED_AT_ONCE, SamplingConfig
from evfi.sampling.noise import to_device
from evfi.sampling.tiling import TileGrid, tile_grid

CLIP_SIDE_PX = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class WindowInputs:
    """One window as the networks see it; sides are multiples of the autoencoder's factor.

    Attributes:
        key_images: start and end image, float32 [2, 3, H, W] in [-1, 1].
        event_stacks: forward and backward stacks, float32 [2, F, K, H, W]; see `evfi.events.stacks`.
    """

    key_images: Tensor
    event_stacks: Tensor

    @property
    def num_frames(self) -> int:
        """F, both key frames included."""
        return self.event_stacks.shape[1]


@dataclass(frozen=True)
class Conditioning:
    """All that stays the same over the sampling steps of one window, on the networks' device and in their dtype.

    Attributes:
        grid: the tiles.
        image_embeddings: [2, 1, D], CLIP embeddings of the key images.
        image_latents: [T, 2, C, h, w], the key images' latents per tile.
        event_features: [T, 2, F, C0, h, w], the embedded event stacks per tile; channels lie last in memory.
        added_time_ids: [3], (fps - 1, motion bucket id, noise augmentation strength).
    """

    grid: TileGrid
    image_embeddings: Tensor
    image_latents: Tensor
    event_features: Tensor
    added_time_ids: Tensor


class Encoders(NamedTuple):
    """What encodes a window's inputs.

    Attributes:
        encode_images: `ModelBundle.encode_image`, or what computes the same.
        embed_events: `EventControlNet.embed_events`, likewise.
        images_at_once: tiles of key images per call.
    """

    encode_images: Callable[[Tensor], Tensor]
    embed_events: Callable[[Tensor], Tensor]
    images_at_once: int = ENCODED_AT_ONCE


def bundle_encoders(bundle: ModelBundle, images_at_once: int = ENCODED_AT_ONCE) -> Encoders:
    """A model's encoders as they are."""
    return Encoders(bundle.encode_image, bundle.controlnet.embed_events, images_at_once)


def window_grid(bundle: ModelBundle, height: int, width: int, config: SamplingConfig) -> TileGrid:
    """Lay the tiles for frames of height × width px, multiples of the autoencoder's factor.

    Raises:
        ConfigError: the tile size does not suit the model.
    """
    factor = bundle.vae_factor
    multiple = factor * bundle.latent_multiple
    if config.tile_width % multiple or config.tile_height % multiple:
        raise ConfigError(
            f"tile_width and tile_height must be multiples of {multiple} for model {bundle.info.name}, "
            f"got {config.tile_width} and {config.tile_height}"
        )
    tile_size = (config.tile_width // factor, config.tile_height // factor)
    return tile_grid((width // factor, height // factor), tile_size, config.tile_overlap, bundle.latent_multiple)


def encode_conditioning(
    bundle: ModelBundle,
    inputs: WindowInputs,
    grid: TileGrid,
    config: SamplingConfig,
    image_noise: Tensor,
    encoders: Encoders | None = None,
) -> Conditioning:
    """Encode key images and event stacks of a window, per tile.

    Args:
        bundle: the model.
        inputs: the window.
        grid: its tiles.
        config: the noise strength and the conditioning numbers.
        image_noise: standard normal noise [1, 3, H, W], added to both key images.
        encoders: what calls the model's encoders; by default they are called as they are.
    """
    encoders = encoders or bundle_encoders(bundle)
    device, dtype = bundle.unet.device, bundle.unet.dtype
    images = inputs.key_images.to(device, torch.float32)
    noisy = extended(images, grid, bundle.vae_factor, "replicate")
    noisy = noisy + config.noise_aug_strength * extended(
        to_device(image_noise, device), grid, bundle.vae_factor, "constant"
    )
    ids = (config.fps - 1, config.motion_bucket_id, config.noise_aug_strength)
    return Conditioning(
        grid=grid,
        image_embeddings=embed_images(bundle, images),
        image_latents=_tile_latents(encoders, noisy, grid, bundle.vae_factor).to(dtype),
        event_features=_tile_event_features(encoders, inputs.event_stacks, grid, bundle),
        added_time_ids=torch.tensor(ids, device=device, dtype=dtype),
    )


def extended(pictures: Tensor, grid: TileGrid, factor: int, mode: str) -> Tensor:
    """Extend pictures [..., H, W] at their right and lower border to what the tiles cover."""
    right = grid.size[0] * factor - pictures.shape[-1]
    bottom = grid.size[1] * factor - pictures.shape[-2]
    if not right and not bottom:
        return pictures
    flat = F.pad(pictures.flatten(0, -4), (0, right, 0, bottom), mode=mode)
    return flat.reshape(*pictures.shape[:-2], *flat.shape[-2:])


def _tile_event_features(encoders: Encoders, stacks: Tensor, grid: TileGrid, bundle: ModelBundle) -> Tensor:
    """The embedded stacks [T, 2, F, C0, h, w] of each tile; only one tile's stacks lie on the device at a time."""
    device, dtype, factor = bundle.unet.device, bundle.unet.dtype, bundle.vae_factor
    stacks = extended(stacks, grid, factor, "constant")
    features: Tensor | None = None
    for place, view in enumerate(grid.views):
        made = encoders.embed_events(view.crop(stacks, factor).to(device).to(dtype)).permute(0, 1, 3, 4, 2)
        if features is None:
            features = made.new_empty(len(grid.views), *made.shape)
        features[place] = made
    assert features is not None
    return features.permute(0, 1, 2, 5, 3, 4)


def _tile_latents(encoders: Encoders, images: Tensor, grid: TileGrid, factor: int) -> Tensor:
    """Latents float32 [T, 2, C, h, w] of each tile of both images."""
    crops = grid.crop_all(images, factor)  # [T, 2, 3, H, W]
    parts = torch.split(crops.flatten(0, 1), encoders.images_at_once)
    latents = torch.cat([encoders.encode_images(part) for part in parts])
    return latents.reshape(*crops.shape[:2], *latents.shape[1:])


def embed_images(bundle: ModelBundle, images: Tensor) -> Tensor:
    """CLIP embeddings [N, 1, D] of images [N, 3, H, W] in [-1, 1]; zeros where the model has no image encoder."""
    if bundle.image_encoder is None:
        return torch.zeros(len(images), 1, bundle.context_dim, device=images.device, dtype=bundle.unet.dtype)
    return clip_embeddings(bundle.image_encoder, bundle.feature_extractor or {}, images, bundle.unet.dtype)


def clip_embeddings(encoder: nn.Module, extractor: dict[str, Any], images: Tensor, dtype: torch.dtype) -> Tensor:
    """Embed images as Stable Video Diffusion does: antialiased to 224 px, normalised, through CLIP's vision tower.

    Args:
        encoder: the vision tower.
        extractor: its preprocessing config; mean and standard deviation are taken from it.
        images: [N, 3, H, W] in [-1, 1].
        dtype: of the tower.

    Returns:
        [N, 1, D].
    """
    small = resize_antialiased(images.float(), CLIP_SIDE_PX)
    mean = small.new_tensor(extractor.get("image_mean", CLIP_MEAN)).view(3, 1, 1)
    std = small.new_tensor(extractor.get("image_std", CLIP_STD)).view(3, 1, 1)
    pixels = ((small + 1) / 2 - mean) / std
    embeddings: Tensor = encoder(pixels.to(dtype)).image_embeds
    return embeddings.unsqueeze(1)


def resize_antialiased(images: Tensor, side: int) -> Tensor:
    """Resize images [N, C, H, W] to side × side as Stable Video Diffusion does before CLIP.

    A Gaussian blur of (factor - 1) / 2 standard deviation per axis (reflecting borders, truncated at two of them) is
    followed by bicubic interpolation with aligned corners.
    """
    blurred = _blurred(_blurred(images, 3, images.shape[3] / side), 2, images.shape[2] / side)
    return F.interpolate(blurred, size=(side, side), mode="bicubic", align_corners=True)


def _blurred(images: Tensor, axis: int, factor: float) -> Tensor:
    """Blur along one axis before it shrinks by `factor`."""
    sigma = max((factor - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3)) // 2 * 2 + 1
    offsets = torch.arange(taps, device=images.device, dtype=images.dtype) - taps // 2
    kernel = torch.softmax(-offsets.square() / (2 * sigma**2), dim=0)
    reach = taps // 2
    padding = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    shape = (1, 1, 1, taps) if axis == 3 else (1, 1, taps, 1)
    planes = F.pad(images, padding, mode="reflect").flatten(0, 1).unsqueeze(1)
    return F.conv2d(planes, kernel.view(shape)).reshape(images.shape)
