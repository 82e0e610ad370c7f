"""Events to HDF5 in DSEC's layout, which most readers know.

    events/x, events/y   uint16
    events/t             int64, µs since `t_offset`
    events/p             uint8, 0 or 1
    t_offset             int64, µs
    ms_to_idx            uint64: number of the first event at or after each whole millisecond since `t_offset`

The file's attributes `width` and `height` give the sensor. Columns are packed with gzip, which every HDF5
reader has. `ms_to_idx` is left out where a recording is longer than 24 hours.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.events.stream import EventStream

_CHUNK: Final = 2**16
_PACKING: Final = {"chunks": (_CHUNK,), "compression": "gzip", "compression_opts": 1, "shuffle": True}
_MAX_MS: Final = 24 * 3600 * 1000


def write_hdf5(path: Path, sensor_size: tuple[int, int], start_us: int, pieces: Iterator[EventStream]) -> None:
    """Write an HDF5 file.

    Args:
        path: the file.
        sensor_size: (width, height), at most 65536 each.
        start_us: unused; the first event's time is what times are counted from.
        pieces: the events in order of time.

    Raises:
        OSError: the operating system refuses, e.g. the disk is full.
    """
    import h5py

    with path.open("wb+", buffering=0) as raw, h5py.File(content := _PatientFile(raw), "w") as file:
        group = file.create_group("events")
        file.attrs["width"], file.attrs["height"] = sensor_size
        columns = {
            name: group.create_dataset(name, (0,), dtype, maxshape=(None,), **_PACKING)
            for name, dtype in (("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1"))
        }
        offset, count, milliseconds = None, 0, _Milliseconds()
        for piece in pieces:
            if offset is None:
                offset = int(piece.t[0])
            times = piece.t - offset
            for name, values in (("x", piece.x), ("y", piece.y), ("t", times), ("p", piece.p > 0)):
                columns[name].resize((count + len(piece),))
                columns[name][count:] = values
            milliseconds.add(times, count)
            count += len(piece)
            content.check()
        file.create_dataset("t_offset", data=np.int64(offset or 0))
        if milliseconds.table is not None:
            file.create_dataset("ms_to_idx", data=milliseconds.finished(), maxshape=(None,), **_PACKING)
    content.check()


class _PatientFile(io.RawIOBase):
    """A file that never refuses HDF5 anything, and remembers what the operating system refused.

    The HDF5 library cannot close a file that it cannot write, and crashes when the process ends. From the first error on, this
    file therefore keeps in memory what it is given, so that the library can close it; `check` then raises the error. Until then
    the library writes no more than it holds itself.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._position = 0
        self._error: OSError | None = None
        self._kept: dict[int, bytes] = {}
        self._size = 0

    def check(self) -> None:
        """Raise what the operating system refused, if it did.

        Raises:
            OSError: as it was.
        """
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        content = bytes(data)
        at, self._position = self._position, self._position + len(content)
        self._size = max(self._size, self._position)
        if self._error is None:
            try:
                self._write_all(content, at)
                return len(content)
            except OSError as error:
                self._error = error
        self._kept[at] = content
        return len(content)

    def _write_all(self, content: bytes, at: int) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._raw.fileno(), content[done:], at + done)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        first, stop = self._position, min(self._position + len(view), self._size)
        found = os.pread(self._raw.fileno(), max(0, stop - first), first)
        view[: len(found)] = found
        for at, content in self._kept.items():  # later ones over earlier ones
            start, end = max(at, first), min(at + len(content), stop)
            if start < end:
                view[start - first : end - first] = content[start - at : end - at]
        self._position = max(first, stop)
        return self._position - first

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        if self._error is None:
            try:
                os.truncate(self._raw.fileno(), self._size)
            except OSError as error:
                self._error = error
        return self._size

    def flush(self) -> None:
        """Nothing waits here."""


class _Milliseconds:
    """Makes `ms_to_idx` of pieces that follow in time."""

    def __init__(self) -> None:
        self.table: list[NDArray[Any]] | None = []
        self._num = 0

    def add(self, times: NDArray[np.int64], num_before: int) -> None:
        """Count a piece.

        Args:
            times: µs since the first event.
            num_before: events before this piece.
        """
        until = int(times[-1]) // 1000 + 1
        if until > _MAX_MS:
            self.table = None
        if self.table is None or until <= self._num:
            return
        wanted = 1000 * np.arange(self._num, until, dtype=np.int64)
        self.table.append((np.searchsorted(times, wanted) + num_before).astype(np.uint64))
        self._num = until

    def finished(self) -> NDArray[Any]:
        """The whole table."""
        return np.concatenate([*(self.table or []), np.zeros(0, np.uint64)])
