"""Load systems: models, baselines, and folders of frames that other programs wrote."""

from __future__ import annotations

import torch

from evfi.errors import ConfigError
from evfi.evaluation.systems import BASELINES, SizeRule, System, SystemRequest


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
    raise ConfigError(f"no baseline {request.source!r}; known are {', '.join(BASELINES)}")
