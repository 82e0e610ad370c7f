"""What the containers of ROS messages have in common: topics, messages, places, damage, unpacking within bounds."""

from __future__ import annotations

import bz2
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from evfi.errors import escaped
from evfi.limits import allowed_bytes, refusal

MAX_BLOCK_BYTES: Final = 2**29
"""No chunk is larger than this; recorders write chunks of about 1 MB."""

MAX_TOPICS: Final = 10_000
"""Of one file; further ones are not looked at."""
MAX_NAME_BYTES: Final = 2**12
"""No name of a topic, type, encoding or compression is longer; a few bytes may unpack to one of many megabytes."""

_PIECE_BYTES: Final = 2**22


@dataclass(frozen=True)
class Topic:
    """A stream of messages of one type.

    Attributes:
        name: e.g. "/dvs/events".
        type: package and name, e.g. "dvs_msgs/EventArray" (the "/msg" of ROS 2 is left out).
        is_cdr: whether messages are serialised as ROS 2 does (CDR), not as ROS 1 does.
    """

    name: str
    type: str
    is_cdr: bool


class BagMessage(NamedTuple):
    """One message: `position` and `ordinal` (within the block there) are where reading may begin again."""

    time_ns: int
    data: memoryview
    position: int
    ordinal: int


@dataclass(frozen=True)
class Damage:
    """A part of a bag that cannot be read: where it begins, how many bytes are lost, and why."""

    position: int
    num_bytes: int
    reason: str


OnDamage = Callable[[Damage], None]
"""Told of damage; it raises, or returns if reading shall go on behind it."""


class BagFile(Protocol):
    """One file of messages.

    Attributes:
        path: the file.
        connections: topic of each connection (channel, row of topics) by its number.
        complaint: what is wrong with the file as a whole, None where nothing is.
    """

    path: Path
    connections: dict[int, Topic]
    complaint: Damage | None

    def messages(
        self, numbers: frozenset[int], on_damage: OnDamage, position: int = 0, ordinal: int = 0
    ) -> Iterator[BagMessage]:
        """Messages of some connections in the file's order, from a place on."""

    def forget(self) -> None:
        """Let go of what is kept in memory between messages."""


def topic_type(name: str) -> str:
    """A message type as package and name, whichever way ROS writes it."""
    return name.replace("/msg/", "/")


def shown(text: str, max_letters: int = 80) -> str:
    """Text out of a file, for messages: printable, on one line, and short."""
    return escaped(" ".join(text[: 16 * max_letters].split())[:max_letters])  # a text may be as long as a block


def unpack(data: bytes, compression: str, size: int) -> bytes:
    """Unpack a block, no further than it says.

    Args:
        data: the packed bytes; where they end too early, what they hold is returned.
        compression: "none" (or ""), "bz2", "lz4" or "zstd".
        size: how many bytes it should give.

    Raises:
        ValueError: it is too large, corrupt, longer than `size`, or of another compression.
    """
    if size > MAX_BLOCK_BYTES:
        raise ValueError(f"a block of {size} bytes is larger than the {MAX_BLOCK_BYTES} that can be read")
    if told := refusal(size, len(data)):
        raise ValueError(told)
    try:
        unpacked = _UNPACKERS[compression](data, size)
    except KeyError:
        raise ValueError(f"compression '{shown(compression)}' is not supported") from None
    except (OSError, RuntimeError, EOFError) as error:
        raise ValueError(f"a block cannot be unpacked: {shown(str(error), 200)}") from None
    if len(unpacked) > size:
        raise ValueError(f"a block unpacks to more than the {size} bytes that it declares")
    return unpacked


class Unpacked:
    """Counts what reading through a file unpacks: its chunks together may give no more than a file of its size may.

    Args:
        num_packed: bytes of the file.
    """

    def __init__(self, num_packed: int):
        self._num_packed = num_packed
        self._total = 0

    def add(self, num_bytes: int) -> str:
        """Count some bytes more; what to say where they are too many, else ""."""
        self._total += num_bytes
        return refusal(self._total, self._num_packed, in_memory=False, is_cut=True)


def unpack_message(data: bytes | memoryview, compression: str) -> memoryview:
    """Unpack a message that is compressed on its own; "" means that it is not.

    Raises:
        ValueError: it is too large or corrupt.
    """
    if not compression:
        return memoryview(data)
    return memoryview(unpack(bytes(data), compression, min(MAX_BLOCK_BYTES, allowed_bytes(len(data)))))


def _same(data: bytes, size: int) -> bytes:
    return data


def _unpack_bz2(data: bytes, size: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, size + 1)


def _unpack_lz4(data: bytes, size: int) -> bytes:
    import lz4.frame  # type: ignore[import-untyped]

    decompressor = lz4.frame.LZ4FrameDecompressor()
    parts: list[bytes] = []
    length = 0
    while length <= size and not decompressor.eof:
        part = decompressor.decompress(data, max_length=min(size + 1 - length, _PIECE_BYTES))
        data = b""
        if not part and decompressor.needs_input:
            break  # it was cut
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _unpack_zstd(data: bytes, size: int) -> bytes:
    import zstandard

    parts: list[bytes] = []
    length = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            while length <= size and (part := reader.read(min(size + 1 - length, _PIECE_BYTES))):
                parts.append(part)
                length += len(part)
    except zstandard.ZstdError as error:
        raise ValueError(f"a block cannot be unpacked: {error}") from None
    return b"".join(parts)


_UNPACKERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "": _same,
    "none": _same,
    "bz2": _unpack_bz2,
    "lz4": _unpack_lz4,
    "zstd": _unpack_zstd,
}
