"""Values that do harm in a file that is sound otherwise; `fuzz_structure.py` writes files with them."""

from __future__ import annotations

import bz2
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

TEXTS: Final = (
    b"", b"\0", b"\xff\xfe\x80", "\u202e\x1b[31m\r\n\u2028".encode(), b"A" * 70_000, b"/dvs/events", b"none", b"bz2", b"lz4",
    b"zstd", b"ros1", b"cdr", b"evt2", b"evt3", b"mono", b"libcaer", b"libcaer_cmp", b"records", b"mono16", b"bayer_rggb16",
    b"rgba8", b"16UC1", b"mono8\0\0", b"dvs_msgs/EventArray", b"event_camera_msgs/msg/EventPacket", b"sensor_msgs/msg/Image",
    b"sensor_msgs/msg/CompressedImage", "é".encode() * 300, b"9" * 5000, b"-1", b"ab " * 2**20,
)  # fmt: skip


class Mischief:
    """Hands values through, but for the chosen ones, which it replaces by harmful ones.

    Args:
        rng: chooses.
        chosen: numbers of the values to replace, counted in the order in which they are asked for.

    Attributes:
        places: where in this script each value was asked for.
    """

    def __init__(self, rng: np.random.Generator, chosen: frozenset[int] = frozenset()):
        self._rng = rng
        self._chosen = chosen
        self.places: list[tuple[int, ...]] = []

    def count(self, true: int, bits: int = 32) -> int:
        """A length or count."""
        top = 1 << bits
        extremes = (0, 1, true - 1, true + 1, 2 * true, true + 8, 1000 * true, top // 2 - 1, top // 2, top - 1, top - 9)
        further = (2**16, 2**20, 2**26, 2**29, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
        return self._one(true, (*extremes, *further)) % top

    def offset(self, true: int, marks: Sequence[int] = (), bits: int = 32) -> int:
        """An offset; `marks` are places to which it had better not point."""
        top = 1 << bits
        near = (0, 1, 4, -1, -4, -8, true + 4, true - 4, true + 8, true - 8, -true, 2 * true, true // 2)
        return self._one(true, (*marks, *marks, *near, top // 2 - 1, top // 2, top - 1, top - 4)) % top

    def number(self, true: int, bits: int = 64) -> int:
        """A time, an identifier, a kind or a flag."""
        top = 1 << bits
        near = (0, 1, 2, 3, 4, 5, 6, true - 1, true + 1, -true, true + 10**6, true * 1000, true // 1000)
        return self._one(true, (*near, top // 2 - 1, top // 2, top - 1, 2**62, 2**61, 2**53, 10**18)) % top

    def text(self, true: str) -> bytes:
        """A text."""
        return bytes(self._one(true.encode(), TEXTS))

    def checksum(self, true: int) -> int:
        """A checksum: another one, or none."""
        return int(self._one(true, (0, true ^ 1)))

    def pick(self, true: Any, *others: Any) -> Any:
        """One of the others."""
        return self._one(true, others)

    def items(self, items: list[Any]) -> list[Any]:
        """A list in another order, with items missing or twice, or with many times as many."""
        last, copy = items[-1:], list(items)
        return list(
            self._one(items, ([], copy[::-1], copy + last, copy[1:], copy[:-1], copy * 2, copy + copy[:1], copy * 200))
        )

    def _one(self, true: Any, others: Sequence[Any]) -> Any:
        number = len(self.places)
        frame, lines = sys._getframe(2), []
        while frame is not None and len(lines) < 4:
            lines.append(frame.f_lineno)
            frame = frame.f_back  # type: ignore[assignment]
        self.places.append(tuple(lines))
        return others[int(self._rng.integers(len(others)))] if number in self._chosen else true


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def packed(m: Mischief, data: bytes, how: str) -> bytes:
    """Compress data; or leave its end away, compress it otherwise or twice, or compress far more."""
    import lz4.frame
    import zstandard

    def sizeless(data: bytes) -> bytes:
        packer = zstandard.ZstdCompressor().compressobj()
        return packer.compress(data) + packer.flush()

    def unsized(data: bytes) -> bytes:
        return bytes(lz4.frame.compress(data, store_size=False))

    ways: dict[str, Callable[[bytes], bytes]] = {
        "": bytes, "none": bytes, "bz2": bz2.compress, "lz4": lz4.frame.compress, "zstd": zstandard.ZstdCompressor().compress,
    }  # fmt: skip
    unusual = {"bz2": bz2.compress, "lz4": unsized, "zstd": sizeless}.get(how, bytes)
    kind = m.pick("true", "unusual", "cut", "twice", "other", "long", "repeated", "skipped", "empty")
    skipped = b"\x50\x2a\x4d\x18" + u32(8) + bytes(8)  # a frame that LZ4 and Zstandard pass over
    made = {
        "true": lambda: ways[how](data),
        "unusual": lambda: unusual(data),
        "cut": lambda: ways[how](data)[: len(data) // 3],
        "twice": lambda: ways[how](ways[how](data)),
        "other": lambda: ways["zstd" if how != "zstd" else "lz4"](data),
        "long": lambda: ways[how](data + bytes(2**22)),
        "repeated": lambda: ways[how](data) * 3,
        "skipped": lambda: skipped * 1000 + ways[how](data),
        "empty": lambda: ways[how](b""),
    }
    return bytes(made[kind]())
