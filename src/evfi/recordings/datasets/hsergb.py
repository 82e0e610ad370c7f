"""HS-ERGB's layout (Tulyakov et al., Time Lens, CVPR 2021): one sequence per folder, in {close,far}/test.

    images_corrected/000000.png …     one per frame
    images_corrected/timestamp.txt    one time in µs per frame
    events_aligned/000001.npz …       x, y (fractions of the frame's pixels), t (µs), p (0/1)

Conventions, checked on reading: event file n holds the interval from frame n - 1 to frame n, the opposite of BS-ERGB;
a file 000000 lies before the first frame. Coordinates are unscaled and rounded to the nearest pixel. Some sequences
have images beyond the last event file and time: those are left out with a warning. Not compared with published files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import open_stamped
from evfi.recordings.datasets.interval_layout import numbered_files
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

NAME: Final = "hs-ergb"
DESCRIPTION: Final = "a folder in HS-ERGB layout (images_corrected/*.png with timestamp.txt, events_aligned/*.npz)"
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="images_corrected/%06d.png",
    events="events_aligned/%06d.npz",
    frame_times="images_corrected/timestamp.txt, µs",
    are_floats=True,
    covers="previous",
    first_file=1,
    may_have_spare_images=True,
    may_have_spare_times=True,
    may_have_spare_events=True,
)


def recognises(path: Path) -> bool:
    """Whether the folder holds both of the layout's folders, with event files."""
    return (path / "images_corrected").is_dir() and bool(numbered_files(path / "events_aligned"))


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    return open_stamped(path, CONVENTION, "images_corrected", "events_aligned", options)
