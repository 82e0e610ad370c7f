"""BS-ERGB's layout (Tulyakov et al., Time Lens++, CVPR 2022): one sequence per folder.

    images/000000.png …      one per frame
    images/timestamp.txt     one time in µs per frame
    events/000000.npz …      x, y (unsigned, in 1/32 px of the frame), timestamp (µs), polarity (0/1)

Conventions, checked on reading: event file i holds the interval from frame i to frame i + 1, so there is one file fewer
than frames. Whole coordinates are pixel centres, so sub-pixel ones are rounded to the nearest (half to even, as the
published models saw it). Events left of or above the frame wrapped around (65534 is -2/32 px); like all outside they
are dropped and counted. In some sequences the first lines of timestamp.txt are wrong: such a sequence is refused with
the lines to correct. Some event files are empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError
from evfi.events.formats.npz import read_arrays
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_files import open_stamped
from evfi.recordings.datasets.interval_layout import numbered_files, probe_npz
from evfi.recordings.frames import find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording
from evfi.video.io import read_image

NAME: Final = "bs-ergb"
DESCRIPTION: Final = "a folder in BS-ERGB layout (images/*.png, images/timestamp.txt, events/*.npz in 1/32 px)"
KEYS: Final = ("x", "y", "timestamp", "polarity")
CONVENTION: Final = IntervalConvention(
    format=NAME,
    images="images/%06d.png",
    events="events/%06d.npz",
    frame_times="images/timestamp.txt, µs",
    keys=KEYS,
    steps_per_pixel=32,
    wraps=True,
)

_MIN_EVENTS_TO_JUDGE: Final = 500


def recognises(path: Path) -> bool:
    """Whether the folder is laid out so, told from names and from what a few event files hold."""
    inside = look_at_coordinates(path)
    if inside is None or not inside.are_unsigned:
        return False
    return inside.share <= 0.5 or inside.num_events < _MIN_EVENTS_TO_JUDGE


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    return open_stamped(path, CONVENTION, "images", "events", options)


@dataclass(frozen=True)
class Coordinates:
    """Where some events of a folder lie if their coordinates are pixels.

    Attributes:
        share: how many lie in the frame, 0 to 1.
        num_events: how many were looked at; none where the first file is damaged or all are empty.
        are_unsigned: whether they are stored as unsigned whole numbers.
    """

    share: float = 0.0
    num_events: int = 0
    are_unsigned: bool = True


def look_at_coordinates(path: Path) -> Coordinates | None:
    """Look at the coordinates of a folder in BS-ERGB's form of files, which other datasets share at another scale.

    Returns:
        None if the folder has another form.
    """
    files = numbered_files(path / "events")
    if not files or not (path / "images" / "timestamp.txt").is_file():
        return None
    probe = probe_npz(files, KEYS)
    if probe is None:
        return Coordinates() if _is_damaged(files[0]) else None
    are_unsigned = all(probe.kinds.get(name, "u") == "u" for name in KEYS[:2])
    pictures = find_pictures(path / "images")
    if not pictures or len(probe.x) == 0 or len(probe.x) != len(probe.y):
        return Coordinates(are_unsigned=are_unsigned)
    try:
        height, width = read_image(pictures[0]).shape[:2]
    except InputError:
        return Coordinates(are_unsigned=are_unsigned)
    share = float(np.mean((probe.x < width) & (probe.y < height)))
    return Coordinates(share, len(probe.x), are_unsigned)


def _is_damaged(file: Path) -> bool:
    try:
        read_arrays(file, ())
    except InputError:
        return True
    return False
