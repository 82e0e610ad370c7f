"""Pieces of work, where they are done, and what comes back.

The process that runs a job reads the recording and writes the results; whoever does the work needs nothing but a model. So it
may be this process, another one, or another machine, and any of them may be lost and replaced.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evfi.errors import EvfiError, ResourceError
from evfi.pipeline.tasks import TaskKey
from evfi.recordings.recording import Window

_log = logging.getLogger(__name__)

MOST_ATTEMPTS: Final = 3
"""So often is a piece of work begun before it counts as failed, where the cause may lie with the worker."""

MOST_STARTS: Final = 2 * MOST_ATTEMPTS
"""So many workers in a row may die in one place without finishing anything before it is given up: two windows in a row that
no worker survives do not condemn it."""

IN_FLIGHT: Final = 2
"""Pieces that a worker holds: one that it works on and one that waits, so that no device waits for a transfer."""

NOTHING_AHEAD: Final[Mapping[str, Any]] = MappingProxyType({})

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all) within a piece of work."""

OnDeviceStep = Callable[[str, TaskKey, float], None]
"""Called with (device, piece, part of it that is done)."""


class WindowInterpolator(Protocol):
    """What a job needs of an `evfi.interpolator.Interpolator`."""

    def interpolate_window(self, window: Window, *, seed: int, on_step: OnStep | None) -> NDArray[np.uint8]:
        """Make a window's frames, uint8 [F, H, W, 3], key frames first and last."""


class InterpolatorFactory(Protocol):
    """Loads a model onto a device, in whatever process it is called; it is sent there by pickling."""

    def __call__(self, device: str) -> WindowInterpolator:
        """Load it.

        Args:
            device: "cpu", "cuda:0", …
        """


@dataclass(frozen=True, eq=False)
class Work:
    """A piece of work.

    Attributes:
        key: which one.
        window: its frames, events and times.
        seed: of all random numbers.
        attempt: which attempt at it this is, from 1.
    """

    key: TaskKey
    window: Window
    seed: int
    attempt: int = 1


FailureKind = Literal["input", "resource", "crash"]
"""Whose fault: the work's own (trying again is no use), too little memory, or anything else."""


@dataclass(frozen=True)
class Failure:
    """Why a piece of work was not done.

    Attributes:
        kind: whose fault it is.
        message: in one line.
        details: for the log, e.g. a traceback.
    """

    kind: FailureKind
    message: str
    details: str = ""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a piece of work.

    Attributes:
        work: the piece.
        frames: uint8 [F, H, W, 3] with both bounding frames, or None if it failed.
        failure: why it failed.
        seconds: how long it took.
        device: where it was done.
    """

    work: Work
    frames: NDArray[np.uint8] | None = None
    failure: Failure | None = None
    seconds: float = 0.0
    device: str = ""


class Executor(Protocol):
    """Whoever does the work."""

    @property
    def capacity(self) -> int:
        """How many pieces it wants to hold, those being worked on and those waiting."""

    def submit(self, work: Work) -> None:
        """Take a piece of work; returns at once."""

    def next_outcome(self, timeout: float) -> Outcome | None:
        """The next piece that is done or failed; None after `timeout` seconds without one.

        Raises:
            EvfiError: no work can be done at all, e.g. because the model cannot be loaded.
        """

    def close(self) -> None:
        """Stop, and drop what is not done."""


def prepare(interpolator: WindowInterpolator, work: Work) -> dict[str, Any]:
    """Do ahead what a piece of work needs of the CPU, where the model can.

    Args:
        interpolator: the model.
        work: what is to be done.

    Returns:
        What `perform` takes; empty where nothing can be done ahead, or went wrong and will again where it is told.
    """
    make = getattr(interpolator, "prepare", None)
    try:
        return {} if make is None else {"prepared": make(work.window)}
    except Exception:
        return {}


def perform(
    interpolator: WindowInterpolator,
    work: Work,
    on_step: OnStep | None = None,
    prepared: Mapping[str, Any] = NOTHING_AHEAD,
) -> Outcome:
    """Do a piece of work; whatever goes wrong becomes part of the outcome.

    Args:
        interpolator: the model.
        work: what to do.
        on_step: called as the work proceeds.
        prepared: from `prepare`.
    """
    try:
        return _attempt(interpolator, work, on_step, prepared)
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome(work, failure=Failure("crash", message, traceback.format_exc()))


def _attempt(
    interpolator: WindowInterpolator, work: Work, on_step: OnStep | None, prepared: Mapping[str, Any] = NOTHING_AHEAD
) -> Outcome:
    """Do a piece of work; what is expected to go wrong becomes part of the outcome."""
    began = time.perf_counter()
    try:
        frames = interpolator.interpolate_window(work.window, seed=work.seed, on_step=on_step, **prepared)
    except EvfiError as error:
        kind: FailureKind = "resource" if isinstance(error, ResourceError) else "input"
        return Outcome(work, failure=Failure(kind, str(error)))
    return Outcome(work, frames, seconds=time.perf_counter() - began)


def tried_again(work: Work, failure: Failure, device: str) -> Work | Outcome:
    """What follows when work failed perhaps through no fault of its own, which is told.

    Args:
        work: what failed.
        failure: why.
        device: where.

    Returns:
        The next attempt, to go behind what waits, so that another worker may get it, and a worker that it kills again has
        done something else before; or, after enough attempts, the failure as the outcome.
    """
    _log.warning("window %d, attempt %d on %s: %s", work.key[0], work.attempt, device, failure.message)
    if work.attempt >= MOST_ATTEMPTS:
        return Outcome(work, failure=failure, device=device)
    return replace(work, attempt=work.attempt + 1)


class InProcess:
    """Does the work in this process, one piece at a time, when its outcome is asked for; an `Executor`."""

    capacity = 1

    def __init__(self, interpolator: WindowInterpolator, on_step: OnDeviceStep | None = None) -> None:
        """Take a loaded model.

        Args:
            interpolator: the model.
            on_step: called as the work proceeds.
        """
        self._interpolator = interpolator
        self._on_step = on_step
        self._waiting: list[Work] = []

    def submit(self, work: Work) -> None:
        """Take a piece of work."""
        self._waiting.append(work)

    def next_outcome(self, timeout: float) -> Outcome | None:
        """Do the next piece of work; errors that are no `EvfiError` pass through, for nothing here can be started anew."""
        if not self._waiting:
            return None
        work = self._waiting.pop(0)
        report = self._on_step
        on_step: OnStep | None = None
        if report is not None:
            on_step = lambda step, steps: report("", work.key, step / steps)  # noqa: E731
        return _attempt(self._interpolator, work, on_step)

    def close(self) -> None:
        """Drop what is not done."""
        self._waiting.clear()
