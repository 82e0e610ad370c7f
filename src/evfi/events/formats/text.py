"""Events as lines of text: `t x y p`, separated by blanks, tabs, commas or semicolons.

The file may begin with comment lines (`#`), with a line `W H` that gives the sensor, or with a header that names the
columns (`columns.COLUMN_NAMES`) and so their order. Lines are in time order. Polarity is 0/1 or -1/+1, told from the
values. Only the ends of every stretch of the file are parsed at first; a slice parses the stretches that it touches.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.formats.columns import EventFileOptions, chunk_of_columns, match_columns, to_microseconds
from evfi.events.source import ChunkedEvents, EventChunk, EventSource

STRETCH_BYTES: Final = 8 * 2**20
_HEAD_BYTES: Final = 4096
_MAX_LINE_BYTES: Final = 1024
_DELIMITERS: Final = (",", ";", "\t")


@dataclass(frozen=True)
class TextLayout:
    """How a text file lays out its events.

    Attributes:
        delimiter: what separates columns; None for blanks.
        columns: position of t, x, y and p.
        num_columns: columns per line.
        data_start: byte at which the first event's line begins.
        first_line: number of that line, counted from 1.
        sensor_size: (width, height) if the file says it.
    """

    delimiter: str | None
    columns: tuple[int, int, int, int]
    num_columns: int
    data_start: int
    first_line: int
    sensor_size: tuple[int, int] | None


def is_text(path: Path) -> bool:
    """Whether the file's first lines read as text events."""
    try:
        return find_layout(path) is not None
    except (InputError, RecordingError):  # also a header without events
        return False


def open_text(path: Path, options: EventFileOptions, *, stretch_bytes: int = STRETCH_BYTES) -> EventSource:
    """Open a text event file.

    Args:
        path: the file.
        options: what the file leaves open.
        stretch_bytes: how much of the file is parsed and kept as one piece.

    Raises:
        InputError: there is no such file, its layout is unknown, a line is broken, or times decrease.
        RecordingError: it holds no events.
    """
    layout = find_layout(path)
    if layout is None:
        raise InputError(f"{path}: expected lines 't x y p', found no such line; is this an event file?")
    reader = _TextReader(path, layout, options, stretch_bytes)
    time_range = (int(reader.bounds_us[0, 0]), int(reader.bounds_us[-1, 1]))
    return ChunkedEvents(reader.sensor_size, time_range, reader.bounds_us, reader.load)


def find_layout(path: Path) -> TextLayout | None:
    """Read a text file's layout off its first lines; None if they are not lines of events.

    Raises:
        InputError: there is no such file, or its header names the columns wrongly.
        RecordingError: the file holds a header and nothing else.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if b"\0" in head or not head.strip():
        return None
    names: list[str] | None = None
    size: tuple[int, int] | None = None
    position = 0
    for number, raw in enumerate(head.splitlines(keepends=True), start=1):
        line = raw.decode("utf-8", "replace").strip()
        delimiter = next((mark for mark in _DELIMITERS if mark in line), None)
        fields = [field.strip() for field in line.split(delimiter)]
        values = _numbers(fields)
        if not line or line.startswith("#"):
            pass
        elif values is None and names is None and len(fields) >= 4:
            names = fields
        elif values is not None and len(fields) == 2 and size is None and names is None:
            size = _sensor_size(values, path)
        elif values is not None and len(fields) == (4 if names is None else len(names)):
            return TextLayout(delimiter, _columns(names, path), len(fields), position, number, size)
        else:
            return None
        position += len(raw)
    if len(head) < _HEAD_BYTES and (names or size):
        raise RecordingError(f"{path}: holds no events after its header")
    return None


class _TextReader:
    """Splits a text file into stretches of whole lines and parses them on demand."""

    def __init__(self, path: Path, layout: TextLayout, options: EventFileOptions, stretch_bytes: int):
        size = layout.sensor_size or options.sensor_size
        if size is None:
            raise InputError(
                f"{path}: the file does not say its sensor size; begin it with a line 'W H', or declare it"
            )
        self.sensor_size = size
        self._size_is_assumed = options.size_is_assumed and layout.sensor_size is None
        self._path, self._layout, self._unit = path, layout, options.time_unit or "us"
        self._edges = _stretch_edges(path, layout.data_start, stretch_bytes)
        ends = [self._end_times(start, end) for start, end in pairwise(self._edges)]
        self.bounds_us = np.array(ends, np.int64)
        self._require_order(self.bounds_us.ravel())

    def load(self, index: int) -> EventChunk:
        """Parse one stretch."""
        with self._path.open("rb") as file:
            file.seek(self._edges[index])
            rows = self._parse(file.read(self._edges[index + 1] - self._edges[index]))
        times = self._times(rows)
        first, last = self.bounds_us[index]
        self._require_order(np.array([first, times.min(), times.max(), last]))
        _, x, y, p = self._layout.columns
        columns = rows[:, x], rows[:, y], times, rows[:, p]
        return chunk_of_columns(*columns, self.sensor_size, str(self._path), size_is_assumed=self._size_is_assumed)

    def _require_order(self, times: NDArray[np.int64]) -> None:
        if (np.diff(times) < 0).any():
            raise InputError(f"{self._path}: times decrease within the file; sort its lines by time")

    def _end_times(self, start: int, end: int) -> tuple[int, int]:
        """Times of the first and of the last line of a stretch."""
        with self._path.open("rb") as file:
            file.seek(start)
            first = file.readline(_MAX_LINE_BYTES)
            file.seek(max(start, end - _MAX_LINE_BYTES))
            last = file.read(min(_MAX_LINE_BYTES, end - start)).rstrip().splitlines()[-1]
        times = self._times(np.concatenate([self._parse(first), self._parse(last)]))
        return int(times[0]), int(times[1])

    def _times(self, rows: NDArray[np.float64]) -> NDArray[np.int64]:
        return to_microseconds(rows[:, self._layout.columns[0]], self._unit, str(self._path))

    def _parse(self, text: bytes) -> NDArray[np.float64]:
        """Parse whole lines into float64 [N, columns]; 53 bits hold seconds since 1970 to a quarter microsecond."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # an empty stretch
                rows = np.loadtxt(io.BytesIO(text), delimiter=self._layout.delimiter, ndmin=2, comments="#")
        except ValueError as error:
            raise InputError(
                f"{self._path}: broken line ({str(error).split(';')[0]}); the file may be truncated"
            ) from None
        if rows.shape[1] != self._layout.num_columns:
            raise InputError(
                f"{self._path}: expected {self._layout.num_columns} columns per line, found {rows.shape[1]}; "
                "the file may be truncated"
            )
        return rows


def _stretch_edges(path: Path, start: int, stretch_bytes: int) -> list[int]:
    """Byte positions of line starts that cut the file into stretches; the last is where the last line ends."""
    size = path.stat().st_size
    edges = [start]
    with path.open("rb") as file:
        file.seek(max(start, size - _MAX_LINE_BYTES))
        end = size - _trailing_blanks(file.read())
        while end - edges[-1] > stretch_bytes:
            file.seek(edges[-1] + stretch_bytes)
            line = file.readline(_MAX_LINE_BYTES)
            if len(line) == _MAX_LINE_BYTES:
                raise InputError(f"{path}: a line is longer than {_MAX_LINE_BYTES} bytes; this is no event file")
            if file.tell() >= end:
                break
            edges.append(file.tell())
    return [*edges, end]


def _trailing_blanks(text: bytes) -> int:
    return len(text) - len(text.rstrip())


def _numbers(fields: list[str]) -> list[float] | None:
    try:
        return [float(field) for field in fields]
    except ValueError:
        return None


def _sensor_size(values: list[float], path: Path) -> tuple[int, int]:
    width, height = values
    if width != int(width) or height != int(height) or width < 1 or height < 1:
        raise InputError(f"{path}: the first line gives no sensor size: expected two positive integers, got {values}")
    return int(width), int(height)


def _columns(names: list[str] | None, path: Path) -> tuple[int, int, int, int]:
    if names is None:
        return 0, 1, 2, 3
    matched = match_columns(names, f"{path} (header)")
    t, x, y, p = (names.index(matched[column]) for column in "txyp")
    return t, x, y, p
