"""A recording in one AEDAT 4 file: frames and events of one camera, as DV and dv-processing write them.

Convention: a frame's time is the middle of its exposure. Sensor and frame are the same pixels (DAVIS); a frame stream
of another size is taken to show the same field of view.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import RecordingError
from evfi.events.formats.aedat4 import Aedat4Events, Aedat4File, Packet, is_aedat4
from evfi.events.formats.flatbuffers import Table
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Image, Recording, Times
from evfi.video.io import is_grey_frame

NAME: Final = "aedat4"
DESCRIPTION: Final = "an AEDAT4 file with frames and events"

_CHANNELS_OF_FORMAT: Final = {0: 1, 16: 3, 24: 4}  # OpenCV's codes of 8-bit grey, BGR and BGRA


def recognises(path: Path) -> bool:
    """Whether the path is an AEDAT 4 file."""
    return path.is_file() and is_aedat4(path)


def open_recording(path: Path, options: RecordingOptions) -> Recording:
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


@dataclass(frozen=True, eq=False)
class _StoredFrame:
    """A frame packet: exposure in µs, pixels uint8 [H, W, C] in OpenCV's order of channels."""

    start_us: int
    exposure_us: int
    pixels: NDArray[np.uint8]

    @classmethod
    def from_table(cls, table: Table) -> _StoredFrame:
        """Read the fields of table `Frame`; older files stamp start and end of the exposure, newer its length."""
        start, end = table.number(3, "q"), table.number(4, "q")
        if not start:
            start = table.number(0, "q")
            end = start + max(table.number(11, "q"), 0)
        code = table.number(5, "b")
        if code not in _CHANNELS_OF_FORMAT:
            raise ValueError(f"frames must be 8-bit grey, BGR or BGRA, found OpenCV format {code}")
        width, height = table.number(6, "h"), table.number(7, "h")
        data = table.vector(10, 1)
        shape = (height, width, _CHANNELS_OF_FORMAT[code])
        if min(shape) < 1 or len(data) != height * width * shape[2]:
            raise ValueError(f"a frame of {width}×{height} with {shape[2]} channels holds {len(data)} bytes")
        return cls(start, max(end - start, 0), np.frombuffer(data, np.uint8).reshape(shape))

    def as_rgb(self) -> Image:
        channels = [0, 0, 0] if self.pixels.shape[2] == 1 else [2, 1, 0]
        return np.ascontiguousarray(self.pixels[..., channels])


class Aedat4Frames:
    """The frames of an AEDAT 4 file; all are visited once for their times, then read one by one.

    Raises:
        RecordingError: the file holds no frames.
        InputError: frames differ in size, or a frame is damaged.
    """

    def __init__(self, file: Aedat4File):
        self._file = file
        stream = file.stream("FRME", "frames")
        if stream is None:
            raise RecordingError(f"{file.path}: holds no frame stream; give a folder or video of frames besides")
        self._packets = file.packets(stream)
        if not self._packets:
            raise RecordingError(f"{file.path}: the frame stream is empty; give a folder or video of frames besides")
        self.is_grey = True
        self._visit_all()

    def __len__(self) -> int:
        return len(self._packets)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB."""
        return self._stored(self._packets[index]).as_rgb()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _visit_all(self) -> None:
        exposures, sizes = [], set()
        for packet in self._packets:
            frame = self._stored(packet)
            exposures.append((frame.start_us, frame.start_us + frame.exposure_us))
            sizes.add((frame.pixels.shape[1], frame.pixels.shape[0]))
            self.is_grey = self.is_grey and (frame.pixels.shape[2] == 1 or is_grey_frame(frame.pixels))
        with self._file.reading():
            if len(sizes) > 1:
                raise ValueError(f"frames must have one size, found {sorted(sizes)}")
        self.exposures_us: Times = np.array(exposures, np.int64)
        self.times_us: Times = self.exposures_us[:, 0] + (self.exposures_us[:, 1] - self.exposures_us[:, 0]) // 2
        self.size: tuple[int, int] = sizes.pop()

    def _stored(self, packet: Packet) -> _StoredFrame:
        with self._file.reading():
            return _StoredFrame.from_table(self._file.table(packet, "FRME"))
