"""The fast engine: the same results as the plain one to rounding, several times faster, in less memory.

On a GPU a plan is made first (`evfi.engine.memory`): how many items a network call takes, and which networks wait in the
host's memory while others work. Where memory runs out nevertheless, the window is done again by a plan that needs less.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

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
from evfi.engine.operators import Operators, TorchOperators
from evfi.engine.placement import Placement
from evfi.engine.refining import RefiningPlan, refining_plan
from evfi.engine.runner import Runner
from evfi.errors import ConfigError
from evfi.models.bundle import ModelBundle
from evfi.recordings.recording import Window
from evfi.sampling.conditioning import Conditioning, Encoders, WindowInputs, bundle_encoders, window_grid
from evfi.sampling.config import ENCODED_AT_ONCE, SamplingConfig
from evfi.sampling.noise import NoiseSource
from evfi.sampling.refinement import refine_window
from evfi.sampling.two_sided import OnStep, sample_window

_SHARED_PIXELS: Final = 2**20
"""Frames of more pixels are refined one after the other on a CPU, all threads at one, so that memory holds one only."""

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class FastEngine:
    """Runs a model's networks over channels-last activations with fused kernels."""

    def __init__(
        self, bundle: ModelBundle, max_memory: int | None = None, *, device: torch.device | None = None
    ) -> None:
        """Take a model in the dtype that it shall run in; it must not be moved afterwards.

        Args:
            bundle: the model; it may lie on the device, or in the host's memory, which it then leaves network by network.
            max_memory: bytes of GPU memory that may be taken; by default what is free. Of no effect on a CPU.
            device: the GPU where a model in the host's memory shall run; by default models run where they lie.
        """
        lies = bundle.unet.device
        self._bundle, self._device = bundle, lies if device is None else _indexed(device)
        if self._device != lies and lies.type != "cpu":
            raise ConfigError(f"the model is on {lies} and cannot run on {device}; load it on {device}")
        if any(weight.numel() and not weight.untyped_storage().nbytes() for weight in bundle.unet.parameters()):
            raise ConfigError(
                "the model's weights have been moved away; call restore() on the engine that moved them, then drop it"
            )
        self._max_memory = max_memory
        self._cpu = CpuParts(bundle) if self._device.type == "cpu" and CpuParts.is_served(bundle) else None
        operators = make_operators(self._device)
        with torch.inference_mode(), on_device(self._device):
            self._network = SteeredUNet(bundle.controlnet, bundle.unet, operators)
            self._decoder = (
                TemporalDecoder(bundle.vae, operators, bundle.unet.dtype)
                if isinstance(bundle.vae, AutoencoderKLTemporalDecoder)
                else None
            )
            decoder = bundle.vae.decoder if self._decoder is None else self._decoder.module
            self._placement = Placement(bundle, self._network, decoder)
            if self._device != lies:
                self._placement.send(self._device)
        self._runner = Runner(self._network, graphs=self._device.type == "cuda")
        self._steps = StepTable(self._network)
        self._needs: dict[object, tuple[Costs, Work]] = {}
        self._plans: dict[object, MemoryPlan] = {}
        self._phase: Phase = "condition"
        self._last_key: object = None

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
            self._enter(plan, "condition")
            return sample_window(
                self._bundle,
                inputs,
                self._in_calls(config, plan),
                noise,
                weights=weights,
                on_step=on_step,
                make_denoiser=partial(self._make_denoiser, plan),
                encoders=self._encoders(plan),
            )

        height, width = inputs.key_images.shape[-2:]
        return self._planned((height, width, inputs.num_frames), config, attempt)

    def decode(self, latents: Tensor, config: SamplingConfig) -> Tensor:
        """See `Engine.decode`."""

        def attempt(plan: MemoryPlan | None) -> Tensor:
            self._enter(plan, "decode")
            with torch.inference_mode():
                made = None if self._cpu is None else self._cpu.decode(latents)
                if made is not None:
                    return made
                if self._decoder is None:
                    return self._bundle.decode(latents, config.decode_chunk_size).float()
                bands = 1 if plan is None else plan.decode_bands
                decode = partial(self._decoder.decode, chunk=config.decode_chunk_size, bands=bands)
                if self._cpu is not None:
                    return torch.cat(self._cpu.each(decode, list(latents.split(config.decode_chunk_size))))
                return decode(latents)

        factor = self._bundle.vae_factor
        height, width = (side * factor for side in latents.shape[-2:])
        return self._planned((height, width, len(latents)), config, attempt)

    def refine(self, window: Window, prediction: Tensor | None) -> Tensor:
        """See `Engine.refine`."""
        refiner = self._bundle.refiner
        assert refiner is not None
        height, width = window.start_image.shape[:2]
        with torch.inference_mode(), on_device(self._device), capped_memory(self._device, self._max_memory):
            if self._max_memory is not None and self._device.type == "cuda":
                torch.cuda.empty_cache()  # what other phases hold unused counts against the limit
            budget = free_budget(self._device, limit=self._max_memory)
            plan = refining_plan(height, width, refiner.dtype, budget)
            lanes = 1 if self._cpu is None or height * width > _SHARED_PIXELS else torch.get_num_threads()

            def attempt(plan: RefiningPlan) -> Tensor:
                return refine_window(
                    refiner,
                    window,
                    prediction,
                    frames_at_once=plan.frames_at_once,
                    bands=plan.bands,
                    each=None if self._cpu is None else self._cpu.each,
                    lanes=lanes,
                )

            made, _ = run_with_backoff(attempt, plan, RefiningPlan.lowered)
        return made

    def restore(self) -> None:
        """See `Engine.restore`; recorded calls are void then."""
        self._runner.forget()
        with on_device(self._device):
            self._placement.restore()

    @property
    def plan(self) -> MemoryPlan | None:
        """The last plan; None where none was needed."""
        return list(self._plans.values())[-1] if self._plans else None

    def describe(self) -> str:
        """The last plan in words; empty where none was needed."""
        return "" if self.plan is None else self.plan.describe()

    def _planned(
        self, size: tuple[int, int, int], config: SamplingConfig, attempt: Callable[[MemoryPlan | None], Result]
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
            config.reuse_interval > 1,
        )
        if key != self._last_key:
            self._runner.forget()  # what is recorded for other sizes is in no plan
            self._last_key = key
        with on_device(self._device), capped_memory(self._device, self._max_memory):
            plan = self._plans.get(key) or self._make_plan(key, size, config)
            costs, work = self._needs[key]
            self._runner.takes = costs.denoise.at

            def lower(current: MemoryPlan) -> MemoryPlan | None:
                self._runner.forget()
                lowered = lower_plan(current, self._phase, costs, work)
                if lowered is not None:
                    self._plans[key] = lowered
                return lowered

            self._plans.pop(key, None)  # the last one is the one that was used last
            self._plans[key] = plan
            result, _ = run_with_backoff(attempt, plan, lower)
        return result

    def _make_plan(self, key: object, size: tuple[int, int, int], config: SamplingConfig) -> MemoryPlan:
        height, width, frames = size
        grid = window_grid(self._bundle, height, width, config)
        costs = fast_costs(self._bundle, grid, frames, config)
        work = work_of(grid, frames, config)
        self._needs[key] = costs, work
        own = self._placement.bytes_on(self._device)
        plan = make_plan(costs, work, free_budget(self._device, own, self._max_memory))
        _log.info("%s", plan.describe().replace("\n", "; "))
        return plan

    def _make_denoiser(
        self, plan: MemoryPlan | None, bundle: ModelBundle, conditioning: Conditioning, config: SamplingConfig
    ) -> FastDenoiser:
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

    def _in_calls(self, config: SamplingConfig, plan: MemoryPlan | None) -> SamplingConfig:
        """The settings with as many items per network call as suit: on a CPU one for each thread."""
        if self._cpu is not None:
            return self._cpu.item_by_item(config)
        return config if plan is None else replace(config, batch_size=plan.items_per_call)

    def _encoders(self, plan: MemoryPlan | None) -> Encoders:
        if self._cpu is not None:
            return self._cpu.encoders
        return bundle_encoders(self._bundle, ENCODED_AT_ONCE if plan is None else plan.encode_batch)

    def _enter(self, plan: MemoryPlan | None, phase: Phase) -> None:
        """Begin a phase: what was recorded is void if weights move, and weights go where the plan wants them."""
        self._phase = phase
        if plan is None:
            return
        moves = plan.offload != "none" and not self._placement.is_divided  # even what never leaves, once
        if moves or not plan.keep_graphs:
            self._runner.forget()
        self._runner.graphs = plan.graphs
        self._placement.enter(plan, phase)
        if not plan.keep_graphs:
            torch.cuda.empty_cache()


@contextmanager
def capped_memory(device: torch.device, limit: int | None) -> Iterator[None]:
    """Let PyTorch take no more than so many bytes of a GPU's memory for a while; what it holds unused counts, too.

    Args:
        device: the GPU.
        limit: the most; None for no limit.
    """
    if limit is None:
        yield
        return
    before = torch.cuda.get_per_process_memory_fraction(device)
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(limit / whole, 1.0), device)
    if torch.cuda.memory_reserved(device) > limit:
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device)


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Make a GPU the current one, which kernels and recordings take for theirs whatever their tensors lie on."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.current_device()
    torch.cuda.set_device(device)
    try:
        yield
    finally:
        torch.cuda.set_device(before)


def _indexed(device: torch.device) -> torch.device:
    """The device with its number, as tensors tell it."""
    return torch.empty(0, device=device).device


def make_operators(device: torch.device) -> Operators:
    """The operations for a device: GPU kernels where Triton can make them, else plain torch."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from evfi.engine.triton_operators import TritonOperators

        return TritonOperators()
    return CpuOperators() if device.type == "cpu" else TorchOperators()
