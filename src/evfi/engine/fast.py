"""The fast engine: the same results as the plain one to rounding, several times faster, in less memory.

On a GPU a plan is made first (`evfi.engine.memory`): how many items a network call takes, and which networks wait in the
host's memory while others work. Where memory runs out nevertheless, the window is done again by a plan that needs less.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor

from evfi.engine.backoff import run_with_backoff
from evfi.engine.costs import fast_costs, work_of
from evfi.engine.cpu import CpuParts
from evfi.engine.cpu_layers import CpuOperators
from evfi.engine.decoder import TemporalDecoder
from evfi.engine.denoiser import FastDenoiser, StepTable
from evfi.engine.memory import Costs, MemoryPlan, Phase, Work, free_budget, lower_plan, make_plan
from evfi.engine.network import SteeredUNet
from evfi.engine.offload import Parcel, Residency
from evfi.engine.operators import Operators, TorchOperators
from evfi.engine.runner import Runner
from evfi.errors import ResourceError
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import Conditioning, WindowInputs, window_grid
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import NoiseSource
from evfi.sampling.two_sided import OnStep, sample_window

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class FastEngine:
    """Runs a model's networks over channels-last activations with fused kernels."""

    def __init__(self, bundle: ModelBundle, max_memory: int | None = None) -> None:
        """Take a model, on the device and in the dtype it shall run in; it must not be moved afterwards.

        Args:
            bundle: the model.
            max_memory: bytes of GPU memory that may be taken; by default what is free. Of no effect on a CPU.
        """
        self._bundle, self._device = bundle, bundle.unet.device
        self._max_memory = max_memory
        self._cpu = CpuParts(bundle) if CpuParts.is_served(bundle) else None
        operators = make_operators(self._device)
        with torch.inference_mode():
            self._network = SteeredUNet(bundle.controlnet, bundle.unet, operators)
            self._decoder = (
                TemporalDecoder(bundle.vae, operators, bundle.unet.dtype)
                if isinstance(bundle.vae, AutoencoderKLTemporalDecoder)
                else None
            )
        self._runner = Runner(self._network, graphs=self._device.type == "cuda")
        self._steps = StepTable(self._network)
        self._needs: dict[object, tuple[Costs, Work]] = {}
        self._plans: dict[object, MemoryPlan] = {}
        self._parcels: dict[str, Parcel] | None = None

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

        def attempt(plan: MemoryPlan | None) -> Tensor:
            planned = config if plan is None else replace(config, batch_size=plan.items_per_call)
            make = self._denoiser_maker(plan)
            self._enter(plan, "condition")
            return sample_window(
                self._bundle,
                inputs,
                planned if self._cpu is None else self._cpu.item_by_item(config),
                noise,
                weights=weights,
                on_step=on_step,
                make_denoiser=make,
                encoders=None if self._cpu is None else self._cpu.encoders,
            )

        height, width = inputs.key_images.shape[-2:]
        return self._planned((height, width, inputs.num_frames), config, "denoise", attempt)

    def decode(self, latents: Tensor, config: SamplingConfig) -> Tensor:
        """See `Engine.decode`."""

        def attempt(plan: MemoryPlan | None) -> Tensor:
            if plan is not None and not plan.keep_graphs:
                self._runner.forget()
                torch.cuda.empty_cache()
            self._enter(plan, "decode")
            with torch.inference_mode():
                made = None if self._cpu is None else self._cpu.decode(latents)
                if made is not None:
                    return made
                if self._decoder is None:
                    return self._bundle.decode(latents, config.decode_chunk_size).float()
                decode = partial(self._decoder.decode, chunk=config.decode_chunk_size)
                if self._cpu is not None:
                    return torch.cat(self._cpu.each(decode, list(latents.split(config.decode_chunk_size))))
                return decode(latents)

        factor = self._bundle.vae_factor
        height, width = (side * factor for side in latents.shape[-2:])
        pixels = self._planned((height, width, len(latents)), config, "decode", attempt)
        if self._parcels is not None:
            Residency(self._parcels, {}).restore()  # others may use the bundle's networks
        return pixels

    def describe(self) -> str:
        """The last plan in words; empty where none was needed."""
        return list(self._plans.values())[-1].describe() if self._plans else ""

    def _planned(
        self,
        size: tuple[int, int, int],
        config: SamplingConfig,
        phase: Phase,
        attempt: Callable[[MemoryPlan | None], Result],
    ) -> Result:
        """Do a part of a window by its plan, and by lower ones where memory runs out."""
        if self._device.type != "cuda":
            return attempt(None)
        key = (
            size,
            config.tile_width,
            config.tile_height,
            config.tile_overlap,
            config.is_guided,
            config.decode_chunk_size,
        )
        plan = self._plans.get(key)
        if plan is None:
            plan = self._make_plan(key, size, config)
        costs, work = self._needs[key]

        def lower(current: MemoryPlan) -> MemoryPlan | None:
            self._runner.forget()
            lowered = lower_plan(current, phase, costs, work)
            return None if lowered is None or lowered.offload == "blocks" else lowered

        result, self._plans[key] = run_with_backoff(attempt, plan, lower)
        return result

    def _make_plan(self, key: object, size: tuple[int, int, int], config: SamplingConfig) -> MemoryPlan:
        height, width, frames = size
        grid = window_grid(self._bundle, height, width, config)
        costs, work = fast_costs(self._bundle, grid, frames, config), work_of(grid, frames, config)
        self._needs[key] = costs, work
        budget = self._max_memory
        if budget is None:
            budget = free_budget(self._device)
        plan = make_plan(costs, work, budget)
        if plan.offload == "blocks":
            raise ResourceError(
                f"not enough GPU memory for frames of {width}x{height} px: {budget or 0} bytes may be used; use a lower "
                "--upscale, fewer --insert, or a higher --max-memory"
            )
        _log.info("%s", plan.describe().replace("\n", "; "))
        return plan

    def _denoiser_maker(self, plan: MemoryPlan | None) -> Callable[..., FastDenoiser]:
        def make(bundle: ModelBundle, conditioning: Conditioning, config: SamplingConfig) -> FastDenoiser:
            self._enter(plan, "denoise")
            return FastDenoiser(
                bundle,
                conditioning,
                config,
                network=self._network,
                runner=self._runner,
                steps=self._steps,
                each=None if self._cpu is None else self._cpu.each,
            )

        return make

    def _enter(self, plan: MemoryPlan | None, phase: Phase) -> None:
        """Have the networks that a phase needs on the GPU, and others off it where the plan says so."""
        if plan is None or (plan.offload == "none" and self._parcels is None):
            return
        if self._parcels is None:
            self._parcels = self._make_parcels()
        with Residency(self._parcels, {phase: plan.residency[phase]}).phase(phase):
            pass

    def _make_parcels(self) -> dict[str, Parcel]:
        bundle = self._bundle
        embedding = {id(part) for part in bundle.controlnet.controlnet_cond_embedding.parameters()}
        decoders: list[Any] = [bundle.vae.decoder]
        if self._decoder is not None:
            decoders.append(self._decoder.module)
        encoder = [part for name, part in bundle.vae.named_children() if name != "decoder"]
        parcels = {
            "vae_encoder": Parcel.of_modules(encoder),
            "vae_decoder": Parcel.of_modules(decoders),
            "controlnet": Parcel(part for part in bundle.controlnet.parameters() if id(part) not in embedding),
            "unet": Parcel(bundle.unet.parameters()),
        }
        if bundle.image_encoder is not None:
            parcels["image_encoder"] = Parcel.of_modules([bundle.image_encoder])
        return parcels


def make_operators(device: torch.device) -> Operators:
    """The operations for a device: GPU kernels where Triton can make them, else plain torch."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from evfi.engine.triton_operators import TritonOperators

        return TritonOperators()
    return CpuOperators() if device.type == "cpu" else TorchOperators()
