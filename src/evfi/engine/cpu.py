"""What the fast engine does on a CPU beside its layers: a window's parts on threads of their own.

Items of a network call, key images, event stacks and frames are independent of each other; see `evfi.engine.threads`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evfi.engine import cpu_layers
from evfi.engine.threads import Item, Result, workers
from evfi.engine.tiny_autoencoder import TinyAutoencoder, is_supported
from evfi.models import onednn
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import Encoders, bundle_encoders
from evfi.sampling.config import SamplingConfig


class CpuParts:
    """A model's parts on a CPU.

    Attributes:
        encoders: of key images and event stacks.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        """Take a model that `is_served`; what was derived from its weights before is dropped."""
        for network in bundle.networks().values():
            cpu_layers.forget(network)
        self._operators = cpu_layers.CpuOperators()
        self._embedding = bundle.controlnet.controlnet_cond_embedding
        self._autoencoder = TinyAutoencoder(bundle.vae) if is_supported(bundle.vae) else None
        encode = bundle_encoders(bundle).encode_images if self._autoencoder is None else self._autoencoder.encode
        self.encoders = Encoders(encode, self._embed_events)

    @staticmethod
    def is_served(bundle: ModelBundle) -> bool:
        """Whether a model lies on a CPU in float32."""
        return bundle.unet.device.type == "cpu" and bundle.unet.dtype == torch.float32

    def item_by_item(self, config: SamplingConfig) -> SamplingConfig:
        """The settings with one item per network call."""
        return replace(config, batch_size=1)

    def each(self, call: Callable[[Item], Result], items: list[Item]) -> list[Result]:
        """Call the networks for each item."""
        return workers().map(call, items)

    def decode(self, latents: Tensor) -> Tensor | None:
        """Scaled latents [F, C, h, w] to pixels float32 [F, 3, H, W]; None where the autoencoder is of another kind."""
        return None if self._autoencoder is None else self._autoencoder.decode(latents)

    def _embed_events(self, stacks: Tensor) -> Tensor:
        """See `EventControlNet.embed_events`; of stacks without any event one is computed for all."""
        pictures = stacks.flatten(0, 1).split(1)
        filled = [bool(picture.any()) for picture in pictures]
        places = [place for place, full in enumerate(filled) if full]
        if not all(filled):
            places.append(filled.index(False))
        made = workers().map(self._embedded, [pictures[place] for place in places])
        parts = dict(zip(places, made, strict=True))
        empty = parts[places[-1]]
        features = torch.cat([parts[place] if full else empty for place, full in enumerate(filled)])
        return features.unflatten(0, stacks.shape[:2])

    def _embedded(self, picture: Tensor) -> Tensor:
        modules: list[Any] = [self._embedding.conv_in, *self._embedding.blocks]
        hidden = picture.contiguous(memory_format=torch.channels_last)
        for module in modules:
            hidden = _convolved_silu(hidden, module)
        last: Any = self._embedding.conv_out
        made = self._operators.convolve(hidden.permute(0, 2, 3, 1)[None], last, bias=True)
        return made[0].permute(0, 3, 1, 2)


def _convolved_silu(pictures: Tensor, module: nn.Conv2d) -> Tensor:
    """A convolution of channels-last pictures, and x · sigmoid(x) of it."""
    if not onednn.has_fused():
        return F.silu(module(pictures))
    return onednn.convolved(pictures, module, "swish")
