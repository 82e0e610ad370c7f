"""Events, and frames where there are any, to AEDAT 4, as dv-processing writes them.

FlatBuffers tables of fixed layout are written by hand. Packets hold at most 8192 events or one frame, packed with LZ4, in
order of time; the table of packets at the end lets readers seek.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.stream import EventStream

_MAGIC: Final = b"#!AER-DAT4.0\r\n"
_PACKET_EVENTS: Final = 8192
_EVENTS, _FRAMES = 0, 1
_LZ4: Final = 1
_MAX_SIDE: Final = 2**15 - 1
_GREY, _BGR = 0, 16
_EVENT_DTYPE: Final = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
_ENTRY_DTYPE: Final = np.dtype(
    [("back", "<i4"), ("pad", "<i4"), ("place", "<i8"), ("stream", "<i4"), ("length", "<i4")]
    + [(name, "<i8") for name in ("count", "first", "last")]
)


@dataclass(frozen=True, eq=False)
class WritableFrame:
    """A frame to write.

    Attributes:
        start_us: when its exposure began.
        end_us: when it ended.
        image: uint8 [H, W, 3] RGB, or [H, W] grey.
    """

    start_us: int
    end_us: int
    image: NDArray[np.uint8]


def write_aedat4(
    path: Path,
    sensor_size: tuple[int, int],
    start_us: int,
    pieces: Iterator[EventStream],
    frames: Iterable[WritableFrame] | None = None,
    frame_size: tuple[int, int] | None = None,
) -> None:
    """Write an AEDAT 4 file.

    Args:
        path: the file.
        sensor_size: (width, height), at most 32768 each.
        start_us: unused; other formats need it.
        pieces: the events in order of time.
        frames: the frames in order of time.
        frame_size: their (width, height).

    Raises:
        InputError: a frame is too large for the format.
    """
    if frame_size is not None and max(frame_size) > _MAX_SIDE:
        raise InputError(f"frames in AEDAT4 have at most {_MAX_SIDE} px per side, got {frame_size}")
    with path.open("wb") as file:
        writer = _PacketWriter(file, sensor_size, frame_size)
        waiting = iter(frames or ())
        frame = next(waiting, None)
        for piece in pieces:
            for first in range(0, len(piece), _PACKET_EVENTS):
                while frame is not None and frame.start_us <= piece.t[first]:
                    writer.write_frame(frame)
                    frame = next(waiting, None)
                writer.write_events(piece, slice(first, first + _PACKET_EVENTS))
        while frame is not None:
            writer.write_frame(frame)
            frame = next(waiting, None)
        writer.finish()


class _PacketWriter:
    """Writes header, packets and table."""

    def __init__(self, file: IO[bytes], sensor_size: tuple[int, int], frame_size: tuple[int, int] | None):
        self._file = file
        streams = [("events", "EVTS", "Array of events (polarity ON/OFF).", sensor_size)]
        if frame_size is not None:
            streams.append(("frames", "FRME", "Standard frame (8-bit image).", frame_size))
        self._description = _describe(streams)
        self._entries: list[tuple[int, int, int, int, int, int]] = []
        self._write_header(-1)

    def write_events(self, stream: EventStream, part: slice) -> None:
        """Append a packet of events."""
        times = stream.t[part]
        records = np.zeros(len(times), _EVENT_DTYPE)
        records["t"], records["x"], records["y"] = times, stream.x[part], stream.y[part]
        records["p"] = stream.p[part] > 0
        # root at 16 (vtable of one field at 8), the vector's length at 24, so that records are aligned from 32 on
        table = struct.pack("<I4sHHHHiII", 16, b"EVTS", 6, 8, 4, 0, 8, 4, len(records))
        self._write_packet(_EVENTS, table + records.tobytes(), len(records), int(times[0]), int(times[-1]))

    def write_frame(self, frame: WritableFrame) -> None:
        """Append a packet of one frame."""
        image = frame.image if frame.image.ndim == 2 else frame.image[..., ::-1]
        height, width = image.shape[:2]
        code = _GREY if image.ndim == 2 else _BGR
        # fields 0-12 of table Frame: timestamp, frame start, frame end, exposure start, exposure end, format, width, height,
        # left, top, pixels, exposure, source
        offsets = (8, 16, 24, 32, 40, 4, 6, 56, 58, 60, 64, 48, 5)
        vtable = struct.pack("<15H", 4 + 2 * len(offsets), 68, *offsets)
        exposure = frame.end_us - frame.start_us
        times = (frame.start_us, frame.start_us, frame.end_us, frame.start_us, frame.end_us, exposure)
        fields = struct.pack("<ibbh6qhhhhI", 36, code, 1, width, *times, height, 0, 0, 0, 4)
        head = struct.pack("<I4s", 44, b"FRME") + vtable + bytes(6) + fields
        pixels = np.ascontiguousarray(image).tobytes()
        self._write_packet(_FRAMES, head + struct.pack("<I", len(pixels)) + pixels, 1, frame.start_us, frame.start_us)

    def finish(self) -> None:
        """Append the table and let the header name it."""
        position = self._file.tell()
        self._file.write(_packed(self._make_table()))
        self._file.seek(0)
        self._write_header(position)

    def _write_header(self, table_position: int) -> None:
        # as all tables here: root offset, identifier, vtable, table
        text = self._description.encode()
        vtable = struct.pack("<5H", 10, 20, 4, 8, 16)
        table = struct.pack("<iiqI", 20, _LZ4, table_position, 4)
        body = (
            struct.pack("<I4s", 28, b"IOHE") + vtable + bytes(10) + table + struct.pack("<I", len(text)) + text + b"\0"
        )
        self._file.write(_MAGIC + struct.pack("<I", len(body)) + body)

    def _write_packet(self, stream: int, table: bytes, count: int, first_us: int, last_us: int) -> None:
        data = _packed(table)
        self._file.write(struct.pack("<ii", stream, len(data)))
        self._entries.append((self._file.tell(), stream, len(data), count, first_us, last_us))
        self._file.write(data)

    def _make_table(self) -> bytes:
        num = len(self._entries)
        vtable_at = 20 + 8 + 4 * num
        entries_at = -(-(vtable_at + 14 + 4) // 8) * 8 - 4  # aligned with the size before it
        table = struct.pack("<I4sHHHHiII", 16, b"FTAB", 6, 8, 4, 0, 8, 4, num)
        places = entries_at + _ENTRY_DTYPE.itemsize * np.arange(num)
        distances = (places - (28 + 4 * np.arange(num))).astype("<u4")
        entries = np.zeros(num, _ENTRY_DTYPE)
        columns = np.array(self._entries, np.int64).reshape(-1, 6).T
        for name, column in zip(("place", "stream", "length", "count", "first", "last"), columns, strict=True):
            entries[name] = column
        entries["back"] = places - vtable_at
        vtable = struct.pack("<7H", 14, _ENTRY_DTYPE.itemsize, 8, 16, 24, 32, 40)
        gap = bytes(entries_at - vtable_at - len(vtable))
        return table + distances.tobytes() + vtable + gap + entries.tobytes()


def _packed(table: bytes) -> bytes:
    """A table with its size before it, as an LZ4 frame."""
    import lz4.frame  # type: ignore[import-untyped]

    return bytes(lz4.frame.compress(struct.pack("<I", len(table)) + table, block_linked=True, store_size=False))


def _describe(streams: list[tuple[str, str, str, tuple[int, int]]]) -> str:
    """The header's XML."""
    nodes = []
    for number, (name, kind, description, (width, height)) in enumerate(streams):
        path = f"/outInfo/{number}/"
        attributes = {
            "compression": "LZ4",
            "originalModuleName": "evfi",
            "originalOutputName": name,
            "typeDescription": description,
            "typeIdentifier": kind,
        }
        info = (
            _attribute("sizeX", "int", width)
            + _attribute("sizeY", "int", height)
            + _attribute("source", "string", "evfi")
        )
        texts = "".join(_attribute(key, "string", value) for key, value in attributes.items())
        nodes.append(
            f'<node name="{number}" path={quoteattr(path)}>{texts}<node name="info" path="{path}info/">{info}</node></node>'
        )
    return f'<dv version="2.0"><node name="outInfo" path="/outInfo/">{"".join(nodes)}</node></dv>\n'


def _attribute(key: str, kind: str, value: object) -> str:
    return f'<attr key="{key}" type="{kind}">{value}</attr>'
