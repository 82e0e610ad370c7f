"""AEDAT 4: DV's recordings, read with dv-processing.

An event's polarity is a bit there; a frame's stamp is the start of its exposure. dv-processing refuses most truncated
files, but on a damaged LZ4 packet it never returns. So every file is walked first: its packets must follow one another
up to the data table, and each must decompress.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.formats.columns import EventFileOptions
from evfi.events.source import EventSource
from evfi.events.stream import EventStream

MAGIC: Final = b"#!AER-DAT4.0\r\n"
_COMPRESSION_LZ4: Final = (1, 2)  # LZ4 and LZ4_HIGH
_UNPACK_BYTES: Final = 2**22
_HINT: Final = "copy the file again or record again"


def is_aedat4(path: Path) -> bool:
    """Whether the file begins as AEDAT 4 files do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_aedat4(path: Path, options: EventFileOptions) -> EventSource:
    """Open the events of an AEDAT 4 file, which leaves nothing open.

    Raises:
        InputError: the file is missing, damaged or truncated.
        RecordingError: it holds no events.
        ConfigError: another unit of time than its own is declared.
    """
    if options.time_unit != "us":
        raise ConfigError(f"{path}: AEDAT4 times are always µs, but '{options.time_unit}' is declared; remove that")
    return Aedat4Events(Aedat4File(path))


class Aedat4File:
    """An open AEDAT 4 file, checked to be whole.

    Attributes:
        path: the file.
        reader: dv-processing's MonoCameraRecording; use it inside `reading()`.
        warnings: streams that are not used.

    Raises:
        InputError: the file is missing, damaged or truncated.
    """

    def __init__(self, path: Path):
        import dv_processing

        self.path = path
        self.warnings: list[str] = []
        check_packets(path)
        with self.reading():
            self.reader: Any = dv_processing.io.MonoCameraRecording(str(path))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn dv-processing's exceptions into one line.

        Raises:
            InputError: any of them came up.
        """
        try:
            yield
        except (RuntimeError, ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
            raise InputError(f"{self.path}: damaged or truncated AEDAT4 file ({_reason(error)}); {_HINT}") from None

    def stream_name(self, kind: str, is_kind: Callable[[str], bool]) -> str | None:
        """The stream of this kind to read: the only one, or the one with the usual name; others give a warning."""
        with self.reading():
            names = [name for name in self.reader.getStreamNames() if is_kind(name)]
        if len(names) <= 1:
            return names[0] if names else None
        chosen = kind if kind in names else names[0]
        others = ", ".join(name for name in names if name != chosen)
        self.warnings.append(f"{self.path}: read {kind} from stream '{chosen}'; not used: {others}")
        return chosen

    def close(self) -> None:
        """Close the file."""
        self.reader = None


class Aedat4Events:
    """The events of an AEDAT 4 file, read by time range.

    Raises:
        RecordingError: the file holds no events.
    """

    def __init__(self, file: Aedat4File):
        self._file = file
        name = file.stream_name("events", file.reader.isStreamOfEventType)
        if name is None:
            raise RecordingError(f"{file.path}: holds no event stream; give an event file besides")
        self._stream = name
        with file.reading():
            width, height = file.reader.getEventResolution(name)
        self.sensor_size = (int(width), int(height))
        self.time_range_us = self._find_time_range()

    def slice(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us; those outside the sensor are dropped and counted."""
        if end_us <= start_us:
            return EventStream.empty(self.sensor_size)
        if self._file.reader is None:
            raise InputError(f"{self._file.path}: the file was closed; open it again")
        with self._file.reading():
            store = self._file.reader.getEventsTimeRange(int(start_us), int(end_us), self._stream)
            if store is None or len(store) == 0:
                return EventStream.empty(self.sensor_size)
            points, times, signs = store.coordinates(), store.timestamps(), store.polarities()
        return EventStream.from_arrays(
            points[:, 0], points[:, 1], times, signs, self.sensor_size, polarity="binary", on_outside="drop"
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _find_time_range(self) -> tuple[int, int]:
        """First and last event time; the file knows only the range of all of its streams."""
        with self._file.reading():
            start, end = (int(bound) for bound in self._file.reader.getTimeRange())
        first = self._scan(start, end + 1, forward=True)
        last = self._scan(start, end + 1, forward=False)
        if first is None or last is None:
            raise RecordingError(f"{self._file.path}: the event stream is empty; give an event file besides")
        return first, last

    def _scan(self, start_us: int, end_us: int, *, forward: bool) -> int | None:
        """Time of the first (or last) event: look into ever longer stretches from that end on."""
        length = 1000
        while start_us < end_us:
            if forward:
                part = self.slice(start_us, min(start_us + length, end_us))
                start_us += length
            else:
                part = self.slice(max(end_us - length, start_us), end_us)
                end_us -= length
            if len(part):
                return int(part.t[0 if forward else -1])
            length *= 2
        return None


def check_packets(path: Path) -> None:
    """Make sure that a file is whole: every packet is complete and, if compressed with LZ4, decompresses.

    Raises:
        InputError: it is not.
    """
    try:
        with path.open("rb") as file:
            _check_open_file(file, path.stat().st_size)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, struct.error, RuntimeError) as error:
        raise InputError(f"{path}: damaged or truncated AEDAT4 file ({_reason(error)}); {_HINT}") from None


def _check_open_file(file: IO[bytes], size: int) -> None:
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("it does not begin with #!AER-DAT4.0")
    compression, table_start = _read_header(file, size)
    end = size if table_start < 0 else table_start
    if not file.tell() <= end <= size:
        raise ValueError(f"its data table should be at byte {table_start}, but it has {size} bytes")
    while file.tell() < end:
        start = file.tell()
        packet_header = file.read(8)
        length = struct.unpack("<ii", packet_header)[1] if len(packet_header) == 8 else -1
        if not 0 <= length <= end - file.tell():
            raise ValueError(f"the packet at byte {start} is cut off or damaged")
        _check_packet(file.read(length), compression, start)
    if table_start >= 0:
        _check_packet(file.read(), compression, table_start)


def _read_header(file: IO[bytes], size: int) -> tuple[int, int]:
    """Compression type and position of the data table (-1: none) from the header, a FlatBuffers table."""
    (length,) = struct.unpack("<I", file.read(4))
    if not 8 <= length <= size - file.tell():
        raise ValueError("its header is cut off")
    header = file.read(length)
    if header[4:8] != b"IOHE":
        raise ValueError("its header is damaged")
    (root,) = struct.unpack_from("<I", header)
    fields = root - struct.unpack_from("<i", header, root)[0]
    (fields_length,) = struct.unpack_from("<H", header, fields)

    def value(number: int, code: str, default: int) -> int:
        position = fields + 4 + 2 * number
        offset = struct.unpack_from("<H", header, position)[0] if position < fields + fields_length else 0
        return int(struct.unpack_from(code, header, root + offset)[0]) if offset else default

    return value(0, "<i", 0), value(1, "<q", -1)


def _check_packet(packet: bytes, compression: int, start: int) -> None:
    """Decompress an LZ4 packet piece by piece and throw the result away."""
    if compression not in _COMPRESSION_LZ4:
        return
    import lz4.frame  # type: ignore[import-untyped]

    decompressor = lz4.frame.LZ4FrameDecompressor()
    data = packet
    while not decompressor.eof:
        unpacked = decompressor.decompress(data, max_length=_UNPACK_BYTES)
        if not unpacked and decompressor.needs_input:
            raise ValueError(f"the packet at byte {start} ends too early")
        data = b""


def _reason(error: BaseException) -> str:
    """The telling line of an error; dv-processing puts the place before and a stack trace after it."""
    lines = [line.strip() for line in str(error).split("Stacktrace")[0].splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
