"""AEDAT 4: recordings of DV and dv-processing (https://docs.inivation.com, file format 4.0).

A file is a line, a header (FlatBuffers, with an XML description of its streams) and packets of one stream each,
compressed with LZ4 or Zstandard, each holding one FlatBuffers table. A packet of events is a vector of 16-byte
records: time in µs, x, y, polarity as a bit.

Files are decoded here rather than by dv-processing 2.0.4, because on damaged packets that never returns, crashes the
interpreter, or leaves out events in silence; its tests compare both. Opening walks through the whole file, so that
what is truncated or damaged is found before any work is done.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal
from xml.etree import ElementTree

import numpy as np

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.formats.columns import EventFileOptions
from evfi.events.formats.flatbuffers import Table
from evfi.events.source import ChunkedEvents, EventChunk, EventSource

MAGIC: Final = b"#!AER-DAT4.0\r\n"
EVENT_DTYPE: Final = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)
_COMPRESSIONS: Final = ("none", "lz4", "lz4", "zstd", "zstd")
_MAX_UNPACKED_BYTES: Final = 2**30
_UNPACK_BYTES: Final = 2**22
_NUM_CACHED_PACKETS: Final = 256
_PACKET_HEADER: Final = struct.Struct("<ii")


@dataclass(frozen=True)
class Aedat4Stream:
    """One stream of a file.

    Attributes:
        number: its number in packet headers.
        kind: FlatBuffers identifier of its packets: "EVTS", "FRME", "IMUS", …
        name: its name, usually "events" or "frames".
        size: (width, height), (0, 0) where it has none.
    """

    number: int
    kind: str
    name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Packet:
    """Where a packet's content lies in the file."""

    start: int
    length: int


class Aedat4File:
    """An open AEDAT 4 file whose packets follow one another up to its end.

    Attributes:
        path: the file.
        streams: its streams.
        warnings: what the user should know.

    Raises:
        InputError: the file is missing, damaged or truncated.
    """

    def __init__(self, path: Path):
        self.path = path
        self.warnings: list[str] = []
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        try:
            with self.reading():
                self._walk(path.stat().st_size)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn whatever a damaged file causes into one line.

        Raises:
            InputError: something came up.
        """
        try:
            yield
        except (ValueError, struct.error, RuntimeError, OSError, OverflowError, ElementTree.ParseError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.path}: damaged or truncated AEDAT4 file ({reason}); copy the file again or record again"
            ) from None

    def stream(self, kind: str, usual_name: Literal["events", "frames"]) -> Aedat4Stream | None:
        """The stream of this kind to read: the only one, or the one with the usual name; others give a warning."""
        found = [stream for stream in self.streams if stream.kind == kind]
        if len(found) <= 1:
            return found[0] if found else None
        chosen = next((stream for stream in found if stream.name == usual_name), found[0])
        others = ", ".join(f"'{stream.name}'" for stream in found if stream is not chosen)
        self.warnings.append(f"{self.path}: {usual_name} are read from stream '{chosen.name}'; not used: {others}")
        return chosen

    def packets(self, stream: Aedat4Stream) -> list[Packet]:
        """The packets of a stream in the file's order."""
        return self._packets.get(stream.number, [])

    def table(self, packet: Packet, kind: str) -> Table:
        """Read and unpack a packet; call it inside `reading()`."""
        if self._file.closed:
            raise InputError(f"{self.path}: the file was closed; open it again")
        self._file.seek(packet.start)
        data = self._unpack(self._file.read(packet.length), packet.start)
        if len(data) < 12 or struct.unpack_from("<I", data)[0] != len(data) - 4:
            raise ValueError(f"the packet at byte {packet.start} has a wrong length")
        return Table.root(memoryview(data)[4:], kind.encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _walk(self, size: int) -> None:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin with #!AER-DAT4.0")
        table_start = self._read_header(size)
        end = size if table_start < 0 else table_start
        if not self._file.tell() <= end < size + (table_start < 0):
            raise ValueError(f"its data table should be at byte {table_start}, but it has {size} bytes")
        self._packets: dict[int, list[Packet]] = {}
        position = self._file.tell()
        while position < end:
            header = self._file.read(_PACKET_HEADER.size)
            if len(header) < _PACKET_HEADER.size:
                raise ValueError(f"the packet at byte {position} is cut off")
            number, length = _PACKET_HEADER.unpack(header)
            start = position + _PACKET_HEADER.size
            if not 0 <= length <= end - start:
                raise ValueError(f"the packet at byte {position} is cut off or damaged")
            self._packets.setdefault(number, []).append(Packet(start, length))
            position = self._file.seek(start + length)
        if table_start >= 0:
            self.table(Packet(table_start, size - table_start), "FTAB")

    def _read_header(self, size: int) -> int:
        """Read the header; return where the data table begins, -1 if there is none."""
        (length,) = struct.unpack("<I", self._file.read(4))
        if length > size - self._file.tell():
            raise ValueError("its header is cut off")
        header = Table.root(memoryview(self._file.read(length)), b"IOHE")
        compression = header.number(0, "i")
        if not 0 <= compression < len(_COMPRESSIONS):
            raise ValueError(f"unknown compression {compression}")
        self._compression = _COMPRESSIONS[compression]
        self.streams = _parse_streams(header.text(2))
        return header.number(1, "q", -1)

    def _unpack(self, data: bytes, start: int) -> bytes:
        if self._compression == "none":
            return data
        parts, total = [], 0
        for part in _lz4_parts(data) if self._compression == "lz4" else _zstd_parts(data):
            total += len(part)
            if total > _MAX_UNPACKED_BYTES:
                raise ValueError(f"the packet at byte {start} unpacks to more than {_MAX_UNPACKED_BYTES} bytes")
            parts.append(part)
        return b"".join(parts)


def is_aedat4(path: Path) -> bool:
    """Whether the file begins as AEDAT 4 files do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_aedat4(path: Path, options: EventFileOptions) -> EventSource:
    """Open the events of an AEDAT 4 file, which leaves nothing open.

    Raises:
        InputError: the file is missing, damaged or truncated.
        RecordingError: it holds no events.
        ConfigError: another unit of time than its own is declared.
    """
    if options.time_unit not in (None, "us"):
        raise ConfigError(f"{path}: AEDAT4 times are always µs, but '{options.time_unit}' is declared; remove that")
    file = Aedat4File(path)
    try:
        return Aedat4Events(file)
    except BaseException:
        file.close()
        raise


class Aedat4Events(ChunkedEvents):
    """The events of an AEDAT 4 file, read packet by packet.

    Raises:
        RecordingError: the file holds no events.
        InputError: a packet is damaged.
    """

    def __init__(self, file: Aedat4File):
        self._aedat4 = file
        stream = file.stream("EVTS", "events")
        if stream is None:
            raise RecordingError(f"{file.path}: holds no event stream; give an event file besides")
        if min(stream.size) < 1:
            raise InputError(f"{file.path}: the event stream '{stream.name}' does not say its sensor size")
        self._filled: list[Packet] = []
        bounds = []
        for packet in file.packets(stream):
            times = self._records(packet)["t"]
            if len(times):
                self._filled.append(packet)
                bounds.append((times.min(), times.max()))
        if not bounds:
            raise RecordingError(f"{file.path}: the event stream is empty; give an event file besides")
        bounds_us = np.array(bounds, np.int64)
        time_range = int(bounds_us.min()), int(bounds_us.max())
        super().__init__(stream.size, time_range, bounds_us, self._load_packet, _NUM_CACHED_PACKETS)

    def close(self) -> None:
        """Close the file."""
        self._aedat4.close()

    def _records(self, packet: Packet) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        with self._aedat4.reading():
            elements = self._aedat4.table(packet, "EVTS").vector(0, EVENT_DTYPE.itemsize)
            return np.frombuffer(elements, EVENT_DTYPE)

    def _load_packet(self, index: int) -> EventChunk:
        records = self._records(self._filled[index])
        x, y, t, p = (records[name] for name in "xytp")
        try:
            return EventChunk.from_arrays(x, y, t, p, self.sensor_size, polarity="binary")
        except InputError as error:
            raise InputError(f"{self._aedat4.path}: damaged events: {error}") from None


def _parse_streams(description: str) -> tuple[Aedat4Stream, ...]:
    """Streams of the header's XML: dv/outInfo/<number>, attributes as `attr` elements with a `key`."""
    if "<!" in description:
        raise ValueError("its header declares XML entities")
    root = ElementTree.fromstring(description.strip("\0 \r\n"))
    streams = []
    for node in root.findall("./node[@name='outInfo']/node"):
        number = int(node.get("name", ""))
        width, height = (int(node.findtext(f"./node[@name='info']/attr[@key='size{axis}']") or 0) for axis in "XY")
        streams.append(
            Aedat4Stream(
                number, _attribute(node, "typeIdentifier"), _attribute(node, "originalOutputName"), (width, height)
            )
        )
    return tuple(streams)


def _attribute(node: ElementTree.Element, key: str) -> str:
    return node.findtext(f"./attr[@key='{key}']") or ""


def _lz4_parts(data: bytes) -> Iterator[bytes]:
    import lz4.frame  # type: ignore[import-untyped]

    decompressor = lz4.frame.LZ4FrameDecompressor()
    while not decompressor.eof:
        part = decompressor.decompress(data, max_length=_UNPACK_BYTES)
        if not part and decompressor.needs_input:
            raise ValueError("a packet ends too early")
        data = b""
        yield part


def _zstd_parts(data: bytes) -> Iterator[bytes]:
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            while part := reader.read(_UNPACK_BYTES):
                yield part
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
