"""The layout of Time Lens' example (Tulyakov et al., CVPR 2021): one sequence per folder.

    images/000000.png …      one per frame
    images/timestamp.txt     times in µs, often more than there are images
    events/000001.npz …      x, y (float, fractions of the frame's pixels), t (µs), p (0/1)

Conventions, checked on reading: as `hsergb`: event file n holds the interval from frame n - 1 to frame n, and
coordinates are rounded to the nearest pixel. Lines of timestamp.txt beyond the images are left out with a warning. Told
from BS-ERGB by the names of the members. Not compared with published files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import open_stamped
from evfi.recordings.datasets.interval_layout import numbered_files, probe_npz
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

NAME: Final = "timelens"
DESCRIPTION: Final = (
    "a folder in the layout of Time Lens' example (images/*.png, timestamp.txt, events/*.npz: x, y, t, p)"
)
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="images/%06d.png",
    events="events/%06d.npz",
    frame_times="images/timestamp.txt, µs",
    are_floats=True,
    covers="previous",
    first_file=1,
    may_have_spare_times=True,
    may_have_spare_events=True,
)


def recognises(path: Path) -> bool:
    """Whether the folder is laid out so, told from names and from the members of the first event files."""
    if not (path / "images" / "timestamp.txt").is_file():
        return False
    files = numbered_files(path / "events")
    return bool(files) and probe_npz(files, CONVENTION.keys) is not None


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    return open_stamped(path, CONVENTION, "images", "events", options)
