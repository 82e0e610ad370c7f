"""Recordings in the HDF5 layout of event_utils (Stoffregen et al., ECCV 2020), in which HQF is given.

    events/xs, ys, ts, ps     columns and rows in pixels, seconds, booleans
    images/image000000000 …   one dataset per frame, attribute `timestamp` in seconds

Conventions: a frame's time is its attribute `timestamp`, on the clock of the events, rounded to µs; images of three channels
are blue first, as OpenCV writes them; sensor and frame are the same pixels. A frame that is not later than the one before
(HQF's engineering_posters has one) is left out, with a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.formats.hdf5 import is_hdf5, open_hdf5
from evfi.events.formats.hdf5.container import Hdf5File
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.hdf5_frames import Hdf5Frames, checked_picture, increasing_times
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

NAME: Final = "event-utils"
DESCRIPTION: Final = "an HDF5 file of event_utils with images, as HQF (events/{xs,ys,ts,ps}, images/image000000000 …)"
CONVENTION: Final = "frame time: attribute timestamp (s) of the image; sensor and frame are the same pixels"

_MAX_FRAMES: Final = 10**6


def recognises(path: Path) -> bool:
    """Whether the path is an HDF5 file with events and images so named; one without images is an event file."""
    if not path.is_file() or not is_hdf5(path):
        return False
    try:
        file = Hdf5File(path)
        try:
            return file.has("events/xs") and bool(_image_names(file))
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
        source = open_hdf5(path, options.for_events(frames.size, size_is_assumed=True))
    except BaseException:
        file.close()
        raise
    mapping = scale_mapping(source.sensor_size, frames.size)
    convention = f"{CONVENTION}; events: {source.report.convention}"
    return Recording(path, NAME, frames, source, mapping, tuple(notes), convention=convention)


def _image_names(file: Hdf5File) -> list[str]:
    return [name for name in file.names("images", limit=_MAX_FRAMES) if name.startswith("image")]


def _open_frames(file: Hdf5File) -> tuple[Hdf5Frames, list[str]]:
    names = [f"images/{name}" for name in _image_names(file)]
    if not names:
        raise RecordingError(f"{file.path}: holds no images; give pictures or a video, and this file as --events")
    seconds = []
    for name in names:
        time = file.attribute("timestamp", name)
        try:
            seconds.append(float(time))
        except (TypeError, ValueError):
            raise InputError(
                f"{file.path}: image '{name}' has no attribute 'timestamp' in seconds (found {str(time)[:40]})"
            ) from None
    times, kept, notes = increasing_times(file, np.array(seconds))
    is_bgr = "rgb" not in str(file.attribute("type", names[0])).lower()
    return Hdf5Frames(file, times, lambda i: checked_picture(file, names[int(kept[i])])[()], is_bgr=is_bgr), notes
