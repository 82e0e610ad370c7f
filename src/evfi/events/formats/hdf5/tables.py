"""Events in an HDF5 file as rows of four raw columns, whichever way those are stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.formats.event_table import RawColumns
from evfi.events.formats.hdf5.container import ECF_FILTER, filters_of, one_line_errors

_MAX_STORED_CHUNK: Final = 2**24
_MAX_RECORD_BYTES: Final = 256


@dataclass(frozen=True)
class SeparateColumns:
    """One dataset for each of x, y, t, p."""

    path: Path
    datasets: dict[str, Any]
    num_events: int

    @property
    def chunk_events(self) -> int:
        """Rows that are stored together."""
        return max((dataset.chunks or (1,))[0] for dataset in self.datasets.values())

    @property
    def event_bytes(self) -> int:
        """Bytes of a row."""
        return sum(dataset.dtype.itemsize for dataset in self.datasets.values())

    def read(self, start: int, stop: int, times: NDArray[Any] | None = None) -> RawColumns:
        """Rows of these numbers."""
        x, y, p = (self._column(name, start, stop) for name in "xyp")
        return x, y, self._column("t", start, stop) if times is None else times, p

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        """The times of these rows."""
        return self._column("t", start, stop)

    def _column(self, name: str, start: int, stop: int) -> NDArray[Any]:
        dataset = self.datasets[name]
        with one_line_errors(self.path, f"events {start} to {stop} of dataset '{dataset.name}' cannot be read"):
            values: NDArray[Any] = dataset[start:stop]
        return values


@dataclass(frozen=True)
class Matrix:
    """One dataset [N, 4]; `order` names its columns."""

    path: Path
    dataset: Any
    order: str

    @property
    def num_events(self) -> int:
        """Rows."""
        return int(self.dataset.shape[0])

    @property
    def chunk_events(self) -> int:
        """Rows that are stored together."""
        return int((self.dataset.chunks or (1,))[0])

    @property
    def event_bytes(self) -> int:
        """Bytes of a row."""
        return 4 * int(self.dataset.dtype.itemsize)

    def read(self, start: int, stop: int, times: NDArray[Any] | None = None) -> RawColumns:
        """Rows of these numbers."""
        with one_line_errors(self.path, f"events {start} to {stop} of dataset '{self.dataset.name}' cannot be read"):
            rows = self.dataset[start:stop]
        x, y, t, p = (np.ascontiguousarray(rows[:, self.order.index(name)]) for name in "xytp")
        return x, y, t, p

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        """The times of these rows."""
        return self.read(start, stop)[2]


@dataclass(frozen=True)
class Records:
    """One dataset of records; `fields` tells the record's name of each of x, y, t, p."""

    path: Path
    dataset: Any
    fields: dict[str, str]

    def __post_init__(self) -> None:
        if self.dataset.dtype.itemsize > _MAX_RECORD_BYTES:
            raise InputError(
                f"{self.path}: records of dataset '{self.dataset.name}' have {self.dataset.dtype.itemsize} bytes, more "
                f"than {_MAX_RECORD_BYTES}; they are not events"
            )

    @property
    def num_events(self) -> int:
        """Rows."""
        return int(self.dataset.shape[0])

    @property
    def chunk_events(self) -> int:
        """Rows that are stored together."""
        return int((self.dataset.chunks or (1,))[0])

    @property
    def event_bytes(self) -> int:
        """Bytes of a row."""
        return int(self.dataset.dtype.itemsize)

    def read(self, start: int, stop: int, times: NDArray[Any] | None = None) -> RawColumns:
        """Rows of these numbers."""
        with one_line_errors(self.path, f"events {start} to {stop} of dataset '{self.dataset.name}' cannot be read"):
            rows = self.dataset[start:stop]
        x, y, t, p = (np.ascontiguousarray(rows[self.fields[name]]) for name in "xytp")
        return x, y, t, p

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        """The times of these rows."""
        return self.read(start, stop)[2]


class EcfRecords:
    """Prophesee's records in chunks coded by ECF, which the HDF5 library cannot undo by itself.

    Raises:
        InputError: the dataset went through further filters.
    """

    def __init__(self, path: Path, dataset: Any):
        if filters_of(dataset) != [ECF_FILTER]:
            raise InputError(
                f"{path}: expected chunks of '{dataset.name}' compressed with ECF only, found filters {filters_of(dataset)}; "
                "rewrite the file with the Metavision SDK"
            )
        self.path = path
        self.dataset = dataset
        self.num_events = int(dataset.shape[0])
        self.chunk_events = int(dataset.chunks[0])
        self.event_bytes = int(dataset.dtype.itemsize)

    def read(self, start: int, stop: int, times: NDArray[Any] | None = None) -> RawColumns:
        """Rows of these numbers; `start` must be the first of a chunk."""
        from evfi.events.formats.hdf5.ecf import decode_events

        room = -(-(stop - start) // self.chunk_events) * self.chunk_events
        columns = (
            np.empty(room, np.int32),
            np.empty(room, np.int32),
            np.empty(room, np.int64),
            np.empty(room, np.int8),
        )
        for first in range(start, stop, self.chunk_events):
            data, is_coded = self._chunk(first)
            part = slice(first - start, first - start + self.chunk_events)
            if is_coded:
                x, y, t, p = (column[part] for column in columns)
                n = self._num_coded(data, first)
                self._check(decode_events(data, x[:n], y[:n], t[:n], p[:n]) > 0, first)
            else:
                self._copy(data, first, tuple(column[part] for column in columns))
        x, y, t, p = (column[: stop - start] for column in columns)
        return x, y, t, p

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        """The times of these rows; `start` must be the first of a chunk."""
        from evfi.events.formats.hdf5.ecf import decode_times

        times = np.empty(-(-(stop - start) // self.chunk_events) * self.chunk_events, np.int64)
        for first in range(start, stop, self.chunk_events):
            data, is_coded = self._chunk(first)
            part = times[first - start : first - start + self.chunk_events]
            if is_coded:
                self._check(decode_times(data, part[: self._num_coded(data, first)]) > 0, first)
            else:
                self._copy(data, first, (None, None, part, None))
        return times[: stop - start]

    def _chunk(self, first: int) -> tuple[NDArray[np.uint8], bool]:
        """The bytes of a chunk, and whether they are coded."""
        with one_line_errors(self.path, f"the chunk of event {first} cannot be read"):
            if self.dataset.id.get_chunk_info_by_coord((first,)).size > _MAX_STORED_CHUNK:
                raise InputError(f"{self.path}: the chunk of event {first} is too large for ECF; the file is damaged")
            mask, data = self.dataset.id.read_direct_chunk((first,))
        return np.frombuffer(data, np.uint8), not mask & 1

    def _num_coded(self, data: NDArray[np.uint8], first: int) -> int:
        from evfi.events.formats.hdf5.ecf import num_events

        n = int(num_events(data))
        self._check(min(self.chunk_events, self.num_events - first) <= n <= self.chunk_events, first)
        return n

    def _copy(self, data: NDArray[np.uint8], first: int, columns: tuple[Any, ...]) -> None:
        """Take the records of a chunk that was stored as it is."""
        wanted = min(self.chunk_events, self.num_events - first)
        self._check(len(data) >= wanted * self.event_bytes, first)
        rows = data[: wanted * self.event_bytes].view(self.dataset.dtype)
        for name, column in zip("xytp", columns, strict=True):
            if column is not None:
                column[:wanted] = rows[name]

    def _check(self, is_right: bool, first: int) -> None:
        if not is_right:
            raise InputError(f"{self.path}: the ECF chunk of event {first} is damaged; copy or export the file again")
