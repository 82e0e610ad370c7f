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
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.columns import to_microseconds
from evfi.events.formats.text import open_text
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.frames import PictureFrames
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times
from evfi.recordings.text_lines import numbered_lines, time_in_line

NAME: Final = "ecd"
DESCRIPTION: Final = "a folder in ECD layout (events.txt, images.txt, pictures)"

CONVENTION: Final = (
    "x, y in whole px of the frames; time in s, on the frames' clock, rounded to the nearest µs; polarity 0/1; events.txt "
    "holds the whole sequence; frame times: images.txt, s"
)


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
    seconds, pictures, known = [], [], dict[str, Path]()
    for number, line in numbered_lines(index, "list of frames"):
        fields = line.split(maxsplit=1)
        if len(fields) < 2:
            raise InputError(f"{index}: line {number}: expected 'seconds path', found '{line[:60]}'")
        seconds.append(float(time_in_line(fields[0], index, number)))
        if fields[1] not in known:
            known[fields[1]] = _picture(folder, fields[1])
        pictures.append(known[fields[1]])
    return to_microseconds(np.asarray(seconds, np.float64), "s", str(index)), pictures


def _picture(folder: Path, name: str) -> Path:
    picture = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{folder / 'images.txt'}: the path '{name}' points outside the folder; correct it")
    if not picture.is_file():
        raise InputError(f"{folder / 'images.txt'}: there is no picture {picture}; restore it or remove its line")
    return picture
