"""Watch or cancel a job from another process.

All that is needed lies in the job's folder: its log says what happened, its locks who works.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from evfi.errors import InputError, OutputError
from evfi.files import one_line
from evfi.pipeline.job_folder import CANCEL_FILE, LOG_FILE, JobFolder, check_job_folder, is_empty_file
from evfi.plain_json import loads

_MAX_LINE_BYTES: Final = 2**20

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
        lines = list(_log(place / LOG_FILE))
    except OSError as error:
        raise InputError(f"cannot read the job in {place}: {one_line(error)}") from error
    return _status(lines, busy)


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


def _status(lines: list[dict[str, Any]], busy: tuple[str, ...]) -> JobStatus:
    """What a job's log comes to."""
    begun = max((at for at, line in enumerate(lines) if line["what"] == "begun"), default=None)
    if begun is None:
        return JobStatus("running" if busy else "planned", workers=busy)
    first, run = lines[begun], lines[begun + 1 :]
    total, missing = (_count(first.get(name)) for name in ("windows", "missing"))
    finished = [line["index"] for line in lines if line["what"] == "window" and _is_index(line.get("index"))]
    number = sum(line["what"] == "window" for line in run)
    failures = {
        line["window"]: str(line.get("message", ""))
        for line in run
        if line["what"] == "failed" and _is_index(line.get("window"))
    }
    end = next((line for line in reversed(run) if line["what"] in ("done", "stopped")), None)
    condition: JobCondition = "stopped"
    if end is not None and end["what"] == "done":
        condition = "done"
    elif busy:
        condition = "running"
    elif failures or (end is not None and not str(end.get("error", "")).startswith(("KeyboardInterrupt", "Cancelled"))):
        condition = "failed"
    return JobStatus(
        condition,
        total,
        min(total, max(0, total - missing) + number),
        tuple(dict.fromkeys(finished)),
        failures,
        busy,
        str(first["at"]),
        (str(first["host"]), _count(first["pid"])),
        "" if end is None or condition == "done" else str(end.get("error", "")),
    )


def _log(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of a job's log; those that are cut or damaged are passed over."""
    if file.is_symlink() or not file.is_file():
        return
    with file.open("rb") as stream:
        while line := stream.readline(_MAX_LINE_BYTES):
            with suppress(ValueError):
                told = loads(line)
                if isinstance(told, dict) and told.keys() >= {"at", "host", "pid", "what"}:
                    yield told


def _is_index(value: Any) -> bool:
    return type(value) is int


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
