"""Whatever makes frames and is compared: models, baselines, and folders of frames that other programs wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from evfi.errors import ConfigError
from evfi.evaluation.results import SystemInfo
from evfi.recordings.recording import Window
from evfi.sampling.presets import PresetName

SystemKind: TypeAlias = Literal["model", "baseline", "frames"]

SizeRule: TypeAlias = Literal["original", "floor8"]
"""At which size frames are scored: as they come, or floored to multiples of 8 by Lanczos, as the published evaluation does."""


@dataclass(frozen=True)
class SystemRequest:
    """Which system, in words that another process understands.

    Attributes:
        name: as it stands in tables.
        kind: what it is.
        source: the model's name or path, the baseline's name, or the folder of frames.
        settings: of a model: `SamplingConfig`'s that differ from its own and the preset's.
        preset: of a model: see `evfi.sampling.presets`.
        protocol: of a model: the protocol's own settings, over the preset's and under `settings`.
    """

    name: str
    kind: SystemKind
    source: str
    settings: dict[str, Any] = field(default_factory=dict)
    preset: PresetName = "exact"
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class WindowTask:
    """One window that a system shall fill.

    Attributes:
        sequence: the sequence's name.
        skip: true frames left out between the key frames.
        window: key frames at their original size, events, times; `window.spec.start_frame + k` is the number of the true
            frame that the k-th frame is compared with.
        seed: of random numbers, together with the window's index.
    """

    sequence: str
    skip: int
    window: Window
    seed: int = 0


BASELINES: Final = ("hold", "linear", "rife")
"""Baselines by name: the key frame before, as a plain player shows it; blending by time; the network RIFE."""


class System(Protocol):
    """Something that makes frames, ready to run.

    Attributes:
        notes: what had to be said of windows as they were made, one line each, in that order. Whoever keeps the frames may
            take them out.
    """

    notes: list[str]

    @property
    def info(self) -> SystemInfo:
        """Who it is."""

    def make(self, task: WindowTask) -> NDArray[np.uint8]:
        """All frames of a window at the size that is scored, uint8 [F, H, W, 3]; the first and last are the key frames."""


def load_system(
    request: SystemRequest, size: SizeRule, device: str | torch.device, dtype: str | torch.dtype | None = None
) -> System:
    """Make a system ready.

    Args:
        request: which.
        size: at which size its frames are scored.
        device: for networks; "auto" takes the GPU if there is one.
        dtype: of a model; by default float16 on a GPU and float32 on the CPU.

    Raises:
        ModelError: a model, or the package of a baseline, cannot be found or loaded.
        ConfigError: a setting is unknown or out of range, or no system has such a name.
        InputError: the folder of frames is missing or holds none.
        ResourceError: there is no such device, or too little memory.
    """
    if request.kind == "model":
        from evfi.evaluation.model_system import ModelSystem

        return ModelSystem(request, size, device, dtype)
    if request.settings:
        raise ConfigError(f"{request.kind} {request.name} takes no settings, got {', '.join(sorted(request.settings))}")
    if request.kind == "frames":
        from evfi.evaluation.frames_folder import FramesFolder

        return FramesFolder(request, size)
    if request.kind == "baseline":
        return _baseline(request, size, device)
    raise ConfigError(f"a system must be a model, a baseline or frames, got {request.kind!r}")


def _baseline(request: SystemRequest, size: SizeRule, device: str | torch.device) -> System:
    if request.source == "rife":
        from evfi.evaluation.rife import Rife

        return Rife(request, size, device)
    from evfi.evaluation.baselines import BLENDS, Blend

    if request.source in BLENDS:
        return Blend(request, size)
    raise ConfigError(f"no baseline {request.source!r}; there are {', '.join(BASELINES)}")
