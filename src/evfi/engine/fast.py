"""The fast engine: the same results as the plain one to rounding, several times faster, in less memory."""

from __future__ import annotations

import importlib.util
from functools import partial

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from evfi.engine.decoder import TemporalDecoder
from evfi.engine.denoiser import FastDenoiser, StepTable
from evfi.engine.network import SteeredUNet
from evfi.engine.operators import Operators, TorchOperators
from evfi.engine.runner import Runner
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import NoiseSource
from evfi.sampling.two_sided import OnStep, sample_window


class FastEngine:
    """Runs a model's networks over channels-last activations with fused kernels."""

    def __init__(self, bundle: ModelBundle) -> None:
        """Take a model, on the device and in the dtype it shall run in; it must not be moved afterwards."""
        self._bundle = bundle
        device = bundle.unet.device
        operators = make_operators(device)
        with torch.inference_mode():
            self._network = SteeredUNet(bundle.controlnet, bundle.unet, operators)
            self._decoder = (
                TemporalDecoder(bundle.vae, operators, bundle.unet.dtype)
                if isinstance(bundle.vae, AutoencoderKLTemporalDecoder)
                else None
            )
        self._runner = Runner(self._network, graphs=device.type == "cuda")
        self._steps = StepTable(self._network)

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
        make = partial(FastDenoiser, network=self._network, runner=self._runner, steps=self._steps)
        return sample_window(self._bundle, inputs, config, noise, weights=weights, on_step=on_step, make_denoiser=make)

    def decode(self, latents: Tensor, config: SamplingConfig) -> Tensor:
        """See `Engine.decode`."""
        with torch.inference_mode():
            if self._decoder is None:
                return self._bundle.decode(latents, config.decode_chunk_size).float()
            return self._decoder.decode(latents, config.decode_chunk_size)


def make_operators(device: torch.device) -> Operators:
    """The operations for a device: GPU kernels where Triton can make them, else plain torch."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from evfi.engine.triton_operators import TritonOperators

        return TritonOperators()
    return TorchOperators()
