"""Frames of windows on disk, so that a run can resume and a new metric needs no new frames.

    FOLDER/SEQUENCE/skipK/00012/000103.png …   named after the number of the true frame
    FOLDER/SEQUENCE/skipK/00012/window.json    what they were made of, how long it took

A window is there whole or not at all. One that was made of something else (other data, other settings) counts as absent and
is replaced. What lies in a window's place and is not known, by its content, as a window's frames is moved aside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, OutputError
from evfi.evaluation.results import SequenceInfo, WindowRecord
from evfi.files import folder_written_whole, make_room, one_line, read_mark, remove_leftovers, temporary_beside
from evfi.fingerprints import digest_of_file, fingerprint_of
from evfi.video.io import read_image, write_png

_FACTS_FILE: Final = "window.json"
_MAX_FACTS_BYTES: Final = 2**24
_MAX_NUMBER: Final = 10**9


@dataclass(frozen=True)
class StoredFacts:
    """Metadata of a stored window.

    Attributes:
        made_of: fingerprint of all that its frames depend on.
        frame_numbers: numbers of the true frames that they stand for.
        seconds: how long making them took; None where that was not measured.
        is_warm: False for the first window that a process made.
        notes: what the maker had to say, one line each.
        digests: SHA-256 of the pictures, in the order of their numbers; none where an earlier version wrote them.
    """

    made_of: str
    frame_numbers: tuple[int, ...]
    seconds: float | None = None
    is_warm: bool = True
    notes: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pictures' files."""
        return tuple(f"{number:06d}.png" for number in self.frame_numbers)


class FrameStore:
    """The frames of one maker."""

    def __init__(self, folder: Path, maker: str) -> None:
        """Take a folder; nothing is written yet.

        Args:
            folder: where the frames are kept.
            maker: fingerprint of who makes them, with all settings.
        """
        self.folder = folder
        self.maker = maker
        self._swept: set[Path] = set()

    def path(self, record: WindowRecord) -> Path:
        """The folder of one window."""
        return self.folder / record.sequence / f"skip{record.skip}" / f"{record.index:05d}"

    def made_of(self, record: WindowRecord, sequence: SequenceInfo) -> str:
        """Fingerprint of all that a window's frames depend on."""
        return made_of(self.maker, record, sequence)

    def facts(self, record: WindowRecord, sequence: SequenceInfo) -> StoredFacts | None:
        """The metadata of a window; None if it or one of its frames is missing, or was made from something else."""
        folder = self.path(record)
        facts = _facts_in(folder)
        if facts is None or facts.made_of != self.made_of(record, sequence):
            return None
        return facts if all((folder / name).is_file() for name in facts.names) else None

    def write(
        self,
        record: WindowRecord,
        sequence: SequenceInfo,
        frames: NDArray[np.uint8],
        frame_numbers: Sequence[int],
        **facts: Any,
    ) -> None:
        """Keep a window's frames, in the place of those that are there; anything else there is moved aside.

        Args:
            record: which window.
            sequence: of which sequence.
            frames: uint8 [N, H, W, 3].
            frame_numbers: numbers of the true frames that they stand for.
            facts: further fields of `StoredFacts`.

        Raises:
            OutputError: the disk refuses.
        """
        folder = self.path(record)
        known = StoredFacts(self.made_of(record, sequence), tuple(int(number) for number in frame_numbers), **facts)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(folder)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {one_line(error)}") from error
        with folder_written_whole(folder) as partial:
            for frame, name in zip(frames, known.names, strict=True):
                write_png(partial / name, frame, compress_level=1)
            known = replace(known, digests=tuple(digest_of_file(partial / name) for name in known.names))
            (partial / _FACTS_FILE).write_text(json.dumps(asdict(known)) + "\n", encoding="utf-8")

    def read(self, record: WindowRecord, sequence: SequenceInfo) -> NDArray[np.uint8]:
        """A window's frames, uint8 [N, H, W, 3], in the order in which they were written.

        Raises:
            InputError: they are not there, or damaged.
        """
        facts = self.facts(record, sequence)
        if facts is None:
            raise InputError(f"{self.path(record)}: the frames of this window are missing; run the evaluation again")
        try:
            frames = [read_image(self.path(record) / name) for name in facts.names]
        except InputError as error:
            raise InputError(f"{error}; remove the folder {self.path(record)} and run again") from error
        if len({frame.shape for frame in frames}) > 1:
            raise InputError(f"{self.path(record)}: frames differ in size; remove the folder and run again")
        return np.stack(frames)

    def _make_room(self, folder: Path) -> None:
        """Remove a window's earlier frames, and what a run that was killed left."""
        if folder.parent not in self._swept:
            self._swept.add(folder.parent)
            remove_leftovers(folder.parent, str.isdecimal)
        make_room(folder, _is_own)
        if folder.is_dir():
            with temporary_beside(folder) as gone:
                folder.replace(gone)


def _facts_in(folder: Path) -> StoredFacts | None:
    """The metadata in a window's file; None if it is not such a file."""
    raw = read_mark(folder / _FACTS_FILE, _MAX_FACTS_BYTES)
    try:
        lists = {name: tuple(raw.get(name, ())) for name in ("frame_numbers", "notes", "digests")}
        facts = StoredFacts(**{**raw, **lists})
    except (TypeError, AttributeError):
        return None
    numbers, digests = facts.frame_numbers, facts.digests
    is_one = (
        bool(numbers)
        and all(type(number) is int and 0 <= number < _MAX_NUMBER for number in numbers)
        and all(isinstance(text, str) for text in (facts.made_of, *facts.notes, *digests))
        and len(digests) in (0, len(numbers))
        and (facts.seconds is None or type(facts.seconds) in (int, float))
        and type(facts.is_warm) is bool
    )
    return facts if is_one else None


def _is_own(folder: Path) -> bool:
    """Whether a folder holds a window's frames, unchanged since they were written, and nothing else."""
    facts = None if folder.is_symlink() else _facts_in(folder)
    if facts is None:
        return False
    digests = dict(zip(facts.names, facts.digests or [None] * len(facts.names), strict=True))
    for entry in folder.iterdir():
        if entry.is_symlink() or not entry.is_file() or entry.name not in (*digests, _FACTS_FILE):
            return False
        if digests.get(entry.name) not in (None, digest_of_file(entry)):
            return False
    return True


def made_of(maker: str, record: WindowRecord, sequence: SequenceInfo) -> str:
    """Fingerprint of the system, the window and the data of an output."""
    return fingerprint_of([maker, sequence.fingerprint, record.start_frame, record.end_frame, list(record.times_us)])
