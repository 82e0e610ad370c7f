"""ES files (event stream 2.x) of change events.

The header is `Event Stream`, three bytes of version, one byte of kind (1: change events), and the sensor's width and
height (16 bits each, little-endian). An event has five bytes: seven bits of time since the event before in µs and one of
polarity (1 = brighter), x and y (16 bits each). Byte 0xFF adds 127 µs, 0xFE is filler. y counts from the bottom: it is
flipped here. Times are differences, so the file is gone through once and the time at the start of every chunk is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.index import MIN_INDEXED_BYTES, ChunkIndex, load_or_build
from evfi.events.report import ReadReport
from evfi.events.source import ChunkedEvents, EventChunk, EventSource
from evfi.events.stream import EventStream

CHUNK_EVENTS: Final = 2**20
CONVENTION: Final = "times in µs of the file's own clock; x right, y up in the file (flipped); polarity 1 = brighter"
_MAGIC: Final = b"Event Stream"
_HEADER_BYTES: Final = 20
_KINDS: Final = {0: "generic", 1: "change events (dvs)", 2: "atis", 3: "asynchronous atis", 4: "colour"}
_DVS: Final = 1


def is_es(path: Path) -> bool:
    """Whether the file begins as an ES file, of any version and kind."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def open_es(path: Path, options: EventFileOptions, *, chunk_events: int = CHUNK_EVENTS) -> EventSource:
    """Open an ES file.

    Args:
        path: the file.
        options: whether to be tolerant; the file says the rest.
        chunk_events: how many events are decoded and kept as one chunk.

    Raises:
        InputError: it is of another version or kind, or its last event is cut off.
        RecordingError: it holds no events.
    """
    size = _read_header(path)
    reader = f"es 2 chunk={chunk_events} tolerant={options.tolerant}"
    min_bytes = MIN_INDEXED_BYTES
    index = load_or_build(path, reader, lambda: _go_through(path, size, chunk_events, options), min_bytes=min_bytes)
    if len(index.counts) == 0:
        raise RecordingError(f"{path}: holds no events after its header")

    def load(number: int) -> EventChunk:
        time, start, end = index.states[number].tolist()
        chunk, _, _, _ = _decode(_read(path, start, end), time, int(index.counts[number]), size)
        return chunk

    return ChunkedEvents(size, index.time_range_us, index.bounds_us, load, report=index.report)


def _read_header(path: Path) -> tuple[int, int]:
    header = _read(path, 0, _HEADER_BYTES)
    if not header.startswith(_MAGIC) or len(header) < 16:
        raise InputError(f"{path}: expected an ES header ('Event Stream' and a version), found none")
    version, kind = header[12:15], header[15]
    if version[0] != 2:
        found = ".".join(str(part) for part in version)
        raise InputError(f"{path}: expected ES version 2.x, found {found}; convert it with the package event_stream")
    if kind != _DVS:
        name = _KINDS.get(kind, "unknown")
        raise InputError(
            f"{path}: expected ES events of kind 1, change events (dvs), found kind {kind} ({name}); export them as dvs"
        )
    if len(header) < _HEADER_BYTES:
        raise InputError(
            f"{path}: the ES header ends after {len(header)} of {_HEADER_BYTES} bytes; copy the file again"
        )
    width, height = (int(value) for value in np.frombuffer(header[16:20], "<u2"))
    if not width or not height:
        raise InputError(f"{path}: the ES header (byte 16) gives a sensor of {width}×{height}; the file is damaged")
    return width, height


def _go_through(path: Path, size: tuple[int, int], chunk_events: int, options: EventFileOptions) -> ChunkIndex:
    """Decode the file once, chunk by chunk."""
    bounds, counts, states = [], [], []
    position, time, unknown, end = _HEADER_BYTES, 0, 0, path.stat().st_size
    while position < end:
        data = _read(path, position, min(end, position + 5 * chunk_events))
        chunk, used, later, fillers = _decode(data, time, chunk_events, size)
        unknown += fillers
        if used == 0:
            break
        times = [int(part[i]) for part in (chunk.stream.t, chunk.dropped_us) if len(part) for i in (0, -1)]
        if times:
            bounds.append((min(times), max(times)))
            counts.append(len(chunk.stream) + len(chunk.dropped_us))
            states.append((time, position, position + used))
        position += used
        time = later
    lost = end - position
    if lost and not options.tolerant:
        raise InputError(
            f"{path}: the last event is cut off at byte {position} ({lost} of 5 bytes); copy the file again, or read "
            "the events before it with --tolerant"
        )
    notes = (f"{path}: the last event is cut off at byte {position}",) if lost else ()
    report = ReadReport("es dvs", CONVENTION, sum(counts), num_unknown=unknown, num_lost_bytes=lost, notes=notes)
    rows = np.array(states, np.int64).reshape(-1, 3)
    return ChunkIndex(
        starts=np.append(rows[:, 1], position),
        bounds_us=np.array(bounds, np.int64).reshape(-1, 2),
        counts=np.array(counts, np.int64),
        report=report,
        states=rows,
    )


def _decode(data: bytes, time: int, max_events: int, size: tuple[int, int]) -> tuple[EventChunk, int, int, int]:
    """Decode bytes into a chunk; also the bytes used, the time after them and the fillers passed over."""
    from evfi.events.formats.es_loop import decode_es

    width, height = size
    room = min(max_events, len(data) // 5)
    x, y = np.empty(room, np.int32), np.empty(room, np.int32)
    t, p = np.empty(room, np.int64), np.empty(room, np.int8)
    raw = np.frombuffer(data, np.uint8)
    count, used, later, unknown = decode_es(raw, time, max(room, 1), height, x, y, t, p)
    x, y, t, p = x[:count], y[:count], t[:count], p[:count]
    inside = (x < width) & (y >= 0)
    dropped = t[~inside]
    if len(dropped):
        x, y, t, p = x[inside], y[inside], t[inside], p[inside]
    return EventChunk(EventStream(x, y, t, p, size), dropped), used, later, unknown


def _read(path: Path, start: int, end: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
