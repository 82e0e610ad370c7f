"""Which worker gets which task, what is tried again, and when the scheduler gives up: on a transport without processes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import pytest

from evfi.errors import InputError, ModelError, ResourceError
from evfi.workers.scheduler import MOST_ATTEMPTS, MOST_STARTS, Scheduler, run_tasks
from evfi.workers.tasks import Failure, Outcome, Performed, Task
from evfi.workers.transport import Event, Lost, Ready, Unusable

Behaviour = Callable[[int, Task], Event]
"""What a worker of this number makes of a task."""

NO_MEMORY = Performed(failure=Failure("resource", "no memory"))


def squared(number: int, task: Task) -> Event:
    return Performed(task.item**2)


class Imagined:
    """A transport whose workers perform one task each in turn, in the order of their numbers."""

    tasks_at_once = 2

    def __init__(self, number: int, behaviour: Behaviour = squared, *, is_replaceable: bool = True) -> None:
        self.devices = [f"cpu{at}" for at in range(number)]
        self.behaviour, self.is_replaceable = behaviour, is_replaceable
        self.held: dict[int, deque[Task]] = {}
        self.waiting: deque[tuple[int, Event]] = deque()
        self.starts: list[int] = []
        self.sent: list[tuple[int, object]] = []
        self.is_closed = False
        self._turn = 0

    def start(self, number: int) -> None:
        self.starts.append(number)
        self.held[number] = deque()
        self.waiting.append((number, Ready(self.devices[number])))

    def send(self, number: int, task: Task) -> None:
        assert len(self.held[number]) < self.tasks_at_once
        self.held[number].append(task)
        self.sent.append((number, task.key))

    def next_event(self, timeout: float) -> tuple[int, Event] | None:
        if self.waiting:
            return self.waiting.popleft()
        for step in range(len(self.devices)):
            number = (self._turn + step) % len(self.devices)
            if self.held.get(number):
                self._turn = number + 1
                event = self.behaviour(number, self.held[number][0])
                self.held[number].popleft()
                is_gone = isinstance(event, Lost) or (event.failure is not None and event.failure.kind == "crash")
                if is_gone:
                    del self.held[number]
                return number, event
        return None

    def close(self) -> None:
        self.is_closed = True


def tasks(number: int) -> list[Task]:
    return [Task(key, key, f"task {key}") for key in range(number)]


def finished(transport: Imagined, number: int) -> dict[object, Outcome]:
    """The outcome of each task, exactly once."""
    scheduler, found = Scheduler(transport), {}
    for task in tasks(number):
        scheduler.submit(task)
    while len(found) < number:
        outcome = scheduler.next_outcome(0)
        if outcome is not None:
            assert outcome.task.key not in found
            found[outcome.task.key] = outcome
    return found


def results(found: dict[object, Outcome]) -> dict[object, object]:
    return {key: outcome.result for key, outcome in found.items() if outcome.failure is None}


def test_every_task_is_performed_once_whoever_works():
    for workers in (1, 2, 5):
        transport = Imagined(workers)
        assert results(finished(transport, 12)) == {key: key**2 for key in range(12)}
        assert {number for number, _ in transport.sent} == set(range(workers))


def test_no_worker_waits_while_another_holds_two():
    transport = Imagined(3)
    scheduler = Scheduler(transport)
    for task in tasks(4):
        scheduler.submit(task)
    for _ in range(3):
        assert scheduler.next_outcome(0) is None  # workers become ready
    assert sorted(number for number, _ in transport.sent) == [0, 0, 1, 2]
    assert scheduler.capacity == 9


def test_a_worker_that_always_lacks_memory_uses_up_no_attempts():
    transport = Imagined(2, lambda number, task: NO_MEMORY if number == 0 else squared(number, task))
    found = finished(transport, 12)
    assert results(found) == {key: key**2 for key in range(12)}
    assert max(outcome.task.attempt for outcome in found.values()) == 2


def test_what_fails_everywhere_fails_after_some_attempts_and_the_others_do_not(caplog: pytest.LogCaptureFixture):
    transport = Imagined(2, lambda number, task: NO_MEMORY if task.item == 3 else squared(number, task))
    found = finished(transport, 6)
    assert results(found) == {key: key**2 for key in range(6) if key != 3}
    assert found[3].failure == NO_MEMORY.failure
    assert found[3].task.attempt == MOST_ATTEMPTS
    assert caplog.records[0].getMessage().startswith("task 3, attempt 1 on cpu")


def test_the_item_s_own_fault_is_not_tried_again():
    error = InputError("frame 3 is damaged")
    failure = Performed(failure=Failure("input", str(error), error=error))
    transport = Imagined(2, lambda number, task: failure if task.item == 3 else squared(number, task))
    found = finished(transport, 6)
    assert (found[3].task.attempt, found[3].failure.as_error()) == (1, error)
    assert transport.starts == [0, 1]


@pytest.mark.parametrize("end", [Lost("was killed"), Performed(failure=Failure("crash", "CUDA error"))])
def test_a_lost_worker_is_replaced_and_its_tasks_are_performed(end: Event):
    harmed: set[object] = set()

    def once(number: int, task: Task) -> Event:
        if task.item % 3 == 0 and task.key not in harmed:
            harmed.add(task.key)
            return end
        return squared(number, task)

    transport = Imagined(2, once)
    found = finished(transport, 12)
    assert results(found) == {key: key**2 for key in range(12)}
    assert {key: outcome.task.attempt for key, outcome in found.items()} == {
        key: 2 if key in harmed else 1 for key in range(12)
    }
    assert len(transport.starts) == 2 + len(harmed)


def test_a_place_where_workers_only_die_is_given_up_and_the_other_does_all(caplog: pytest.LogCaptureFixture):
    transport = Imagined(2, lambda number, task: Lost("was killed") if number == 0 else squared(number, task))
    assert results(finished(transport, 40)) == {key: key**2 for key in range(40)}
    assert transport.starts.count(0) == MOST_STARTS
    assert "not starting any more workers on cpu0" in caplog.text


def test_a_place_where_some_work_is_finished_is_not_given_up():
    deadly = (3, 8)
    transport = Imagined(1, lambda number, task: Lost("was killed") if task.item in deadly else squared(number, task))
    found = finished(transport, 21)
    assert results(found) == {key: key**2 for key in range(21) if key not in deadly}
    assert {found[key].failure.message for key in deadly} == {"the worker was killed"}


def test_when_no_worker_is_left_that_is_an_error_with_the_reason():
    transport = Imagined(2, lambda number, task: Lost("was killed by SIGSEGV"))
    scheduler = Scheduler(transport)
    for task in tasks(20):
        scheduler.submit(task)
    expected = f"no worker is left: cpu.: its worker ended {MOST_STARTS} times without finishing anything"
    with pytest.raises(ResourceError, match=expected):
        while True:
            scheduler.next_outcome(0)


def test_what_cannot_be_loaded_is_an_error_at_once():
    transport = Imagined(1)
    transport.start = lambda number: transport.waiting.append((number, Unusable(ModelError("no weights"))))
    with pytest.raises(ModelError, match="no weights"):
        next(run_tasks(Scheduler(transport), tasks(2)))
    assert transport.is_closed


def test_where_nothing_can_be_replaced_nothing_is_tried_again(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    transport = Imagined(1, lambda number, task: NO_MEMORY, is_replaceable=False)
    assert finished(transport, 2)[0].task.attempt == 1
    assert not caplog.records


class TestRunTasks:
    def test_tasks_are_taken_as_they_are_needed(self):
        taken: list[int] = []
        given = (taken.append(task.key) or task for task in tasks(100))
        running = run_tasks(Scheduler(Imagined(2)), given)
        next(running)
        assert len(taken) <= 6
        assert sorted(outcome.result for outcome in running) == sorted(key**2 for key in range(100))[1:]

    def test_the_first_error_ends_it(self):
        error = InputError("item 3 is damaged")
        failure = Performed(failure=Failure("input", str(error), error=error))
        transport = Imagined(1, lambda number, task: failure if task.item == 3 else squared(number, task))
        done = []
        with pytest.raises(InputError, match="item 3 is damaged"):
            done.extend(outcome.result for outcome in run_tasks(Scheduler(transport), tasks(9)))
        assert transport.is_closed
        assert len(transport.sent) < 9

    def test_nothing_to_do(self):
        assert list(run_tasks(Scheduler(Imagined(1)), [])) == []
