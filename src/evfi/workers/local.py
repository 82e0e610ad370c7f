"""Workers on this machine: one process each, whose loss is tolerated.

A thread per process receives what it sends, another sends tasks to it, so that a process that is stopped holds up nobody else.
Workers end when this process ends, however it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from evfi.workers.devices import threads_per_worker
from evfi.workers.process import run_worker
from evfi.workers.tasks import OnDeviceStep, Performed, Task, WorkerFactory
from evfi.workers.transport import Event, Lost, Ready, Unusable

_ENDING_S: Final = 5.0
_CLOSING_S: Final = 10.0


class LocalProcesses:
    """A `Transport` to one process per device."""

    tasks_at_once = 2
    is_replaceable = True

    def __init__(self, factory: WorkerFactory, devices: Sequence[str], on_step: OnDeviceStep | None = None) -> None:
        """Take the devices.

        Args:
            factory: loads the worker, in its process.
            devices: one worker each; "cpu" may be named several times, and shares the cores then.
            on_step: called, from other threads, as the work proceeds.
        """
        # workers inherit it: threads that wait leave the processors to others
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        resource_tracker.ensure_running()  # by itself it would begin with the first worker, and let that hear Ctrl-C
        self.devices = tuple(devices)
        self._factory, self._on_step, self._threads = factory, on_step, threads_per_worker(devices)
        self._processes: dict[int, _Process] = {}
        self._events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()

    def start(self, number: int) -> None:
        """Start a worker's process."""
        device = self.devices[number]
        arguments = (self._factory, device, self._threads)
        self._processes[number] = _Process(f"evfi-{device}-{number}", number, arguments, self._events, self._on_step)
        self._processes[number].start()

    def send(self, number: int, task: Task) -> None:
        """Send a task."""
        self._processes[number].tasks.put(task)

    def next_event(self, timeout: float) -> tuple[int, Event] | None:
        """What happened next."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.stop()
        for process in self._processes.values():
            process.join(timeout=_CLOSING_S)
        self._processes.clear()


class _Process(threading.Thread):
    """Looks after one process until it ends."""

    def __init__(
        self,
        name: str,
        number: int,
        arguments: tuple[WorkerFactory, str, int | None],
        events: queue.SimpleQueue[tuple[int, Event]],
        on_step: OnDeviceStep | None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._number, self._arguments, self._events, self._on_step = number, arguments, events, on_step
        self._label = arguments[1]
        self._process: Any = None
        self._is_stopping = False
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Start the process and pass on what it sends."""
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # workers inherit it: Ctrl-C is for their parent
        try:
            connection = self._start_process()
            threading.Thread(target=self._send_tasks, args=(connection,), daemon=True).start()
            last = self._receive(connection)
        except BaseException as error:  # else all would wait for this thread
            last = Unusable(error)
        self.tasks.put(None)
        if self._process is not None:
            self._process.join(timeout=0 if self._is_stopping else _ENDING_S)
            self._process.kill()
            self._process.join(timeout=_ENDING_S)
        if not self._is_stopping:
            self._events.put((self._number, last or _ending(self._process.exitcode)))

    def stop(self) -> None:
        """End the process at once; it holds nothing that is not to be lost."""
        self._is_stopping = True
        if self._process is not None:
            self._process.kill()

    def _start_process(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=run_worker, args=(theirs, *self._arguments), daemon=True, name=self.name)
        process.start()
        self._process = process  # not before: `stop`, from another thread, kills what is there
        theirs.close()
        if self._is_stopping:
            process.kill()
        return ours

    def _send_tasks(self, connection: Connection) -> None:
        while (task := self.tasks.get()) is not None:
            try:
                connection.send(task)
            except OSError:  # the process is gone, which the other thread reports
                return

    def _receive(self, connection: Connection) -> Event | None:
        """Pass on what the process sends until it ends; the last event, or None where the process says nothing of its end."""
        while not self._is_stopping:
            try:
                wait([connection, self._process.sentinel])
                message = connection.recv()
            except (EOFError, OSError):
                return None
            match message:
                case ("step", key, part):
                    if self._on_step is not None:
                        self._on_step(self._label, key, part)
                case Performed(failure=failure) if failure is not None and failure.kind == "crash":
                    return message  # the process ends by itself
                case Unusable():
                    return message
                case _:
                    if isinstance(message, Ready):
                        self._label = message.label
                    self._events.put((self._number, message))
        return None


def _ending(exitcode: int | None) -> Lost:
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = str(-exitcode)
        hint = ": perhaps out of memory" if name == "SIGKILL" else ""
        return Lost(f"was killed by {name}{hint}")
    return Lost(f"ended with status {exitcode}", is_failure=bool(exitcode))
