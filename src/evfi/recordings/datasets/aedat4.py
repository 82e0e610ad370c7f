"""A recording in one AEDAT 4 file: frames and events of one camera, as DV and dv-processing write them.

Convention: a frame's time is the middle of its exposure. Sensor and frame are the same pixels (DAVIS); a frame stream
of another size is taken to show the same field of view.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.formats.aedat4 import Aedat4Events, Aedat4File, is_aedat4
from evfi.recordings.recording import Image, Recording, Times, scale_mapping

NAME = "aedat4"
DESCRIPTION = "an AEDAT4 file with frames and events"


def recognises(path: Path) -> bool:
    """Whether the path is an AEDAT 4 file."""
    return path.is_file() and is_aedat4(path)


def open_recording(path: Path) -> Recording:
    """Open an AEDAT 4 file.

    Raises:
        InputError: the file is damaged or truncated.
        RecordingError: it lacks frames or events.
    """
    file = Aedat4File(path)
    try:
        frames = Aedat4Frames(file)
        events = Aedat4Events(file)
        mapping = scale_mapping(events.sensor_size, frames.size)
        return Recording(path, NAME, frames, events, mapping, tuple(file.warnings))
    except BaseException:
        file.close()
        raise


class Aedat4Frames:
    """The frames of an AEDAT 4 file; all are visited once for their times, then read one by one.

    Raises:
        RecordingError: the file holds no frames.
        InputError: frames differ in size, or a frame is damaged.
    """

    def __init__(self, file: Aedat4File):
        self._file = file
        name = file.stream_name("frames", file.reader.isStreamOfFrameType)
        if name is None:
            raise RecordingError(f"{file.path}: holds no frame stream; give a folder or video of frames besides")
        self._stream = name
        self._exposures: list[tuple[int, int]] = []  # (start, length) in µs
        self.is_grey = True
        self._visit_all()
        self.times_us: Times = np.array([start + length // 2 for start, length in self._exposures], np.int64)

    def __len__(self) -> int:
        return len(self._exposures)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB."""
        start, length = self._exposures[index]
        if self._file.reader is None:
            raise InputError(f"{self._file.path}: the file was closed; open it again")
        with self._file.reading():
            # The range is matched against the stamp of the file, which older files put at mid-exposure.
            found = self._file.reader.getFramesTimeRange(start, start + length + 1, self._stream) or []
            frames = [frame for frame in found if int(frame.timestamp) == start]
            if len(frames) != 1:
                raise InputError(f"{self._file.path}: frame {index} cannot be found again at its time {start} µs")
            return _as_rgb(frames[0].image)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _visit_all(self) -> None:
        sizes = set()
        with self._file.reading():
            self._file.reader.resetSequentialRead()
            while (frame := self._file.reader.getNextFrame(self._stream)) is not None:
                length = frame.exposure // timedelta(microseconds=1)
                self._exposures.append((int(frame.timestamp), max(length, 0)))
                sizes.add((int(frame.image.shape[1]), int(frame.image.shape[0])))
                self.is_grey = self.is_grey and _is_grey(frame.image)
        if not sizes:
            raise RecordingError(f"{self._file.path}: the frame stream is empty; give a folder or video of frames")
        if len(sizes) > 1:
            raise InputError(f"{self._file.path}: frames must have one size, found {sorted(sizes)}")
        self.size: tuple[int, int] = sizes.pop()


def _is_grey(image: NDArray[Any]) -> bool:
    if image.ndim == 2 or image.shape[2] == 1:
        return True
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())


def _as_rgb(image: NDArray[Any]) -> Image:
    """dv-processing's grey [H, W], BGR or BGRA to uint8 RGB [H, W, 3]."""
    if image.dtype != np.uint8:
        raise InputError(f"frames must be 8-bit, found {image.dtype}")
    grey_or_colour = image[..., None] if image.ndim == 2 else image
    channels = [0, 0, 0] if grey_or_colour.shape[2] == 1 else [2, 1, 0]
    return np.ascontiguousarray(grey_or_colour[..., channels])
