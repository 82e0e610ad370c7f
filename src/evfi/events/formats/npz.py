"""Events in NumPy's .npz: one array per column, names as in `columns.COLUMN_NAMES`.

Optional members `width` and `height`, or `sensor_size` (two numbers), give the sensor. Polarity is 0/1 or -1/+1, told
from the values. The format knows no slices, so the file is read whole. Nothing is ever unpickled, and what a member
claims to hold is checked before memory is taken for it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.formats.columns import (
    EventFileOptions,
    chunk_of_columns,
    match_columns,
    tell_time_unit,
    to_microseconds,
)
from evfi.events.source import EventSource, MemoryEvents

MAX_LOADED_BYTES: Final = 16 * 2**30
_ZIP_MAGIC: Final = b"PK\x03\x04"
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)


def is_npz(path: Path) -> bool:
    """Whether the file is a zip archive with .npy members."""
    with path.open("rb") as file:
        if file.read(4) != _ZIP_MAGIC:
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except _DAMAGE:
        return path.suffix.lower() == ".npz"  # a broken one is still one: reading it names the damage


def open_npz(path: Path, options: EventFileOptions) -> EventSource:
    """Read an .npz event file.

    Args:
        path: the file.
        options: what the file leaves open.

    Raises:
        InputError: the file is damaged, lacks a column, or its values are out of range.
        RecordingError: it holds no events.
    """
    arrays = read_arrays(path)
    declared = _declared_sensor_size(arrays, path)
    size = declared or options.sensor_size
    if size is None:
        raise InputError(f"{path}: the file does not say its sensor size; add members width and height, or declare it")
    names = match_columns(
        [name for name, array in arrays.items() if name not in ("sensor_size", "width", "height") and array.ndim == 1],
        str(path),
    )
    x, y, t, p = (arrays[names[column]] for column in "xytp")
    times = to_microseconds(t, options.time_unit or tell_time_unit(t, str(path))[0], str(path))
    is_assumed = options.size_is_assumed and declared is None
    chunk = chunk_of_columns(x, y, times, p, size, str(path), size_is_assumed=is_assumed)
    return MemoryEvents(chunk.stream, chunk.dropped_us)


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the members of an .npz of plain numbers, each checked before memory is taken for it.

    Args:
        path: the file.
        names: the members to read, where the file has them; None reads all.

    Raises:
        InputError: there is no such file, it is damaged, or a member holds something else than numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                member
                for member in archive.infolist()
                if member.filename.endswith(".npy") and (names is None or member.filename.removesuffix(".npy") in names)
            ]
            total = sum(member.file_size for member in members)
            if total > MAX_LOADED_BYTES:
                raise InputError(f"{path}: unpacks to {total / 2**30:.0f} GiB, more than can be read; split the file")
            return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: damaged or truncated .npz ({reason}); copy or export it again") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.kind not in "iufb":
            raise ValueError(f"{member.filename} holds {dtype}, expected numbers")
        promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if promised != member.file_size - file.tell():
            raise ValueError(f"{member.filename} promises {promised} bytes and holds {member.file_size - file.tell()}")
        data = file.read(promised)
        return np.frombuffer(data, dtype).reshape(shape)


def _declared_sensor_size(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[int, int] | None:
    if "sensor_size" in arrays:
        values = arrays["sensor_size"].ravel().tolist()
    elif "width" in arrays and "height" in arrays:
        values = [*arrays["width"].ravel().tolist(), *arrays["height"].ravel().tolist()]
    else:
        return None
    if len(values) != 2 or any(int(value) != value or value < 1 for value in values):
        raise InputError(f"{path}: sensor size must be two positive integers (width, height), got {values}")
    return int(values[0]), int(values[1])
