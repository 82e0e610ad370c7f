"""Count the floating-point operations of the plain computation of a window, on tensors without data.

Counted are matrix products, convolutions and attention, a multiplication and an addition as two; what is done to each
element alone is not. The networks are called as the plain engine calls them, for one item, tile or picture, and multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from evfi.engine.footprint import meta_twin
from evfi.models.bundle import ModelBundle, decode_latents, encode_pixels
from evfi.models.unet import DeepFeatures
from evfi.sampling.conditioning import CLIP_SIDE_PX
from evfi.sampling.config import SamplingConfig
from evfi.sampling.denoiser import step_modes
from evfi.sampling.tiling import TileGrid


@dataclass(frozen=True)
class Operations:
    """Operations of one window.

    Attributes:
        conditioning: CLIP, the autoencoder's encoder and the event embedding.
        denoising: ControlNet and UNet, all steps.
        decoding: the autoencoder's decoder.
    """

    conditioning: int
    denoising: int
    decoding: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.conditioning + self.denoising + self.decoding


class OperationCounter:
    """Counts for windows of one model, frame size and number of frames; settings of steps and guidance may vary."""

    def __init__(self, bundle: ModelBundle, grid: TileGrid, size: tuple[int, int], num_frames: int) -> None:
        """Take a model and a window.

        Args:
            bundle: the model; its weights are not touched.
            grid: the window's tiles.
            size: (width, height) of the latents to decode.
            num_frames: F, key frames included.
        """
        self._vae, self._unet, self._controlnet = map(meta_twin, (bundle.vae, bundle.unet, bundle.controlnet))
        self._encoder = None if bundle.image_encoder is None else meta_twin(bundle.image_encoder)
        self._grid, self._size, self._frames = grid, size, num_frames
        self._context_dim, self._factor = bundle.context_dim, bundle.vae_factor
        self._full, self._reusing = self._count_step()
        self._conditioning = self._count_conditioning()
        self._decoding: dict[int, int] = {}

    def count(self, config: SamplingConfig) -> Operations:
        """The operations of one window sampled with some settings."""
        denoising = 0
        for step, mode in enumerate(step_modes(config, config.num_inference_steps)):
            repeats = config.num_reinjections if step < config.reinjection_until_step else 0
            items = len(self._grid.views) * 2 * (2 if mode.guided else 1)
            denoising += items * (repeats + 1) * (self._reusing if mode.reuse else self._full)
        return Operations(self._conditioning, denoising, self._count_decoding(config.decode_chunk_size))

    def _count_step(self) -> tuple[int, int]:
        """Of one item in one step: in full, and with deep features reused."""
        width, height = self._grid.tile_size
        dtype, channels = self._unet.dtype, int(self._unet.config.block_out_channels[0])
        sample = _empty(1, self._frames, int(self._unet.config.in_channels), height, width, dtype=dtype)
        given = (sample, _empty(), _empty(1, 1, self._context_dim, dtype=dtype), _empty(1, 3, dtype=dtype))
        events = _empty(1, self._frames, channels, height, width, dtype=dtype)
        kept: list[DeepFeatures] = []

        def full() -> None:
            self._unet(*given, self._controlnet(*given, events), keep=kept.append)

        return count(full), count(lambda: self._unet(*given, reuse=kept[0]))

    def _count_conditioning(self) -> int:
        tiles = 2 * len(self._grid.views)
        width, height = (side * self._factor for side in self._grid.tile_size)
        tile = _empty(1, 3, height, width)
        channels = int(self._controlnet.config.conditioning_channels)
        stacks = _empty(1, self._frames, channels, height, width, dtype=self._controlnet.dtype)
        per_tile = count(lambda: encode_pixels(self._vae, tile)) + count(lambda: self._controlnet.embed_events(stacks))
        return tiles * per_tile + 2 * self._count_embedding()

    def _count_embedding(self) -> int:
        """Of one key image in CLIP."""
        encoder = self._encoder
        if encoder is None:
            return 0
        dtype = next(encoder.parameters()).dtype
        return count(lambda: encoder(_empty(1, 3, CLIP_SIDE_PX, CLIP_SIDE_PX, dtype=dtype)))

    def _count_decoding(self, chunk: int) -> int:
        if chunk not in self._decoding:
            whole, rest = divmod(self._frames, chunk)
            number = whole * self._count_chunk(chunk) if whole else 0
            self._decoding[chunk] = number + (self._count_chunk(rest) if rest else 0)
        return self._decoding[chunk]

    def _count_chunk(self, frames: int) -> int:
        width, height = self._size
        latents = _empty(frames, int(self._vae.config.latent_channels), height, width)
        return count(lambda: decode_latents(self._vae, latents, frames))


def count(computation: Callable[[], Any]) -> int:
    """Operations of a computation, which is run; on meta tensors that costs little."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # in inference mode it would not see layers' parts
        computation()
    return int(counter.get_total_flops())


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
