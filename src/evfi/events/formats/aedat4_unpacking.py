"""Unpacking the packets of AEDAT 4 files (LZ4 frames, Zstandard) without trusting the sizes that they claim."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final, Literal

from evfi.limits import VARIABLE, allowed_bytes, refusal

Compression = Literal["none", "lz4", "zstd"]

_UNPACK_BYTES: Final = 2**22
_BEGINNING_BYTES: Final = 2**12
_MAX_LZ4_RATIO: Final = 256
_LZ4_SAYS_SIZE: Final = 0x08
_LZ4_FLAGS_AT: Final = 4


def unpack(data: bytes, compression: Compression, start: int, limit: int | None = None) -> bytes:
    """Unpack a packet.

    Args:
        data: its bytes.
        compression: how it is packed.
        start: where it lies in the file, for errors.
        limit: how many bytes it may give; None: as many as a packet of its size may.

    Raises:
        ValueError, RuntimeError: it is damaged, or unpacks to more.
    """
    if compression == "none":
        return data
    limit = allowed_bytes(len(data)) if limit is None else limit
    if compression == "lz4":
        is_bounded = _MAX_LZ4_RATIO * len(data) <= limit
        if is_bounded and len(data) > _LZ4_FLAGS_AT and not data[_LZ4_FLAGS_AT] & _LZ4_SAYS_SIZE:
            import lz4.frame  # type: ignore[import-untyped]

            return bytes(lz4.frame.decompress(data))
        parts = _lz4_parts(data, _UNPACK_BYTES)
    else:
        import zstandard

        try:
            if 0 < zstandard.frame_content_size(data) <= limit:
                return zstandard.ZstdDecompressor().decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
        parts = _zstd_parts(data, _UNPACK_BYTES)
    return _joined(parts, start, len(data), limit)


def unpack_beginning(data: bytes, compression: Compression) -> bytes:
    """The first 4 KiB of a packet, whose end may be missing from `data`; it may be less."""
    if compression == "none":
        return data[:_BEGINNING_BYTES]
    parts = (_lz4_parts if compression == "lz4" else _zstd_parts)(data, _BEGINNING_BYTES)
    return next(parts, b"")


def _joined(parts: Iterator[bytes], start: int, num_packed: int, limit: int) -> bytes:
    kept, total = [], 0
    for part in parts:
        total += len(part)
        if total > limit:
            told = refusal(total, num_packed, is_cut=True) or (
                f"with its neighbours, it unpacks to more than its size allows; if the file is sound, set {VARIABLE}=8"
            )
            raise ValueError(f"the packet at byte {start}: {told}")
        kept.append(part)
    return b"".join(kept)


def _lz4_parts(data: bytes, size: int) -> Iterator[bytes]:
    import lz4.frame

    decompressor = lz4.frame.LZ4FrameDecompressor()
    while not decompressor.eof:
        part = decompressor.decompress(data, max_length=size)
        if not part and decompressor.needs_input:
            raise ValueError("a packet ends too early")
        data = b""
        yield part


def _zstd_parts(data: bytes, size: int) -> Iterator[bytes]:
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            while part := reader.read(size):
                yield part
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
