"""How far the texture of pictures is from that of the ground truth, wherever exactly each grain lies.

Errors of pixels are least for the mean of all that might be there, which is blurred. The correlations of features within small
windows (Gram matrices; Gatys et al., arXiv 1508.06576; for interpolation, Reda et al., "FILM", arXiv 2202.04901) do not ask
where in the window something lies, and punish its absence. The features are those of the model's own frozen autoencoder.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from evfi.errors import ConfigError

_WINDOW: Final = 16
TEXTURE_MULTIPLE: Final = _WINDOW * 2
"""Sides of the pictures must be multiples of this: of windows at half resolution."""


class TextureError:
    """Compares pictures by the correlations of an autoencoder's features at full and half resolution."""

    def __init__(self, vae: Any) -> None:
        """Take the first layers of a frozen autoencoder.

        Args:
            vae: an `AutoencoderTiny`; it is not changed.

        Raises:
            ConfigError: it is of another kind.
        """
        if not isinstance(vae, AutoencoderTiny):
            raise ConfigError(
                f"texture_weight needs the features of an AutoencoderTiny, but the model has an {type(vae).__name__}; set "
                "texture_weight to 0 or pass a small model such as evfi-tiny as --init"
            )
        layers = list(vae.encoder.layers)
        # up to the first block at each resolution; a level's later blocks agreed less with ST-LPIPS
        halved = 1 + vae.config.num_encoder_blocks[0]
        self._levels = [nn.Sequential(*layers[:2]), nn.Sequential(*layers[2 : halved + 2])]
        self._dtype: torch.dtype = layers[0].weight.dtype

    def __call__(self, pictures: Tensor, truth: Tensor) -> Tensor:
        """The error of pictures [N, 3, H, W] in [-1, 1], a scalar; only they get gradients."""
        made, wanted = pictures.add(1).div(2), truth.add(1).div(2)
        total = torch.zeros((), device=truth.device)
        for level in self._levels:
            made = level(made.to(self._dtype))
            with torch.no_grad():
                wanted = level(wanted.to(self._dtype))
            total = total + (_correlations(made) - _correlations(wanted)).abs().mean() * made.shape[1]
        return total


def _correlations(features: Tensor) -> Tensor:
    """Gram matrices of unit features [N, C, H, W] in windows: [N·windows, C, C]."""
    number, channels, height, width = features.shape
    rows, columns = height // _WINDOW, width // _WINDOW
    with torch.autocast(features.device.type, enabled=False):
        exact = features.float()
        unit = exact * torch.rsqrt(exact.square().sum(1, keepdim=True) + 1e-6)
        places = unit.permute(0, 2, 3, 1).reshape(number, rows, _WINDOW, columns, _WINDOW, channels)
        windows = places.transpose(2, 3).reshape(number * rows * columns, _WINDOW * _WINDOW, channels)
        return windows.transpose(1, 2) @ windows / _WINDOW**2
