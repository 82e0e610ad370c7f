"""Tasks for schedulers, and what must come of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from worker_models import Painter
from workshop import busy_recording

from evfi.pipeline.models import WindowItem, WindowWorker
from evfi.recordings.planning import plan_windows
from evfi.workers.here import ThisProcess
from evfi.workers.scheduler import Scheduler
from evfi.workers.tasks import Outcome, Task

PATIENCE_S = 90


def tasks(number: int) -> list[Task]:
    recording = busy_recording(range(number + 1))
    specs = plan_windows(recording.frames.times_us, insert=2)
    return [
        Task((spec.index, ()), WindowItem(recording.load_window(spec), seed=3), f"window {spec.index}")
        for spec in specs
    ]


def outcomes(scheduler: Scheduler, given: Sequence[Task]) -> dict[int, Outcome]:
    """Perform tasks and collect the outcome of each, exactly once."""
    for task in given:
        scheduler.submit(task)
    found: dict[int, Outcome] = {}
    until = time.monotonic() + PATIENCE_S
    while len(found) < len(given):
        assert time.monotonic() < until, "a task was lost"
        outcome = scheduler.next_outcome(0.5)
        if outcome is not None:
            assert outcome.task.key[0] not in found
            found[outcome.task.key[0]] = outcome
    assert scheduler.next_outcome(0.1) is None
    return found


def assert_same_frames(found: dict[int, Outcome], given: Sequence[Task]) -> None:
    expected = outcomes(Scheduler(ThisProcess(lambda: WindowWorker(Painter()))), given)
    for index, outcome in found.items():
        assert outcome.failure is None
        np.testing.assert_array_equal(outcome.result, expected[index].result)
