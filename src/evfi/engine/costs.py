"""What the phases of a window take in the fast engine, found by running its networks on the meta device.

`AllocatingOperators` makes the tensors that the GPU kernels of `evfi.engine.triton_operators` make, and nothing else: the
two have to be kept alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from evfi.engine.decoder import TemporalDecoder
from evfi.engine.footprint import meta_twin, simulated_peak
from evfi.engine.memory import Costs, Linear, Work
from evfi.engine.network import Constants, SteeredUNet
from evfi.engine.operators import Feature, Offset, pixels_per_chunk
from evfi.models.bundle import ModelBundle, decode_latents, encode_pixels
from evfi.sampling.config import SamplingConfig
from evfi.sampling.tiling import TileGrid

_EVENT_COPIES: Final = 2
"""The features of events as they were encoded, and with channels last."""


class AllocatingOperators:
    """The operations as the GPU kernels' results; see `evfi.engine.operators.Operators`."""

    def add(self, base: Tensor, change: Tensor, scale: float, offset: Tensor | None) -> Feature:
        """Written over `change`, with sums."""
        del scale, offset
        return Feature(change, _sums(base))

    def group_norm(
        self,
        sources: Sequence[Feature],
        norm: nn.GroupNorm,
        *,
        over_frames: bool,
        silu: bool,
        offset: Tensor | None = None,
    ) -> Tensor:
        """One pass over all sources; sums are made where they are not known."""
        del norm, silu, offset
        first = sources[0].values
        sums = [_sums(source.values) for source in sources if source.sums is None]
        channels = sum(source.values.shape[-1] for source in sources)
        made = first.new_empty(*first.shape[:-1], channels)
        items = first.shape[0] if over_frames else first.shape[0] * first.shape[1]
        coefficients = first.new_empty(items, 2, channels, dtype=torch.float32)
        del sums, coefficients
        return made

    def layer_norm(
        self,
        stream: Tensor,
        norm: nn.LayerNorm,
        *,
        change: Tensor | None = None,
        before: Offset | None = None,
        after: Offset | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The sum is written over `change` where there is one."""
        del norm, after
        if change is not None:
            return change, torch.empty_like(stream)
        return stream if before is None else torch.empty_like(stream), torch.empty_like(stream)

    def gated_product(self, rows: Tensor, module: nn.Linear) -> Tensor:
        """In one pass."""
        return rows.new_empty(len(rows), module.out_features // 2)

    def mix(self, spatial: Tensor, temporal: Tensor, change: Tensor, spatial_share: float) -> Tensor:
        """Written over `change`."""
        del spatial, temporal, spatial_share
        return change

    def temporal_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """A third as wide."""
        del heads
        return qkv.new_empty(*qkv.shape[:-1], qkv.shape[-1] // 3)

    def spatial_attention(self, qkv: Tensor, heads: int) -> Tensor:
        """Through the fused kernel."""
        query, key, value = qkv.view(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _sums(values: Tensor) -> Tensor:
    batch, frames, height, width, channels = values.shape
    chunks = -(-height * width // pixels_per_chunk(height * width))
    return values.new_empty(batch * frames, chunks, 2, channels, dtype=torch.float32)


def work_of(grid: TileGrid, frames: int, config: SamplingConfig) -> Work:
    """How much there is to do in a window of so many frames."""
    pictures = 2 * len(grid.views)
    return Work(pictures * (2 if config.is_guided else 1), frames, pictures)


def fast_costs(bundle: ModelBundle, grid: TileGrid, frames: int, config: SamplingConfig) -> Costs:
    """What the fast engine's phases take; about two seconds of simulation for the full-size model.

    Args:
        bundle: the model; its weights are not touched.
        grid: the window's tiles.
        frames: frames of the window, key frames included.
        config: says how many frames are decoded at once.
    """
    network = _twin_network(bundle)
    width, height = grid.tile_size
    calls = {number: network_call_peak(network, bundle, number, frames, (height, width)) for number in (1, 2)}
    encoded = {number: _encode_peak(bundle, number, height, width) for number in (1, 2)}
    pairs = 2 * len(grid.views)
    features = pairs * frames * height * width * int(bundle.unet.config.block_out_channels[0])
    return Costs(
        weights=_weights(bundle),
        held=_EVENT_COPIES * features * bundle.unet.dtype.itemsize,
        encode=Linear.through((1, encoded[1]), (2, encoded[2])),
        denoise=Linear.through((1, calls[1]), (2, calls[2])),
        decode={1: _decode_peak(bundle, grid, frames, config.decode_chunk_size)},
        streamed=max(map(sum, pairwise(_block_bytes(bundle)))),
    )


def _twin_network(bundle: ModelBundle) -> SteeredUNet:
    controlnet, unet = (meta_twin(part, keep_scalars=True) for part in (bundle.controlnet, bundle.unet))
    with torch.inference_mode(False), torch.no_grad():  # a meta parameter takes no view of an inference tensor
        return SteeredUNet(controlnet, unet, AllocatingOperators())


def network_call_peak(
    network: SteeredUNet, bundle: ModelBundle, items: int, frames: int, tile_size: tuple[int, int]
) -> int:
    """Bytes at the peak of one call of the networks, its inputs and vectors included.

    Args:
        network: on the meta device.
        bundle: says channels and dtype.
        items: of the call.
        frames: of the window.
        tile_size: (height, width) in latent pixels.
    """
    channels, first = int(bundle.unet.config.in_channels), int(bundle.unet.config.block_out_channels[0])

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta", dtype=bundle.unet.dtype)

    with torch.inference_mode():
        steps = network.step_vectors(torch.empty((), device="meta"), empty(3))
        contexts = network.context_vectors(empty(items, bundle.context_dim))
        inputs = (empty(items, frames, *tile_size, channels), empty(items, frames, *tile_size, first))
    control, constants = (Constants(step, context) for step, context in zip(steps, contexts, strict=True))
    return simulated_peak(lambda: network(*inputs, control, constants, 1.0), held=[*inputs, *contexts])


def _encode_peak(bundle: ModelBundle, pictures: int, height: int, width: int) -> int:
    vae = meta_twin(bundle.vae)
    pixels = torch.empty(pictures, 3, height * bundle.vae_factor, width * bundle.vae_factor, device="meta")
    return simulated_peak(lambda: encode_pixels(vae, pixels), held=[pixels])


def _decode_peak(bundle: ModelBundle, grid: TileGrid, frames: int, chunk: int) -> int:
    latents = torch.empty(frames, bundle.latent_channels, grid.size[1], grid.size[0], device="meta")
    if isinstance(bundle.vae, AutoencoderKLTemporalDecoder):
        decoder = TemporalDecoder(meta_twin(bundle.vae, keep_scalars=True), AllocatingOperators(), bundle.unet.dtype)
        return simulated_peak(lambda: decoder.decode(latents, chunk), held=[latents])
    vae = meta_twin(bundle.vae)
    return simulated_peak(lambda: decode_latents(vae, latents, chunk).float(), held=[latents])


def _weights(bundle: ModelBundle) -> dict[str, int]:
    """Bytes of every network's weights on the device, by the names of `evfi.engine.memory.NEEDS`."""
    decoder = _bytes(bundle.vae.decoder)
    if isinstance(bundle.vae, AutoencoderKLTemporalDecoder) and bundle.vae.dtype != bundle.unet.dtype:
        decoder += decoder * bundle.unet.dtype.itemsize // bundle.vae.dtype.itemsize  # the copy that is decoded with
    sizes = {
        "vae_encoder": _bytes(bundle.vae) - _bytes(bundle.vae.decoder),
        "vae_decoder": decoder,
        "controlnet": _bytes(bundle.controlnet),
        "unet": _bytes(bundle.unet),
    }
    return sizes if bundle.image_encoder is None else {"image_encoder": _bytes(bundle.image_encoder), **sizes}


def _bytes(module: Any) -> int:
    return sum(value.numel() * value.element_size() for value in (*module.parameters(), *module.buffers()))


def _block_bytes(bundle: ModelBundle) -> list[int]:
    """Weights of the blocks of ControlNet and UNet, in the order of their use, around once."""
    control, unet = bundle.controlnet, bundle.unet
    order = [*control.down_blocks, control.mid_block, *unet.down_blocks, unet.mid_block, *unet.up_blocks]
    sizes = [_bytes(block) for block in order]
    return [*sizes, sizes[0]]
