"""Clear-Motion's layout: BS-ERGB's form of files with coordinates in pixels.

    images/000000.png …      one per frame
    images/timestamp.txt     one time in µs per frame
    events/000000.npz …      x, y (pixels of the frame), timestamp (µs), polarity (0/1)

Conventions, checked on reading: as `bsergb`, but for the scale. The two are distinguished by where the events lie: in
1/32 px hardly any coordinate is below the frame's size. With a few events only, either could be meant, and the user is
asked. Not compared with published files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evfi.recordings.datasets.bsergb import KEYS, look_at_coordinates
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import open_stamped
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

NAME: Final = "clear-motion"
DESCRIPTION: Final = "a folder in Clear-Motion layout (like BS-ERGB, in pixels)"
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="images/%06d.png",
    events="events/%06d.npz",
    frame_times="images/timestamp.txt, µs",
    keys=KEYS,
    are_floats=True,
)


def recognises(path: Path) -> bool:
    """Whether the folder is laid out so and most events lie inside the frame as they stand."""
    inside = look_at_coordinates(path)
    return inside is not None and inside.share > 0.5


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    return open_stamped(path, CONVENTION, "images", "events", options)
