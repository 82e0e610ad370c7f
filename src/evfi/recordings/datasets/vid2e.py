"""The layout of vid2e (Gehrig et al., CVPR 2020): a video upsampled in time, and the events simulated from it.

    imgs/00000000.png …          one per frame
    timestamps.txt               one time in seconds per frame
    0000000000.npz …             x, y (whole pixels), t (ns), p (-1/+1); these may also lie in events/

Conventions, checked on reading: none is made for the first frame, so event file n holds the interval from frame n to
frame n + 1; ns are rounded to the nearest µs. The simulator writes the event files into a folder of their own: put
them into the video's folder, or into events/ in it. Not compared with published files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from evfi.errors import InputError
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import open_intervals
from evfi.recordings.datasets.interval_layout import numbered_files, pair_up
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording
from evfi.recordings.timestamps import read_timestamps

NAME: Final = "vid2e"
DESCRIPTION: Final = "a folder of vid2e (imgs/*.png, timestamps.txt in seconds, 0000000000.npz … in ns)"
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="imgs/%08d.png",
    events="%010d.npz",
    frame_times="timestamps.txt, s",
    time_unit="ns",
    polarity="-1/+1",
)


def recognises(path: Path) -> bool:
    """Whether the folder holds pictures, times and numbered event files at their places."""
    return (path / "imgs").is_dir() and (path / "timestamps.txt").is_file() and _event_folder(path) is not None


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one video.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    folder = _event_folder(path)
    if folder is None or not (path / "imgs").is_dir():
        raise InputError(f"{path}: expected imgs, timestamps.txt and 0000000000.npz …; found not all of them")
    stamps = path / "timestamps.txt"
    times = read_timestamps(stamps, "s", num_frames=None)
    layout = pair_up(path, CONVENTION, find_pictures(path / "imgs"), numbered_files(folder), len(times))
    convention = replace(CONVENTION, events="events/%010d.npz") if folder.name == "events" else CONVENTION
    frames = PictureFrames(layout.pictures, times)
    return open_intervals(path, convention, frames, layout.files, options, stamps=stamps, warnings=layout.warnings)


def _event_folder(path: Path) -> Path | None:
    return next((folder for folder in (path, path / "events") if numbered_files(folder)), None)
