"""The text layout of the Event Camera Dataset (Mueggler et al., IJRR 2017): one sequence per folder.

    events.txt    lines `t x y p`: seconds, pixels, 0/1
    images.txt    lines `t path`: seconds, path relative to the folder

Conventions: seconds are rounded to the nearest µs; sensor and frame are the same pixels (DAVIS240); a frame's time is
the stamp in images.txt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError, RecordingError
from evfi.events.formats.columns import EventFileOptions, to_microseconds
from evfi.events.formats.text import open_text
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.frames import PictureFrames
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times

NAME: Final = "ecd"
DESCRIPTION: Final = "a folder in ECD layout (events.txt, images.txt, pictures)"

CONVENTION: Final = (
    "x, y in whole px of the frames; time in s, on the frames' clock, rounded to the nearest µs; polarity 0/1; events.txt "
    "holds the whole sequence; frame times: images.txt, s"
)

_MAX_INDEX_BYTES: Final = 64 * 2**20


def recognises(path: Path) -> bool:
    """Whether the folder holds both text files."""
    return (path / "events.txt").is_file() and (path / "images.txt").is_file()


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: a file is missing, damaged, or breaks the convention.
        RecordingError: there is nothing to interpolate.
    """
    times, pictures = _read_index(path)
    if len(pictures) < 2:
        raise RecordingError(f"{path}: expected at least two frames in images.txt, found {len(pictures)}")
    frames = PictureFrames(pictures, times)
    events = open_text(path / "events.txt", EventFileOptions(frames.size, time_unit="s", tolerant=options.tolerant))
    mapping = scale_mapping(events.sensor_size, frames.size)
    return Recording(path, NAME, frames, events, mapping, convention=CONVENTION)


def _read_index(folder: Path) -> tuple[Times, list[Path]]:
    """Times in µs and pictures of images.txt."""
    index = folder / "images.txt"
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise InputError(f"{index}: {index.stat().st_size} bytes are too many for a list of frames")
    seconds, pictures = [], []
    for number, line in enumerate(index.read_text("utf-8", "replace").splitlines(), start=1):
        fields = line.split(maxsplit=1)
        if not fields or fields[0].startswith("#"):
            continue
        try:
            seconds.append(float(fields[0]))
            pictures.append(_picture(folder, fields[1].strip()))
        except (ValueError, IndexError):
            raise InputError(f"{index}: line {number}: expected 'seconds path', found '{line[:60]}'") from None
    return to_microseconds(np.asarray(seconds, np.float64), "s", str(index)), pictures


def _picture(folder: Path, name: str) -> Path:
    picture = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{folder / 'images.txt'}: the path '{name}' leads out of the folder; correct it")
    if not picture.is_file():
        raise InputError(f"{folder / 'images.txt'}: there is no picture {picture}; restore it or remove its line")
    return picture
