"""The decoder of Stable Video Diffusion's autoencoder over activations [1, F, h, w, C].

Computes what `AutoencoderKLTemporalDecoder.decode` computes. The weights are a copy in half precision where the autoencoder
lies in float32: the published pipeline decodes in half precision too, and only encodes in float32.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.engine import bands as banded
from evfi.engine.layers import ResidualBlock
from evfi.engine.operators import Feature, Operators


class TemporalDecoder:
    """The temporal decoder.

    Attributes:
        module: diffusers' module, whose weights are used.
    """

    def __init__(self, vae: Any, operators: Operators, dtype: torch.dtype) -> None:
        """Take an autoencoder.

        Args:
            vae: an `AutoencoderKLTemporalDecoder`.
            operators: what runs the operations between convolutions.
            dtype: to decode in.
        """
        decoder = vae.decoder
        if decoder.conv_in.weight.dtype != dtype:
            decoder = copy.deepcopy(decoder).to(dtype)
        self.module = decoder
        self._operators, self._dtype = operators, dtype
        self._scaling_factor = float(vae.config.scaling_factor)
        self._mid = [ResidualBlock(block, operators, None) for block in decoder.mid_block.resnets]
        self._up = [
            (
                [ResidualBlock(block, operators, None) for block in up.resnets],
                up.upsamplers[0].conv if up.upsamplers is not None else None,
            )
            for up in decoder.up_blocks
        ]

    def decode(self, latents: Tensor, chunk: int, bands: int = 1) -> Tensor:
        """Decode the frames of a window.

        Args:
            latents: scaled, [F, C, h, w].
            chunk: frames at a time.
            bands: that pictures are cut into beyond the middle block; more take less memory and a little more time.

        Returns:
            Pixels float32 [F, 3, H, W].
        """
        parts = (latents / self._scaling_factor).to(self._dtype).split(chunk)
        rows = (part.permute(0, 2, 3, 1).contiguous()[None] for part in parts)
        return torch.cat([self._decode(part, bands).float() for part in rows])

    def _decode(self, latents: Tensor, bands: int) -> Tensor:
        decoder = self.module
        hidden = Feature(self._operators.convolve(latents, decoder.conv_in, bias=True))
        hidden = self._mid[0]([hidden], None)
        for attention, block in zip(
            decoder.mid_block.attentions, self._mid[1:], strict=False
        ):  # as diffusers pairs them
            hidden = block([self._attend(hidden, attention)], None)
        made = self._grow(hidden) if bands == 1 else self._grow_in_bands(banded.cut(hidden.values, bands))
        bias = decoder.time_conv_out.bias
        return (self._operators.convolve_frames(made, decoder.time_conv_out) + bias)[0].permute(0, 3, 1, 2)

    def _grow(self, hidden: Feature) -> Tensor:
        """From the middle block's result to the frames before the last mixing over time."""
        for blocks, upsampler in self._up:
            for block in blocks:
                hidden = block([hidden], None)
            if upsampler is not None:
                hidden = Feature(self._operators.convolve_enlarged(hidden.values, upsampler))
        decoder = self.module
        seen = self._operators.group_norm([hidden], decoder.conv_norm_out, over_frames=False, silu=True)
        return self._operators.convolve(seen, decoder.conv_out, bias=True)

    def _grow_in_bands(self, bands: banded.Bands) -> Tensor:
        """The same, band by band."""
        run = self._operators
        for blocks, upsampler in self._up:
            for block in blocks:
                bands = banded.residual_block(block, bands, run)
            if upsampler is not None:
                bands = banded.enlarge(bands, upsampler, run)
        return banded.finish(bands, self.module.conv_norm_out, self.module.conv_out, run)

    def _attend(self, hidden: Feature, module: Any) -> Feature:
        """Self-attention over the pixels of each frame."""
        shape = hidden.values.shape
        rows = self._operators.group_norm([hidden], module.group_norm, over_frames=False, silu=False).flatten(2, 3)[0]
        parts = (F.linear(rows, part.weight, part.bias) for part in (module.to_q, module.to_k, module.to_v))
        query, key, value = (part.unflatten(2, (module.heads, -1)).transpose(1, 2) for part in parts)
        made = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        change = F.linear(made, module.to_out[0].weight).view(shape)
        return self._operators.add(hidden.values, change, 1.0, module.to_out[0].bias)
