"""The arrays in an .npz archive, read by rows: where they lie in the archive, or unpacked into a temporary file.

NumPy's own reader takes an array whole. Members that are stored as they are, which is what `np.savez` writes, are read
from the archive itself; compressed ones are unpacked once, into a file without a name that is gone when it is closed.
Opening reads the members' headers; only arrays that are asked for are checked and unpacked.
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from evfi.errors import ConfigError, InputError
from evfi.files import one_line
from evfi.limits import check_bytes, check_disk
from evfi.zips import DAMAGE, content_starts, member_blocks

_BLOCK_BYTES: Final = 2**22
_MAX_RECORD_BYTES: Final = 256
_MAX_HEADER_BYTES: Final = 2**16
_SHOWN: Final = 80


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array whose rows lie one after another in an open file.

    Attributes:
        file: the open file.
        start: byte at which the first row begins.
        dtype: of one element.
        shape: of the whole array, rows first.
    """

    file: IO[bytes]
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows of these numbers; several threads may ask.

        Raises:
            ValueError: the file became shorter.
        """
        size = (stop - start) * self.row_bytes
        data = os.pread(self.file.fileno(), size, self.start + start * self.row_bytes)
        if len(data) != size:
            raise ValueError("it shrank while it was being read")
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def columns(self) -> list[StoredArray]:
        """The columns of a matrix that is stored column by column."""
        height, width = self.shape
        step = height * self.dtype.itemsize
        return [StoredArray(self.file, self.start + i * step, self.dtype, (height,)) for i in range(width)]


@dataclass(frozen=True, eq=False)
class ArrayHead:
    """What a member says of its array.

    Attributes:
        member: the member.
        dtype: of one element.
        shape: of the array.
        is_fortran: a matrix whose columns lie one after another.
        start: byte of the member at which the values begin.
    """

    member: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    start: int


class NpzArchive:
    """An open .npz archive.

    Attributes:
        path: the file.
        heads: what its members say of their arrays, by name.

    Raises:
        InputError: the archive is damaged or truncated, or holds something else than numbers.
    """

    def __init__(self, path: Path):
        self.path = path
        self._files: list[IO[bytes]] = []
        self._known: dict[str, StoredArray] = {}
        self.heads: dict[str, ArrayHead] = {}
        try:
            self._files.append(path.open("rb"))
            self._archive = zipfile.ZipFile(self._files[0])
            self.heads = {name: read_head(self._archive, member) for name, member in array_members(self._archive)}
        except DAMAGE as error:
            self.close()
            raise damaged(path, error) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> NpzArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive, and remove what was unpacked."""
        for file in self._files:
            file.close()

    def arrays(self, names: Collection[str]) -> dict[str, StoredArray]:
        """Arrays by name, checked, and unpacked where they are compressed.

        Raises:
            InputError: one is damaged, or they unpack to too much.
        """
        missing = [name for name in names if name not in self._known]
        try:
            self._take([(name, self.heads[name]) for name in missing])
        except DAMAGE as error:
            raise damaged(self.path, error) from error
        return {name: self._known[name] for name in names}

    def _take(self, wanted: list[tuple[str, ArrayHead]]) -> None:
        members = [head.member for _, head in wanted]
        starts = content_starts(self._archive, self._files[0], members)
        packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
        total, num_packed = (sum(getattr(m, size) for m in packed) for size in ("file_size", "compress_size"))
        check_bytes(str(self.path), total, num_packed, in_memory=False)
        check_disk(str(self.path), total, Path(tempfile.gettempdir()))
        stored = [(head.member, start) for (_, head), start in zip(wanted, starts, strict=True)]
        stored = [(member, start) for member, start in stored if member.compress_type == zipfile.ZIP_STORED]
        with ThreadPoolExecutor(2) as pool:
            sums = list(pool.map(lambda place: self._checksum(*place), stored))
        if wrong := [member.filename for (member, _), crc in zip(stored, sums, strict=True) if crc != member.CRC]:
            raise ValueError(f"the checksum of {wrong[0]} is wrong")
        for (name, head), start in zip(wanted, starts, strict=True):
            is_stored = head.member.compress_type == zipfile.ZIP_STORED
            file, begin = (self._files[0], start) if is_stored else (self._unpacked(head.member), 0)
            self._known[name] = StoredArray(file, begin + head.start, head.dtype, head.shape)

    def _checksum(self, member: zipfile.ZipInfo, position: int) -> int:
        crc, end = 0, position + member.file_size
        while position < end:
            block = os.pread(self._files[0].fileno(), min(_BLOCK_BYTES, end - position), position)
            if not block:
                raise ValueError(f"{member.filename} is cut off")
            crc = zlib.crc32(block, crc)
            position += len(block)
        return crc

    def _unpacked(self, member: zipfile.ZipInfo) -> IO[bytes]:
        """A compressed member's content in a temporary file."""
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._files.append(file)
        file.writelines(member_blocks(self._archive, member))
        file.flush()
        return file


def array_members(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """The members that are arrays, with their names.

    Raises:
        ValueError: two have one name.
    """
    found = [
        (member.filename.removesuffix(".npy"), member)
        for member in archive.infolist()
        if member.filename.endswith(".npy")
    ]
    if len(dict(found)) < len(found):
        raise ValueError("two members have the same name")
    return found


class NoNumbersError(ValueError):
    """A member holds something else than numbers."""

    def __init__(self, member: str, dtype: np.dtype[Any]):
        what = "pickled objects, which are never read" if dtype.hasobject else str(dtype)[:_SHOWN]
        super().__init__(f"{member[:_SHOWN]} holds {what}, expected numbers; save x, y, t and p as arrays of numbers")


def damaged(path: Path, error: BaseException) -> InputError:
    """What to say of a damaged archive.

    Raises:
        ConfigError: it is the error, which is about a setting.
    """
    if isinstance(error, ConfigError):
        raise error
    if isinstance(error, FileNotFoundError):
        return InputError(f"no such file: {path}")
    if isinstance(error, NoNumbersError):
        return InputError(f"{path}: {error}")
    reason = one_line(error)
    return InputError(f"{path}: damaged or truncated .npz ({reason}); copy or export it again")


def read_head(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArrayHead:
    """What a member says of its array, checked against the size that it promises.

    Raises:
        DAMAGE: it is no array of numbers, or promises another size.
    """
    with archive.open(member) as content:
        shape, is_fortran, dtype = _read_header(content)
        start = content.tell()
    _check_promise(member, shape, dtype, start)
    return ArrayHead(member, dtype, shape, is_fortran and len(shape) > 1, start)


def _read_header(content: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of the array in a member, which is read up to its values."""
    beginning = content.read(npy_format.MAGIC_LEN)
    version = npy_format.read_magic(io.BytesIO(beginning))
    length = content.read(2 if version == (1, 0) else 4)
    num_bytes = int.from_bytes(length, "little")
    if num_bytes > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {num_bytes} bytes is too long")
    header = io.BytesIO(length + content.read(num_bytes))
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, is_fortran, dtype = read(header)
    return shape, is_fortran, dtype


def _check_promise(member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any], header_bytes: int) -> None:
    """Numbers, as many bytes as the member has.

    Raises:
        ValueError: they are not.
    """
    fields = [field[0] for field in dtype.fields.values()] if dtype.fields else [dtype]
    if any(field.kind not in "iufb" for field in fields) or dtype.hasobject or dtype.itemsize > _MAX_RECORD_BYTES:
        raise NoNumbersError(member.filename, dtype)
    promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if promised != member.file_size - header_bytes:
        raise ValueError(f"{member.filename} declares {promised} bytes but holds {member.file_size - header_bytes}")
