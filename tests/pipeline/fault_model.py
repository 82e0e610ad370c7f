"""A quick stand-in for the model, for jobs that tests disturb: its frames depend on the window, the seed and the events.

It can fail at chosen windows. How often each was tried, and in which process, is kept as files in a folder.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ResourceError
from evfi.models.facts import ModelFacts
from evfi.pipeline.models import WindowWorker


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a window.

    Attributes:
        kind: "resource" (told as the engine tells it), "cuda" (an error that leaves a GPU unusable), "memory" (PyTorch's own
            error), "exit" (the process ends), "kill" (it is killed).
        attempts: how many attempts meet it.
    """

    kind: str
    attempts: int = 1000


@dataclass(frozen=True)
class StandInRequest:
    """Takes the place of `evfi.pipeline.models.ModelRequest`; its first field names the folder of notes and the settings.

    Attributes:
        name: "NOTES_FOLDER,seconds per window,window:kind:attempts,…".
    """

    name: str
    dtype: str | None = None
    max_memory: int | None = None
    preset: str = "exact"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, device: str) -> WindowWorker:
        notes, seconds, *faults = self.name.split(",")
        parsed = {int(window): Fault(kind, int(attempts)) for window, kind, attempts in (f.split(":") for f in faults)}
        return WindowWorker(StandInModel(Path(notes), float(seconds), parsed))

    def facts(self) -> ModelFacts:
        return ModelFacts("stand-in", 6, {}, "0" * 64)

    def made_of(self, facts: ModelFacts, device: str) -> dict[str, Any]:
        return {"model": facts.name, "model files": facts.fingerprint, "sampling": {}}


class StandInModel:
    """Blends, and adds what the seed, the window and the events say."""

    def __init__(self, notes: Path, seconds: float, faults: Mapping[int, Fault]) -> None:
        self._notes, self._seconds, self._faults = notes, seconds, faults

    def prepare(self, window: Any) -> None:
        return None

    def interpolate_window(self, window: Any, *, seed: int, on_step: Any, prepared: Any = None) -> NDArray[np.uint8]:
        from evfi.pipeline.blending import blend_linearly

        index = window.spec.index
        attempt = self._note(index)
        time.sleep(self._seconds / 2)
        fault = self._faults.get(index)
        if fault is not None and attempt <= fault.attempts:
            _fail(fault.kind)
        if on_step is not None:
            on_step(1, 2)
        time.sleep(self._seconds / 2)
        frames = blend_linearly(window.start_image, window.end_image, window.spec.times_us).astype(np.int64)
        inner = frames[1:-1]
        inner += np.random.default_rng([seed, index]).integers(0, 32, inner.shape)
        counts = np.zeros(inner.shape[1:3], np.int64)
        np.add.at(counts, (window.events.y, window.events.x), window.events.p)
        inner += 8 * counts[None, :, :, None]
        return np.clip(frames, 0, 255).astype(np.uint8)

    def _note(self, index: int) -> int:
        """Keep a note of an attempt; its number, from 1."""
        number = 1
        while True:
            try:
                with (self._notes / f"{index:06d}-{number}").open("x") as file:
                    file.write(str(os.getpid()))
                return number
            except FileExistsError:
                number += 1


def _fail(kind: str) -> None:
    import torch

    if kind == "resource":
        raise ResourceError("not enough GPU memory for one tile; use a smaller picture")
    if kind == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if kind == "cuda":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if kind == "exit":
        os._exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(f"no such fault: {kind}")
