"""Progress with time left, on stderr: a bar on a terminal, occasional plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from evfi.cli.terminal import print_lines
from evfi.errors import escaped

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_INTERVAL_S: Final = 30.0


class TimeLeft:
    """How long work will still take, by its pace since it was first seen to go on.

    What comes before, loading and compiling, does not count, nor what earlier runs did.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._first: float | None = None
        self._from: tuple[float, float] | None = None

    def __call__(self, done: float, total: float) -> float | None:
        """Seconds left, None where they are not known yet.

        Args:
            done: units done; parts count, and so does what earlier runs did.
            total: units in all.
        """
        now = time.monotonic()
        if done >= total:
            return 0.0
        if self._first is None:
            self._first = done
        if self._from is None and done > self._first:
            self._from = now, done
        if self._from is None or done <= self._from[1]:
            return None
        began, before = self._from
        return (now - began) * (total - done) / (done - before)


class ProgressReport:
    """Shows how far a piece of work has come; call it with (done, in all) and, optionally, a note."""

    def __init__(self, unit: str, *, interval_s: float = _PLAIN_INTERVAL_S) -> None:
        """Prepare; nothing is shown before the first call.

        Args:
            unit: What is counted, e.g. "windows".
            interval_s: Least time between two plain lines, in seconds.
        """
        self._unit = unit
        self._interval_s = interval_s
        self._last = time.monotonic()
        self._time_left = TimeLeft()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Begin to count time."""
        self._last = time.monotonic()
        if sys.stderr.isatty():
            self._bar = _bar(self._unit)
            self._bar.start()
        return self

    def __call__(self, done: float, total: int, note: str = "") -> None:
        """Show the state.

        Args:
            done: Units done; parts count.
            total: Units in all.
            note: Shown behind.
        """
        if self._bar is not None:
            if self._task is None:  # work that an earlier run did took this one no time
                self._task = self._bar.add_task("", total=total, completed=int(done), done=0, note="")
            self._bar.update(self._task, completed=done, total=total, done=int(done), note=escaped(note))
            return
        now, left = time.monotonic(), self._time_left(done, total)
        if done > 0 and now - self._last >= self._interval_s:
            self._last = now
            parts = (f"{int(done)} of {total} {self._unit}", "" if left is None else f"{_duration(left)} left", note)
            print_lines(f"evfi: {', '.join(filter(None, parts))}", to_stderr=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def _bar(unit: str) -> Progress:
    from rich.console import Console  # only a terminal needs it
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.fields[done]} of {task.total} " + unit),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=sys.stderr),
    )


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
