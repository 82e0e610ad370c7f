"""Measure the time, memory and results of one engine on one window.

Conventions: sizes in GiB (2**30 bytes). On a GPU the clock is read after everything that was asked for is done.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from evfi.engine.base import Engine
from evfi.engine.memory import GIB
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise

_CUDA_SIDE, _CPU_SIDE = 8192, 1024
_PRODUCTS: Final = 20


@dataclass(frozen=True)
class Seconds:
    """How long one window took.

    Attributes:
        sampling: from key images and events to latents.
        decoding: from latents to pixels.
        step: one denoising step, the first left out; None with one step.
    """

    sampling: float
    decoding: float
    step: float | None

    @property
    def total(self) -> float:
        """Sampling and decoding."""
        return self.sampling + self.decoding

    def conditioning(self, steps: int) -> float | None:
        """The time of sampling outside its steps."""
        return None if self.step is None else max(self.sampling - steps * self.step, 0.0)

    def stretched(self, more_steps: int) -> Seconds:
        """The same with more steps, each as long as those measured."""
        assert self.step is not None
        return Seconds(self.sampling + more_steps * self.step, self.decoding, self.step)


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a window came out as, float32 on the CPU: latents [F, C, h, w] and pixels [F, 3, H, W] in [-1, 1]."""

    latents: Tensor
    frames: Tensor

    def errors(self, reference: Outputs) -> dict[str, float]:
        """Relative distances ||x - r|| / ||r|| of latents and frames from those of a reference."""
        pairs = {"latents": (self.latents, reference.latents), "frames": (self.frames, reference.frames)}
        return {name: float((made - true).norm() / true.norm()) for name, (made, true) in pairs.items()}


@dataclass(frozen=True, eq=False)
class Measurement:
    """One engine on one window.

    Attributes:
        engine: the engine.
        cold_start_s: from making the engine to the end of its first window.
        runs: of the windows after that.
        first: what the first window came out as.
        last: what the last one came out as.
        memory: peaks in GiB, by what they are peaks of.
    """

    engine: Engine
    cold_start_s: float
    runs: tuple[Seconds, ...]
    first: Outputs
    last: Outputs
    memory: dict[str, float]

    @property
    def median(self) -> Seconds:
        """The run in the middle, by its total; of an even number the faster."""
        return sorted(self.runs, key=lambda run: run.total)[(len(self.runs) - 1) // 2]


def measure(
    make_engine: Callable[[], Engine],
    inputs: WindowInputs,
    first: SamplingConfig,
    config: SamplingConfig,
    device: torch.device,
    *,
    warmup: int,
    runs: int,
    limit_s: float,
) -> Measurement:
    """Measure an engine.

    Args:
        make_engine: makes it; part of the cold start.
        inputs: the window.
        first: settings of the first window, which ends the cold start.
        config: settings of the windows that are timed.
        device: where the engine runs.
        warmup: windows before those that are timed, the first included.
        runs: timed windows.
        limit_s: no further run begins after so many seconds of timed windows; one is always made.
    """
    reset_memory(device)
    begun = time.perf_counter()
    engine = make_engine()
    _, outputs = run_window(engine, inputs, first, device)
    cold_start = time.perf_counter() - begun
    for _ in range(warmup - 1):
        run_window(engine, inputs, first, device)
    timed: list[Seconds] = []
    last = outputs
    while not timed or (len(timed) < runs and sum(run.total for run in timed) < limit_s):
        seconds, last = run_window(engine, inputs, config, device)
        timed.append(seconds)
    return Measurement(engine, cold_start, tuple(timed), outputs, last, peak_memory(device))


def run_window(
    engine: Engine, inputs: WindowInputs, config: SamplingConfig, device: torch.device
) -> tuple[Seconds, Outputs]:
    """Make one window and time it; the way of results to the CPU is not in the time."""
    steps = _Marks(device)
    synchronise(device)
    begun = time.perf_counter()
    latents = engine.sample(inputs, config, SeededNoise(0), on_step=lambda done, of: steps.set())
    synchronise(device)
    sampled = time.perf_counter()
    pixels = engine.decode(latents, config)
    synchronise(device)
    seconds = Seconds(sampled - begun, time.perf_counter() - sampled, steps.mean_interval())
    return seconds, Outputs(latents.float().cpu(), pixels.float().clamp(-1, 1).cpu())


class _Marks:
    """Points in time that cost nothing: on a GPU they are set in its queue, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._set: list[float | torch.cuda.Event] = []

    def set(self) -> None:
        """Mark now."""
        if self._device.type != "cuda":
            self._set.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._set.append(event)

    def mean_interval(self) -> float | None:
        """Seconds between two marks; the device must have reached the last."""
        if len(self._set) < 2:
            return None
        first, last = self._set[0], self._set[-1]
        if isinstance(first, torch.cuda.Event) and isinstance(last, torch.cuda.Event):
            return float(first.elapsed_time(last)) / 1000 / (len(self._set) - 1)
        assert isinstance(first, float)
        assert isinstance(last, float)
        return (last - first) / (len(self._set) - 1)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_memory(device: torch.device) -> None:
    """Release unused memory and reset the peak counters."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peaks in GiB: of a GPU since `reset_memory`, tensors and what PyTorch held; on a CPU of the process since it began."""
    if device.type == "cuda":
        peaks = {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
        return {name: size / GIB for name, size in peaks.items()}
    if sys.platform == "win32":
        return {}
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> tuple[int, float]:
    """The side of a large square matrix product, and its operations per second in the best of several."""
    side = _CUDA_SIDE if device.type == "cuda" else _CPU_SIDE
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    result = torch.empty_like(left)
    seconds = [_timed(lambda: torch.matmul(left, right, out=result), device) for _ in range(_PRODUCTS)]
    return side, 2 * side**3 / min(seconds)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    begun = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - begun
