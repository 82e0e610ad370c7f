"""The devices that work, and their numbers of threads."""

from __future__ import annotations

import os
from collections.abc import Sequence

from evfi.engine.devices import MOST_BESIDE_A_GPU, num_gpus, resolve_device
from evfi.errors import ConfigError


def parse_devices(text: str) -> tuple[str, ...]:
    """Which devices work, one worker each.

    Args:
        text: "auto" (all GPUs, or the CPU where there is none), "cuda" (all GPUs), or names with commas between them:
            "cuda:0,cuda:1", "cpu". The CPU may be named several times; its cores are shared then.

    Raises:
        ConfigError: no device has such a name, a GPU is named twice, or CPU and GPUs are mixed, whose frames differ.
        ResourceError: this machine has no such device.
    """
    names = [name.strip() for name in text.split(",")]
    if set(names) == {"cpu"}:
        return tuple(names)
    number = num_gpus()
    if text == "auto" or (text == "cuda" and number):
        return tuple(f"cuda:{index}" for index in range(number)) or ("cpu",)
    found = [resolve_device(name) for name in names]
    if "auto" in names or any(device.type not in ("cpu", "cuda") for device in found):
        raise ConfigError(f"devices must be auto, or names separated by commas (cuda:0,cuda:1), got '{text}'")
    devices = ["cpu" if device.type == "cpu" else f"cuda:{device.index or 0}" for device in found]
    gpus = [device for device in devices if device != "cpu"]
    if gpus and len(gpus) < len(devices):
        raise ConfigError(f"frames of CPU and GPUs differ slightly; give devices of one kind, got '{text}'")
    if len(set(gpus)) < len(gpus):
        raise ConfigError(f"a GPU has one worker; name each once, got '{text}'")
    return tuple(devices)


def threads_per_worker(devices: Sequence[str]) -> int | None:
    """How many threads of the CPU a worker's operations use; None leaves it all of them.

    More threads than processors make each of them wait for others that do not run: on two busy processors, making event stacks
    took 0.1 s with one thread, 0.5 to 1 s with two that wait actively, and 0.2 s with two that sleep while they wait.

    Args:
        devices: one per worker.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if devices[0] != "cpu":
        return max(1, min(MOST_BESIDE_A_GPU, cores // (len(devices) + 1)))
    return None if len(devices) == 1 else max(1, cores // len(devices))


def device_label(device: str) -> str:
    """A device for people: "cpu", "cuda:0 (NVIDIA H100 80GB HBM3)"."""
    if device.partition(":")[0] == "cuda":
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device
