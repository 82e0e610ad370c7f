"""What every engine does: run a model's networks for one window.

An engine turns a window's inputs into latents, and latents into pixels. All engines compute the same function; they differ
in how: `PlainEngine` calls the networks as they are written in `evfi.models`, one operation after the other, and is the
reference for every other engine.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from evfi.models.bundle import ModelBundle
from evfi.recordings.recording import Window
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import NoiseSource
from evfi.sampling.refinement import refine_window
from evfi.sampling.two_sided import OnStep, sample_window

EngineName = Literal["fast", "plain"]
"""The engines by name."""


class Engine(Protocol):
    """Runs the networks of one model."""

    def sample(
        self,
        inputs: WindowInputs,
        config: SamplingConfig,
        noise: NoiseSource,
        *,
        weights: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Latents float32 [F, C, h, w], scaled, of one window; arguments as of `evfi.sampling.two_sided.sample_window`."""

    def decode(self, latents: Tensor, config: SamplingConfig) -> Tensor:
        """Scaled latents [F, C, h, w] of a window's frames to pixels float32 [F, 3, H, W], about [-1, 1], not clamped."""

    def refine(self, window: Window, prediction: Tensor | None) -> Tensor:
        """The inserted frames of a window, uint8 [F - 2, 3, H, W]; see `evfi.sampling.refinement.refine_window`."""

    def restore(self) -> None:
        """Have all of the model's weights on its device, for others who use its networks; an engine may send them away."""


class PlainEngine:
    """The straightforward way: the networks as they are, eagerly, one batch after the other."""

    def __init__(self, bundle: ModelBundle) -> None:
        """Take a model, on the device and in the dtype it shall run in."""
        self._bundle = bundle

    def sample(
        self,
        inputs: WindowInputs,
        config: SamplingConfig,
        noise: NoiseSource,
        *,
        weights: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """See `Engine.sample`."""
        return sample_window(self._bundle, inputs, config, noise, weights=weights, on_step=on_step)

    def decode(self, latents: Tensor, config: SamplingConfig) -> Tensor:
        """See `Engine.decode`."""
        with torch.inference_mode():
            return self._bundle.decode(latents, config.decode_chunk_size).float()

    def refine(self, window: Window, prediction: Tensor | None) -> Tensor:
        """See `Engine.refine`."""
        assert self._bundle.refiner is not None
        with torch.inference_mode():
            return refine_window(self._bundle.refiner, window, prediction)

    def restore(self) -> None:
        """Nothing ever leaves."""
