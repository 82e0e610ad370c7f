"""A recording in one AEDAT 4 file: frames and events of one camera, as DV and dv-processing write them.

Convention: a frame's time is the middle of its exposure. Sensor and frame are the same pixels (DAVIS); a frame stream
of another size is taken to show the same field of view. Opening reads the beginning of every frame's packet, which tells
its exposure and size; damaged pixels are found when the frame is read, or at opening if the file is read tolerantly.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.formats.aedat4 import Aedat4Events, is_aedat4
from evfi.events.formats.aedat4_container import Aedat4File, Packet, Packets
from evfi.events.formats.flatbuffers import Table
from evfi.events.stream import MAX_ABS_TIME_US
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import FrameSourceDefaults, Image, Recording, Times
from evfi.video.io import is_grey_frame

NAME: Final = "aedat4"
DESCRIPTION: Final = "an AEDAT4 file with frames and events"

_CHANNELS_OF_FORMAT: Final = {0: 1, 16: 3, 24: 4}  # OpenCV's codes of 8-bit grey, BGR and BGRA
_PIXELS: Final = 10


def recognises(path: Path) -> bool:
    """Whether the path is an AEDAT 4 file."""
    return path.is_file() and is_aedat4(path)


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open an AEDAT 4 file.

    Raises:
        InputError: the file is damaged or truncated.
        RecordingError: it lacks frames or events.
    """
    file = Aedat4File(path, tolerant=options.tolerant)
    try:
        frames = Aedat4Frames(file)
        events = Aedat4Events(file, options.for_events(frames.size, size_is_assumed=True))
        mapping = scale_mapping(events.sensor_size, frames.size)
        convention = "a frame's time is the middle of its exposure; sensor and frames show the same field of view"
        return Recording(path, NAME, frames, events, mapping, tuple(file.warnings), convention=convention)
    except BaseException:
        file.close()
        raise


@dataclass(frozen=True)
class _FrameFields:
    """What a frame packet says of its frame: exposure in µs, size in px, channels in OpenCV's order."""

    start_us: int
    exposure_us: int
    size: tuple[int, int]
    channels: int

    @classmethod
    def from_table(cls, table: Table) -> _FrameFields:
        """Read the fields of table `Frame`; older files stamp start and end of the exposure, newer its length."""
        start, end = table.number(3, "q"), table.number(4, "q")
        if not start:
            start = table.number(0, "q")
            end = start + max(table.number(11, "q"), 0)
        if max(abs(start), abs(end)) > MAX_ABS_TIME_US:
            raise ValueError(f"a frame is exposed from {start} to {end} µs")
        code = table.number(5, "b")
        if code not in _CHANNELS_OF_FORMAT:
            raise ValueError(f"frames must be 8-bit grey, BGR or BGRA, found OpenCV format {code}")
        width, height, channels = table.number(6, "h"), table.number(7, "h"), _CHANNELS_OF_FORMAT[code]
        num_bytes = table.vector_place(_PIXELS)[1]
        if min(width, height) < 1 or num_bytes != height * width * channels:
            raise ValueError(f"a frame of {width}×{height} with {channels} channels holds {num_bytes} bytes")
        return cls(start, max(end - start, 0), (width, height), channels)


class Aedat4Frames(FrameSourceDefaults):
    """The frames of an AEDAT 4 file; the beginning of each is read for its exposure, then they are read one by one.

    Attributes:
        times_us: the middle of each exposure, int64 [N].
        exposures_us: its start and end, int64 [N, 2].
        size: (width, height).
        is_grey: whether the camera is monochrome.

    Raises:
        RecordingError: the file holds no frames.
        InputError: frames differ in size, or a frame is damaged.
    """

    def __init__(self, file: Aedat4File):
        self._file = file
        stream = file.stream("FRME", "frames")
        if stream is None:
            raise RecordingError(f"{file.path}: holds no frame stream; pass a separate folder or video of frames")
        fields = self._visit_all(file.packets(stream))
        if not fields:
            raise RecordingError(f"{file.path}: the frame stream is empty; pass a separate folder or video of frames")
        exposures = [(frame.start_us, frame.start_us + frame.exposure_us) for frame in fields]
        self.exposures_us: Times = np.array(exposures, np.int64)
        self.times_us: Times = self.exposures_us[:, 0] + (self.exposures_us[:, 1] - self.exposures_us[:, 0]) // 2
        self.size: tuple[int, int] = fields[0].size
        coloured = (i for i, frame in enumerate(fields) if frame.channels > 1)
        self.is_grey = all(is_grey_frame(self._pixels(self._packets[i])) for i in coloured)

    def __len__(self) -> int:
        return len(self._packets)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB."""
        pixels = self._pixels(self._packets[index])
        channels = [0, 0, 0] if pixels.shape[2] == 1 else [2, 1, 0]
        return np.ascontiguousarray(pixels[..., channels])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _visit_all(self, packets: Packets) -> list[_FrameFields]:
        self._packets: list[Packet] = []
        fields: list[_FrameFields] = []
        for packet in (packets[i] for i in range(len(packets))):
            try:
                found = self._fields(packet, fields[0].size if fields else None)
            except InputError:
                if not self._file.tolerant:
                    raise
                continue
            fields.append(found)
            self._packets.append(packet)
        if num_lost := len(packets) - len(fields):
            self._file.warnings.append(f"{self._file.path}: {num_lost} damaged frames were left out")
        return fields

    def _fields(self, packet: Packet, size: tuple[int, int] | None) -> _FrameFields:
        """What a frame's packet says of it.

        Raises:
            InputError: it is damaged, or of another size than the first.
        """
        if self._file.tolerant:
            self._pixels(packet)
        with self._file.reading():
            try:
                table, num_bytes = self._file.table_of_beginning(packet, "FRME")
                fields = _FrameFields.from_table(table)
            except struct.error:  # the fields lie behind the pixels
                table = self._file.table(packet, "FRME")
                fields, num_bytes = _FrameFields.from_table(table), len(table.buffer)
            if num_bytes < fields.size[0] * fields.size[1] * fields.channels:
                raise ValueError(f"the packet at byte {packet.start} has a wrong length")
            if size not in (None, fields.size):
                raise ValueError(f"frames must have the same size, found {sorted([size, fields.size])}")
        return fields

    def _pixels(self, packet: Packet) -> NDArray[np.uint8]:
        """A frame's pixels, uint8 [H, W, C] in OpenCV's order of channels."""
        with self._file.reading():
            table = self._file.table(packet, "FRME")
            fields = _FrameFields.from_table(table)
            shape = (fields.size[1], fields.size[0], fields.channels)
            return np.frombuffer(table.vector(_PIXELS, 1), np.uint8).reshape(shape)
