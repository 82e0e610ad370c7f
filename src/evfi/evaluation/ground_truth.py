"""The ground truth: at the scored size, raw or passed through a model's autoencoder.

The published evaluation compares with true frames that went through the autoencoder, as no output of the model can be better
than that: floor by Lanczos, upscale, encode *sampled*, decode, Lanczos back to the floored size. An autoencoder without a
posterior (`AutoencoderTiny`) has nothing to sample: its code is taken as it is; `VaeTruth.settings` says which it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evfi.errors import ConfigError
from evfi.evaluation.systems import SizeRule
from evfi.fingerprints import fingerprint_of, weights_fingerprint
from evfi.interpolator import from_picture, memory_errors_told, to_pictures
from evfi.models.bundle import ModelBundle, decode_latents, encode_pixels
from evfi.video.geometry import Frame, FrameGeometry, frame_size

_MULTIPLE: Final = 8


def scored_size_frame(frame: Frame, size: SizeRule) -> Frame:
    """A frame at the size that is scored.

    Args:
        frame: uint8 [H, W, 3].
        size: "original" leaves it as it is, "floor8" floors both sides to multiples of 8 by Lanczos resampling.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ConfigError: the frame is smaller than 8 pixels.
    """
    if size == "original":
        return frame
    return FrameGeometry(frame_size(frame), _MULTIPLE, "resize").fit(frame)


class VaeTruth:
    """Passes true frames through an autoencoder.

    Frames are encoded one by one. They are decoded as the model's own are: in chunks of `decode_chunk_size`, counted from
    the window's first key frame on, so that a temporal decoder sees of a frame what it sees when the model makes it.
    """

    def __init__(self, bundle: ModelBundle, upscale: int, decode_chunk_size: int) -> None:
        """Take a model's autoencoder.

        Args:
            bundle: the model.
            upscale: whole factor by which frames are enlarged first (bicubic).
            decode_chunk_size: frames that are decoded at once.

        Raises:
            ConfigError: a setting is below 1.
        """
        for name, value in (("upscale", upscale), ("decode_chunk_size", decode_chunk_size)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self._vae = bundle.vae
        self._factor = bundle.vae_factor
        self._upscale = upscale
        self._chunk = decode_chunk_size
        self.settings: dict[str, Any] = {
            "autoencoder": type(bundle.vae).__name__,
            "encoded": "sampled" if _has_posterior(bundle.vae) else "as it is (no posterior)",
            "upscale": upscale,
            "decode_chunk_size": decode_chunk_size,
            "dtype": str(bundle.vae.dtype).removeprefix("torch."),
        }
        self.fingerprint = fingerprint_of([weights_fingerprint({"vae": bundle.vae}), self.settings])

    def pass_through(
        self, frames: NDArray[np.uint8], sequence: str, frame_numbers: Sequence[int], seed: int
    ) -> NDArray[np.uint8]:
        """Encode and decode the frames of one window.

        Args:
            frames: uint8 [F, H, W, 3] at the scored size, in the order of time, key frames included.
            sequence: the sequence's name.
            frame_numbers: of the true frames in their sequence; with `seed` and `sequence` they determine the noise.
            seed: of the noise.

        Returns:
            uint8 [F, H, W, 3].

        Raises:
            ConfigError: there is not one number for each frame.
            ResourceError: there is not enough memory.
        """
        if len(frame_numbers) != len(frames):
            raise ConfigError(f"expected one number for each of {len(frames)} frames, got {len(frame_numbers)}")
        geometry = FrameGeometry(frame_size(frames[0]), self._factor, "pad", self._upscale)
        width, height = geometry.model_size
        need = (
            f"to pass {len(frames)} frames of {width}x{height} px through the autoencoder on {self._vae.device}; lower "
            f"decode_chunk_size ({self._chunk}) or upscale ({self._upscale})"
        )
        with memory_errors_told(need), torch.inference_mode():
            codes = [
                self._encode(geometry.to_model(frame), f"{seed}/{sequence}/{number}")
                for frame, number in zip(frames, frame_numbers, strict=True)
            ]
            latents = torch.cat(codes) * self._vae.config.scaling_factor
            levels = decode_latents(self._vae, latents, self._chunk).float() * 127.5 + 127.5
            return np.stack([geometry.to_original(picture) for picture in to_pictures(levels)])

    def _encode(self, picture: Frame, key: str) -> Tensor:
        """The code of one picture, unscaled, float32 [1, C, h, w]."""
        pixels = from_picture(picture)[None].to(self._vae.device, self._vae.dtype)
        if not _has_posterior(self._vae):
            return encode_pixels(self._vae, pixels).float()
        posterior = self._vae.encode(pixels).latent_dist
        noise = _frame_noise(key, tuple(posterior.mean.shape)).to(posterior.mean.device)
        sample: Tensor = posterior.mean.float() + posterior.std.float() * noise
        return sample


def _has_posterior(vae: Any) -> bool:
    """Whether an autoencoder encodes to a distribution."""
    return type(vae).__name__ != "AutoencoderTiny"


def _frame_noise(key: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 noise that depends on the key alone."""
    digest = hashlib.blake2b(f"truth/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(shape, generator=generator, dtype=torch.float32)
