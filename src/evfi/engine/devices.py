"""Devices and dtypes by name."""

from __future__ import annotations

from typing import Final

import torch

from evfi.errors import ConfigError, ResourceError

_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str | torch.device) -> torch.device:
    """Find a device.

    Args:
        device: a torch device or its name; "auto" is the GPU if there is one and else the CPU.

    Raises:
        ResourceError: this machine has no such device.
        ConfigError: no device has such a name.
    """
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
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in _DTYPES.values():
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype}")
    assert found is not None
    return found
