"""Prophesee DAT files: a text header, two bytes that tell kind and size of the records, and decoded events.

Facts: docs.prophesee.ai, "DAT File Format". A record of a contrast event has 8 bytes, little-endian: the time in µs (32
bits, going on beyond its wraps), x (14 bits), y (14 bits), polarity (4 bits; 1 = brighter). x runs right and y down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.prophesee_header import PropheseeHeader, read_header
from evfi.events.formats.word_file import CHUNK_EVENTS, WordFile, open_words
from evfi.events.source import EventSource

CONVENTION: Final = "times in µs of the sensor's clock; x right, y down; polarity 1 = brighter"
_KINDS: Final = {0x00: "2D events", 0x0C: "contrast events", 0x0E: "external triggers"}
_EVENT_KINDS: Final = (0x00, 0x0C)
_RECORD_BYTES: Final = 8
_MAX_RECORD_BYTES: Final = 64
_DAT_KEYWORDS: Final = ("data file containing", "version", "width", "height", "date")
_NOT_DAT_KEYWORDS: Final = ("evt", "format", "plugin_name", "system_id")


def is_dat(path: Path) -> bool:
    """Whether the file begins with the header of a DAT file and bytes of kind and size."""
    try:
        header = read_header(path)
    except InputError:
        return False
    return header is not None and _is_dat(header)


def open_dat(path: Path, options: EventFileOptions, *, chunk_events: int = CHUNK_EVENTS) -> EventSource:
    """Open a DAT file.

    Args:
        path: the file.
        options: what the header leaves open: the sensor's size.
        chunk_events: about how many events are decoded and kept as one chunk.

    Raises:
        InputError: it is no DAT file, its records are no contrast events, or it is damaged or truncated.
        RecordingError: it holds no events.
        ConfigError: another unit of time than its own is declared.
    """
    from evfi.events.formats.evt2_words import decode_dat

    header = read_header(path)
    if header is None or not _is_dat(header):
        raise InputError(f"{path}: expected a DAT header ('% Data file containing CD events'), found none")
    kind, size = header.start_bytes
    if kind not in _EVENT_KINDS or size != _RECORD_BYTES:
        raise InputError(
            f"{path}: expected records of contrast events (kind 12 or 0, 8 bytes), found kind {kind} "
            f"({_KINDS.get(kind, 'unknown')}) of {size} bytes; give the file of contrast events"
        )
    start = header.data_start + len(header.start_bytes)
    file = WordFile(
        path,
        "prophesee-dat",
        CONVENTION,
        np.dtype("<u8"),
        decode_dat,
        start,
        header.sensor_size(path),
        clock_period_us=2**32,
    )
    return open_words(file, options, chunk_events=chunk_events)


def _is_dat(header: PropheseeHeader) -> bool:
    if len(header.start_bytes) < 2 or any(key in header.fields for key in _NOT_DAT_KEYWORDS):
        return False
    kind, size = header.start_bytes
    if "data file containing" in header.fields:
        return size <= _MAX_RECORD_BYTES
    return kind in _KINDS and size == _RECORD_BYTES and any(key in header.fields for key in _DAT_KEYWORDS)
