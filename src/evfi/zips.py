"""Members of zip archives that nobody vouches for.

Only those that are needed are touched. Python's `zipfile` takes the archive's directory at its word; here a member must lie
where the directory says and share its bytes with no other, and is unpacked to the size that it promises and no further.
"""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import IO, Final

DAMAGE: Final = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    IndexError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
)
"""What reading a damaged archive raises."""

_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # `zipfile` unpacks others without a limit
_ENCRYPTED: Final = 1
_BLOCK_BYTES: Final = 2**22


def content_starts(archive: zipfile.ZipFile, file: IO[bytes], members: Sequence[zipfile.ZipInfo]) -> list[int]:
    """Check how members are stored, and find where the content of each begins.

    Args:
        archive: the archive.
        file: the same, open for reading.
        members: those that are needed.

    Returns:
        The byte at which each member's packed content begins.

    Raises:
        ValueError: one is encrypted, packed in another way than stored or deflated, or shares its bytes with another.
    """
    others = sorted(entry.header_offset for entry in archive.infolist())
    starts = []
    for member in members:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise ValueError(f"{member.filename} is encrypted, or compressed with a method other than deflate")
        header = os.pread(file.fileno(), _LOCAL_HEADER.size, member.header_offset)
        magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        behind = bisect_right(others, member.header_offset)
        end = others[behind] if behind < len(others) else archive.start_dir
        is_twice = behind > 1 and others[behind - 2] == member.header_offset
        if magic != b"PK\x03\x04" or is_twice or start + member.compress_size > end:
            raise ValueError(f"{member.filename} overlaps another member, or is not where the archive says")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise ValueError(f"{member.filename} declares {member.file_size} bytes but holds {member.compress_size}")
        starts.append(int(start))
    return starts


def member_blocks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member, block by block, no more than it promises; its checksum is checked on the way.

    Raises:
        DAMAGE: it holds less than it promises, or something else.
    """
    with archive.open(member) as content:
        left = member.file_size
        while left > 0:
            block = content.read(min(left, _BLOCK_BYTES))
            if not block:
                raise ValueError(f"{member.filename} ends too early")
            yield block
            left -= len(block)
