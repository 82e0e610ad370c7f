"""What the phases of a window take in the fast engine, found by running its networks on the meta device.

`AllocatingOperators` makes the tensors that the GPU kernels of `evfi.engine.triton_operators` make, and nothing else: the
two have to be kept alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from evfi.engine.decoder import TemporalDecoder
from evfi.engine.footprint import meta_twin, simulated_peak
from evfi.engine.memory import ALWAYS, UNUSED, Costs, Linear, Work
from evfi.engine.network import Constants, SteeredUNet
from evfi.engine.operators import Feature, Offset, TorchProducts, pixels_per_chunk
from evfi.models.bundle import ModelBundle, decode_latents, encode_pixels
from evfi.sampling.config import SamplingConfig
from evfi.sampling.tiling import TileGrid

_BANDS: Final = (2, 4, 8, 16)
_LEAST_ROWS: Final = 8
"""Rows of latents in a band: with fewer, the rows that it shares with its neighbours are a burden."""


class AllocatingOperators(TorchProducts):
    """Allocates what the operations between convolutions and matrix products do on a GPU; see `TritonOperators`."""

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

    def sums(self, feature: Feature) -> Tensor:
        """As large as the kernel's."""
        return _sums(feature.values) if feature.sums is None else feature.sums

    def norm_coefficients(
        self, sums: Tensor, pixels: int, norm: nn.GroupNorm, *, frames: int, offset: Tensor | None = None
    ) -> Tensor:
        """Two per item and channel."""
        del pixels, norm, offset
        return sums.new_empty(len(sums) // frames, 2, sums.shape[-1])

    def scale_shift(self, values: Tensor, coefficients: Tensor, *, silu: bool) -> Tensor:
        """One pass."""
        del coefficients, silu
        return torch.empty_like(values)

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
        made = torch.empty_like(stream)
        if change is not None:
            return change, made
        return (stream if before is None else torch.empty_like(stream)), made

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
        config: says how many frames are decoded at once, and whether deep features are reused.
    """
    network = _twin_network(bundle)
    width, height = grid.tile_size
    calls = {number: network_call_peak(network, bundle, number, frames, (height, width)) for number in (1, 2)}
    encoded = {number: _encode_peak(bundle, number, height, width) for number in (1, 2)}
    blocks = [sum(map(_nbytes, block)) for block in network.blocks()]
    work = work_of(grid, frames, config)
    held = work.pictures * _event_features(bundle, frames, grid)
    if config.reuse_interval > 1:
        held += work.items * _kept_features(bundle, frames, grid)
    return Costs(
        weights=_weights(bundle, network),
        held=held,
        embed=_embed_peak(bundle, frames, height, width),
        encode=Linear.through((1, encoded[1]), (2, encoded[2])),
        denoise=Linear.through((1, calls[1]), (2, calls[2])),
        decode=_DecodePeaks(bundle, grid, frames, config.decode_chunk_size),
        streamed=max(map(sum, pairwise([*blocks, blocks[0]]))),
    )


def _event_features(bundle: ModelBundle, frames: int, grid: TileGrid) -> int:
    """Bytes of the embedded events of a tile in one direction."""
    width, height = grid.tile_size
    return frames * height * width * int(bundle.unet.config.block_out_channels[0]) * bundle.unet.dtype.itemsize


def _kept_features(bundle: ModelBundle, frames: int, grid: TileGrid) -> int:
    """Bytes of an item's deep features that later steps reuse: the last up block's input, and changes of its skips."""
    first, second = (int(width) for width in bundle.unet.config.block_out_channels[:2])
    skips = len(bundle.unet.up_blocks[-1].resnets)
    return _event_features(bundle, frames, grid) // first * (second + skips * first)


@contextmanager
def _out_of_inference() -> Iterator[None]:
    """Where the engine's networks are made of twins, whoever asks.

    A meta parameter takes no view of a tensor that was made in inference mode, and outside of it none such can be written.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


def _twin_network(bundle: ModelBundle) -> SteeredUNet:
    controlnet, unet = (meta_twin(part, keep_scalars=True) for part in (bundle.controlnet, bundle.unet))
    with _out_of_inference():
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


def _embed_peak(bundle: ModelBundle, frames: int, height: int, width: int) -> int:
    """Of the event stacks of a tile in both directions; they come in float32."""
    control, factor = meta_twin(bundle.controlnet), bundle.vae_factor
    shape = (2, frames, bundle.event_stack.num_channels, height * factor, width * factor)
    stacks = torch.empty(shape, device="meta")
    return simulated_peak(lambda: control.embed_events(stacks.to(bundle.unet.dtype)), held=[stacks])


class _DecodePeaks(Mapping[int, int]):
    """Bytes at the peak of decoding, by the number of bands; each is simulated when it is asked for.

    An autoencoder of pictures knows no bands.
    """

    def __init__(self, bundle: ModelBundle, grid: TileGrid, frames: int, chunk: int) -> None:
        self._temporal = isinstance(bundle.vae, AutoencoderKLTemporalDecoder)
        self._vae = meta_twin(bundle.vae, keep_scalars=True)
        self._dtype, self._chunk = bundle.unet.dtype, chunk
        self._shape = (frames, bundle.latent_channels, grid.size[1], grid.size[0])
        suiting = [number for number in _BANDS if grid.size[1] >= number * _LEAST_ROWS]
        self._numbers = [1, *suiting] if self._temporal else [1]
        self._known: dict[int, int] = {}

    def __getitem__(self, bands: int) -> int:
        if bands not in self._numbers:
            raise KeyError(bands)
        if bands not in self._known:
            self._known[bands] = self._simulated(bands)
        return self._known[bands]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def _simulated(self, bands: int) -> int:
        latents = torch.empty(self._shape, device="meta")
        if not self._temporal:
            return simulated_peak(lambda: decode_latents(self._vae, latents, self._chunk).float(), held=[latents])
        with _out_of_inference():
            decoder = TemporalDecoder(self._vae, AllocatingOperators(), self._dtype)
        return simulated_peak(lambda: decoder.decode(latents, self._chunk, bands), held=[latents])


def _weights(bundle: ModelBundle, network: SteeredUNet) -> dict[str, int]:
    """Bytes of every network's weights on the device, by the names of `evfi.engine.memory.NEEDS`."""
    decoder, spare = _bytes(bundle.vae.decoder), 0
    if isinstance(bundle.vae, AutoencoderKLTemporalDecoder) and bundle.vae.dtype != bundle.unet.dtype:
        spare, decoder = decoder, decoder * bundle.unet.dtype.itemsize // bundle.vae.dtype.itemsize  # a copy decodes
    control, unet = network.blocks_of_networks()
    sizes = {
        "vae_encoder": _bytes(bundle.vae) - _bytes(bundle.vae.decoder),
        "vae_decoder": decoder,
        "controlnet": sum(_nbytes(weight) for block in control for weight in block),
        "unet": sum(_nbytes(weight) for block in unet for weight in block),
    }
    unused = sum(map(_nbytes, network.unused()))
    known = sizes["controlnet"] + sizes["unet"] + unused
    sizes[UNUSED] = unused + spare
    sizes[ALWAYS] = _bytes(bundle.controlnet) + _bytes(bundle.unet) - known
    return sizes if bundle.image_encoder is None else {"image_encoder": _bytes(bundle.image_encoder), **sizes}


def _bytes(module: Any) -> int:
    return sum(map(_nbytes, (*module.parameters(), *module.buffers())))


def _nbytes(weight: Tensor) -> int:
    return weight.numel() * weight.element_size()
