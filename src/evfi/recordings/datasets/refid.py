"""The layouts of REFID (Sun et al., CVPR 2023): GoPro with simulated events, and HighREV; one video per folder.

    <split>/<video>/gt/000000.png …             GoPro: the frames …
    <split>_event/<video>/000000.npz …          … and their events: x, y, timestamp, polarity

    <split>/<video>/gt/00000.png …              HighREV: the frames …
    <split>/<video>/event/00000.npz …           … and their events: the same members, x and y swapped

A recording is `<split>/<video>`. Conventions, checked on reading: the k-th event file holds the interval from the k-th
to the next frame, whatever their numbers begin with. In HighREV's files x holds rows and y columns. Neither ships frame
times: they are taken from where one event file ends and the next begins, and the unit of time from how long a file
lasts. Not compared with published files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from evfi.errors import InputError
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import open_unstamped
from evfi.recordings.datasets.interval_layout import numbered_files
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

NAME: Final = "refid"
DESCRIPTION: Final = (
    "a video in REFID's layout of GoPro or HighREV (gt/*.png, and event/*.npz or <split>_event/<video>/*.npz)"
)
GOPRO: Final = IntervalConvention(
    format=NAME,
    images="gt/%06d.png",
    events="../../<split>_event/<video>/%06d.npz",
    frame_times="where one event file ends and the next begins",
    keys=("x", "y", "timestamp", "polarity"),
    are_floats=True,
    time_unit=None,
    first_file=None,
    may_have_spare_events=True,
)
HIGHREV: Final = replace(GOPRO, events="event/%05d.npz", is_swapped=True)

_EVENT_NAME: Final = r".*\d"


def recognises(path: Path) -> bool:
    """Whether the folder holds frames in gt and has event files at one of the two places."""
    return (path / "gt").is_dir() and _find(path) is not None


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one video.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    found = _find(path)
    if found is None or not (path / "gt").is_dir():
        raise InputError(f"{path}: expected pictures in gt, and event files in event or {_beside(path)}; found none")
    convention, folder = found
    return open_unstamped(path, convention, path / "gt", folder, options, pattern=_EVENT_NAME)


def _find(path: Path) -> tuple[IntervalConvention, Path] | None:
    for convention, folder in ((HIGHREV, path / "event"), (GOPRO, _beside(path))):
        if numbered_files(folder, pattern=_EVENT_NAME):
            return convention, folder
    return None


def _beside(path: Path) -> Path:
    whole = path.absolute()
    return whole.parent.with_name(f"{whole.parent.name}_event") / whole.name
