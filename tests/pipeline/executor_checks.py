"""Work for executors, and what must become of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from worker_models import Painter
from workshop import busy_recording

from evfi.pipeline.work import Executor, InProcess, Outcome, Work
from evfi.recordings.planning import plan_windows

PATIENCE_S = 90


def works(number: int) -> list[Work]:
    recording = busy_recording(range(number + 1))
    specs = plan_windows(recording.frames.times_us, insert=2)
    return [Work((spec.index, ()), recording.load_window(spec), seed=3) for spec in specs]


def outcomes(executor: Executor, given: Sequence[Work]) -> dict[int, Outcome]:
    """Do work and collect what becomes of each piece, exactly once."""
    for work in given:
        executor.submit(work)
    found: dict[int, Outcome] = {}
    until = time.monotonic() + PATIENCE_S
    while len(found) < len(given):
        assert time.monotonic() < until, "some work was lost"
        outcome = executor.next_outcome(0.5)
        if outcome is not None:
            assert outcome.work.key[0] not in found
            found[outcome.work.key[0]] = outcome
    assert executor.next_outcome(0.1) is None
    return found


def assert_same_frames(found: dict[int, Outcome], given: Sequence[Work]) -> None:
    expected = outcomes(InProcess(Painter()), given)
    for index, outcome in found.items():
        assert outcome.failure is None
        np.testing.assert_array_equal(outcome.frames, expected[index].frames)
