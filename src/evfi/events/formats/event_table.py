"""Files that hold events as rows of raw columns (HDF5, NPZ): one pass over the times makes an index, slices read by rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions, TimeUnit
from evfi.events.formats.columns import chunk_of_columns, polarity_convention, tell_time_unit, to_microseconds
from evfi.events.index import ChunkIndex, load_or_build
from evfi.events.report import ReadReport
from evfi.events.source import ChunkedEvents, EventChunk, EventSource
from evfi.events.stream import EventStream

RawColumns = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""x, y, t, p as stored."""

CHUNK_EVENTS: Final = 2**18
_MAX_CHUNK_EVENTS: Final = 2**20
_INDEX_VERSION: Final = 2
_NUM_THREADS: Final = 2
_MAX_NOTES: Final = 20
_MAX_BYTES_KEPT: Final = 64 * 2**20


class OpenFile(Protocol):
    """A file that tables read from."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def close(self) -> None:
        """Close it."""


class EventTable(Protocol):
    """Rows of events; `chunk_events` rows are stored together, so reads should begin at multiples of that."""

    @property
    def num_events(self) -> int:
        """Rows."""

    @property
    def chunk_events(self) -> int:
        """Rows that are stored together."""

    @property
    def event_bytes(self) -> int:
        """Bytes of a row."""

    def read(self, start: int, stop: int, times: NDArray[Any] | None = None) -> RawColumns:
        """Rows of these numbers; a table may take the times given, if there are, instead of reading them."""

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        """The times of these rows."""


@dataclass(frozen=True)
class Layout:
    """How a file's events are stored and what their numbers mean.

    Attributes:
        name: of the layout, with the coding where it has several.
        convention: in one line.
        table: the events.
        sensor_size: (width, height), where the file or the layout tells it.
        time_unit: unit of the times; None where the values have to tell it.
        offset_us: what is added to every time.
        num_triggers: external triggers.
        notes: what the user should know.
    """

    name: str
    convention: str
    table: EventTable
    sensor_size: tuple[int, int] | None = None
    time_unit: TimeUnit | None = None
    offset_us: int = 0
    num_triggers: int = 0
    notes: tuple[str, ...] = ()


def open_table(
    file: OpenFile, layout: Layout, options: EventFileOptions, *, chunk_events: int = CHUNK_EVENTS
) -> EventSource:
    """Open the events of a file whose layout is known. Closing the source closes the file.

    Args:
        file: the open file.
        layout: what it holds.
        options: what the file leaves open.
        chunk_events: about how many events are read at a time.

    Raises:
        InputError: values cannot be events, or cannot be read.
        RecordingError: there are no events.
        ConfigError: another unit of time than the layout's own is declared.
    """
    if layout.table.num_events == 0:
        raise RecordingError(f"{file.path}: holds no events; record again or give another file")
    unit, note = _time_unit(file.path, layout, options)
    size = layout.sensor_size or options.sensor_size
    reader = f"table {_INDEX_VERSION} {layout.name} {unit} {layout.offset_us} {size} {options.tolerant} {chunk_events}"
    scan = _Scan(file, layout, unit, size, options.tolerant)
    index = load_or_build(file.path, reader, lambda: scan.run(chunk_events))
    if not len(index.counts):
        raise RecordingError(f"{file.path}: no event can be read; copy the file again")
    if note:
        index = replace(index, report=replace(index.report, notes=(*index.report.notes, note)))
    source = TableEvents(file, layout, unit, index, size, options, scan.times)
    source.check_first()
    return source


class TableEvents(ChunkedEvents):
    """The events of an open file."""

    def __init__(
        self,
        file: OpenFile,
        layout: Layout,
        unit: TimeUnit,
        index: ChunkIndex,
        size: tuple[int, int] | None,
        options: EventFileOptions,
        times: dict[int, NDArray[Any]],
    ):
        self._file, self._layout, self._unit, self._index = file, layout, unit, index
        self._times = times
        self._size_is_assumed = options.size_is_assumed and layout.sensor_size is None
        chosen = size or index.sensor_size
        if chosen is None:
            raise InputError(f"{file.path}: the sensor size is unknown; set it with --sensor-size")
        super().__init__(
            chosen,
            index.time_range_us,
            index.bounds_us,
            self._read_chunk,
            report=index.report,
            num_threads=_NUM_THREADS,
        )

    def check_first(self) -> None:
        """Read the first stretch, so that what is wrong with all of the file is said on opening it."""
        self._chunk(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_chunk(self, number: int) -> EventChunk:
        start, stop = self._index.states[number].tolist()
        if stop > self._layout.table.num_events:
            raise InputError(f"{self._file.path}: changed while it was read; open it again")
        where = f"{self._file.path}: events {start} to {stop}"
        x, y, raw_t, p = self._layout.table.read(start, stop, self._times.pop(start, None))
        t = to_microseconds(raw_t, self._unit, where) + self._layout.offset_us
        if p.dtype.kind == "b" and len(p) and p.view(np.uint8).max() > 1:
            raise InputError(
                f"{where}: polarities must be true or false, found {p.view(np.uint8).max()}; copy the file again"
            )
        chunk = _fast_chunk(x, y, t, p, self.sensor_size)
        if chunk is None:
            assumed = self._size_is_assumed
            chunk = chunk_of_columns(x, y, t, p, self.sensor_size, where, size_is_assumed=assumed)
        return chunk


def _fast_chunk(
    x: NDArray[Any], y: NDArray[Any], t: NDArray[np.int64], p: NDArray[Any], size: tuple[int, int]
) -> EventChunk | None:
    """Events from columns of whole numbers that are in order and all inside the sensor; None where they are not."""
    if x.dtype.kind not in "iu" or y.dtype.kind not in "iu" or p.dtype.kind not in "iub" or len(t) == 0:
        return None
    if x.max() >= size[0] or y.max() >= size[1] or min(x.min(), y.min()) < 0 or (t[1:] < t[:-1]).any():
        return None
    if p.dtype.kind == "b":
        signs = 2 * p.view(np.int8) - np.int8(1)
    else:
        low, high = int(p.min()), int(p.max())
        is_binary = low >= 0
        if not (-1 <= low <= high <= 1 and (is_binary or (p != 0).all())):
            return None
        signs = p.astype(np.int8, copy=False)
        if is_binary:
            signs = 2 * signs - np.int8(1)
    stream = EventStream(x.astype(np.int32, copy=False), y.astype(np.int32, copy=False), t, signs, size)
    return EventChunk(stream, t[:0])


def _time_unit(path: Path, layout: Layout, options: EventFileOptions) -> tuple[TimeUnit, str | None]:
    declared = options.time_unit
    if layout.time_unit is not None:
        if declared not in (None, layout.time_unit):
            raise ConfigError(
                f"{path}: times of {layout.name} are {layout.time_unit}, but '{declared}' is declared; remove that unit"
            )
        return layout.time_unit, None
    if declared is not None:
        return declared, None
    num = layout.table.num_events
    step = max(layout.table.chunk_events, 1)
    last = (num - 1) // step * step
    ends = [layout.table.read_times(first, min(first + 4096, num)) for first in (0, last)]
    return tell_time_unit(np.concatenate(ends), str(path))


@dataclass
class _Scan:
    """Goes through the times of a file (through all columns, where the sensor's size is unknown or damage is expected)."""

    file: OpenFile
    layout: Layout
    unit: TimeUnit
    size: tuple[int, int] | None
    tolerant: bool
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)  # first, end, earliest, latest
    notes: list[str] = field(default_factory=list)
    num_unsorted: int = 0
    num_lost: int = 0
    times: dict[int, NDArray[Any]] = field(default_factory=dict)  # those of the first stretches, for the first reading
    num_bytes_kept: int = 0
    corner: tuple[int, int] = (-1, -1)
    last: int | None = None

    def run(self, chunk_events: int) -> ChunkIndex:
        """The index: stretches that begin where the file's own chunks begin."""
        table = self.layout.table
        unit = max(table.chunk_events, 1)
        step = min(max(chunk_events // unit, 1) * unit, max(unit, _MAX_CHUNK_EVENTS))
        if step > 4 * _MAX_CHUNK_EVENTS:
            step = _MAX_CHUNK_EVENTS
        for start in range(0, table.num_events, step):
            self._add(start, min(start + step, table.num_events), unit)
        return self._finish()

    def _add(self, start: int, stop: int, unit: int) -> None:
        try:
            self._add_sound(start, stop)
        except InputError as error:
            if not self.tolerant:
                raise
            if stop - start > unit:
                for first in range(start, stop, unit):
                    self._add(first, min(first + unit, stop), unit)
                return
            self.num_lost += stop - start
            if len(self.notes) < _MAX_NOTES:
                self.notes.append(f"events {start} to {stop} are lost: {error}")

    def _add_sound(self, start: int, stop: int) -> None:
        where = f"{self.file.path}: events {start} to {stop}"
        if self.size is None or self.tolerant:
            x, y, raw, p = self.layout.table.read(start, stop)
            if self.tolerant:
                polarity_convention(p, where)
            if self.size is None:
                self.corner = _farthest(self.corner, x, y, where)
        else:
            raw = self.layout.table.read_times(start, stop)
            if self.num_bytes_kept + raw.nbytes <= _MAX_BYTES_KEPT:
                self.times[start] = raw
                self.num_bytes_kept += raw.nbytes
        t = to_microseconds(raw, self.unit, where) + self.layout.offset_us
        self.num_unsorted += int(np.count_nonzero(t[1:] < t[:-1]))
        self.num_unsorted += int(self.last is not None and t[0] < self.last)
        self.last = int(t[-1])
        self.rows.append((start, stop, int(t.min()), int(t.max())))

    def _finish(self) -> ChunkIndex:
        table = self.layout.table
        rows = np.array(self.rows, np.int64).reshape(-1, 4)
        size = None if self.size or not len(rows) else (self.corner[0] + 1, self.corner[1] + 1)
        if size is not None:
            self.notes.append(
                f"{self.file.path.name} does not declare its sensor size; {size[0]}×{size[1]} just holds all events; if "
                "this is wrong, set it with --sensor-size"
            )
        report = ReadReport(
            self.layout.name,
            self.layout.convention,
            num_events=table.num_events,
            num_triggers=self.layout.num_triggers,
            num_unsorted=self.num_unsorted,
            num_lost_bytes=self.num_lost * table.event_bytes,
            notes=(*self.layout.notes, *self.notes),
        )
        return ChunkIndex(
            starts=np.append(rows[:, 0], table.num_events),
            bounds_us=np.ascontiguousarray(rows[:, 2:]),
            counts=rows[:, 1] - rows[:, 0],
            report=report,
            states=np.ascontiguousarray(rows[:, :2]),
            sensor_size=size,
        )


def _farthest(corner: tuple[int, int], x: NDArray[Any], y: NDArray[Any], where: str) -> tuple[int, int]:
    """The largest x and y so far."""
    found = float(x.max()), float(y.max())
    if not max(found) < 2**15:
        raise InputError(
            f"{where}: coordinates up to {max(found)} cannot be pixels; set the sensor size to leave those events out"
        )
    return max(corner[0], int(found[0])), max(corner[1], int(found[1]))
