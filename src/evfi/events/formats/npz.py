"""Events in NumPy's .npz: one array per column, names as in `columns.COLUMN_NAMES`.

Or one array of records with fields of those names, or one [N, 4] in the order t, x, y, p or x, y, t, p, detected from the
values. Optional members `width` and `height`, or `sensor_size` (two numbers), give the sensor. Polarity is 0/1 or -1/+1,
detected from the values. Events are read in stretches. Nothing is ever unpickled, and what a member claims to hold is checked
before memory is taken for it. A truncated archive holds nothing that could be read: its columns lie one after another.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.columns import match_columns
from evfi.events.formats.event_table import CHUNK_EVENTS, EventTable, Layout, RawColumns, open_table
from evfi.events.formats.npz_members import (
    ArrayHead,
    NoNumbersError,
    NpzArchive,
    StoredArray,
    array_members,
    damaged,
    read_head,
)
from evfi.events.source import EventSource
from evfi.limits import check_bytes
from evfi.zips import DAMAGE, content_starts, member_blocks

_ZIP_MAGIC: Final = b"PK\x03\x04"
_CONVENTION: Final = "whole pixels, y runs down; polarity 0/1 or -1/+1"
_ABOUT_SENSOR: Final = ("sensor_size", "width", "height")
_NUM_LOOKED_AT: Final = 4096
_MAX_SIDE: Final = 2**15


def is_npz(path: Path) -> bool:
    """Whether the file is a zip archive with .npy members."""
    with path.open("rb") as file:
        if file.read(4) != _ZIP_MAGIC:
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except DAMAGE:
        return path.suffix.lower() == ".npz"  # a broken one is still one: reading it names the damage


def open_npz(path: Path, options: EventFileOptions, *, chunk_events: int = CHUNK_EVENTS) -> EventSource:
    """Open an .npz event file.

    Args:
        path: the file.
        options: what the file leaves open.
        chunk_events: about how many events are read at a time.

    Raises:
        InputError: the file is damaged, lacks a column, or its values are out of range.
        RecordingError: it holds no events.
    """
    archive = NpzArchive(path)
    try:
        table = _find_table(archive)
        layout = Layout("npz", _CONVENTION, table, _declared_sensor_size(archive))
        return open_table(archive, layout, options, chunk_events=chunk_events)
    except BaseException:
        archive.close()
        raise


@dataclass(frozen=True)
class _Columns:
    """Events in one array for each of x, y, t and p."""

    path: Path
    arrays: dict[str, StoredArray]
    chunk_events: int = 1

    @property
    def num_events(self) -> int:
        return self.arrays["t"].shape[0]

    @property
    def event_bytes(self) -> int:
        return sum(array.row_bytes for array in self.arrays.values())

    def read(self, start: int, stop: int, times: NDArray[Any] | None = None) -> RawColumns:
        x, y, p = (self._column(name, start, stop) for name in "xyp")
        return x, y, self._column("t", start, stop) if times is None else times, p

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        return self._column("t", start, stop)

    def _column(self, name: str, start: int, stop: int) -> NDArray[Any]:
        try:
            return self.arrays[name].rows(start, stop)
        except (OSError, ValueError) as error:
            raise damaged(self.path, error) from error


@dataclass(frozen=True)
class _Rows:
    """Events in one array: records, or rows of four numbers; `places` are the fields or columns of x, y, t and p."""

    path: Path
    array: StoredArray
    places: dict[str, Any]
    chunk_events: int = 1

    @property
    def num_events(self) -> int:
        return self.array.shape[0]

    @property
    def event_bytes(self) -> int:
        return self.array.row_bytes

    def read(self, start: int, stop: int, times: NDArray[Any] | None = None) -> RawColumns:
        try:
            rows = self.array.rows(start, stop)
        except (OSError, ValueError) as error:
            raise damaged(self.path, error) from error
        by_field = rows if rows.dtype.fields else rows.T
        x, y, t, p = (np.ascontiguousarray(by_field[self.places[name]]) for name in "xytp")
        return x, y, t, p

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        return self.read(start, stop)[2]


def _find_table(archive: NpzArchive) -> EventTable:
    """The arrays that hold the events: four columns, one array of records, or one of rows."""
    heads = {name: head for name, head in archive.heads.items() if name not in _ABOUT_SENSOR}
    where = str(archive.path)
    columns = {name: head for name, head in heads.items() if len(head.shape) == 1 and not head.dtype.fields}
    records = [name for name, head in heads.items() if len(head.shape) == 1 and head.dtype.fields]
    matrices = [name for name, head in heads.items() if len(head.shape) == 2 and head.shape[1] == 4]
    if len(records) == 1 and not matrices:
        names = match_columns(list(heads[records[0]].dtype.fields or {}), where)
        return _Rows(archive.path, archive.arrays(records)[records[0]], names)
    if len(matrices) == 1 and not records and not columns:
        return _matrix(archive, matrices[0])
    names = match_columns(list(columns), where)
    lengths = {column: columns[name].shape[0] for column, name in names.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{column}: {length}" for column, length in lengths.items())
        raise InputError(f"{where}: event columns must have equal lengths, got {found}")
    arrays = archive.arrays(list(names.values()))
    return _Columns(archive.path, {column: arrays[name] for column, name in names.items()})


def _matrix(archive: NpzArchive, name: str) -> EventTable:
    """Rows of four numbers; which of them is the time is detected from their order."""
    if archive.heads[name].dtype.kind == "b":
        raise InputError(f"{archive.path}: member {name} holds booleans, expected events")
    array = archive.arrays([name])[name]
    by_column = array.columns() if archive.heads[name].is_fortran else None
    if by_column is not None:
        head = np.stack([column.rows(0, min(_NUM_LOOKED_AT, array.shape[0])) for column in by_column], 1)
    else:
        head = array.rows(0, min(_NUM_LOOKED_AT, array.shape[0]))
    order = _order_of(head)
    if order is None:
        raise InputError(
            f"{archive.path}: the columns of member {name} must be t, x, y, p or x, y, t, p with increasing times; neither "
            "fits; save x, y, t and p as separate members"
        )
    if by_column is not None:
        return _Columns(archive.path, {column: by_column[order.index(column)] for column in "xytp"})
    return _Rows(archive.path, array, {column: order.index(column) for column in "xytp"})


def _order_of(rows: NDArray[Any]) -> str | None:
    """Which of the usual orders of columns some rows are in; None if it cannot be told."""
    fitting = []
    for order in ("txyp", "xytp"):
        t, p = rows[:, order.index("t")], rows[:, 3]
        others = rows[:, [order.index("x"), order.index("y")]]
        are_pixels = bool((others >= 0).all() and (others < _MAX_SIDE).all() and (np.floor(others) == others).all())
        if bool((np.diff(t.astype(np.float64)) >= 0).all()) and bool(np.isin(p, (-1, 0, 1)).all()) and are_pixels:
            fitting.append(order)
    return fitting[0] if len(fitting) == 1 else None


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the members of an .npz of plain numbers, each checked before memory is taken for it.

    Args:
        path: the file.
        names: the members to read, where the file has them; None reads all.

    Raises:
        InputError: there is no such file, it is damaged, or a member holds something else than numbers.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            found = [(name, member) for name, member in array_members(archive) if names is None or name in names]
            members = [member for _, member in found]
            content_starts(archive, file, members)
            total, num_packed = (sum(getattr(m, size) for m in members) for size in ("file_size", "compress_size"))
            check_bytes(str(path), total, num_packed)
            return {name: _read_array(archive, read_head(archive, member)) for name, member in found}
    except DAMAGE as error:
        raise damaged(path, error) from error


def _read_array(archive: zipfile.ZipFile, head: ArrayHead) -> NDArray[Any]:
    if head.dtype.fields:
        raise NoNumbersError(head.member.filename, head.dtype)
    content, end = np.empty(head.member.file_size, np.uint8), 0
    for block in member_blocks(archive, head.member):
        content[end : end + len(block)] = np.frombuffer(block, np.uint8)
        end += len(block)
    return np.frombuffer(content, head.dtype, offset=head.start).reshape(head.shape)


def _declared_sensor_size(archive: NpzArchive) -> tuple[int, int] | None:
    """(width, height) of the members `sensor_size`, or `width` and `height`."""
    names = ("sensor_size",) if "sensor_size" in archive.heads else ("width", "height")
    if any(name not in archive.heads for name in names):
        return None
    for name in names:
        head = archive.heads[name]
        if head.dtype.fields or math.prod(head.shape) > 2:
            raise InputError(f"{archive.path}: sensor size must be two numbers (width, height), got shape {head.shape}")
    values = []
    for array in archive.arrays(names).values():
        flat = StoredArray(array.file, array.start, array.dtype, (math.prod(array.shape),))
        values += flat.rows(0, flat.shape[0]).tolist()
    if len(values) != 2 or any(int(value) != value or value < 1 for value in values):
        raise InputError(f"{archive.path}: sensor size must be two positive integers (width, height), got {values}")
    return int(values[0]), int(values[1])
