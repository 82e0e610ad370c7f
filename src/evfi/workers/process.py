"""What a worker process does: load the worker, take tasks from a pipe, and send results back.

Three threads: one receives, one does what the next task needs of the CPU, and one drives the device, which so never waits for
either. On a CPU nothing is done ahead, for its processors are busy anyway.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Final

from evfi.errors import EvfiError
from evfi.workers.devices import device_label
from evfi.workers.tasks import Task, Worker, WorkerFactory, perform_safely, prepare
from evfi.workers.transport import Ready, Unusable

_STEP_INTERVAL_S: Final = 0.2

_Ahead = tuple[Task, Any]
"""A task, and what was prepared for it."""


def run_worker(connection: Connection, factory: WorkerFactory, device: str, threads: int | None) -> None:
    """Work until the other side of the pipe is gone.

    Args:
        connection: where tasks come from and results go to: events of `transport`, and ("step", key, part).
        factory: loads the worker.
        device: what it is loaded onto.
        threads: of the CPU; None leaves them as they are.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if threads is not None:
        import torch  # here, for the process that starts this one does without it

        torch.set_num_threads(threads)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    try:
        worker = factory(device)
    except EvfiError as error:
        connection.send(Unusable(error))
        return
    connection.send(Ready(device_label(device)))
    ahead: queue.Queue[_Ahead] = queue.Queue(1)
    threading.Thread(target=prepare_tasks, args=(worker, device, tasks, ahead), daemon=True).start()
    while True:
        task, prepared = ahead.get()
        performed = perform_safely(worker, task.item, prepared, _Steps(connection, task))
        connection.send(performed)
        if performed.failure is not None and performed.failure.kind == "crash":
            os._exit(1)  # a GPU that met an error may be of no use to this process any more


def _receive(connection: Connection, tasks: queue.SimpleQueue[Task]) -> None:
    """Take tasks in; when the other side is gone, so is all reason to work on."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def prepare_tasks(worker: Worker, device: str, tasks: queue.SimpleQueue[Task], ahead: queue.Queue[_Ahead]) -> None:
    """Prepare tasks for a GPU, one after the other.

    Args:
        worker: who will perform them.
        device: where.
        tasks: those that arrived.
        ahead: where they go, with what was prepared.
    """
    while True:
        task = tasks.get()
        ahead.put((task, None if device == "cpu" else prepare(worker, task.item)))


class _Steps:
    """Reports now and then how far a task is."""

    def __init__(self, connection: Connection, task: Task) -> None:
        self._connection, self._key, self._last = connection, task.key, time.monotonic()

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self._last >= _STEP_INTERVAL_S:
            self._last = now
            self._connection.send(("step", self._key, step / steps))
