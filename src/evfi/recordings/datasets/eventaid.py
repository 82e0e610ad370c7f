"""EventAid-F's layout (Duan et al., 2023): one scene per folder.

    input/000000_img.jpg …     one per frame (or gt/)
    event/000000.txt …         lines `t x y p`: µs, the pixels of shape.txt, 0/1
    shape.txt                  width and height of the frames
    frame_info.txt             a header, then one line per frame with its time in µs
    event_info.txt             not read

Conventions, checked on reading: event file n holds the interval from frame n to frame n + 1. Frame times are the column
of frame_info.txt whose name speaks of time; without such a file or column they are taken from where one event file ends
and the next begins, with a warning. Not compared with published files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.columns import to_microseconds
from evfi.events.formats.text import open_text
from evfi.events.stream import EventStream
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import Columns, open_intervals
from evfi.recordings.datasets.interval_layout import frame_times_of_ranges, numbered_files, pair_up
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times

NAME: Final = "eventaid"
DESCRIPTION: Final = "a scene in EventAid-F layout (input/*_img.jpg, event/*.txt, shape.txt, frame_info.txt)"
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="input/%06d_img.jpg",
    events="event/%06d.txt",
    frame_times="frame_info.txt, µs",
    first_file=None,
    may_have_spare_times=True,
    may_have_spare_events=True,
)

_MAX_INFO_BYTES: Final = 2**22  # some 100,000 frames
_MAX_SIDE: Final = 2**13  # of a sensor: what lies outside the frames is counted by the base
_RANGES: Final = "where one event file ends and the next begins"


def recognises(path: Path) -> bool:
    """Whether the folder holds pictures, the size of the frames, and numbered text files of events."""
    return _image_folder(path) is not None and (path / "shape.txt").is_file() and bool(_event_files(path))


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one scene.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    images = _image_folder(path)
    if images is None or not _event_files(path):
        raise InputError(f"{path}: expected pictures in input or gt, and event/000000.txt …; name one scene")
    warnings: list[str] = []
    times = _read_frame_times(path / "frame_info.txt", warnings)
    num_times = None if times is None else len(times)
    layout = pair_up(path, CONVENTION, find_pictures(images), _event_files(path), num_times)
    convention = replace(CONVENTION, images=f"{images.name}/%06d_img.jpg")
    if times is None:
        convention = replace(convention, frame_times=_RANGES)
        unit = options.events_unit or "us"
        times, _ = frame_times_of_ranges(
            layout.files, convention, unit, lambda file: _read_text_columns(file, convention).t
        )
    frames = PictureFrames(layout.pictures, times[: len(layout.pictures)])
    _check_shape(path / "shape.txt", frames)
    return open_intervals(
        path,
        convention,
        frames,
        layout.files,
        options,
        stamps=path / "frame_info.txt",
        read_columns=_read_text_columns,
        warnings=(*layout.warnings, *warnings),
    )


def _image_folder(path: Path) -> Path | None:
    folders = (path / name for name in ("input", "gt"))
    return next((folder for folder in folders if folder.is_dir() and find_pictures(folder)), None)


def _event_files(path: Path) -> list[Path]:
    return numbered_files(path / "event", ".txt")


def _read_text_columns(path: Path, convention: IntervalConvention) -> Columns:
    """One event file; times stay in its own unit, here taken as whole numbers."""
    if path.stat().st_size == 0:
        empty = EventStream.empty((1, 1))
        return Columns(empty.x, empty.y, empty.t, empty.p)
    try:
        source = open_text(path, EventFileOptions((_MAX_SIDE, _MAX_SIDE), time_unit="us"))
    except RecordingError:
        empty = EventStream.empty((1, 1))
        return Columns(empty.x, empty.y, empty.t, empty.p)
    stream = EventStream.concatenate(source.pieces())
    if stream.num_dropped:
        raise InputError(f"{path}: {stream.num_dropped} events have negative or huge coordinates; copy the file again")
    return Columns(stream.x, stream.y, stream.t, stream.p)


def _read_frame_times(path: Path, warnings: list[str]) -> Times | None:
    """The times in frame_info.txt; None, with a warning, where there is no such column."""
    if not path.is_file():
        warnings.append(f"no {path.name}: frame times are taken from {_RANGES}")
        return None
    if path.stat().st_size > _MAX_INFO_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes are too many for one line per frame")
    text = path.read_text("utf-8-sig", "replace")
    lines = [re.split(r"[,;\s]+", line.strip(" #\t")) for line in text.splitlines()]
    lines = [line for line in lines if line != [""]]
    column = _time_column(lines[0]) if lines else None
    if column is None:
        header = " ".join(lines[0])[:60] if lines else ""
        warnings.append(f"{path.name} has no column of times ('{header}'): frame times are taken from {_RANGES}")
        return None
    return _column_of(path, lines[1:], column)


def _time_column(header: Sequence[str]) -> int | None:
    names = [name.lower() for name in header]
    hits = [i for i, name in enumerate(names) if "time" in name or "stamp" in name or name in ("t", "ts")]
    return hits[0] if hits else None


def _column_of(path: Path, rows: list[list[str]], column: int) -> Times:
    values = []
    for number, row in enumerate(rows, start=2):
        try:
            values.append(float(row[column]))
        except (ValueError, IndexError):
            found = " ".join(row)[:40]
            raise InputError(
                f"{path}: line {number}: expected a time in column {column + 1}, found '{found}'"
            ) from None
    return to_microseconds(np.rint(np.array(values, np.float64)), "us", str(path))


def _check_shape(path: Path, frames: PictureFrames) -> None:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        numbers = re.findall(r"\d+", file.read(100))[:2]
    if len(numbers) == 2 and (int(numbers[0]), int(numbers[1])) != frames.size:
        raise InputError(
            f"{path}: expected the frames' size {frames.size[0]}×{frames.size[1]}, found {' '.join(numbers)}; the events' "
            "coordinates belong to different pictures"
        )
