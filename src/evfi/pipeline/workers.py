"""Work on this machine's devices: one process each, which may die without harm.

This process sends work and receives frames through a pipe per worker; a thread per worker looks after it. A worker that dies,
or reports an error that may have left its GPU unusable, is replaced; its work is done again, there or elsewhere. Workers end
when this process ends, however it ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from evfi.engine.threads import MOST_BESIDE_A_GPU
from evfi.errors import ResourceError
from evfi.pipeline.tasks import TaskKey
from evfi.pipeline.work import (
    IN_FLIGHT,
    MOST_STARTS,
    Failure,
    InterpolatorFactory,
    OnDeviceStep,
    Outcome,
    Work,
    tried_again,
)
from evfi.pipeline.worker_process import work_in_process

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.05


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


class LocalWorkers:
    """One worker process per device; an `Executor`."""

    def __init__(
        self, factory: InterpolatorFactory, devices: Sequence[str], on_step: OnDeviceStep | None = None
    ) -> None:
        """Start the workers; they load the model while this process goes on.

        Args:
            factory: loads the model, in the worker.
            devices: one worker each; "cpu" may stand there several times, and shares the cores then.
            on_step: called, from other threads, as the work proceeds.
        """
        # workers inherit it: threads that wait leave the processors to others
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        resource_tracker.ensure_running()  # by itself it would begin with the first worker, and let that hear Ctrl-C
        self._todo: deque[Work] = deque()
        self._tried: dict[TaskKey, set[_Slot]] = {}
        self._lock = threading.Lock()
        self._outcomes: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._stopping = False
        self._num_useful = len(devices)
        threads = threads_per_worker(devices)
        self._slots = [_Slot(self, factory, device, number, threads, on_step) for number, device in enumerate(devices)]
        for slot in self._slots:
            slot.start()

    @property
    def capacity(self) -> int:
        """How many pieces are worth holding: what the workers hold, and one more that is ready for each."""
        return (IN_FLIGHT + 1) * max(1, sum(slot.is_alive() for slot in self._slots))

    def submit(self, work: Work) -> None:
        """Take a piece of work."""
        with self._lock:
            self._todo.append(work)

    def next_outcome(self, timeout: float) -> Outcome | None:
        """The next piece that is done or failed; None after `timeout` seconds without one.

        Raises:
            EvfiError: the model cannot be loaded, or no worker is left.
            Exception: `on_step` raised it.
        """
        try:
            outcome = self._outcomes.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        """End the workers; none is left when this returns."""
        self._stopping = True
        for slot in self._slots:
            slot.stop()
        for slot in self._slots:
            slot.join(timeout=10)

    # what the slots' threads call

    def take(self, slot: _Slot) -> Work | None:
        """A piece of work; a worker that has some gets another only if enough is left for those that have none."""
        with self._lock:
            idle = sum(slot.is_alive() and not slot.in_flight for slot in self._slots)
            if slot.in_flight and len(self._todo) <= idle:
                return None
            for place, work in enumerate(self._todo):
                if not self._belongs_elsewhere(work, slot):
                    del self._todo[place]
                    return work
            return None

    def _belongs_elsewhere(self, work: Work, slot: _Slot) -> bool:
        """Whether work failed here before and another worker is left that may do better.

        Else a device without memory, which fails fast and so is always free, would use up all attempts at all windows.
        """
        tried = self._tried.get(work.key, ())
        return slot in tried and any(other.is_alive() and other not in tried for other in self._slots)

    def put_back(self, works: Sequence[Work]) -> None:
        """Work of a worker that was lost, to be done before all other."""
        with self._lock:
            self._todo.extendleft(reversed(works))

    def tell(self, outcome: Outcome | BaseException) -> None:
        """Pass an outcome on, or an error that ends all work."""
        self._outcomes.put(outcome)

    def retry(self, slot: _Slot, work: Work, failure: Failure, device: str) -> None:
        """Do a piece of work again that failed perhaps through no fault of its own, if it was not tried too often."""
        self._tried.setdefault(work.key, set()).add(slot)
        following = tried_again(work, failure, device)
        if isinstance(following, Work):
            self.submit(following)
        else:
            self.tell(following)

    def give_up(self, device: str, reason: str) -> None:
        """A device is of no use; if it was the last, nothing can be done any more."""
        with self._lock:
            self._num_useful -= 1
            is_last = self._num_useful == 0
        if not is_last:
            _log.warning("%s is left out from now on: %s", device, reason)
        else:
            self.tell(ResourceError(f"no worker is left: {device}: {reason}; see above for what happened before"))

    @property
    def is_stopping(self) -> bool:
        """Whether all is over."""
        return self._stopping


class _Slot(threading.Thread):
    """Looks after the worker of one device."""

    def __init__(
        self,
        workers: LocalWorkers,
        factory: InterpolatorFactory,
        device: str,
        number: int,
        threads: int | None,
        on_step: OnDeviceStep | None,
    ) -> None:
        super().__init__(name=f"evfi-{device}-{number}", daemon=True)
        self._workers, self._factory, self._device, self._threads = workers, factory, device, threads
        self._on_step = on_step
        self._process: Any = None
        self._connection: Connection | None = None
        self._label = device
        self.in_flight: deque[Work] = deque()

    def run(self) -> None:
        """Keep a worker going until all is over or the device proves useless."""
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # workers inherit it: Ctrl-C is for their parent
        try:
            self._run()
        except BaseException as error:  # else all would wait for this thread
            self._workers.tell(error)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.join(timeout=5)

    def _run(self) -> None:
        fruitless = 0
        while not self._workers.is_stopping and fruitless < MOST_STARTS:
            self._start_process()
            done = self._serve()
            if done is None:
                return
            fruitless = 0 if done else fruitless + 1
        if not self._workers.is_stopping:
            self._workers.give_up(self._device, f"its worker ended {MOST_STARTS} times without finishing anything")

    def stop(self) -> None:
        """End the worker at once; it holds nothing that is not to be lost."""
        if self._process is not None:
            self._process.kill()

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._factory, self._device, self._threads)
        process = context.Process(target=work_in_process, args=arguments, daemon=True, name=self.name)
        process.start()
        self._process = process  # not before: `stop`, from another thread, kills what is there
        theirs.close()
        if self._workers.is_stopping:
            self._process.kill()

    def _serve(self) -> bool | None:
        """Talk to the worker until it ends; whether it finished anything, or None where nothing more is to be done."""
        assert self._connection is not None
        is_ready, has_finished = False, False
        while not self._workers.is_stopping:
            try:
                if is_ready:
                    self._top_up()
                if not wait([self._connection, self._process.sentinel], timeout=_POLL_S):
                    continue
                message = self._connection.recv()
            except (EOFError, OSError):
                self._lost()
                return has_finished
            match message:
                case ("ready", label):
                    is_ready, self._label = True, label
                case ("unusable", error):
                    self._workers.tell(error)
                    return None
                case ("step", key, part):
                    if self._on_step is not None:
                        self._on_step(self._label, key, part)
                case ("done", frames, seconds):
                    self._workers.tell(Outcome(self.in_flight.popleft(), frames, None, seconds, self._label))
                    has_finished = True
                case ("failed", failure):
                    self._failed(failure)
                    if failure.kind == "crash":  # the worker ends by itself
                        self._process.join(timeout=5)
                        self._process.kill()
                        self._workers.put_back(list(self.in_flight))
                        self.in_flight.clear()
                        return has_finished
        return None

    def _top_up(self) -> None:
        assert self._connection is not None
        while len(self.in_flight) < IN_FLIGHT:
            work = self._workers.take(self)
            if work is None:
                return
            self.in_flight.append(work)
            self._connection.send(work)

    def _failed(self, failure: Failure) -> None:
        work = self.in_flight.popleft()
        if failure.kind == "input":
            self._workers.tell(Outcome(work, failure=failure, device=self._label))
        else:
            self._workers.retry(self, work, failure, self._label)

    def _lost(self) -> None:
        """The worker ended: work that it had begun is tried again, work that waited there goes back."""
        self._process.join(timeout=5)
        if self._workers.is_stopping:
            return
        reason = _ending(self._process.exitcode)
        works, self.in_flight = list(self.in_flight), deque()
        self._workers.put_back(works[1:])
        if works:
            self._workers.retry(self, works[0], Failure("crash", f"the worker {reason}"), self._label)
        elif self._process.exitcode:
            _log.warning("the worker on %s %s", self._label, reason)


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = str(-exitcode)
        hint = ": perhaps too little memory" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"ended with status {exitcode}"
