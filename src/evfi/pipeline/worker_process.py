"""What a worker process does: load the model, take work from a pipe, and send frames back.

Three threads: one receives, one does what the next piece of work needs of the CPU, and one drives the device, which so never
waits for either. On a CPU nothing is done ahead, for its processors are busy anyway.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

import torch

from evfi.errors import EvfiError
from evfi.pipeline.work import NOTHING_AHEAD, InterpolatorFactory, WindowInterpolator, Work, perform, prepare

_STEP_INTERVAL_S: Final = 0.2

_Ahead = tuple[Work, Mapping[str, Any]]
"""Work, and what was done of it ahead."""


def work_in_process(connection: Connection, factory: InterpolatorFactory, device: str, threads: int | None) -> None:
    """Work until the other side of the pipe is gone.

    Args:
        connection: where work comes from and frames go to.
        factory: loads the model.
        device: what it is loaded onto.
        threads: of the CPU; None leaves them as they are.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if threads is not None:
        torch.set_num_threads(threads)
    works: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, works), daemon=True).start()
    try:
        interpolator = factory(device)
    except EvfiError as error:
        connection.send(("unusable", error))
        return
    connection.send(("ready", device_label(device)))
    ahead: queue.Queue[_Ahead] = queue.Queue(1)
    threading.Thread(target=_prepare, args=(interpolator, device, works, ahead), daemon=True).start()
    while True:
        work, prepared = ahead.get()
        outcome = perform(interpolator, work, _Steps(connection, work), prepared)
        if outcome.failure is None:
            connection.send(("done", outcome.frames, outcome.seconds))
        else:
            connection.send(("failed", outcome.failure))
            if outcome.failure.kind == "crash":
                os._exit(1)  # a GPU that met an error may be of no use to this process any more


def _receive(connection: Connection, works: queue.SimpleQueue[Work]) -> None:
    """Take work in; when the other side is gone, so is all reason to go on."""
    try:
        while True:
            works.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _prepare(
    interpolator: WindowInterpolator, device: str, works: queue.SimpleQueue[Work], ahead: queue.Queue[_Ahead]
) -> None:
    while True:
        work = works.get()
        ahead.put((work, NOTHING_AHEAD if device == "cpu" else prepare(interpolator, work)))


class _Steps:
    """Tells now and then how far a piece of work is."""

    def __init__(self, connection: Connection, work: Work) -> None:
        self._connection, self._key, self._last = connection, work.key, time.monotonic()

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self._last >= _STEP_INTERVAL_S:
            self._last = now
            self._connection.send(("step", self._key, step / steps))


def device_label(device: str) -> str:
    """A device for people: "cpu", "cuda:0 (NVIDIA H100 80GB HBM3)"."""
    if torch.device(device).type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device
