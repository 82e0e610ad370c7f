"""ERF-X170FPS' layout (Kim et al., CBMNet, CVPR 2023): one sequence per folder.

    processed_images/00000.png …     one per frame, 1440×975 at 170 frames per second
    processed_events/00000.npz …     x, y (whole numbers, 128 times the frame's pixels), t (µs), p (0/1)

Conventions, checked on reading: event file n holds the interval from frame n to frame n + 1; coordinates are divided by
128 and rounded to the nearest pixel. The dataset ships no frame times: they are taken from where one event file ends
and the next begins. Not compared with published files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import open_unstamped
from evfi.recordings.datasets.interval_layout import numbered_files
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

NAME: Final = "erf-x170fps"
DESCRIPTION: Final = "a folder in ERF-X170FPS layout (processed_images/*.png, processed_events/*.npz)"
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="processed_images/%05d.png",
    events="processed_events/%05d.npz",
    frame_times="where one event file ends and the next begins",
    steps_per_pixel=128,
    first_file=None,
    may_have_spare_events=True,
)


def recognises(path: Path) -> bool:
    """Whether the folder holds both of the layout's folders, with event files."""
    return (path / "processed_images").is_dir() and bool(numbered_files(path / "processed_events"))


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    return open_unstamped(path, CONVENTION, path / "processed_images", path / "processed_events", options)
