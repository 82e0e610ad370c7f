"""Devices and dtypes by name.

torch takes seconds to import: who only plans goes without it, except where there may be a GPU.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from evfi.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    import torch

MOST_BESIDE_A_GPU: Final = 4
"""Threads of the CPU for operations on the CPU while the networks run on a GPU."""

_DTYPES: Final = ("float32", "float16", "bfloat16")
_NVIDIA_LIBRARIES: Final = ("libcuda.so.1", "libnvidia-ml.so.1")
_AMD_DRIVER: Final = ("/dev/kfd", "/dev/dxg", "/sys/module/amdgpu")


def num_gpus() -> int:
    """How many GPUs torch can use."""
    if "torch" not in sys.modules and not _has_driver():
        return 0
    import torch

    return torch.cuda.device_count()


def _has_driver() -> bool:
    """Whether there is a driver by which torch could find a GPU: what torch itself loads, by the same names."""
    if sys.platform != "linux" or any(Path(place).exists() for place in _AMD_DRIVER):
        return True
    return any(_can_be_loaded(name) for name in _NVIDIA_LIBRARIES)


def _can_be_loaded(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def resolve_device(device: str | torch.device) -> torch.device:
    """Find a device.

    Args:
        device: a torch device or its name; "auto" is the GPU if there is one and else the CPU.

    Raises:
        ResourceError: this machine has no such device.
        ConfigError: no device has such a name.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        number = torch.cuda.device_count()
        raise ResourceError(f"no device {found}: this machine has {number} usable GPU(s); use --device cpu or auto")
    return found


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Find the dtype that the networks run in: the one asked for, else float16 on a GPU and float32 on the CPU.

    Raises:
        ConfigError: no dtype that networks run in has such a name.
    """
    import torch

    found = getattr(torch, dtype_name(dtype, device.type))
    assert isinstance(found, torch.dtype)
    return found


def dtype_name(dtype: str | torch.dtype | None, device_type: str) -> str:
    """The name of the dtype that `resolve_dtype` finds on a device of this type ("cpu", "cuda").

    Raises:
        ConfigError: no dtype that networks run in has such a name.
    """
    if dtype is None:
        return "float16" if device_type == "cuda" else "float32"
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype}")
    return name
