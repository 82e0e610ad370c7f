"""Tasks, who performs them, and what comes back.

A task is anything that can be pickled. A worker is loaded once per device and performs tasks one after the other; it may live
in this process, in another one, or on another machine.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from evfi.errors import EvfiError, ResourceError

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all) within a task."""

OnDeviceStep = Callable[[str, Any, float], None]
"""Called with (device, key of the task, part of it that is done)."""


class Worker(Protocol):
    """Performs tasks on one device."""

    def prepare(self, item: Any) -> Any:
        """Do what an item needs of the CPU before its turn comes; called from another thread, on GPUs only.

        Args:
            item: the task's.

        Returns:
            What `perform` is given; None where nothing can be done ahead.
        """

    def perform(self, item: Any, prepared: Any, on_step: OnStep | None) -> Any:
        """Perform a task; the result is sent back by pickling.

        Args:
            item: the task's.
            prepared: from `prepare`, or None.
            on_step: called as the work proceeds.

        Raises:
            ResourceError: there is too little memory; another worker may have more.
            EvfiError: the item itself is at fault; trying again is no use.
        """

    def close(self) -> None:
        """Close what is open; worker processes just end instead."""


class WorkerFactory(Protocol):
    """Loads a worker onto a device, in whatever process it is called; it is sent there by pickling."""

    def __call__(self, device: str) -> Worker:
        """Load it.

        Args:
            device: "cpu", "cuda:0", …

        Raises:
            EvfiError: it cannot be loaded, here or anywhere.
        """


@dataclass(frozen=True, eq=False)
class Task:
    """A unit of work.

    Attributes:
        key: identifies it among all tasks of a scheduler.
        item: what is to be done, for the worker.
        name: for messages.
        attempt: which attempt at it this is, from 1.
    """

    key: Any
    item: Any
    name: str
    attempt: int = 1


FailureKind = Literal["input", "resource", "crash"]
"""What is at fault: the item (trying again is no use), too little memory, or anything else."""


@dataclass(frozen=True)
class Failure:
    """Why a task failed.

    Attributes:
        kind: what is at fault.
        message: in one line.
        details: for the log, e.g. a traceback.
        error: the error itself, where it is one of the package's.
    """

    kind: FailureKind
    message: str
    details: str = ""
    error: EvfiError | None = None

    def as_error(self) -> EvfiError:
        """An error to raise."""
        return self.error or ResourceError(self.message)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A task that is finished or has failed.

    Attributes:
        task: the task.
        result: what the worker returned; None if it failed.
        failure: why it failed.
        seconds: how long it took.
        device: where it was performed.
    """

    task: Task
    result: Any = None
    failure: Failure | None = None
    seconds: float = 0.0
    device: str = ""


@dataclass(frozen=True, eq=False)
class Performed:
    """What a worker made of a task.

    Attributes:
        result: what it returned.
        failure: why it failed.
        seconds: how long it took.
    """

    result: Any = None
    failure: Failure | None = None
    seconds: float = 0.0


def prepare(worker: Worker, item: Any) -> Any:
    """Prepare an item; what goes wrong here goes wrong again in `perform`, which reports it."""
    try:
        return worker.prepare(item)
    except Exception:
        return None


def perform(worker: Worker, item: Any, prepared: Any = None, on_step: OnStep | None = None) -> Performed:
    """Perform a task; errors of the package become part of the result, others pass through.

    Args:
        worker: who performs it.
        item: the task's.
        prepared: from `prepare`.
        on_step: called as the work proceeds.
    """
    began = time.perf_counter()
    try:
        result = worker.perform(item, prepared, on_step)
    except EvfiError as error:
        kind: FailureKind = "resource" if isinstance(error, ResourceError) else "input"
        return Performed(failure=Failure(kind, str(error), error=error))
    return Performed(result, seconds=time.perf_counter() - began)


def perform_safely(worker: Worker, item: Any, prepared: Any = None, on_step: OnStep | None = None) -> Performed:
    """The same, where any error becomes part of the result."""
    try:
        return perform(worker, item, prepared, on_step)
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return Performed(failure=Failure("crash", message, traceback.format_exc()))
