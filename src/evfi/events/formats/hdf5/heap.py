"""Strings of variable length in HDF5 files: they lie in global heaps, where the HDF5 library does not check enough.

A heap with a free block of size 0 keeps the library (2.0.0, older ones too) busy for ever. So such strings are read
through a file object that looks for heaps in whatever the library reads and hides those that would not end.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, Final

_HEAP: Final = b"GCOL\x01\0\0\0"
_HEADER: Final = struct.Struct("<8sQ")
_BLOCK: Final = struct.Struct("<HHIQ")
_MAX_HEAP_BYTES: Final = 2**24


class GuardedFile(io.RawIOBase):
    """A file's bytes, as the HDF5 library asks for them; a stretch with a damaged global heap reads as zeros.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._file = path.open("rb")

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The byte that is read next."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; returns the number of bytes."""
        start = self._file.tell()
        num_bytes = self._file.readinto(buffer)
        if not self._are_heaps_sound(start, num_bytes):
            buffer[:num_bytes] = bytes(num_bytes)
        self._file.seek(start + num_bytes)
        return num_bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _are_heaps_sound(self, start: int, num_bytes: int) -> bool:
        """Whether all global heaps that begin in a stretch, or at its edges, come to an end."""
        first = max(0, start - len(_HEAP) + 1)
        self._file.seek(first)
        around = self._file.read(start - first + num_bytes + len(_HEAP) - 1)
        place = around.find(_HEAP)
        while place >= 0:
            self._file.seek(first + place)
            _, size = _HEADER.unpack(self._file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))
            self._file.seek(first + place)
            if size > _MAX_HEAP_BYTES or not _ends(self._file.read(size)):
                return False
            place = around.find(_HEAP, place + 1)
        return True


def _ends(heap: bytes) -> bool:
    """Whether going from block to block of a global heap comes to its end."""
    place = _HEADER.size
    while place + _BLOCK.size <= len(heap):
        number, _, _, size = _BLOCK.unpack_from(heap, place)
        step = size if number == 0 else _BLOCK.size + -(-size // 8) * 8
        if step < _BLOCK.size or step > len(heap) - place:
            return False
        place += step
    return True
