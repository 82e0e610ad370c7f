"""Stand-ins for models, in a module that worker processes can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ModelError
from evfi.pipeline.blending import blend_linearly
from evfi.pipeline.models import WindowWorker
from evfi.recordings.recording import Window
from evfi.workers.tasks import OnStep


class Painter:
    """Makes frames that depend on all that frames may depend on: images, events, times, seed and the piece's index.

    Attributes:
        seen: indices of windows and pieces, in the order in which they were made.
        fail_at: index at which it raises `error` instead.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.fail_at: int | None = None
        self.error: BaseException = RuntimeError("stand-in failed")

    def prepare(self, window: Window) -> None:
        return None

    def interpolate_window(
        self, window: Window, *, seed: int, on_step: OnStep | None, prepared: Any = None
    ) -> NDArray[np.uint8]:
        spec = window.spec
        if spec.index == self.fail_at:
            raise self.error
        self.seen.append(spec.index)
        frames = blend_linearly(window.start_image, window.end_image, spec.times_us)
        noise = np.random.default_rng([seed, spec.index, len(window.events), *spec.times_us.tolist()])
        frames[1:-1] ^= noise.integers(0, 32, frames[1:-1].shape, np.uint8)
        if on_step is not None:
            on_step(1, 2)
            on_step(2, 2)
        return frames


@dataclass(frozen=True)
class Paints:
    """Loads a painter whose process comes to harm.

    Attributes:
        dies_at: indices of windows at which the process kills itself.
        raises_at: indices of windows at which an error is raised that is no `EvfiError`.
        once: a folder where each window that came to harm leaves a file, after which it comes to no more; None for harm
            every time.
        cannot_load: the model cannot be loaded.
        cannot_start: the process ends while the model is loaded.
        seconds: time for each window, at least.
        pids: a folder where each process leaves a file named after its id.
    """

    dies_at: tuple[int, ...] = ()
    raises_at: tuple[int, ...] = ()
    once: Path | None = None
    cannot_load: bool = False
    cannot_start: bool = False
    seconds: float = 0.0
    pids: Path | None = None

    def __call__(self, device: str) -> WindowWorker:
        if self.cannot_load:
            raise ModelError(f"no weights for {device}")
        if self.cannot_start:
            os._exit(3)
        if self.pids is not None:
            (self.pids / str(os.getpid())).touch()
        return WindowWorker(_Harmed(self))


class _Harmed(Painter):
    def __init__(self, plan: Paints) -> None:
        super().__init__()
        self.plan = plan

    def interpolate_window(
        self, window: Window, *, seed: int, on_step: OnStep | None, prepared: Any = None
    ) -> NDArray[np.uint8]:
        index, plan = window.spec.index, self.plan
        time.sleep(plan.seconds)
        harmed = None if plan.once is None else plan.once / str(index)
        if index in plan.dies_at + plan.raises_at and not (harmed is not None and harmed.exists()):
            if harmed is not None:
                harmed.touch()
            if index in plan.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().interpolate_window(window, seed=seed, on_step=on_step)
