"""MCAP files (https://mcap.dev/spec): walked record by record, so that cut ones can be read.

A file is a magic, records (kind, length, content) and the magic again. Schemas and channels name the messages' types and
topics; messages lie in chunks, which may be compressed and carry a checksum, or stand alone. A summary at the end repeats
schemas and channels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from evfi.errors import InputError
from evfi.events.formats.bag_parts import (
    MAX_NAME_BYTES,
    MAX_TOPICS,
    BagMessage,
    Damage,
    OnDamage,
    Topic,
    Unpacked,
    topic_type,
    unpack,
    unpack_message,
)

MAGIC: Final = b"\x89MCAP0\r\n"
_NO_RECORD, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0, 2, 3, 4, 5, 6, 15
_RECORD: Final = struct.Struct("<BQ")
_MESSAGE_HEAD: Final = struct.Struct("<HIQQ")
_FOOTER_BYTES: Final = _RECORD.size + 20 + len(MAGIC)
_MAX_DESCRIPTION_BYTES: Final = 2**24
_MAX_KEPT_BLOCK_BYTES: Final = 2**26
_WIRES: Final = {"cdr": True, "ros1": False}


class McapFile:
    """An MCAP file of ROS messages; see `BagFile`.

    Args:
        path: the file.
        message_compression: "zstd" where each message is compressed on its own, else "".

    Raises:
        InputError: it is no MCAP file.
    """

    def __init__(self, path: Path, message_compression: str = ""):
        self.path = path
        self.complaint: Damage | None = None
        self.connections: dict[int, Topic] = {}
        self._size = path.stat().st_size
        self._compression = message_compression
        self._schemas: dict[int, str] = {}
        self._kept: tuple[int, bytes] = (-1, b"")
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise InputError(
                    f"{path}: expected an MCAP file, but its first bytes are not MCAP's; copy the file again"
                )
            self._read_summary(file)
        if not self.connections:
            self._find_connections()

    def messages(
        self, numbers: frozenset[int], on_damage: OnDamage, position: int = 0, ordinal: int = 0
    ) -> Iterator[BagMessage]:
        """Messages of some channels, chunk by chunk."""
        unpacked = Unpacked(self._size)
        for start, block in self._blocks(on_damage, position or len(MAGIC)):
            skip = ordinal if start == position else 0
            for number, (kind, content) in enumerate(_records_of(block)):
                if number < skip or kind != _MESSAGE or len(content) < _MESSAGE_HEAD.size:
                    continue
                channel, _, log_time, _ = _MESSAGE_HEAD.unpack_from(content)
                if channel not in numbers:
                    continue
                try:
                    data = unpack_message(content[_MESSAGE_HEAD.size :], self._compression)
                    if self._compression and (told := unpacked.add(len(data))):
                        on_damage(Damage(start, self._size - start, told))
                        return
                except ValueError as error:
                    on_damage(Damage(start, len(content), str(error)))
                    data = content[:0]
                yield BagMessage(log_time, data, start, number)

    def _read_summary(self, file: IO[bytes]) -> None:
        """Schemas and channels from the end of the file."""
        file.seek(max(self._size - _FOOTER_BYTES, 0))
        end = file.read(_FOOTER_BYTES)
        if len(end) < _FOOTER_BYTES or end[0] != _FOOTER or not end.endswith(MAGIC):
            self.complaint = Damage(self._size, 0, "truncated: it has no footer; run `mcap recover`")
            return
        (start,) = struct.unpack_from("<Q", end, _RECORD.size)
        if 0 < start < self._size - _FOOTER_BYTES and self._size - start <= _MAX_DESCRIPTION_BYTES:
            file.seek(start)
            self._learn(file.read(self._size - _FOOTER_BYTES - start))

    def _find_connections(self) -> None:
        """Look for channels from the beginning, for files without a summary."""
        for _, block in self._blocks(_pass_over, len(MAGIC)):
            self._learn(block)
        self.forget()

    def _learn(self, records: bytes) -> None:
        for kind, content in _records_of(records):
            if kind not in (_SCHEMA, _CHANNEL):
                continue
            try:
                if kind == _SCHEMA:
                    (number,) = struct.unpack_from("<H", content)
                    if len(self._schemas) < MAX_TOPICS:
                        self._schemas[number] = _text(content, 2)[0]
                else:
                    self._add_channel(content)
            except (ValueError, struct.error):
                continue  # a broken description names no topic

    def _add_channel(self, content: memoryview) -> None:
        number, schema = struct.unpack_from("<HH", content)
        topic, behind = _text(content, 4)
        encoding, _ = _text(content, behind)
        if encoding in _WIRES and schema in self._schemas and len(self.connections) < MAX_TOPICS:
            self.connections.setdefault(number, Topic(topic, topic_type(self._schemas[schema]), _WIRES[encoding]))

    def forget(self) -> None:
        """Let go of the chunk that was read last."""
        self._kept = (-1, b"")

    def _blocks(self, on_damage: OnDamage, position: int) -> Iterator[tuple[int, bytes]]:
        """Positions and unpacked contents of the chunks; a message, schema or channel outside is a block of its own."""
        unpacked = Unpacked(self._size)
        with self.path.open("rb") as file:
            while position < self._size:
                file.seek(position)
                head = file.read(_RECORD.size)
                if len(head) < _RECORD.size:
                    on_damage(Damage(position, self._size - position, f"the record at byte {position} is truncated"))
                    return
                kind, length = _RECORD.unpack(head)
                if kind in (_DATA_END, _FOOTER):
                    return
                end = position + _RECORD.size + length
                if kind == _NO_RECORD or (end > self._size and kind != _CHUNK):
                    on_damage(
                        Damage(position, self._size - position, f"the record at byte {position} is truncated or broken")
                    )
                    return
                if kind == _CHUNK:
                    block = self._chunk(file, position, min(end, self._size), on_damage)
                    if told := unpacked.add(len(block)):
                        on_damage(Damage(position, self._size - position, told))
                        return
                    yield position, block
                elif kind in (_SCHEMA, _CHANNEL, _MESSAGE):
                    yield position, head + file.read(length)
                position = end

    def _chunk(self, file: IO[bytes], position: int, end: int, on_damage: OnDamage) -> bytes:
        """The content of a chunk, as far as it can be read."""
        kept = self._kept  # other threads may put another one there
        if kept[0] == position:
            return kept[1]
        content = file.read(end - file.tell())
        try:
            size, checksum, packing, start, length = _chunk_head(content)
            block = unpack(content[start : start + length], packing, size)
        except (ValueError, struct.error) as error:
            on_damage(Damage(position, end - position, str(error)))
            return b""
        if start + length > len(content) or len(block) < size:
            on_damage(Damage(position, size - len(block), "a chunk ends too early"))
        elif checksum and zlib.crc32(block) != checksum:
            on_damage(Damage(position, end - position, "a chunk does not match its checksum"))
            return b""
        elif broken := size - _whole_length(block):
            on_damage(Damage(position, broken, "a chunk holds a broken record"))
        elif len(block) <= _MAX_KEPT_BLOCK_BYTES:
            self._kept = (position, block)
        return block


def _pass_over(damage: Damage) -> None:
    """Damage is reported elsewhere."""


def _chunk_head(content: bytes) -> tuple[int, int, str, int, int]:
    """Unpacked size, checksum, compression, and where the records lie."""
    size, checksum = struct.unpack_from("<16xQI", content)
    packing, start = _text(memoryview(content), 28)
    (length,) = struct.unpack_from("<Q", content, start)
    return size, checksum, packing, start + 8, length


def _records_of(block: bytes) -> Iterator[tuple[int, memoryview]]:
    """The whole records in a chunk."""
    view = memoryview(block)
    position = 0
    while position + _RECORD.size <= len(block):
        kind, length = _RECORD.unpack_from(block, position)
        position += _RECORD.size + length
        if kind == _NO_RECORD or position > len(block):
            return
        yield kind, view[position - length : position]


def _whole_length(block: bytes) -> int:
    """How many bytes of a chunk its whole records take."""
    position = 0
    while position + _RECORD.size <= len(block):
        kind, length = _RECORD.unpack_from(block, position)
        behind = position + _RECORD.size + int(length)
        if kind == _NO_RECORD or behind > len(block):
            break
        position = behind
    return position


def _text(content: memoryview, position: int) -> tuple[str, int]:
    """A name with its length in front, and where it ends."""
    (length,) = struct.unpack_from("<I", content, position)
    if length > MAX_NAME_BYTES:
        raise ValueError(f"a name of {length} bytes is longer than the {MAX_NAME_BYTES} that can be read")
    end = position + 4 + length
    if end > len(content):
        raise ValueError("a string reaches beyond its record")
    return bytes(content[position + 4 : end]).decode("utf-8", "replace"), end
