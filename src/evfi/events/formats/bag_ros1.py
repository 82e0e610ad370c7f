"""ROS 1 bags, format 2.0 (http://wiki.ros.org/Bags/Format/2.0): walked record by record, so that cut ones can be read.

A bag is a line, then records: a header of named fields and data. Messages lie in chunks, which may be compressed; behind
them come the connections (topics) and an index, which is not needed here except for the connections.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from evfi.errors import InputError
from evfi.events.formats.bag_parts import (
    MAX_NAME_BYTES,
    MAX_TOPICS,
    BagMessage,
    Damage,
    OnDamage,
    Topic,
    Unpacked,
    shown,
    topic_type,
    unpack,
)

MAGIC: Final = b"#ROSBAG V"
_FIRST_LINE: Final = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _CHUNK, _CONNECTION = b"\x02", b"\x03", b"\x05", b"\x07"
_MAX_HEADER_BYTES: Final = 2**20
_MAX_KEPT_BLOCK_BYTES: Final = 2**26
_U32: Final = struct.Struct("<I")
_TIME: Final = struct.Struct("<II")

Fields = dict[bytes, bytes]


class Ros1File:
    """A ROS 1 bag; see `BagFile`.

    Raises:
        InputError: it is of another version, encrypted, or damaged at its beginning.
    """

    def __init__(self, path: Path):
        self.path = path
        self.complaint: Damage | None = None
        self.connections: dict[int, Topic] = {}
        self._size = path.stat().st_size
        self._kept: tuple[int, bytes] = (-1, b"")
        with path.open("rb") as file:
            line = file.read(len(_FIRST_LINE))
            if line != _FIRST_LINE:
                raise InputError(
                    f"{path}: expected a ROS bag of format 2.0, found '{shown(line[1:12].decode('latin-1'))}'; "
                    "convert it with `rosbag fix` or record again"
                )
            self._start, self._end = self._read_bag_header(file)
        if self._end < self._size:
            self._read_connections()
        else:
            self._find_connections()

    def messages(
        self, numbers: frozenset[int], on_damage: OnDamage, position: int = 0, ordinal: int = 0
    ) -> Iterator[BagMessage]:
        """Messages of some connections, chunk by chunk."""
        wanted = {_U32.pack(number) for number in numbers}
        for start, block in self._blocks(on_damage, position or self._start):
            skip = ordinal if start == position else 0
            for number, (fields, data) in enumerate(_records_of(block)):
                if number < skip or fields.get(b"op") != _MESSAGE or fields.get(b"conn") not in wanted:
                    continue
                stamp = fields.get(b"time", b"")
                seconds, nanoseconds = _TIME.unpack(stamp) if len(stamp) == 8 else (0, 0)
                yield BagMessage(seconds * 10**9 + nanoseconds, data, start, number)

    def _read_bag_header(self, file: IO[bytes]) -> tuple[int, int]:
        """Where chunks begin and end."""
        try:
            record = _read_record(file, file.tell(), self._size)
            if record.fields.get(b"op") != _BAG:
                raise ValueError("the first record is not a bag header")
            index = struct.unpack("<Q", record.fields[b"index_pos"])[0]
        except (ValueError, KeyError, struct.error) as error:
            raise InputError(
                f"{self.path}: damaged ROS bag (its header: {error}); copy the file again or record again"
            ) from None
        if record.fields.get(b"encryptor"):
            raise InputError(f"{self.path}: the bag is encrypted; decrypt it with `rosbag decrypt`")
        if index == 0:
            self.complaint = Damage(self._size, 0, "it was not closed and has no index; run `rosbag reindex`")
        elif not record.end <= index < self._size:
            self.complaint = Damage(self._size, 0, f"truncated: its index should begin at byte {index}")
        return record.end, self._size if self.complaint else index

    def _read_connections(self) -> None:
        """The connections that stand in front of the index."""
        position = self._end
        with self.path.open("rb") as file:
            while position < self._size:
                try:
                    record = _read_record(file, position, self._size)
                except ValueError as error:
                    self.complaint = Damage(position, self._size - position, f"its index is damaged: {error}")
                    return
                if record.fields.get(b"op") != _CONNECTION:
                    return
                self._add_connection(record.fields, file.read(record.length))
                position = record.end

    def _find_connections(self) -> None:
        """Look for connections in the chunks, for bags without an index."""
        for _, block in self._blocks(_pass_over, self._start):
            for fields, data in _records_of(block):
                if fields.get(b"op") == _CONNECTION:
                    self._add_connection(fields, data)

    def _add_connection(self, fields: Fields, data: bytes | memoryview) -> None:
        try:
            about = _fields_of(bytes(data))
        except ValueError:
            return
        number, name, kind = fields.get(b"conn", b""), fields.get(b"topic", b""), about.get(b"type", b"")
        is_named = 0 < len(name) <= MAX_NAME_BYTES and 0 < len(kind) <= MAX_NAME_BYTES
        if len(number) == 4 and is_named and len(self.connections) < MAX_TOPICS:
            topic = Topic(name.decode("utf-8", "replace"), topic_type(kind.decode("utf-8", "replace")), False)
            self.connections.setdefault(_U32.unpack(number)[0], topic)

    def forget(self) -> None:
        """Let go of the chunk that was read last."""
        self._kept = (-1, b"")

    def _blocks(self, on_damage: OnDamage, position: int) -> Iterator[tuple[int, bytes]]:
        """Positions and unpacked contents of the chunks from a position on."""
        unpacked = Unpacked(self._size)
        with self.path.open("rb") as file:
            while position < self._end:
                try:
                    record = _read_record(file, position, self._size)
                except ValueError as error:
                    on_damage(Damage(position, self._end - position, str(error)))
                    return
                if record.fields.get(b"op") == _CHUNK:
                    block = self._block(file, position, record, on_damage)
                    if told := unpacked.add(len(block)):
                        on_damage(Damage(position, self._end - position, told))
                        return
                    yield position, block
                position = record.end

    def _block(self, file: IO[bytes], position: int, record: _Record, on_damage: OnDamage) -> bytes:
        """The content of a chunk, as far as it can be read."""
        kept = self._kept  # other threads may put another one there
        if kept[0] == position:
            return kept[1]
        packing, promised = record.fields.get(b"compression", b"").decode("latin-1"), record.fields.get(b"size", b"")
        try:
            if len(promised) != 4:
                raise ValueError("a chunk does not declare its size")
            size = _U32.unpack(promised)[0]
            is_cut = record.end > self._size
            block = unpack(file.read(min(record.length, self._size - record.start)), packing, size)
        except ValueError as error:
            on_damage(Damage(position, min(record.end, self._size) - position, str(error)))
            return b""
        if is_cut or len(block) < size:
            on_damage(Damage(position, size - len(block), "a chunk ends too early"))
        elif broken := size - _whole_length(block):
            on_damage(Damage(position, broken, "a chunk holds a broken record"))
        elif len(block) <= _MAX_KEPT_BLOCK_BYTES:
            self._kept = (position, block)
        return block


class _Record(NamedTuple):
    """A record's header, and where its data lie."""

    fields: Fields
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def _pass_over(damage: Damage) -> None:
    """Damage is reported elsewhere."""


def _read_record(file: IO[bytes], position: int, size: int) -> _Record:
    """Read the header at a position, and leave the file at the data; a chunk's data may reach beyond the file's end."""
    file.seek(position)
    prefix = file.read(4)
    length = _U32.unpack(prefix)[0] if len(prefix) == 4 else size
    if not 0 < length <= min(_MAX_HEADER_BYTES, size - position - 8):
        raise ValueError(f"the record at byte {position} has a broken or truncated header")
    fields = _fields_of(file.read(length))
    data_length = _U32.unpack(file.read(4))[0]
    record = _Record(fields, position + 8 + length, data_length)
    if b"op" not in fields:
        raise ValueError(f"the record at byte {position} does not declare its type")
    if record.end > size and fields[b"op"] != _CHUNK:
        raise ValueError(f"the record at byte {position} reaches beyond the file's end")
    return record


def _fields_of(header: bytes) -> Fields:
    """Named fields: each with its length in front, name and value parted by `=`."""
    fields: Fields = {}
    position = 0
    while position < len(header):
        if position + 4 > len(header):
            raise ValueError("a record's header is broken")
        (length,) = _U32.unpack_from(header, position)
        position += 4 + length
        name, mark, value = header[position - length : position].partition(b"=")
        if position > len(header) or not mark:
            raise ValueError("a record's header is broken")
        fields[name] = value
    return fields


def _records_of(block: bytes) -> Iterator[tuple[Fields, memoryview]]:
    """The whole records in a chunk."""
    view = memoryview(block)
    position = 0
    while position + 8 <= len(block):
        (length,) = _U32.unpack_from(block, position)
        start = position + 8 + length
        if not length or start > len(block):
            return
        (data_length,) = _U32.unpack_from(block, start - 4)
        if start + data_length > len(block):
            return
        try:
            fields = _fields_of(block[position + 4 : start - 4])
        except ValueError:
            return
        yield fields, view[start : start + data_length]
        position = start + data_length


def _whole_length(block: bytes) -> int:
    """How many bytes of a chunk its whole records take."""
    length = 0
    position = 0
    while position + 8 <= len(block):
        (header_length,) = _U32.unpack_from(block, position)
        start = position + 8 + header_length
        if not header_length or start > len(block):  # without a header it says nothing; zeros are no records
            break
        position = start + int(_U32.unpack_from(block, start - 4)[0])
        if position <= len(block):
            length = position
    return length
