"""HQ-EVFI's layout (Ma et al., TimeLens-XL, ECCV 2024): one sequence per folder.

    visual_RGB/<number>_<time>.png …     one per frame
    RGB-EVS*/<number>_<time>.npz …       x, y (the frame's pixels), t, p (-1/+1), start_t, end_t, sync_rgb

Conventions, checked on reading: event file n holds the interval from frame n - 1 to frame n, so a file of the first
frame's number lies before the recording; numbers begin anywhere. Frame times are `start_t` and `end_t` of the event
files where they have these and the events lie between them; otherwise the times in the pictures' names, in ns; if these
are on another clock than the events, they are taken from where one event file ends and the next begins, with a warning.
The unit of the event times is detected from the duration of a file. `sync_rgb` is not read. Not compared with published files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.file_options import TimeUnit
from evfi.events.formats.columns import to_microseconds
from evfi.events.formats.npz import read_arrays
from evfi.events.stream import MAX_ABS_TIME_US
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import TOLERANCE_US, open_intervals
from evfi.recordings.datasets.interval_layout import (
    Layout,
    frame_times_of_ranges,
    number_of,
    numbered_files,
    pair_up,
    tell_unit_of_durations,
)
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times

NAME: Final = "hq-evfi"
DESCRIPTION: Final = "a folder in HQ-EVFI layout (visual_RGB/<number>_<time>.png, RGB-EVS/<number>_<time>.npz)"
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="visual_RGB/<n>_<time>.png",
    events="RGB-EVS/<n>_<time>.npz",
    frame_times="start_t and end_t of the event files, else the pictures' names in ns, else the files' ranges",
    are_floats=True,
    time_unit=None,
    polarity="-1/+1",
    covers="previous",
    first_file=None,
)

_PATTERN: Final = r"\d+_\d+"
_NUM_PROBES: Final = 20
_RANGES: Final = "taken from where one event file ends and the next begins"


def recognises(path: Path) -> bool:
    """Whether the folder holds both of the layout's folders, with event files."""
    return (path / "visual_RGB").is_dir() and _event_folder(path) is not None


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    folder = _event_folder(path)
    if folder is None or not (path / "visual_RGB").is_dir():
        raise InputError(f"{path}: expected the folders visual_RGB and RGB-EVS with <number>_<time> files; found none")
    layout = _pair(path, folder)
    unit = options.events_unit or _unit_of_events(layout)
    times, source = _choose_times(layout, unit)
    warnings = layout.warnings
    if source == _RANGES:
        warnings = (
            *warnings,
            f"the times in the pictures' names are on a different clock from the events': frame times are {_RANGES}",
        )
    convention = replace(CONVENTION, frame_times=source)
    frames = PictureFrames(layout.pictures, times)
    return open_intervals(path, convention, frames, layout.files, options, unit=unit, warnings=warnings)


def _event_folder(path: Path) -> Path | None:
    if not path.is_dir():
        return None
    folders = sorted(folder for folder in path.glob("RGB-EVS*") if folder.is_dir())
    return next((folder for folder in folders if numbered_files(folder, pattern=_PATTERN)), None)


def _pair(path: Path, folder: Path) -> Layout:
    pictures = [file for file in find_pictures(path / "visual_RGB") if re.fullmatch(_PATTERN, file.stem)]
    if not pictures:
        raise InputError(f"{path}: expected pictures visual_RGB/<number>_<time>.png, found none")
    first, last = number_of(pictures[0]) or 0, number_of(pictures[-1]) or 0
    found = numbered_files(folder, pattern=_PATTERN)
    files = [file for file in found if first < (number_of(file) or 0) <= last]
    layout = pair_up(path, replace(CONVENTION, first_file=first + 1), pictures, files)
    if len(files) == len(found):
        return layout
    spare = f"{len(found) - len(files)} event files before the first or after the last frame were left out"
    return replace(layout, warnings=(*layout.warnings, spare))


def _unit_of_events(layout: Layout) -> TimeUnit:
    """The unit of the event times, told from how long some files last."""
    durations = [np.ptp(times) for file in layout.files[:_NUM_PROBES] if len(times := _times(file)) > 1]
    return tell_unit_of_durations(np.array(durations or [0]), str(layout.files[0].parent))


def _choose_times(layout: Layout, unit: TimeUnit) -> tuple[Times, str]:
    """Frame times from the first source that the events agree with, and what it is."""
    spans = _times_of_spans(layout, unit)
    if spans is not None and _agrees(layout.files, unit, spans):
        return spans, "start_t and end_t of the event files"
    names = _times_of_names(layout)
    are_one_off = _agrees(layout.files[1:], unit, names) or _agrees(layout.files[:-1], unit, names[1:])
    if are_one_off or _agrees(layout.files, unit, names):  # the base names the file that is one off
        return names, "the pictures' names, in ns"
    return frame_times_of_ranges(layout.files, CONVENTION, unit)[0], _RANGES


def _agrees(files: Sequence[Path], unit: TimeUnit, times: Times) -> bool:
    """Whether the events of the first files lie in their intervals; without any file nothing agrees."""
    for index, file in enumerate(files[:_NUM_PROBES]):
        found = _times(file)
        if len(found):
            ends = to_microseconds(np.array([found.min(), found.max()]), unit, str(file))
            if ends[0] < times[index] - TOLERANCE_US or ends[1] > times[index + 1] + TOLERANCE_US:
                return False
    return len(files) > 0


def _times_of_spans(layout: Layout, unit: TimeUnit) -> Times | None:
    """Frame times from the intervals that the event files state, if every one begins where the last ended."""
    spans = [_span(file) for file in layout.files]
    if any(span is None for span in spans):
        return None
    bounds = to_microseconds(np.array(spans).ravel(), unit, str(layout.files[0].parent)).reshape(-1, 2)
    if (np.abs(bounds[1:, 0] - bounds[:-1, 1]) > TOLERANCE_US).any():
        return None
    return np.array([bounds[0, 0], *bounds[:, 1]], np.int64)


def _span(file: Path) -> tuple[Any, Any] | None:
    arrays = read_arrays(file, ("start_t", "end_t"))
    if len(arrays) < 2 or any(array.size != 1 or array.dtype.kind not in "iuf" for array in arrays.values()):
        return None
    return arrays["start_t"].ravel()[0], arrays["end_t"].ravel()[0]


def _times(file: Path) -> NDArray[Any]:
    times = read_arrays(file, ("t",)).get("t", np.zeros(0))
    return times if times.dtype.kind in "iuf" else np.zeros(0)


def _times_of_names(layout: Layout) -> Times:
    stamps = [int(picture.stem.split("_")[1]) for picture in layout.pictures]
    if max(stamps) > MAX_ABS_TIME_US:
        raise InputError(
            f"{layout.pictures[0].parent}: the names' times are too large for ns (up to {max(stamps):.3g})"
        )
    return to_microseconds(np.array(stamps, np.int64), "ns", str(layout.pictures[0].parent))
