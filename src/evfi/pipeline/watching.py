"""Watch or cancel a job from another process.

All that is needed lies in the job's folder: its log says what happened, its locks who works.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from evfi.errors import InputError, OutputError
from evfi.files import one_line
from evfi.paths import is_file, open_to_read
from evfi.pipeline.job_files import LOG_FILE
from evfi.pipeline.job_folder import CANCEL_FILE, JobFolder, check_job_folder, is_empty_file
from evfi.plain_json import loads
from evfi.recordings.planning import MAX_FRAMES

_MAX_LINE_BYTES: Final = 2**16
_MAX_LOG_BYTES: Final = 2**27
"""From the end; a line has some 150 bytes."""
_MAX_MESSAGE: Final = 1000

JobCondition = Literal["planned", "running", "stopped", "failed", "done"]
"""Not begun, at work, stopped (interrupted, cancelled or killed), ended with failed windows or an error, or done."""


@dataclass(frozen=True)
class JobStatus:
    """How far a job is.

    Attributes:
        condition: what it is doing.
        num_windows: windows of the job, or of the shard that began last; 0 before it begins.
        num_done: those whose frames are kept.
        finished: indices of windows that were finished, in this order; those of earlier runs first.
        failures: why windows failed in the last run, by index.
        workers: who works: "job", or shards as "shard-1-of-2".
        began: when the last run began, in ISO 8601.
        process: its host and process id.
        message: the error that it ended with, if any.
    """

    condition: JobCondition
    num_windows: int = 0
    num_done: int = 0
    finished: tuple[int, ...] = ()
    failures: dict[int, str] = field(default_factory=dict)
    workers: tuple[str, ...] = ()
    began: str = ""
    process: tuple[str, int] | None = None
    message: str = ""


def job_status(folder: str | Path) -> JobStatus:
    """How far a job is, from any process.

    Args:
        folder: the job's.

    Raises:
        InputError: there is no job in the folder, or it cannot be read.
    """
    place = _checked(Path(folder))
    try:
        busy = tuple(JobFolder(place).busy())
        run = _Run()
        for line in _log(place / LOG_FILE):
            run.add(line)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the job in {place}: {one_line(error)}") from error
    return run.status(busy)


def cancel_job(folder: str | Path) -> None:
    """Ask the process that works on a job to stop; finished work is kept. Returns at once.

    Args:
        folder: the job's.

    Raises:
        InputError: there is no job in the folder, or nobody works on it.
        OutputError: the folder cannot be written.
    """
    place = _checked(Path(folder))
    try:
        if not JobFolder(place).busy():
            raise InputError(f"no process is working on the job in {place}; there is nothing to cancel")
        if not is_empty_file(place / CANCEL_FILE):
            (place / CANCEL_FILE).touch(exist_ok=False)
    except FileExistsError as error:
        raise OutputError(
            f"cannot cancel the job in {place}: its file {CANCEL_FILE} is not evfi's; move it away, and cancel again"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot cancel the job in {place}: {one_line(error)}") from error


def _checked(folder: Path) -> Path:
    try:
        is_there = check_job_folder(folder)
    except (OSError, OutputError) as error:
        raise InputError(f"cannot read the job in {folder}: {one_line(error)}") from error
    if not is_there:
        raise InputError(f"no job in {folder}: the folder does not exist")
    return folder


@dataclass
class _Run:
    """What a log says of the last run, and of the windows that all runs finished."""

    begun: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    num_finished: int = 0
    finished: dict[int, None] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        """Take the next line; what is no line of a job is passed over."""
        what, index = line["what"], line.get("index" if line["what"] == "window" else "window")
        if what == "begun":
            self.begun, self.end, self.num_finished, self.failures = line, None, 0, {}
        elif what in ("done", "stopped"):
            self.end = line
        elif type(index) is int and 0 <= index < MAX_FRAMES:
            if what == "window":
                self.num_finished += 1
                self.finished[index] = None
            elif what == "failed":
                self.failures[index] = str(line.get("message", ""))[:_MAX_MESSAGE]

    def status(self, workers: tuple[str, ...]) -> JobStatus:
        """What it comes to, where these work."""
        if self.begun is None:
            return JobStatus("running" if workers else "planned", workers=workers)
        total, missing = (_count(self.begun.get(name)) for name in ("windows", "missing"))
        condition = self._condition(is_busy=bool(workers))
        error = "" if self.end is None or condition == "done" else str(self.end.get("error", ""))[:_MAX_MESSAGE]
        return JobStatus(
            condition,
            total,
            min(total, max(0, total - missing) + self.num_finished),
            tuple(self.finished),
            self.failures,
            workers,
            str(self.begun["at"]),
            (str(self.begun["host"]), _count(self.begun["pid"])),
            error,
        )

    def _condition(self, *, is_busy: bool) -> JobCondition:
        if self.end is not None and self.end["what"] == "done":
            return "done"
        if is_busy:
            return "running"
        error = "" if self.end is None else str(self.end.get("error", ""))
        is_asked_for = error.startswith(("KeyboardInterrupt", "Cancelled"))
        return "failed" if self.failures or (self.end is not None and not is_asked_for) else "stopped"


def _log(file: Path) -> Iterator[dict[str, Any]]:
    """The last lines of a job's log; those that are cut or damaged are passed over.

    Raises:
        OSError: it cannot be read.
    """
    if file.is_symlink() or not is_file(file):
        return
    with open_to_read(file) as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _MAX_LOG_BYTES))
        while line := stream.readline(_MAX_LINE_BYTES):
            if not line.startswith(b"{"):
                continue
            with suppress(ValueError):
                told = loads(line)
                if isinstance(told, dict) and told.keys() >= {"at", "host", "pid", "what"}:
                    yield told


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**63 else 0
