"""Turn the worker options of the command line and of Python calls into one plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from evfi.errors import ConfigError
from evfi.workers.devices import parse_devices
from evfi.workers.here import ThisProcess
from evfi.workers.local import LocalProcesses
from evfi.workers.scheduler import Scheduler
from evfi.workers.tasks import OnDeviceStep, WorkerFactory

MakeScheduler: TypeAlias = Callable[[OnDeviceStep | None], Scheduler]
"""Starts workers; called with what hears of steps."""

_MOST_WORKERS = 256


@dataclass(frozen=True)
class WorkerPlan:
    """Which workers there are.

    Attributes:
        kind: in this process, in local processes, or on a Ray cluster.
        devices: one per worker.
    """

    kind: Literal["here", "local", "ray"]
    devices: tuple[str, ...]

    def at_most(self, number: int) -> WorkerPlan:
        """The same with no more workers than there are tasks."""
        return replace(self, devices=self.devices[: max(1, number)])

    def scheduler(self, factory: WorkerFactory, on_step: OnDeviceStep | None = None) -> Scheduler:
        """Start the workers.

        Args:
            factory: loads each of them.
            on_step: called as the work proceeds, also from other threads.
        """
        if self.kind == "here":
            return Scheduler(ThisProcess(lambda: factory(self.devices[0]), on_step))
        if self.kind == "local":
            return Scheduler(LocalProcesses(factory, self.devices, on_step))
        from evfi.workers.ray_cluster import RayActors

        return Scheduler(RayActors(factory, self.devices))


def parse_workers(workers: str) -> str | int:
    """Read the option `--workers`: "here", "local", "ray", "ray://ADDRESS", or a number of local processes.

    Raises:
        ConfigError: it is none of these.
    """
    if workers in ("here", "local", "ray") or (workers.startswith("ray://") and workers != "ray://"):
        return workers
    is_number = workers.isascii() and workers.removeprefix("-").isdecimal()
    number = int(workers) if is_number and len(workers) < len(str(10 * _MOST_WORKERS)) else 0
    if is_number and not 1 <= number <= _MOST_WORKERS:
        raise ConfigError(f"the number of workers must be 1 to {_MOST_WORKERS}, got {workers}")
    if not is_number:
        raise ConfigError(f"workers must be here, local, a number, ray, or ray://ADDRESS, got '{workers}'")
    return number


def plan_workers(workers: str, devices: str) -> WorkerPlan:
    """Read the options `--workers` and `--devices`.

    Args:
        workers: "here" (in this process, on one device), "local" (a process per device), a number of local processes, which
            share the devices evenly, "ray", or "ray://ADDRESS".
        devices: see `parse_devices`; for Ray see `ray_cluster.cluster_devices`.

    Raises:
        ConfigError: an option is not understood, or Ray is not installed.
        ResourceError: there is no such device or cluster.
    """
    kind = parse_workers(workers)
    if isinstance(kind, str) and kind.startswith("ray"):
        from evfi.workers.ray_cluster import cluster_devices

        return WorkerPlan("ray", cluster_devices(kind, devices))
    found = parse_devices(devices)
    if kind == "here":
        return WorkerPlan("here", found[:1])
    if kind == "local":
        return WorkerPlan("local", found)
    assert isinstance(kind, int)
    if kind < len(found) and devices not in ("auto", "cuda"):
        raise ConfigError(
            f"{kind} workers cannot use {len(found)} devices ({', '.join(found)}); name fewer with --devices, or use "
            "--workers local"
        )
    return WorkerPlan("local", tuple(found[index % len(found)] for index in range(kind)))
