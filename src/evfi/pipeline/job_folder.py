"""A job on disk: what it is, what of it is done, and who is at it.

    JOB/job.json            what the frames are made of (recording, model, settings, version) and the list of windows
    JOB/windows/…           finished pieces, see `window_store`
    JOB/outputs.json        the results written from them, with their checksums
    JOB/damaged/…           pictures that could not be read, see `damaged_pictures`
    JOB/log.jsonl           what happened when, one JSON object per line
    JOB/*.lock              held by the process that works on the job, or on one shard of it

All but the lock may be lost or damaged: what is missing is made again.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from evfi.errors import ConfigError, OutputError
from evfi.files import one_line, written_whole
from evfi.fingerprints import fingerprint_of
from evfi.pipeline.damaged_pictures import remove_damaged_pictures
from evfi.pipeline.window_store import remove_pieces

_FORMAT: Final = "evfi-job"
_FORMAT_VERSION: Final = 1
_MAX_BYTES: Final = 2**30
_NAMED_DIFFERENCES: Final = 4

WINDOWS_FOLDER: Final = "windows"
_OWN_FILES: Final = ("job.json", "outputs.json", "log.jsonl")
_LOCK: Final = re.compile(r"(job|shard-\d+-of-\d+)\.lock")


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

    def __enter__(self) -> JobFolder:
        """Make the folder and lock it.

        Raises:
            OutputError: it cannot be made, is something else's, or another process works on it.
        """
        try:
            self._check_owner()
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise OutputError(f"cannot use the job folder {self.path}: {one_line(error)}; choose another") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.release()

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
            self._remove("job.json", "log.jsonl")
        file = self.path / "job.json"
        known, problems = self._read(file, "made_of")
        if known is not None:
            if known["fingerprint"] != description.fingerprint:
                raise ConfigError(self._difference(known, description))
            return problems
        self._write(
            file,
            {
                "format": _FORMAT,
                "version": _FORMAT_VERSION,
                "made_of": description.made_of,
                "windows": description.windows,
                "fingerprint": description.fingerprint,
            },
        )
        return problems

    def results(self) -> dict[str, Any]:
        """What was written from this job: per path its checksum and size; empty where nothing is known."""
        known, _ = self._read(self.path / "outputs.json", "results")
        return dict(known["results"]) if known is not None else {}

    def results_problems(self) -> list[str]:
        """Why what was written is not known, if its note is damaged."""
        return self._read(self.path / "outputs.json", "results")[1]

    def keep_results(self, results: Mapping[str, Any]) -> None:
        """Remember what was written.

        Raises:
            OutputError: the disk refuses.
        """
        content = {"format": _FORMAT, "version": _FORMAT_VERSION, "results": results}
        self._write(self.path / "outputs.json", {**content, "fingerprint": fingerprint_of(results)})

    def log(self, what: str, **facts: Any) -> None:
        """Add a line to the log; a disk that refuses is not an error here, for the work itself will meet it."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(
            {"at": now, "host": socket.gethostname(), "pid": os.getpid(), "what": what, **facts}, default=str
        )
        with suppress(OSError), (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def remove(self) -> None:
        """Remove the job's files, and the folder if nothing else is in it.

        Raises:
            OutputError: the operating system refuses.
        """
        self._remove(*_OWN_FILES)
        with suppress(OSError):
            for lock in self._locks():
                lock.unlink()
            self.path.rmdir()

    def _check_owner(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"cannot make the job folder {self.path}: there is a file of that name; choose another")
        if self.path.is_dir():
            names = [entry.name for entry in self.path.iterdir()]
            if names and not any(name in _OWN_FILES or _LOCK.fullmatch(name) for name in names):
                raise OutputError(
                    f"{self.path} is no job's folder: it holds other files; choose another or an empty one"
                )

    def _take_lock(self) -> None:
        own = "job" if self._shard is None else f"shard-{self._shard[0]}-of-{self._shard[1]}"
        self._lock = FileLock(self.path / f"{own}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise self._busy(own) from None
        others = self._locks() if self._shard is None else [self.path / "job.lock"]
        for file in others:
            if file.stem != own and file.exists():
                try:
                    with FileLock(file).acquire(timeout=0):
                        pass
                except Timeout:
                    self._lock.release()
                    raise self._busy(file.stem) from None

    def _locks(self) -> list[Path]:
        return sorted(path for path in self.path.iterdir() if _LOCK.fullmatch(path.name))

    def _busy(self, name: str) -> OutputError:
        return OutputError(
            f"another process is at work on this job ({name} in {self.path}); wait until it is done, or stop it: its last "
            f"lines in {self.path / 'log.jsonl'} say which it is"
        )

    def _remove(self, *names: str) -> None:
        """Remove files of the job, and all pieces."""
        try:
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            remove_pieces(self.windows)
            remove_damaged_pictures(self.path)
        except OSError as error:
            raise OutputError(f"cannot empty the job folder {self.path}: {one_line(error)}") from error

    def _write(self, file: Path, content: Mapping[str, Any]) -> None:
        with written_whole(file) as partial, partial.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self, file: Path, what: str) -> tuple[dict[str, Any] | None, list[str]]:
        """A JSON file whose fingerprint fits, or None; and a line where it is damaged."""
        try:
            if not file.exists():
                return None, []
            if file.stat().st_size > _MAX_BYTES:
                raise ValueError("it is too large")
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or content["version"] != _FORMAT_VERSION:
                raise ValueError("it is of another version")
            expected = fingerprint_of(
                [content["made_of"], content["windows"]] if what == "made_of" else content["results"]
            )
            if content["fingerprint"] != expected:
                raise ValueError("its checksum does not fit")
        except OSError as error:
            raise OutputError(f"cannot read {file}: {one_line(error)}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return None, [f"{file}: damaged ({one_line(error)}); it is written again"]
        return content, []

    def _difference(self, known: dict[str, Any], description: JobDescription) -> str:
        before, now = _plain(known["made_of"]), _plain(description.made_of)
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        told = [f"{name} was {_short(before.get(name))}, is {_short(now.get(name))}" for name in names]
        old, new = (_described(windows) for windows in (known["windows"], description.windows))
        if old != new or not told:
            told.append(f"what is made (--insert, --slowdown, --fps, --times, --start, --end) was {old}, is {new}")
        more = len(told) - _NAMED_DIFFERENCES
        listed = "; ".join(told[:_NAMED_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        return (
            f"the job in {self.path} was begun with something else: {listed}. Use that again, name "
            "another folder with --job, or begin anew with --fresh"
        )


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
