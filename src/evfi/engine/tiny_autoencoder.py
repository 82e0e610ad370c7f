"""The small autoencoder of pictures (`AutoencoderTiny`) on a CPU: picture by picture, one per thread.

Computes what its `encode` and `decode` compute. A picture goes through three buffers in turn, so that memory of the
size of its widest layers is asked for once per picture instead of once per layer.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from evfi.engine.cpu_layers import winograd
from evfi.engine.threads import workers


class TinyAutoencoder:
    """The autoencoder of pictures."""

    def __init__(self, vae: Any) -> None:
        """Take an autoencoder that `is_supported`."""
        self._vae = vae
        self._scaling_factor = float(vae.config.scaling_factor)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] in [-1, 1] to unscaled latents [N, C, h, w]."""

        def encoded(picture: Tensor) -> Tensor:
            return _run(self._vae.encoder.layers, picture.add(1).div(2))

        return torch.cat(workers().map(encoded, pixels.float().split(1)))

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [N, C, h, w] to pixels float32 [N, 3, H, W]."""

        def decoded(latent: Tensor) -> Tensor:
            clamped = torch.tanh(latent / self._scaling_factor / 3) * 3
            return _run(self._vae.decoder.layers, clamped).mul_(2).sub_(1)

        return torch.cat(workers().map(decoded, latents.float().split(1)))


def is_supported(vae: Any) -> bool:
    """Whether an autoencoder is one that this module runs."""
    if not isinstance(vae, AutoencoderTiny) or vae.dtype != torch.float32 or vae.device.type != "cpu":
        return False
    if vae.use_slicing or vae.use_tiling:
        return False
    blocks = [module for module in vae.modules() if isinstance(module, AutoencoderTinyBlock)]
    return all(isinstance(block.conv[1], nn.ReLU) and isinstance(block.fuse, nn.ReLU) for block in blocks)


class _Buffers:
    """Memory for the pictures of one pass."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def free(self, shape: tuple[int, ...], *used: Tensor) -> Tensor:
        """A picture in a buffer that none of those in use lies in."""
        length = torch.Size(shape).numel()
        taken = {tensor.untyped_storage().data_ptr() for tensor in used}
        for place, buffer in enumerate(self._kept):
            if buffer.untyped_storage().data_ptr() not in taken:
                if len(buffer) < length:
                    self._kept[place] = torch.empty(length)
                return self._kept[place][:length].view(shape)
        self._kept.append(torch.empty(length))
        return self._kept[-1].view(shape)


def _run(layers: nn.Sequential, picture: Tensor) -> Tensor:
    """Layers in turn over a picture [1, C, H, W]."""
    values, buffers = picture.permute(0, 2, 3, 1).contiguous(), _Buffers()
    modules = list(layers)
    while modules:
        module = modules.pop(0)
        if isinstance(module, AutoencoderTinyBlock):
            values = _run_block(module, values, buffers)
            continue
        enlarge = isinstance(module, nn.Upsample) and bool(modules) and _is_quick(modules[0])
        if enlarge:
            module = modules.pop(0)
        relu = isinstance(module, nn.Conv2d) and bool(modules) and isinstance(modules[0], nn.ReLU)
        if relu:
            modules.pop(0)
        values = _applied(module, values, buffers, relu=relu, enlarge=enlarge)
    return values.permute(0, 3, 1, 2)


def _run_block(block: Any, values: Tensor, buffers: _Buffers) -> Tensor:
    base = values if isinstance(block.skip, nn.Identity) else _applied(block.skip, values, buffers)
    first = _applied(block.conv[0], values, buffers, base, relu=True)
    second = _applied(block.conv[2], first, buffers, base, relu=True)
    last = winograd(block.conv[4])
    if last is None:
        return _applied(block.conv[4], second, buffers).add_(base).relu_()
    return last(
        second, base=base, relu=True, out=buffers.free((*second.shape[:3], block.conv[4].out_channels), second, base)
    )


def _applied(
    module: Any, values: Tensor, buffers: _Buffers, *used: Tensor, relu: bool = False, enlarge: bool = False
) -> Tensor:
    """A layer over [1, h, w, C], and a ReLU after it; the result does not lie in the buffers of `used`."""
    convolution = winograd(module) if isinstance(module, nn.Conv2d) else None
    if convolution is None:
        made = module(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
        return made.relu_() if relu else made
    height, width = (side << enlarge for side in values.shape[1:3])
    out = buffers.free((1, height, width, module.out_channels), values, *used)
    return convolution(values, relu=relu, enlarge=enlarge, out=out)


def _is_quick(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and winograd(module) is not None
