"""Frames of windows on disk, so that a run can go on where it stopped and a new metric needs no new frames.

    FOLDER/SEQUENCE/skipK/00012/000103.png …   named after the number of the true frame
    FOLDER/SEQUENCE/skipK/00012/window.json    what they were made of, how long it took

A window is there whole or not at all. One that was made of something else (other data, other settings) counts as absent and
is replaced.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, OutputError
from evfi.evaluation.results import SequenceInfo, WindowRecord
from evfi.files import folder_written_whole, one_line
from evfi.fingerprints import fingerprint_of
from evfi.video.io import read_image, write_png

_FACTS_FILE: Final = "window.json"


@dataclass(frozen=True)
class StoredFacts:
    """What is known of a stored window beside its frames.

    Attributes:
        made_of: fingerprint of all that its frames depend on.
        frame_numbers: numbers of the true frames that they stand for.
        seconds: how long making them took; None where that was not measured.
        is_warm: False for the first window that a process made.
        notes: what the maker had to say, one line each.
    """

    made_of: str
    frame_numbers: tuple[int, ...]
    seconds: float | None = None
    is_warm: bool = True
    notes: tuple[str, ...] = ()


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

    def path(self, record: WindowRecord) -> Path:
        """The folder of one window."""
        return self.folder / record.sequence / f"skip{record.skip}" / f"{record.index:05d}"

    def made_of(self, record: WindowRecord, sequence: SequenceInfo) -> str:
        """Fingerprint of all that a window's frames depend on."""
        return made_of(self.maker, record, sequence)

    def facts(self, record: WindowRecord, sequence: SequenceInfo) -> StoredFacts | None:
        """What is known of a window, or None where it or one of its frames is not there, or made of something else."""
        try:
            raw = json.loads((self.path(record) / _FACTS_FILE).read_text(encoding="utf-8"))
            facts = StoredFacts(
                **{**raw, "frame_numbers": tuple(raw["frame_numbers"]), "notes": tuple(raw.get("notes", ()))}
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if facts.made_of != self.made_of(record, sequence) or not facts.frame_numbers:
            return None
        if not all(self._picture(record, number).is_file() for number in facts.frame_numbers):
            return None
        return facts

    def write(
        self,
        record: WindowRecord,
        sequence: SequenceInfo,
        frames: NDArray[np.uint8],
        frame_numbers: Sequence[int],
        **facts: Any,
    ) -> None:
        """Keep a window's frames, in the place of those that are there.

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
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder.parent}: {one_line(error)}") from error
        with folder_written_whole(folder) as partial:
            for frame, number in zip(frames, known.frame_numbers, strict=True):
                write_png(partial / f"{number:06d}.png", frame, compress_level=1)
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
            frames = [read_image(self._picture(record, number)) for number in facts.frame_numbers]
        except InputError as error:
            raise InputError(f"{error}; remove the folder {self.path(record)} and run again") from error
        if len({frame.shape for frame in frames}) > 1:
            raise InputError(f"{self.path(record)}: frames differ in size; remove the folder and run again")
        return np.stack(frames)

    def _picture(self, record: WindowRecord, number: int) -> Path:
        return self.path(record) / f"{number:06d}.png"


def made_of(maker: str, record: WindowRecord, sequence: SequenceInfo) -> str:
    """Fingerprint of who made something of which window of which data."""
    return fingerprint_of([maker, sequence.fingerprint, record.start_frame, record.end_frame, list(record.times_us)])
