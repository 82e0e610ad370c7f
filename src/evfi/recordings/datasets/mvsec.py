"""MVSEC's data files (Zhu et al., RA-L 2018): `*_data.hdf5` of one sequence.

    davis/left/events          [N, 4]: x, y, t (s), p (±1)
    davis/left/image_raw       uint8 [M, 260, 346], grey
    davis/left/image_raw_ts    seconds [M]

Conventions: the left camera is taken; a frame's time is its stamp in image_raw_ts, on the clock of the events, rounded to µs;
sensor and frame are the same pixels (DAVIS346). Frames that are not later than the one before are left out, with a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.formats.hdf5 import is_hdf5, open_hdf5
from evfi.events.formats.hdf5.container import Hdf5File, one_line_errors
from evfi.limits import check_bytes
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.hdf5_frames import Hdf5Frames, checked_picture, increasing_times
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

NAME: Final = "mvsec"
DESCRIPTION: Final = "an HDF5 file of MVSEC (davis/left/events, davis/left/image_raw)"
CONVENTION: Final = "left camera; frame time: image_raw_ts (s); sensor and frame are the same pixels"

_CAMERA: Final = "davis/left"


def recognises(path: Path) -> bool:
    """Whether the path is an HDF5 file with the left camera's events and images; one without images is an event file."""
    if not path.is_file() or not is_hdf5(path):
        return False
    try:
        file = Hdf5File(path)
        try:
            return file.has(f"{_CAMERA}/events") and file.has(f"{_CAMERA}/image_raw")
        finally:
            file.close()
    except (EvfiError, OSError):
        return False


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one file.

    Raises:
        InputError: the file is damaged, or breaks the convention.
        RecordingError: it lacks frames or events.
    """
    file = Hdf5File(path)
    try:
        frames, notes = _open_frames(file)
        source = open_hdf5(path, options.for_events(frames.size))
    except BaseException:
        file.close()
        raise
    mapping = scale_mapping(source.sensor_size, frames.size)
    convention = f"{CONVENTION}; events: {source.report.convention}"
    return Recording(path, NAME, frames, source, mapping, tuple(notes), convention=convention)


def _open_frames(file: Hdf5File) -> tuple[Hdf5Frames, list[str]]:
    images = checked_picture(file, f"{_CAMERA}/image_raw", is_stack=True)
    stamps = file.required(f"{_CAMERA}/image_raw_ts")
    if images.ndim != 3 or stamps.ndim != 1 or stamps.dtype.kind not in "fiu" or len(stamps) != len(images):
        raise InputError(
            f"{file.path}: expected image_raw [M, H, W] and one time for each in image_raw_ts, found {list(images.shape)} and "
            f"{stamps.dtype} {list(stamps.shape)}"
        )
    if len(images) < 2:
        raise RecordingError(f"{file.path}: expected at least two frames, found {len(images)}")
    check_bytes(f"{file.path}: image_raw_ts", stamps.size * stamps.dtype.itemsize, file.path.stat().st_size)
    with one_line_errors(file.path, "image_raw_ts cannot be read"):
        seconds = stamps[:]
    times, kept, notes = increasing_times(file, seconds)
    return Hdf5Frames(file, times, lambda i: images[int(kept[i])]), notes
