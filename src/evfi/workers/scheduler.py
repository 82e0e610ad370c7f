"""The one scheduler: which worker performs which task, what is tried again, and when to give up.

Nothing here depends on where workers live. A worker that is lost is started anew; its task is tried again, preferably by
another worker; a device that loses all its workers without finishing anything is given up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from evfi.errors import ResourceError
from evfi.workers.tasks import Failure, Outcome, Performed, Task
from evfi.workers.transport import Event, Lost, Ready, Transport, Unusable

_log = logging.getLogger(__name__)

MOST_ATTEMPTS: Final = 3
"""Attempts before a task counts as failed, if the worker may be the cause."""

MOST_STARTS: Final = 2 * MOST_ATTEMPTS
"""So many workers in a row may be lost in one place without finishing anything before it is given up: two tasks in a row that
no worker survives do not condemn it."""

_WAIT_S: Final = 0.5


@dataclass(eq=False)
class _Seat:
    """One worker, and those that take its place when it is lost.

    Attributes:
        number: the transport's.
        label: the device.
        is_ready: whether it takes tasks.
        is_given_up: whether it is not started any more.
        held: tasks that it holds, the one being performed first.
        has_finished: whether it has finished a task since it was started.
        fruitless: workers in a row that were lost here and had finished nothing.
    """

    number: int
    label: str
    is_ready: bool = False
    is_given_up: bool = False
    held: deque[Task] = field(default_factory=deque)
    has_finished: bool = False
    fruitless: int = 0


class Scheduler:
    """Hands tasks to the workers of a transport; used by one thread."""

    def __init__(self, transport: Transport) -> None:
        """Start the workers; they load what they need while this process goes on.

        Args:
            transport: leads to the workers; closed by `close`.
        """
        self._transport = transport
        self._seats = [_Seat(number, device) for number, device in enumerate(transport.devices)]
        self._todo: deque[Task] = deque()
        self._tried: dict[Hashable, set[_Seat]] = {}
        self._outcomes: deque[Outcome] = deque()
        for seat in self._seats:
            transport.start(seat.number)

    @property
    def capacity(self) -> int:
        """How many tasks are worth holding: what the workers hold, and one more for each worker that holds several."""
        held = self._transport.tasks_at_once
        return (held + (held > 1)) * max(1, sum(not seat.is_given_up for seat in self._seats))

    def submit(self, task: Task) -> None:
        """Take a task; returns at once."""
        self._todo.append(task)
        self._hand_out()

    def next_outcome(self, timeout: float) -> Outcome | None:
        """The next task that is finished or has failed; None after `timeout` seconds without any event.

        Raises:
            EvfiError: nothing can be done at all: the worker cannot be loaded, or no worker is left.
            Exception: a callback raised it; in this process, also a task.
        """
        if not self._outcomes:
            event = self._transport.next_event(timeout)
            if event is None:
                return None
            number, happened = event
            self._take(self._seats[number], happened)
            self._hand_out()
        return self._outcomes.popleft() if self._outcomes else None

    def close(self) -> None:
        """End the workers and drop what is not done; none is left when this returns."""
        self._todo.clear()
        self._transport.close()

    # who gets what

    def _hand_out(self) -> None:
        """Give tasks to workers that are ready: to those without any first."""
        for number_held in range(self._transport.tasks_at_once):
            for seat in self._seats:
                if seat.is_ready and len(seat.held) == number_held and (task := self._task_for(seat)) is not None:
                    seat.held.append(task)
                    self._transport.send(seat.number, task)

    def _task_for(self, seat: _Seat) -> Task | None:
        """A task; a worker that holds one gets another only if enough is left for those that hold none."""
        idle = sum(not other.is_given_up and not other.held for other in self._seats)
        if seat.held and len(self._todo) <= idle:
            return None
        for place, task in enumerate(self._todo):
            if not self._belongs_elsewhere(task, seat):
                del self._todo[place]
                return task
        return None

    def _belongs_elsewhere(self, task: Task, seat: _Seat) -> bool:
        """Whether a task failed here before and another worker is left that may do better.

        Else a device without memory, which fails fast and so is always free, would use up all attempts at all tasks.
        """
        tried = self._tried.get(task.key, ())
        return seat in tried and any(not other.is_given_up and other not in tried for other in self._seats)

    # what happens to workers

    def _take(self, seat: _Seat, event: Event) -> None:
        match event:
            case Ready(label):
                seat.is_ready, seat.label = True, label
            case Performed(failure=None):
                seat.has_finished = True
                self._outcomes.append(
                    Outcome(seat.held.popleft(), event.result, seconds=event.seconds, device=seat.label)
                )
            case Performed(failure=Failure() as failure):
                self._retry(seat, seat.held.popleft(), failure)
                if failure.kind == "crash":  # a GPU that met an error may be of no use to this worker any more
                    self._replace(seat)
            case Lost(reason, is_failure):
                if seat.held:
                    self._retry(seat, seat.held.popleft(), Failure("crash", f"the worker {reason}"))
                elif is_failure:
                    _log.warning("the worker on %s %s", seat.label, reason)
                self._replace(seat)
            case Unusable(error):
                raise error

    def _retry(self, seat: _Seat, task: Task, failure: Failure) -> None:
        """Try a task again that failed perhaps through no fault of its own, if it was not tried too often.

        It goes behind those that wait, so that another worker may get it, and a worker that it kills again has finished
        something else before.
        """
        is_final = failure.kind == "input" or not self._transport.is_replaceable
        if not is_final:
            _log.warning("%s, attempt %d on %s: %s", task.name, task.attempt, seat.label, failure.message)
            self._tried.setdefault(task.key, set()).add(seat)
        if is_final or task.attempt >= MOST_ATTEMPTS:
            self._outcomes.append(Outcome(task, failure=failure, device=seat.label))
        else:
            self._todo.append(replace(task, attempt=task.attempt + 1))

    def _replace(self, seat: _Seat) -> None:
        """Start a worker anew; tasks that waited there go back, to be done before all others."""
        self._todo.extendleft(reversed(seat.held))
        seat.held.clear()
        seat.fruitless = 0 if seat.has_finished else seat.fruitless + 1
        seat.is_ready = seat.has_finished = False
        if seat.fruitless < MOST_STARTS:
            self._transport.start(seat.number)
            return
        seat.is_given_up = True
        reason = f"{seat.label}: its worker ended {seat.fruitless} times without finishing anything"
        if all(other.is_given_up for other in self._seats):
            raise ResourceError(f"no worker is left: {reason}; see the messages above for earlier errors")
        _log.warning("not starting any more workers on %s", reason)


def run_tasks(scheduler: Scheduler, tasks: Iterable[Task]) -> Iterator[Outcome]:
    """Perform tasks, taken from the iterable as workers need them; the scheduler is closed at the end.

    Args:
        scheduler: who performs them.
        tasks: which.

    Yields:
        Each task's outcome, as it is finished.

    Raises:
        EvfiError: a task failed: the first one's error; tasks that are not begun are left out.
    """
    waiting, number = iter(tasks), 0
    is_over = False
    try:
        while number or not is_over:
            while not is_over and number < scheduler.capacity:
                task = next(waiting, None)
                is_over = task is None
                if task is not None:
                    scheduler.submit(task)
                    number += 1
            outcome = scheduler.next_outcome(_WAIT_S) if number else None
            if outcome is not None:
                number -= 1
                if outcome.failure is not None:
                    raise outcome.failure.as_error()
                yield outcome
    finally:
        scheduler.close()
