"""Events to NumPy's .npz: x, y uint16, t int64 µs, p int8 ±1, sensor_size (width, height).

The archive needs each column's length before its values, so columns are collected in temporary files beside the target.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy_format

from evfi.events.stream import EventStream
from evfi.events.writers.times import check_times_within

_NANOSECONDS_FROM: Final = 10**17
"""Readers take larger whole numbers for nanoseconds since 1970."""
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    name: np.dtype(code) for name, code in (("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "i1"))
}


def write_npz(path: Path, sensor_size: tuple[int, int] | None, start_us: int, pieces: Iterator[EventStream]) -> None:
    """Write an .npz file.

    Args:
        path: the file.
        sensor_size: (width, height), at most 65536 each; None leaves it out of the file.
        start_us: unused; other formats need it.
        pieces: the events in order of time.

    Raises:
        InputError: times are so large that a reader would take them for nanoseconds.
    """
    with ExitStack() as stack:
        columns = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in _DTYPES}
        count = 0
        for piece in pieces:
            check_times_within(piece, _NANOSECONDS_FROM, "would be read back as nanoseconds")
            count += len(piece)
            for name, dtype in _DTYPES.items():
                columns[name].write(np.ascontiguousarray(getattr(piece, name), dtype).data)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, dtype in _DTYPES.items():
                _add_column(archive, name, dtype, columns[name], count)
            if sensor_size is not None:
                with archive.open("sensor_size.npy", "w") as member:
                    npy_format.write_array(member, np.array(sensor_size, np.int64), allow_pickle=False)


def _add_column(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], values: IO[bytes], count: int) -> None:
    values.seek(0)
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
        npy_format.write_array_header_1_0(member, header)
        shutil.copyfileobj(values, member, 2**20)
