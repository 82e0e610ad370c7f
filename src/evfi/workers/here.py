"""Work in this process: one task at a time, run when its outcome is requested."""

from __future__ import annotations

from collections.abc import Callable

from evfi.workers.tasks import OnDeviceStep, OnStep, Task, Worker, perform
from evfi.workers.transport import Event, Ready


class ThisProcess:
    """A `Transport` to a worker in this process; errors other than `EvfiError` propagate."""

    devices = ("",)
    tasks_at_once = 1
    is_replaceable = False

    def __init__(self, load: Callable[[], Worker], on_step: OnDeviceStep | None = None) -> None:
        """Take a worker.

        Args:
            load: makes it, once it is needed.
            on_step: called as the work proceeds.
        """
        self._load, self._on_step = load, on_step
        self._worker: Worker | None = None
        self._task: Task | None = None

    def start(self, number: int) -> None:
        """Nothing is to be started: the worker is loaded when it is needed."""

    def send(self, number: int, task: Task) -> None:
        """Take a task."""
        self._task = task

    def next_event(self, timeout: float) -> tuple[int, Event] | None:
        """Load the worker, or perform the task."""
        if self._worker is None:
            self._worker = self._load()
            return 0, Ready("")
        task, self._task = self._task, None
        return None if task is None else (0, perform(self._worker, task.item, None, self._steps_of(task)))

    def close(self) -> None:
        """Close the worker."""
        worker, self._worker, self._task = self._worker, None, None
        if worker is not None:
            worker.close()

    def _steps_of(self, task: Task) -> OnStep | None:
        report = self._on_step
        return None if report is None else lambda step, steps: report("", task.key, step / steps)
