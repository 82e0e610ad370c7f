"""Key frames that could not be read when a job started, and have been repaired since.

Such a picture fails the windows that it bounds, so that nothing is ever made from it; all others are made and kept. Once it is
put right, the job shall go on, although the recording's fingerprint has changed. Therefore the damaged file is kept as it was,

    JOB/damaged/5f0c….file    a copy, named after its SHA-256
    JOB/damaged/91aa….json    where it lay within the recording, and what it was put right to once that is known

and the copy stands for the picture in the fingerprint. What a picture was put right to is noted before anything is made from
it; another change after that is one of the recording, like any other.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from evfi.errors import EvfiError, InputError
from evfi.files import read_mark, written_whole
from evfi.fingerprints import files_of
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording

DAMAGED_FOLDER: Final = "damaged"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(rf"{_SHA256.pattern}\.(json|file)")
_MAX_NOTE_BYTES: Final = 2**16


class DamagedPictures:
    """What a job remembers of pictures that it could not read."""

    def __init__(self, job: Path, places: Sequence[Path]) -> None:
        """Take a job's folder; nothing is read or written yet.

        Args:
            job: the folder.
            places: the recording's files and folders.
        """
        self._folder, self._places = job / DAMAGED_FOLDER, places

    def stand_ins(self) -> dict[Path, Path]:
        """For each picture that was put right: the file that stands for it in the recording's fingerprint."""
        notes = list(self._notes())
        if not notes:
            return {}
        files = {self._name(place, file): file for place in self._places for file in files_of(place)}
        found = {}
        with suppress(OSError, EvfiError):
            for damaged, name, mended in notes:
                copy, file = self._folder / f"{damaged}.file", files.get(name)
                if file is None or not copy.is_file() or _digest(copy) != damaged:
                    continue
                now = _digest(file)
                if now == damaged or mended not in ("", now):
                    continue
                self._note(damaged, name, now)
                found[file] = copy
        return found

    def remember(self, recording: Recording, windows: Iterable[WindowSpec]) -> None:
        """Note which key frames of failed windows cannot be read; a disk that refuses only means that this is forgotten.

        Args:
            recording: the recording.
            windows: those that failed.
        """
        paths = recording.frames.paths
        known = {name: damaged for damaged, name, _ in self._notes()}
        with suppress(OSError, EvfiError):
            for number in sorted({number for window in windows for number in (window.start_frame, window.end_frame)}):
                if number < len(paths) and _is_unreadable(recording, number):
                    self._keep(paths[number], known)

    def _keep(self, file: Path, known: dict[str, str]) -> None:
        place = next(place for place in self._places if file.is_relative_to(place))
        name = self._name(place, file)
        damaged = known.get(name) or _digest(file)
        copy = self._folder / f"{damaged}.file"
        self._folder.mkdir(exist_ok=True)
        if not copy.exists():
            with written_whole(copy) as partial:
                shutil.copyfile(file, partial)
        self._note(damaged, name, "")

    def _note(self, damaged: str, name: str, mended: str) -> None:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        file = self._folder / f"{digest}.json"
        with written_whole(file) as partial:
            partial.write_text(
                json.dumps({"file": name, "damaged": damaged, "mended": mended}) + "\n", encoding="utf-8"
            )

    def _notes(self) -> Iterator[tuple[str, str, str]]:
        """SHA-256 of what was damaged, where it lay, and SHA-256 of what it was put right to, if known."""
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            with suppress(KeyError, TypeError):
                content = read_mark(path, _MAX_NOTE_BYTES)
                damaged, name, mended = (str(content[key]) for key in ("damaged", "file", "mended"))
                if _SHA256.fullmatch(damaged):
                    yield damaged, name, mended

    def _name(self, place: Path, file: Path) -> str:
        return f"{self._places.index(place)}/{file.relative_to(place).as_posix()}"


def remove_damaged_pictures(job: Path) -> None:
    """Forget all pictures that a job could not read.

    Args:
        job: its folder.

    Raises:
        OSError: the operating system refuses.
    """
    folder = job / DAMAGED_FOLDER
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _is_unreadable(recording: Recording, number: int) -> bool:
    try:
        recording.frames.read(number)
    except InputError:
        return True
    return False


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
