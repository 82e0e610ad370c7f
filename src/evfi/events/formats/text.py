"""Events as lines of text: `t x y p`, separated by blanks, tabs, commas or semicolons; also compressed by gzip.

The file may begin with comment lines (`#`, `%`), with a line `W H` that gives the sensor, or with a header that names the
columns (`columns.COLUMN_NAMES`, with a unit as in `t[s]` or `time_ns`) and so their order. Without a header the order is
t x y p, unless the first lines only make sense as another one. Seconds are rounded to the nearest microsecond, never cut
off. Polarity is 0/1 or -1/+1, detected from the values.

Opening parses the file once, stretch by stretch, and notes the times of each; a slice parses the stretches that it
touches. What is compressed is unpacked into a temporary file first, because gzip cannot be entered in the middle.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError, escaped
from evfi.events.file_options import EventFileOptions, TimeUnit
from evfi.events.formats.columns import chunk_of_columns, tell_time_unit
from evfi.events.formats.text_layout import GZIP_MAGIC, TextLayout, find_layout
from evfi.events.index import ChunkIndex, load_or_build
from evfi.events.report import ReadReport
from evfi.events.source import ChunkedEvents, EventChunk, EventSource
from evfi.events.stream import EventStream
from evfi.limits import check_disk, refusal

STRETCH_BYTES: Final = 4 * 2**20
_READER: Final = "text 1"
_MAX_LINE_BYTES: Final = 2**16
_MIN_LINE_BYTES: Final = 8
_NUM_THREADS: Final = 2
_MAX_SIDE: Final = 2**15
_EXPONENTS: Final[dict[TimeUnit, int]] = {"s": 6, "ms": 3, "us": 0, "ns": -3}
_SHOWN: Final = 60

Parsed = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int8], NDArray[np.int64]]


def is_text(path: Path) -> bool:
    """Whether the file's first lines read as text events."""
    try:
        return find_layout(path) is not None
    except RecordingError:
        return True  # a header without events: opening it says so
    except InputError:
        return False


def open_text(path: Path, options: EventFileOptions, *, stretch_bytes: int = STRETCH_BYTES) -> EventSource:
    """Open a text event file.

    Args:
        path: the file.
        options: what the file leaves open.
        stretch_bytes: how much of the file is parsed and kept as one piece.

    Raises:
        InputError: there is no such file, its layout is unknown, or a line is no event (unless tolerant).
        RecordingError: it holds no events.
    """
    layout = find_layout(path)
    if layout is None:
        raise InputError(f"{path}: expected lines 't x y p', found none; is this an event file?")
    unit, note = _time_unit(path, layout, options)
    content = _TextContent(path, layout, unit, tolerant=options.tolerant)
    try:
        reader = f"{_READER} {layout.columns} {layout.data_start} {unit} {options.tolerant} {stretch_bytes}"
        index = load_or_build(path, reader, lambda: _build_index(content, layout, stretch_bytes))
        return _TextEvents(content, layout, options, index, note)
    except BaseException:
        content.close()
        raise


class _TextContent:
    """The lines of a file, unpacked where that is needed, and how they are parsed."""

    def __init__(self, path: Path, layout: TextLayout, unit: TimeUnit, *, tolerant: bool):
        self.path = path
        self._tolerant = tolerant
        self._exponent = _EXPONENTS[unit]
        slots = [-1] * layout.num_columns
        for slot, column in enumerate(layout.columns):
            slots[column] = slot
        self._slots = np.array(slots, np.int64)
        self._file: IO[bytes] = path.open("rb")
        self.num_lost_bytes = 0
        try:
            if self._file.read(2) == GZIP_MAGIC:
                self._unpack()
        except BaseException:
            self.close()
            raise
        self.size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file, and remove what was unpacked."""
        self._file.close()

    def edges(self, start: int, stretch_bytes: int) -> list[int]:
        """Byte positions of line starts that cut the lines into stretches, and where the last ends.

        Raises:
            InputError: a line is longer than any line of events.
        """
        edges = [start]
        while self.size - edges[-1] > stretch_bytes:
            position = edges[-1] + stretch_bytes
            line = os.pread(self._file.fileno(), _MAX_LINE_BYTES, position)
            feed = line.find(b"\n")
            if feed < 0 and len(line) == _MAX_LINE_BYTES:
                raise InputError(
                    f"{self.path}: the line at byte {position} is longer than {_MAX_LINE_BYTES} bytes: not an event file"
                )
            if feed < 0 or position + feed + 1 >= self.size:
                break
            edges.append(position + feed + 1)
        return [*edges, self.size]

    def parse(self, start: int, end: int) -> Parsed:
        """x, y, t (µs), p as written, and the tally of the lines between two positions.

        Raises:
            InputError: a line is no event (unless tolerant).
        """
        from evfi.events.formats.text_parser import COUNT, new_tally, parse_lines

        raw = os.pread(self._file.fileno(), end - start, start)
        if len(raw) != end - start:
            raise InputError(
                f"{self.path}: shrank while it was being read; wait until it is fully written, then open it again"
            )
        data = np.frombuffer(raw if raw.endswith(b"\n") else raw + b"\n", np.uint8)
        room = len(data) // _MIN_LINE_BYTES + 1
        x, y = np.empty(room, np.int32), np.empty(room, np.int32)
        t, p = np.empty(room, np.int64), np.empty(room, np.int8)
        tally = new_tally()
        code, position = parse_lines(data, self._slots, self._exponent, self._tolerant, x, y, t, p, tally)
        if code:
            raise self._line_error(code, start + position)
        num = int(tally[COUNT])
        return x[:num], y[:num], t[:num], p[:num], tally

    def _line_error(self, code: int, position: int) -> InputError:
        """What is wrong with the line at a position, and its number."""
        from evfi.events.formats.text_parser import FRACTION_OF_PIXEL, FRACTION_OF_TIME, POLARITY, TOO_LARGE

        line = os.pread(self._file.fileno(), 256, position).splitlines()[0].decode("utf-8", "replace")
        shown = escaped(line[:_SHOWN].strip())
        problem = {
            FRACTION_OF_TIME: "expected times in whole microseconds; if they are seconds, declare it "
            '(--events-unit s; recording.json: "events_time_unit": "s")',
            FRACTION_OF_PIXEL: "event coordinates must be whole pixels; round sub-pixel coordinates down first",
            POLARITY: "polarities must be 0 and 1, or -1 and 1",
            TOO_LARGE: "a number is too large for a time or a pixel; check the order of columns and the unit",
        }.get(
            code,
            f"expected {len(self._slots)} columns of numbers; the file may be truncated: correct it, or leave such lines "
            "out with --tolerant",
        )
        return InputError(f"{self.path}: line {self._line_number(position)}: '{shown}': {problem}")

    def _line_number(self, position: int) -> int:
        number = 1
        for start in range(0, position, STRETCH_BYTES):
            number += os.pread(self._file.fileno(), min(STRETCH_BYTES, position - start), start).count(b"\n")
        return number

    def _unpack(self) -> None:
        """Put what gzip compressed into a temporary file, as far as it can be read where that is allowed."""
        packed = os.fstat(self._file.fileno()).st_size
        self._file.close()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        written = 0
        try:
            with gzip.open(self.path) as unpacked:
                while block := unpacked.read1(STRETCH_BYTES):
                    written += len(block)
                    if told := refusal(written, packed, in_memory=False, is_cut=True):
                        raise InputError(f"{self.path}: {told}")
                    check_disk(str(self.path), 2 * len(block), Path(tempfile.gettempdir()))
                    self._file.write(block)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if not self._tolerant or not written:
                raise InputError(
                    f"{self.path}: damaged or truncated gzip file ({' '.join(str(error).split())}); copy it again, or read "
                    "it up to the damage with --tolerant"
                ) from None
            self.num_lost_bytes = 1  # how much was beyond the damage, nobody knows
        self._file.flush()


def _build_index(content: _TextContent, layout: TextLayout, stretch_bytes: int) -> ChunkIndex:
    from evfi.events.formats.text_parser import (
        BAD_BYTES,
        BAD_LINES,
        COUNT,
        FLAGS,
        HAS_MINUS,
        HAS_ZERO,
        LAST_T,
        MAX_T,
        MAX_X,
        MAX_Y,
        MIN_T,
        UNSORTED,
    )

    edges = content.edges(layout.data_start, stretch_bytes)
    rows, tallies, firsts = [], [], []
    for (start, end), (first, tally) in zip(pairwise(edges), _tallies(content, edges), strict=True):
        tallies.append(tally)
        if tally[COUNT]:
            rows.append((start, end, tally))
            firsts.append(first)
    if not rows:
        raise RecordingError(f"{content.path}: holds no events; record again or give another file")
    total = np.array(tallies)
    flags = int(np.bitwise_or.reduce(total[:, FLAGS]))
    if flags & HAS_MINUS and flags & HAS_ZERO:
        raise InputError(f"{content.path}: polarities must be 0 and 1, or -1 and 1; found -1 and 0")
    between = sum(first < row[2][LAST_T] for first, row in zip(firsts[1:], rows, strict=False))
    corner = int(total[:, MAX_X].max()) + 1, int(total[:, MAX_Y].max()) + 1
    num_bad = int(total[:, BAD_LINES].sum())
    report = ReadReport(
        "text",
        "whole pixels, y runs down; times rounded to the nearest µs; polarity "
        + ("-1/+1" if flags & HAS_MINUS else "0/1"),
        num_events=int(total[:, COUNT].sum()),
        num_unsorted=int(total[:, UNSORTED].sum()) + int(between),
        num_lost_bytes=int(total[:, BAD_BYTES].sum()) + content.num_lost_bytes,
        notes=(f"{num_bad} lines are not events and were left out",) if num_bad else (),
    )
    return ChunkIndex(
        starts=np.array([row[0] for row in rows] + [edges[-1]], np.int64),
        bounds_us=np.array([row[2][[MIN_T, MAX_T]] for row in rows], np.int64),
        counts=np.array([row[2][COUNT] for row in rows], np.int64),
        states=np.array([[row[0], row[1]] for row in rows], np.int64),
        sensor_size=corner if max(corner) <= _MAX_SIDE and min(corner) > 0 else None,
        report=report,
    )


def _tallies(content: _TextContent, edges: list[int]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Time of the first event and the tally of each stretch, parsed on several threads."""

    def look(start: int, end: int) -> tuple[int, NDArray[np.int64]]:
        _, _, t, _, tally = content.parse(start, end)
        return (int(t[0]) if len(t) else 0), tally

    waiting: deque[Future[tuple[int, NDArray[np.int64]]]] = deque()
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        try:
            for start, end in pairwise(edges):
                waiting.append(pool.submit(look, start, end))
                if len(waiting) > _NUM_THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _TextEvents(ChunkedEvents):
    """The events of a text file, parsed stretch by stretch."""

    def __init__(
        self, content: _TextContent, layout: TextLayout, options: EventFileOptions, index: ChunkIndex, note: str | None
    ):
        self._content, self._index = content, index
        told = layout.sensor_size or options.sensor_size
        self._size_is_assumed = options.size_is_assumed and layout.sensor_size is None
        notes = [*index.report.notes, *layout.notes, *([note] if note else [])]
        if told is None:
            told = index.sensor_size
            if told is None:
                raise InputError(
                    f"{content.path}: the sensor size is unknown, and coordinates are negative or beyond {_MAX_SIDE}; set "
                    "it with --sensor-size"
                )
            notes.append(
                f"{content.path.name} does not declare its sensor size; {told[0]}×{told[1]} just holds all events; if that is "
                "wrong, set it with --sensor-size"
            )
        super().__init__(
            told,
            index.time_range_us,
            index.bounds_us,
            self._load_stretch,
            report=replace(index.report, notes=tuple(notes)),
            num_threads=_NUM_THREADS,
        )
        self._check_first_outside()

    def close(self) -> None:
        """Close the file."""
        self._content.close()

    def _check_first_outside(self) -> None:
        """Where the sensor's size is a guess, look at once for events that refute it."""
        corner = self._index.sensor_size
        is_refuted = corner is None or corner[0] > self.sensor_size[0] or corner[1] > self.sensor_size[1]
        if self._size_is_assumed and is_refuted:
            for number in range(len(self._index.counts)):
                self._load_stretch(number)

    def _load_stretch(self, number: int) -> EventChunk:
        from evfi.events.formats.text_parser import COUNT, MAX_X, MAX_Y, MIN_XY, UNSORTED

        start, end = self._index.states[number].tolist()
        x, y, t, p, tally = self._content.parse(start, end)
        if tally[COUNT] != self._index.counts[number]:
            raise InputError(f"{self._content.path}: changed while it was read; open it again")
        signs = np.where(p > 0, np.int8(1), np.int8(-1))
        width, height = self.sensor_size
        if tally[MAX_X] < width and tally[MAX_Y] < height and tally[MIN_XY] >= 0 and not tally[UNSORTED]:
            return EventChunk(EventStream(x, y, t, signs, self.sensor_size), t[:0])
        where = str(self._content.path)
        return chunk_of_columns(x, y, t, signs, self.sensor_size, where, size_is_assumed=self._size_is_assumed)


def _time_unit(path: Path, layout: TextLayout, options: EventFileOptions) -> tuple[TimeUnit, str | None]:
    """The unit that is declared, given by the header, or detected from the first lines."""
    unit = options.time_unit or layout.time_unit
    if unit is not None:
        return unit, None
    times = layout.head[:, layout.columns[0]]
    return tell_time_unit(times[np.isfinite(times)], path.name)
