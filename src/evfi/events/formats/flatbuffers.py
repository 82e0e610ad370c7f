"""Reading FlatBuffers tables of untrusted files: every access stays inside the buffer or raises `struct.error`.

Format: https://flatbuffers.dev/internals (little-endian; a table begins with the distance back to its vtable, which
holds one 16-bit offset per field, 0 where the field has its default).
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

_UINT16: Final = struct.Struct("<H")
_INT32: Final = struct.Struct("<i")
_UINT32: Final = struct.Struct("<I")
_IDENTIFIER: Final = slice(4, 8)


class Table:
    """One table in a buffer.

    Args:
        buffer: the bytes that all offsets refer to.
        position: where the table begins.
    """

    def __init__(self, buffer: memoryview, position: int):
        self._buffer = buffer
        self._position = position
        self._fields = position - _unpack(_INT32, buffer, position)
        self._fields_end = self._fields + _unpack(_UINT16, buffer, self._fields)

    @classmethod
    def root(cls, buffer: memoryview, identifier: bytes) -> Table:
        """The root table of a buffer with this 4-byte file identifier.

        Raises:
            ValueError: the identifier is another one.
        """
        found = bytes(buffer[_IDENTIFIER])
        if found != identifier:
            raise ValueError(f"expected {identifier.decode()} data, found {found!r}")
        return cls(buffer, _unpack(_UINT32, buffer, 0))

    @property
    def buffer(self) -> memoryview:
        """The bytes that all offsets refer to."""
        return self._buffer

    def number(self, field: int, code: str, default: int = 0) -> int:
        """A scalar field; `code` is its `struct` format, without byte order."""
        position = self._find(field)
        return default if position is None else _unpack(struct.Struct(f"<{code}"), self._buffer, position)

    def vector(self, field: int, item_size: int) -> memoryview:
        """The bytes of a vector of items of fixed size; empty if the field is absent."""
        start, length = self.vector_place(field)
        length *= item_size
        if start + length > len(self._buffer):
            raise struct.error(f"a vector of {length} bytes at {start} leaves the buffer")
        return self._buffer[start : start + length]

    def vector_place(self, field: int) -> tuple[int, int]:
        """Where a vector's items begin and how many it says it has; (0, 0) if the field is absent."""
        position = self._find(field)
        if position is None:
            return 0, 0
        start = position + _unpack(_UINT32, self._buffer, position) + _UINT32.size
        return start, _unpack(_UINT32, self._buffer, start - _UINT32.size)

    def text(self, field: int) -> str:
        """A string field; undecodable bytes are replaced."""
        return bytes(self.vector(field, 1)).decode("utf-8", "replace")

    def _find(self, field: int) -> int | None:
        position = self._fields + 4 + 2 * field
        if position + _UINT16.size > self._fields_end:
            return None
        offset = _unpack(_UINT16, self._buffer, position)
        return self._position + offset if offset else None


def table_numbers(buffer: memoryview, offsets_start: int, count: int, fields: tuple[int, ...]) -> NDArray[np.int64]:
    """64-bit fields of many tables at once, 0 where a table leaves a field out.

    Args:
        buffer: the bytes that all offsets refer to.
        offsets_start: where the vector of the tables' offsets begins.
        count: how many tables.
        fields: which fields, each 8 bytes.

    Returns:
        int64 [count, fields].

    Raises:
        struct.error: an offset leaves the buffer.
    """
    if offsets_start + 4 * count > len(buffer):
        raise struct.error(f"a vector of {count} tables at {offsets_start} leaves the buffer")
    data = np.frombuffer(buffer, np.uint8)
    places = offsets_start + 4 * np.arange(count, dtype=np.int64)
    tables = places + _gathered(data, places, "<u4")
    vtables = tables - _gathered(data, tables, "<i4")
    lengths = _gathered(data, vtables, "<u2")
    values = np.zeros((count, len(fields)), np.int64)
    for column, field in enumerate(fields):
        long_enough = np.flatnonzero(lengths >= 6 + 2 * field)
        offsets = _gathered(data, vtables[long_enough] + 4 + 2 * field, "<u2")
        present = long_enough[offsets > 0]
        values[present, column] = _gathered(data, tables[present] + offsets[offsets > 0], "<i8")
    return values


def _unpack(code: struct.Struct, buffer: memoryview, position: int) -> int:
    if position < 0:  # struct would count from the end
        raise struct.error(f"position {position} leaves the buffer")
    return int(code.unpack_from(buffer, position)[0])


def _gathered(data: NDArray[np.uint8], places: NDArray[np.int64], code: str) -> NDArray[np.int64]:
    """Numbers at unaligned places."""
    size = np.dtype(code).itemsize
    if len(places) and not (places.min() >= 0 and places.max() + size <= len(data)):
        raise struct.error("a table leaves the buffer")
    found = np.ascontiguousarray(data[places[:, None] + np.arange(size)])
    return found.view(code)[:, 0].astype(np.int64)
