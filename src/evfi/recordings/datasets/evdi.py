"""The raw layout of EVDI (Zhang and Yu, CVPR 2022): one sequence per folder.

    Blur/000000.png …                          one per frame
    Exposure_start.txt, Exposure_end.txt       one time per frame each
    Events.txt                                 lines `t x y p`, p 0/1 or -1/+1

Conventions, checked on reading: one clock and one unit for all; the published example counts µs since 1970, other
sequences count ns, so the unit is detected from the exposures: ns if µs would make a frame last longer than three seconds.
A frame's time is the middle of its exposure. Frame and sensor are the same pixels. Of the published files only the two
exposure files have been compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError, RecordingError
from evfi.events.file_options import EventFileOptions, TimeUnit
from evfi.events.formats.text import open_text
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times
from evfi.recordings.timestamps import read_timestamps

NAME: Final = "evdi"
DESCRIPTION: Final = "a folder in EVDI's raw layout (Blur/*.png, Events.txt, Exposure_start.txt, Exposure_end.txt)"
CONVENTION: Final = (
    "x, y in whole px of the frames; time in {unit}, one clock; polarity 0/1 or -1/+1; Events.txt holds the whole "
    "sequence; frame times: middle of Exposure_start.txt and Exposure_end.txt"
)

_FILES: Final = ("Events.txt", "Exposure_start.txt", "Exposure_end.txt")
_MAX_FRAME_US: Final = 3_000_000


def recognises(path: Path) -> bool:
    """Whether the folder holds the layout's three text files and pictures."""
    return (path / "Blur").is_dir() and all((path / name).is_file() for name in _FILES)


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: a file is missing, damaged, or breaks the convention.
        RecordingError: there is nothing to interpolate.
    """
    missing = [name for name in ("Blur", *_FILES) if not (path / name).exists()]
    if missing:
        raise InputError(f"{path}: expected {', '.join(('Blur', *_FILES))}; missing: {', '.join(missing)}")
    pictures = find_pictures(path / "Blur")
    if len(pictures) < 2:
        raise RecordingError(f"{path}: expected at least two frames in Blur, found {len(pictures)}")
    unit, exposures = _read_exposures(path, len(pictures), options.events_unit)
    frames = PictureFrames(pictures, exposures.mean(axis=1).round(), exposures)
    size = options.sensor_size or frames.size
    text = EventFileOptions(size, options.sensor_size is None, time_unit=unit, tolerant=options.tolerant)
    events = open_text(path / "Events.txt", text)
    convention = CONVENTION.format(unit={"us": "µs"}.get(unit, unit))
    return Recording(path, NAME, frames, events, scale_mapping(size, frames.size), convention=convention)


def _read_exposures(path: Path, num_frames: int, unit: TimeUnit | None) -> tuple[TimeUnit, Times]:
    """The unit of all times, and start and end of each exposure in µs [N, 2]."""
    raw = _as_read(path, num_frames, "us")
    chosen = unit or ("ns" if np.median(np.diff(raw[:, 0])) > _MAX_FRAME_US else "us")
    exposures = raw if chosen == "us" else _as_read(path, num_frames, chosen)
    wrong = np.flatnonzero(exposures[:, 1] < exposures[:, 0])
    if len(wrong):
        start, end = exposures[wrong[0]].tolist()
        raise InputError(
            f"{path / _FILES[2]}: line {wrong[0] + 1}: the exposure ends at {end} µs, before it starts at {start} µs; "
            "correct that line"
        )
    return chosen, exposures


def _as_read(path: Path, num_frames: int, unit: TimeUnit) -> Times:
    columns = [read_timestamps(path / name, unit, num_frames=num_frames) for name in _FILES[1:]]
    return np.stack(columns, axis=1)
