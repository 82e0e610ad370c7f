"""The container of AEDAT 4 files: a line, a header, packets, and at the end a table of the packets.

The header (FlatBuffers, with an XML description of the streams) says where that table, FTAB, begins. It lists place,
length, number of elements and times of every packet. Where the table accounts for every byte between the header and
itself, packets are taken from it, and in large files their own headers are not visited; otherwise (recording software that
crashed, a table that contradicts the file) packets are followed from header to header.
"""

from __future__ import annotations

import heapq
import struct
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.formats.aedat4_unpacking import Compression, unpack, unpack_beginning
from evfi.events.formats.flatbuffers import Table, table_numbers
from evfi.events.stream import MAX_SIDE
from evfi.files import one_line

LARGE_BYTES: Final = 64 * 2**20  # from here on the file's own table is trusted until packets are read
MAGIC: Final = b"#!AER-DAT4.0\r\n"
_COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "lz4", "lz4", "zstd", "zstd")
_PACKET_HEADER: Final = struct.Struct("<ii")
_MARKS: Final[dict[Compression, tuple[tuple[bytes, ...], int]]] = {
    "lz4": ((b"\x04\x22\x4d\x18",), 8),
    "zstd": ((b"\x28\xb5\x2f\xfd",), 8),
    "none": ((b"EVTS", b"FRME", b"IMUS", b"TRIG"), 16),
}
"""What packets hold at a fixed distance from their beginning, to find the next one behind damage."""
_SEARCH_BYTES: Final = 2**20
_FIRST_SEARCH_BYTES: Final = 2**12  # the next packet is mostly near
_MAX_HEADER_BYTES: Final = 2**22
_MIN_PACKET_BYTES: Final = 8  # less holds no table, however it is packed
_BEGINNING_BYTES: Final = 2**17
_SHOWN: Final = 80


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


@dataclass(frozen=True, eq=False)
class Packets:
    """Packets in the file's order.

    Attributes:
        streams: number of each packet's stream, int64 [P].
        starts: byte at which its content begins, int64 [P].
        lengths: its bytes, int64 [P].
        elements: number of elements, first and last time as the file's table says them, int64 [P, 3]; None without table.
    """

    streams: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    elements: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Packet:
        return Packet(int(self.starts[index]), int(self.lengths[index]))

    def where(self, chosen: NDArray[np.bool_]) -> Packets:
        """Some of them."""
        elements = None if self.elements is None else self.elements[chosen]
        return Packets(self.streams[chosen], self.starts[chosen], self.lengths[chosen], elements)


class Aedat4File:
    """An open AEDAT 4 file; several threads may read it.

    Attributes:
        path: the file.
        tolerant: whether what is damaged is passed over and counted.
        streams: its streams.
        compression: how packets are packed.
        num_lost_bytes: bytes between packets that no packet accounts for (tolerant only).
        num_unknown: packets of streams that the header does not name.
        warnings: what the user should know.

    Raises:
        InputError: the file is missing, damaged or truncated.
    """

    def __init__(self, path: Path, *, tolerant: bool = False):
        self.path = path
        self.tolerant = tolerant
        self.num_lost_bytes = 0
        self.warnings: list[str] = []
        self._lock = threading.Lock()
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        try:
            with self.reading():
                self._find_packets(path.stat().st_size)
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
            reason = one_line(error)
            advice = "" if self.tolerant else ", or read the undamaged part with --tolerant"
            raise InputError(
                f"{self.path}: damaged or truncated AEDAT4 file ({reason}); copy the file again or record again{advice}"
            ) from None

    def stream(self, kind: str, usual_name: Literal["events", "frames"]) -> Aedat4Stream | None:
        """The stream of this kind to read: the only one, or the one with the usual name; others give a warning."""
        found = [stream for stream in self.streams if stream.kind == kind]
        if len(found) <= 1:
            return found[0] if found else None
        chosen = next((stream for stream in found if stream.name == usual_name), found[0])
        others = ", ".join(f"'{stream.name[:_SHOWN]}'" for stream in found if stream is not chosen)
        name = chosen.name[:_SHOWN]
        self.warnings.append(
            f"{self.path}: {usual_name} are read from stream '{name}'; not used: {others[: 5 * _SHOWN]}"
        )
        return chosen

    def packets(self, stream: Aedat4Stream) -> Packets:
        """The packets of a stream in the file's order."""
        return self._packets.where(self._packets.streams == stream.number)

    def num_elements(self, kind: str) -> int:
        """How many elements the file's table says that the streams of a kind hold; 0 without a table."""
        numbers = [stream.number for stream in self.streams if stream.kind == kind]
        if self._packets.elements is None:
            return 0
        return int(self._packets.elements[np.isin(self._packets.streams, numbers), 0].sum())

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file; fewer at its end.

        Raises:
            InputError: the file was closed.
        """
        with self._lock:
            if self._file.closed:
                raise InputError(f"{self.path}: the file was closed; open it again")
            self._file.seek(start)
            return self._file.read(length)

    def table(self, packet: Packet, kind: str) -> Table:
        """Read and unpack a packet; call it inside `reading()`."""
        data = unpack(self.read(packet.start, packet.length), self.compression, packet.start)
        if len(data) < 12 or struct.unpack_from("<I", data)[0] != len(data) - 4:
            raise ValueError(f"the packet at byte {packet.start} has a wrong length")
        return Table.root(memoryview(data)[4:], kind.encode())

    def table_of_beginning(self, packet: Packet, kind: str) -> tuple[Table, int]:
        """A packet's table, of which only the beginning can be read, and how many bytes it has."""
        read = self.read(packet.start, min(packet.length, _BEGINNING_BYTES))
        data = unpack_beginning(read, self.compression)
        if len(data) < 12:
            raise ValueError(f"the packet at byte {packet.start} is too short")
        return Table.root(memoryview(data)[4:], kind.encode()), int(struct.unpack_from("<I", data)[0])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _find_packets(self, size: int) -> None:
        if self.read(0, len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin with #!AER-DAT4.0")
        begin, table_start = self._read_header(size)
        known = None
        if begin <= table_start < size:
            known = self._read_table(begin, table_start, size)
        elif table_start >= 0 and not self.tolerant:
            raise ValueError(f"its data table should be at byte {table_start}, but it has {size} bytes")
        if known is None or (size < LARGE_BYTES and not self.tolerant):
            walked = self._walk(begin, table_start if begin <= table_start < size else size)
            is_same = known is not None and np.array_equal(known.starts, walked.starts)
            known = known if is_same else walked
        assert known is not None
        self._packets = known
        numbers = [stream.number for stream in self.streams]
        self.num_unknown = int(np.count_nonzero(~np.isin(known.streams, numbers)))

    def _read_header(self, size: int) -> tuple[int, int]:
        """Read the header; return where it ends, and where the data table begins, -1 if there is none."""
        begin = len(MAGIC) + 4
        (length,) = struct.unpack("<I", self.read(len(MAGIC), 4))
        if length > size - begin:
            raise ValueError("its header is cut off")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"its header has {length} bytes, more than {_MAX_HEADER_BYTES}")
        header = Table.root(memoryview(self.read(begin, length)), b"IOHE")
        compression = header.number(0, "i")
        if not 0 <= compression < len(_COMPRESSIONS):
            raise ValueError(f"unknown compression {compression}")
        self.compression = _COMPRESSIONS[compression]
        self.streams = _parse_streams(header.text(2))
        self._numbers = frozenset(stream.number for stream in self.streams)
        return begin + length, header.number(1, "q", -1)

    def _read_table(self, begin: int, table_start: int, size: int) -> Packets | None:
        """The packets that the file's table lists; None if it does not account for all bytes."""
        try:
            table = self.table(Packet(table_start, size - table_start), "FTAB")
            start, count = table.vector_place(0)
            if count > (table_start - begin) // _PACKET_HEADER.size:
                raise ValueError(f"its data table lists {count} packets, more than precede it")
            places = table_numbers(table.buffer, start, count, (0, 1, 2, 3, 4))
        except (ValueError, struct.error, RuntimeError):
            if self.tolerant:
                self.num_lost_bytes += size - table_start
                return None
            raise
        places = places[np.argsort(places[:, 0], kind="stable")]
        starts, streams, lengths = places[:, 0], places[:, 1] & 0xFFFFFFFF, places[:, 1] >> 32
        if not len(places):
            return None
        headers = np.append(starts - _PACKET_HEADER.size, table_start)
        ends = np.append(begin, starts + lengths)
        if (headers != ends).any() or lengths.min() < 0 or places[:, 2].min() < 0:
            return None
        return Packets(streams, starts, lengths, places[:, 2:])

    def _walk(self, position: int, end: int) -> Packets:
        found = array("q")  # number, start and length of each: as tuples they would take ten times the file's size
        while position < end:
            header = self._packet_header(position, end)
            if header is None and not self.tolerant:
                raise ValueError(f"the packet at byte {position} is cut off or damaged")
            if header is None:
                resumed = self._next_packet(position + 1, end)
                self.num_lost_bytes += resumed - position
                position = resumed
                continue
            number, length = header
            start = position + _PACKET_HEADER.size
            found.extend((number, start, length))
            position = start + length
        columns = np.frombuffer(found, np.int64).reshape(-1, 3) if found else np.zeros((0, 3), np.int64)
        return Packets(columns[:, 0], columns[:, 1], columns[:, 2])

    def _packet_header(self, position: int, end: int) -> tuple[int, int] | None:
        """Stream and length of the packet at a position; None if none can be there."""
        header = self.read(position, _PACKET_HEADER.size)
        if len(header) < _PACKET_HEADER.size:
            return None
        number, length = _PACKET_HEADER.unpack(header)
        if not _MIN_PACKET_BYTES <= length <= end - position - _PACKET_HEADER.size:
            return None
        if self.tolerant and number not in self._numbers:
            return None
        return number, length

    def _next_packet(self, position: int, end: int) -> int:
        """Where the next packet seems to begin, `end` if there is none."""
        marks, distance = _MARKS[self.compression]
        size = _FIRST_SEARCH_BYTES
        while position < end:
            block = self.read(position, min(size + distance + 4, end - position))
            for place in _places(block, marks, distance):
                header = self._packet_header(position + place, end)
                if header is not None:
                    return position + place
            position += size
            size = min(2 * size, _SEARCH_BYTES)
        return end


def _places(block: bytes, marks: tuple[bytes, ...], distance: int) -> Iterator[int]:
    """Places in a block, growing, that lie so far before a mark; looked for no further than they are asked for."""
    return heapq.merge(*(_places_of(block, mark, distance) for mark in marks))


def _places_of(block: bytes, mark: bytes, distance: int) -> Iterator[int]:
    at = block.find(mark, distance)
    while at >= 0:
        yield at - distance
        at = block.find(mark, at + 1)


def _parse_streams(description: str) -> tuple[Aedat4Stream, ...]:
    """Streams of the header's XML: dv/outInfo/<number>, attributes as `attr` elements with a `key`."""
    if "<!" in description:
        raise ValueError("its header declares XML entities")
    root = ElementTree.fromstring(description.strip("\0 \r\n"))
    streams = []
    for node in root.findall("./node[@name='outInfo']/node"):
        number = int(node.get("name", ""))
        width, height = (int(node.findtext(f"./node[@name='info']/attr[@key='size{axis}']") or 0) for axis in "XY")
        if max(width, height) > MAX_SIDE:
            raise ValueError(f"the sensor of its stream {number} is more than {MAX_SIDE} pixels wide or high")
        kind, name = _attribute(node, "typeIdentifier"), _attribute(node, "originalOutputName")
        streams.append(Aedat4Stream(number, kind, name, (width, height)))
    return tuple(streams)


def _attribute(node: ElementTree.Element, key: str) -> str:
    return node.findtext(f"./attr[@key='{key}']") or ""
