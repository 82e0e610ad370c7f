"""A job on disk: its settings, its finished work, and its lock.

    JOB/evfi-job.json       the mark of such a folder
    JOB/job.json            what the frames are made of (recording, model, settings, version) and the list of windows
    JOB/windows/…           finished pieces, see `window_store`
    JOB/outputs.json        the results written from them, with their checksums
    JOB/alignment.json      the warnings about the recording's alignment, which take a second to find out
    JOB/damaged/…           pictures that could not be read, see `damaged_pictures`
    JOB/log.jsonl           what happened when, one JSON object per line
    JOB/cancel              another process asks the one that works on the job to stop
    JOB/*.lock              held by the process that works on the job, or on one shard of it

All but the lock may be lost or damaged: what is missing is made again. A folder is a job's if its mark, or the checksum of
any other of these files, says so; older folders have no mark. A file of one of these names that is not a job's is moved aside
(`….unusable`), never overwritten or removed.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from evfi.errors import ConfigError, OutputError
from evfi.files import is_partial, one_line, read_mark, set_aside
from evfi.fingerprints import fingerprint_of
from evfi.paths import check_name
from evfi.pipeline.damaged_pictures import DAMAGED_FOLDER, remove_damaged_pictures
from evfi.pipeline.job_files import (
    ADVICE_FILE,
    JOB_FILE,
    LOG_FILE,
    MAX_MARK_BYTES,
    RESULTS_FILE,
    is_own,
    num_log_lines,
    read_note,
    set_aside_if_foreign,
    write_json,
    write_note,
)
from evfi.pipeline.window_store import holds_pieces, remove_pieces

_NAMED_DIFFERENCES: Final = 4

WINDOWS_FOLDER: Final = "windows"
CANCEL_FILE: Final = "cancel"
_MARK_FILE: Final = "evfi-job.json"
_MARK: Final[dict[str, Any]] = {"format": "evfi-job-folder", "version": 1}
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_LOCK: Final = re.compile(r"job\.lock|shard-(?P<number>\d+)-of-(?P<count>\d+)\.lock")
_CANCEL_POLL_S: Final = 0.2
_PROBE_S: Final = 0.3
"""How long a lock is tried: another process that starts may hold it for a moment, only to see whether it is held."""


@dataclass(frozen=True)
class JobDescription:
    """All that a job's frames depend on.

    Attributes:
        made_of: what it is made of, by name: fingerprints, settings, versions; values that JSON can hold.
        windows: one list per window: index, first and last key frame, and the times in µs.
    """

    made_of: Mapping[str, Any]
    windows: tuple[tuple[int, int, int, tuple[int, ...]], ...]

    @cached_property
    def fingerprint(self) -> str:
        """Of everything, 64 hexadecimal digits."""
        return fingerprint_of([self.made_of, self.windows])


class JobFolder:
    """One job's folder; use as a context manager, which holds its lock."""

    def __init__(self, path: Path, shard: tuple[int, int] | None = None) -> None:
        """Take a folder; nothing is written yet.

        Args:
            path: missing, empty, or a job's.
            shard: (number, of how many) where several processes share the job; None is alone.
        """
        self.path = path
        self.windows = path / WINDOWS_FOLDER
        self._shard = shard
        self._lock: FileLock | None = None
        self._looked_at, self._is_cancelled = 0.0, False

    def __enter__(self) -> JobFolder:
        """Make the folder and lock it.

        Raises:
            OutputError: it cannot be made, is something else's, or another process works on it.
        """
        try:
            check_job_folder(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            for name in (WINDOWS_FOLDER, DAMAGED_FOLDER):
                if os.path.lexists(self.path / name) and not (self.path / name).is_dir():
                    set_aside(self.path / name)
            self._write_mark()
            self._forget_cancel()
        except OSError as error:
            raise OutputError(f"cannot use the job folder {self.path}: {one_line(error)}; choose another") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()

    def is_cancel_requested(self) -> bool:
        """Whether another process asked this one to stop; looked up a few times per second at most."""
        now = time.monotonic()
        if now - self._looked_at >= _CANCEL_POLL_S:
            self._looked_at, self._is_cancelled = now, is_empty_file(self.path / CANCEL_FILE)
        return self._is_cancelled

    def _forget_cancel(self) -> None:
        """A request to stop is for those who work when it is made."""
        with suppress(OSError):
            if is_empty_file(self.path / CANCEL_FILE):
                (self.path / CANCEL_FILE).unlink()

    def claim(self, description: JobDescription, *, fresh: bool = False) -> list[str]:
        """Make this the folder of a job, or make sure that it is.

        Args:
            description: the job.
            fresh: throw away what was made; which results were written stays known, so that they may be replaced.

        Returns:
            What was found damaged, one line each.

        Raises:
            ConfigError: the folder is of a job with other settings.
            OutputError: the disk refuses.
        """
        if fresh:
            self._remove(JOB_FILE, ADVICE_FILE, LOG_FILE)
        file = self.path / JOB_FILE
        known, problems = read_note(file)
        if known is not None:
            if known["fingerprint"] != description.fingerprint:
                raise ConfigError(self._difference(known, description))
            return problems
        write_note(file, {"made_of": description.made_of, "windows": description.windows})
        return problems

    def results(self) -> dict[str, Any]:
        """What was written from this job: per path its checksum and size; empty where nothing is known."""
        known, _ = read_note(self.path / RESULTS_FILE)
        return dict(known["results"]) if known is not None else {}

    def results_problems(self) -> list[str]:
        """Why what was written is not known, if its note is damaged."""
        return read_note(self.path / RESULTS_FILE)[1]

    def name_of(self, place: Path) -> str:
        """What a result is called in the note of results: its way from this folder, so that both may be moved."""
        try:
            return Path(os.path.relpath(place.absolute(), self.path.absolute())).as_posix()
        except ValueError:  # on another drive of Windows
            return place.absolute().as_posix()

    def place_of(self, name: str) -> Path:
        """Where a result of this name is."""
        return Path(os.path.normpath(self.path.absolute() / name))

    def keep_results(self, results: Mapping[str, Any]) -> None:
        """Remember what was written.

        Raises:
            OutputError: the disk refuses.
        """
        write_note(self.path / RESULTS_FILE, {"results": results})

    def advice(self, of: str) -> tuple[str, ...] | None:
        """What was advised about the recording of this fingerprint; None where that is not known."""
        known, _ = read_note(self.path / ADVICE_FILE)
        return tuple(known["advice"]) if known is not None and known["of"] == of else None

    def keep_advice(self, of: str, advice: Sequence[str]) -> list[str]:
        """Remember what was advised about a recording, which takes a second to find out.

        Returns:
            What was found damaged, one line each.

        Raises:
            OutputError: the disk refuses.
        """
        known, problems = read_note(self.path / ADVICE_FILE)
        if known is None or known["of"] != of:
            write_note(self.path / ADVICE_FILE, {"of": of, "advice": list(advice)})
        return problems

    def log(self, what: str, **facts: Any) -> None:
        """Add a line to the log; a disk that refuses is not an error here, for the work itself will meet it."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(
            {"at": now, "host": socket.gethostname(), "pid": os.getpid(), "what": what, **facts}, default=str
        )
        file = self.path / LOG_FILE
        with suppress(OSError, OutputError):
            set_aside_if_foreign(file)
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINK, 0o666)
            with open(descriptor, "a", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
                stream.write(line + "\n")

    def remove(self) -> None:
        """Remove the job's files, known by their content, and the folder if nothing else is in it.

        Raises:
            OutputError: the operating system refuses.
        """
        self._remove(JOB_FILE, RESULTS_FILE, ADVICE_FILE, LOG_FILE, _MARK_FILE)
        self._forget_cancel()
        with suppress(OSError):
            for lock in self._locks():
                if not lock.stat().st_size:
                    lock.unlink()
            self.path.rmdir()

    def _take_lock(self) -> None:
        """Lock the job, or this shard of it, against all that would do the same windows."""
        own = self.path / ("job.lock" if self._shard is None else f"shard-{self._shard[0]}-of-{self._shard[1]}.lock")
        self._lock = FileLock(own)
        for file in (own, *(file for file in self._locks() if file != own and self._is_rival(file))):
            try:
                lock = self._lock if file == own else FileLock(file)
                lock.acquire(timeout=_PROBE_S, poll_interval=_PROBE_S / 10)
            except Timeout:
                self._lock.release()
                raise self._busy(file) from None
            if file != own:
                lock.release()

    def _is_rival(self, file: Path) -> bool:
        """Whether who holds a lock does windows of ours; shards of another count have other borders."""
        match = _LOCK.fullmatch(file.name)
        count = match["count"] if match is not None else None
        return self._shard is None or count is None or int(count) != self._shard[1]

    def _write_mark(self) -> None:
        try:
            if read_mark(self.path / _MARK_FILE, MAX_MARK_BYTES) != _MARK:
                write_json(self.path / _MARK_FILE, _MARK)
        except BaseException:
            self.__exit__()
            raise

    def busy(self) -> list[str]:
        """Who works on the job now: "job", or shards as "shard-1-of-2".

        Raises:
            OSError: the folder cannot be read.
        """
        held = []
        for file in self._locks():
            try:
                with FileLock(file).acquire(timeout=0):
                    pass
            except Timeout:
                held.append(file.stem)
        return held

    def _locks(self) -> list[Path]:
        return sorted(path for path in self.path.iterdir() if _LOCK.fullmatch(path.name))

    def _busy(self, file: Path) -> OutputError:
        match = _LOCK.fullmatch(file.name)
        shard = None if match is None or match["count"] is None else (int(match["number"]), int(match["count"]))
        if shard is not None and self._shard is not None and shard[1] != self._shard[1]:
            return OutputError(
                f"another process is working on shard {shard[0]} of {shard[1]} of the job in {self.path}, whose windows may "
                f"overlap with this shard; run all shards with the same number, as in --shard 1/{shard[1]}, "
                "or wait until it is done"
            )
        return OutputError(
            f"another process is working on this job ({file.stem} in {self.path}); wait until it is done, or stop it: its "
            f"last lines in {self.path / 'log.jsonl'} identify it"
        )

    def _remove(self, *names: str) -> None:
        """Remove files of the job, and all pieces."""
        try:
            for file in (self.path / name for name in names):
                if os.path.lexists(file) and is_own(file):
                    file.unlink()
            remove_pieces(self.windows)
            remove_damaged_pictures(self.path)
        except OSError as error:
            raise OutputError(f"cannot empty the job folder {self.path}: {one_line(error)}") from error

    def _difference(self, known: dict[str, Any], description: JobDescription) -> str:
        before, now = _plain(known["made_of"]), _plain(description.made_of)
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        told = [f"{name} was {_short(before.get(name))}, is {_short(now.get(name))}" for name in names]
        old, new = (_described(windows) for windows in (known["windows"], description.windows))
        if old != new or not told:
            told.append(
                f"the frames to make (--insert, --slowdown, --fps, --times, --start, --end) were {old}, are {new}"
            )
        more = len(told) - _NAMED_DIFFERENCES
        listed = "; ".join(told[:_NAMED_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        return (
            f"the job in {self.path} was started with other settings: {listed}. Use those again, name another folder with "
            "--job, or start again with --fresh"
        )


def is_empty_file(file: Path) -> bool:
    """Whether there is an ordinary file without content."""
    return not file.is_symlink() and file.is_file() and not file.stat().st_size


def check_job_folder(path: Path) -> bool:
    """Make sure that a folder may keep a job: it is missing, empty, or a job's.

    Args:
        path: the folder.

    Returns:
        Whether it is there already.

    Raises:
        OutputError: it is a file, or holds what no job wrote.
        OSError: it cannot be read.
    """
    check_name(path, OutputError)
    if path.exists() and not path.is_dir():
        raise OutputError(f"cannot make the job folder {path}: a file with that name exists; choose another")
    if not path.is_dir():
        return False
    entries = [entry for entry in path.iterdir() if not is_partial(entry)]
    for lock in (entry for entry in entries if _LOCK.fullmatch(entry.name)):
        if lock.is_symlink() or not lock.is_file():
            raise OutputError(f"{path} is not a job folder: its {lock.name} is not a regular file; choose another")
    for name in (WINDOWS_FOLDER, DAMAGED_FOLDER):
        if (path / name).is_symlink():
            raise OutputError(
                f"cannot use the job folder {path}: its {name}/ is a link, which may lead to another job; replace it with a "
                "folder, or choose another job folder"
            )
    ours = [entry for entry in entries if _LOCK.fullmatch(entry.name) or entry.name == CANCEL_FILE]
    others = [entry for entry in entries if not (entry in ours and is_empty_file(entry))]
    if others and not _is_job(path):
        raise OutputError(f"{path} is not a job folder: it holds other files; choose another or an empty one")
    return True


def _is_job(path: Path) -> bool:
    """Whether the mark, or the checksum of something else in a folder, says that it is a job's."""
    if read_mark(path / _MARK_FILE, MAX_MARK_BYTES) == _MARK:
        return True
    for name in (JOB_FILE, RESULTS_FILE):
        with suppress(OutputError):
            if read_note(path / name)[0] is not None:
                return True
    return bool(num_log_lines(path / LOG_FILE)) or holds_pieces(path / WINDOWS_FOLDER)


def _described(windows: Sequence[Any]) -> str:
    """How many windows and frames, and of which time."""
    number = sum(len(times) - 2 for _, _, _, times in windows)
    return f"{number} frames in {len(windows)} windows from {windows[0][3][0]} to {windows[-1][3][-1]} µs"


def _plain(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under joined names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_plain(value, f"{prefix}{name} ") if isinstance(value, Mapping) else {prefix + name: value})
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:8]}…" if is_hash else text
