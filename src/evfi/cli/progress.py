"""Progress with time left, on stderr: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PLAIN_INTERVAL_S: Final = 30.0


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
        self._began = self._last = time.monotonic()
        self._first: int | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Begin to count time."""
        self._began = self._last = time.monotonic()
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.fields[done]} of {task.total} " + self._unit),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("left:"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(file=sys.stderr),
            )
            self._bar.start()
        return self

    def __call__(self, done: float, total: int, note: str = "") -> None:
        """Show the state.

        Args:
            done: Units done; parts count.
            total: Units in all.
            note: Shown behind.
        """
        if self._first is None:  # work that an earlier run did took this one no time
            self._first = int(done) - 1 if done > 1 else 0
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=total, completed=self._first, done=0, note="")
            self._bar.update(self._task, completed=done, total=total, done=int(done), note=note)
            return
        now = time.monotonic()
        if done > 0 and now - self._last >= self._interval_s:
            self._last = now
            left = _duration((now - self._began) * (total - done) / (done - self._first))
            print(
                f"evfi: {int(done)} of {total} {self._unit}, {left} left{', ' * bool(note)}{note}",
                file=sys.stderr,
                flush=True,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
