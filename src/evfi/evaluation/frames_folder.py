"""Frames that another program wrote, in a folder.

    DIR/SEQUENCE/skipK/000103.png …

The number is that of the true frame that a picture stands for, counted from 0; leading zeros are free, and so is the format
(PNG, JPEG, BMP, TIFF, WebP). K is how many true frames are left out between two key frames. Where one skip is evaluated its
folder may be missing, where one sequence is, the sequence's. Key frames need not be there: they come from the recording.
Pictures have the scored size, or the original size: then they are brought to the scored size by Lanczos.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.evaluation.ground_truth import scored_size_frame
from evfi.evaluation.results import SystemInfo
from evfi.evaluation.systems import SizeRule, SystemRequest, WindowTask
from evfi.files import one_line
from evfi.fingerprints import fingerprint_of, fingerprint_of_files
from evfi.paths import expanded, is_file, is_folder
from evfi.video.geometry import Frame, frame_size
from evfi.video.io import read_image

_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_LEVELS: Final = 2


class FramesFolder:
    """A folder of frames as a system of an evaluation."""

    def __init__(self, request: SystemRequest, size: SizeRule) -> None:
        """Take a folder and hash its pictures, so that kept frames are made anew when one of them changes.

        Args:
            request: its source is the folder.
            size: at which size frames are scored.

        Raises:
            InputError: the folder is missing, cannot be read, or holds no numbered picture.
        """
        self.notes: list[str] = []
        self._size = size
        self._folder = expanded(request.source)
        self._pictures: dict[Path, dict[int, Path]] = {}
        self._users: dict[Path, tuple[str, int]] = {}
        self._windows: dict[Path, dict[int, int]] = {}
        settings = {"folder": str(self._folder)}
        self.info = SystemInfo(request.name, "frames", settings, folder_fingerprint(self._folder))

    def make(self, task: WindowTask) -> NDArray[np.uint8]:
        """All frames of a window, uint8 [F, H, W, 3]; the first and last are the recording's key frames.

        Raises:
            InputError: pictures are missing, of another size or damaged, or it is not clear which are meant.
        """
        window = task.window
        folder = self._folder_of(task)
        numbers = [window.spec.start_frame + place for place in range(1, len(window.spec.times_us) - 1)]
        self._check_overlap(folder, numbers, task)
        found = self._numbered(folder)
        missing = [number for number in numbers if number not in found]
        if missing:
            raise InputError(
                f"{self.info.name}: {len(missing)} of {len(numbers)} frames of window {window.spec.index} of "
                f"{task.sequence}, skip {task.skip}, are missing; the first was expected at {folder / _name(missing[0])}"
            )
        keys = [scored_size_frame(key, self._size) for key in (window.start_image, window.end_image)]
        made = [self._read(found[number], window.start_image, keys[0]) for number in numbers]
        return np.stack([keys[0], *made, keys[1]])

    def _read(self, path: Path, original: Frame, scored: Frame) -> Frame:
        """A picture at the scored size."""
        picture = read_image(path)
        if picture.shape == scored.shape:
            return picture
        if picture.shape == original.shape:
            return scored_size_frame(picture, self._size)
        (width, height), (found_width, found_height) = frame_size(scored), frame_size(picture)
        wanted = f"{width}x{height}"
        if original.shape != scored.shape:
            wanted += f" or {original.shape[1]}x{original.shape[0]}"
        raise InputError(f"{path}: expected a picture of {wanted} pixels, found {found_width}x{found_height}")

    def _folder_of(self, task: WindowTask) -> Path:
        """Where a sequence's frames of a skip lie."""
        skip = f"skip{task.skip}"
        full = self._folder / task.sequence / skip
        places = (full, self._folder / task.sequence, self._folder / skip, self._folder)
        usable = [place for place in places if self._numbered(place)]
        if len(usable) > 1:
            raise InputError(
                f"{self.info.name}: cannot tell where the frames of {task.sequence}, skip {task.skip}, are: there are "
                f"numbered pictures in {usable[0]} and in {usable[1]}; keep them in {full} only"
            )
        if not usable:
            raise InputError(
                f"{self.info.name}: no frames of {task.sequence}, skip {task.skip}; the first was expected at "
                f"{full / _name(task.window.spec.start_frame + 1)}"
            )
        (chosen,) = usable
        user = self._users.setdefault(chosen, (task.sequence, task.skip))
        if user != (task.sequence, task.skip):
            raise InputError(
                f"{self.info.name}: the pictures in {chosen} match both {user[0]}, skip {user[1]}, and "
                f"{task.sequence}, skip {task.skip}; put each set into its own folder SEQUENCE/skipK"
            )
        return chosen

    def _check_overlap(self, folder: Path, numbers: list[int], task: WindowTask) -> None:
        """Raise if a picture would stand for frames of two windows."""
        start = task.window.spec.start_frame
        known = self._windows.setdefault(folder, {})
        for number in numbers:
            if known.setdefault(number, start) != start:
                raise InputError(
                    f"{self.info.name}: frame {number} of {task.sequence}, skip {task.skip}, lies in the windows that start "
                    f"at frames {known[number]} and {start}; a folder of frames can be evaluated only where windows do "
                    "not overlap"
                )

    def _numbered(self, folder: Path) -> dict[int, Path]:
        """Pictures of a folder by number; listed once."""
        if folder not in self._pictures:
            self._pictures[folder] = numbered_pictures(folder)
        return self._pictures[folder]


def numbered_pictures(folder: Path) -> dict[int, Path]:
    """Pictures of a folder whose names are whole numbers, by number.

    Args:
        folder: it may be missing: then there are none.

    Raises:
        InputError: two pictures have the same number, or the folder cannot be read.
    """
    found: dict[int, Path] = {}
    for path in _entries(folder):
        if path.suffix.lower() not in _SUFFIXES or not _NUMBER.fullmatch(path.stem) or not is_file(path):
            continue
        other = found.setdefault(int(path.stem), path)
        if other != path:
            raise InputError(
                f"{folder}: {other.name} and {path.name} are both frame {int(path.stem)}; keep one of them"
            )
    return found


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over the names, sizes and bytes of all numbered pictures in a folder and up to two levels below.

    Raises:
        InputError: the folder is missing, cannot be read, or holds no numbered picture.
    """
    if not is_folder(folder):
        raise InputError(f"no folder {folder}; expected frames named SEQUENCE/skipK/NNNNNN.png in it")
    facts = [
        [path.relative_to(folder).as_posix(), fingerprint_of_files([path])] for path in _all_pictures(folder, _LEVELS)
    ]
    if not facts:
        raise InputError(f"{folder} holds no numbered pictures; expected frames named SEQUENCE/skipK/NNNNNN.png in it")
    return fingerprint_of(facts)


def _all_pictures(folder: Path, levels: int) -> Iterator[Path]:
    yield from numbered_pictures(folder).values()
    if levels:
        for path in _entries(folder):
            if is_folder(path):
                yield from _all_pictures(path, levels - 1)


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted; none if it does not exist."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {one_line(error)}") from error


def _name(number: int) -> str:
    return f"{number:06d}.png"
