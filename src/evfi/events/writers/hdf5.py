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
    """
    import h5py

    with h5py.File(path, "w") as file:
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
        file.create_dataset("t_offset", data=np.int64(offset or 0))
        if milliseconds.table is not None:
            file.create_dataset("ms_to_idx", data=milliseconds.finished(), maxshape=(None,), **_PACKING)


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
