"""The arrays in an .npz archive, read by rows: where they lie in the archive, or unpacked into a temporary file.

NumPy's own reader takes an array whole. Members that are stored as they are, which is what `np.savez` writes, are read
from the archive itself; compressed ones are unpacked once, into a file without a name that is gone when it is closed.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from evfi.errors import InputError

DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
)
"""What reading a damaged archive raises."""

_MAX_RATIO: Final = 250
_MIN_BYTES_TO_JUDGE: Final = 256 * 2**20
_BLOCK_BYTES: Final = 2**22
_MAX_RECORD_BYTES: Final = 256
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")


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
            raise ValueError("it became shorter while it was read")
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def columns(self) -> list[StoredArray]:
        """The columns of a matrix that is stored column by column."""
        height, width = self.shape
        step = height * self.dtype.itemsize
        return [StoredArray(self.file, self.start + i * step, self.dtype, (height,)) for i in range(width)]


class NpzArchive:
    """An open .npz archive.

    Attributes:
        path: the file.
        arrays: its arrays by name; a matrix in Fortran's order has its shape turned round, and `is_fortran` names it.
        is_fortran: names of those.

    Raises:
        InputError: the archive is damaged or truncated, unpacks to too much, or holds something else than numbers.
    """

    def __init__(self, path: Path):
        self.path = path
        self._files: list[IO[bytes]] = []
        self.arrays: dict[str, StoredArray] = {}
        self.is_fortran: set[str] = set()
        try:
            self._files.append(path.open("rb"))
            with zipfile.ZipFile(self._files[0]) as archive:
                self._read_directory(archive)
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

    def _read_directory(self, archive: zipfile.ZipFile) -> None:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        names = [member.filename.removesuffix(".npy") for member in members]
        if len(set(names)) < len(names):
            raise ValueError("two members have one name")
        _check_ratio(members, self.path)
        stored = [member for member in members if member.compress_type == zipfile.ZIP_STORED]
        with ThreadPoolExecutor(2) as pool:
            sums = list(pool.map(self._checksum, stored))
        if wrong := [member.filename for member, crc in zip(stored, sums, strict=True) if crc != member.CRC]:
            raise ValueError(f"the checksum of {wrong[0]} is wrong")
        for name, member in zip(names, members, strict=True):
            self._add(archive, name, member)

    def _add(self, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> None:
        with archive.open(member) as content:
            shape, is_fortran, dtype = read_header(content)
            header_bytes = content.tell()
        check_promise(member, shape, dtype, header_bytes)
        file, start = self._files[0], 0
        if member.compress_type == zipfile.ZIP_STORED:
            start = self._content_start(member)
        else:
            file = self._unpack(archive, member)
        if is_fortran and len(shape) > 1:
            self.is_fortran.add(name)
        self.arrays[name] = StoredArray(file, start + header_bytes, dtype, shape)

    def _content_start(self, member: zipfile.ZipInfo) -> int:
        """Byte at which a stored member's content begins."""
        header = os.pread(self._files[0].fileno(), _LOCAL_HEADER.size, member.header_offset)
        magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = int(member.header_offset) + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if magic != b"PK\x03\x04" or start + member.file_size > self.path.stat().st_size or member.flag_bits & 1:
            raise ValueError(f"{member.filename} does not lie where the archive says, or is encrypted")
        return int(start)

    def _checksum(self, member: zipfile.ZipInfo) -> int:
        position, crc = self._content_start(member), 0
        end = position + member.file_size
        while position < end:
            block = os.pread(self._files[0].fileno(), min(_BLOCK_BYTES, end - position), position)
            if not block:
                raise ValueError(f"{member.filename} is cut off")
            crc = zlib.crc32(block, crc)
            position += len(block)
        return crc

    def _unpack(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
        """A compressed member's content in a temporary file; its checksum is checked on the way."""
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if member.file_size > free:
            raise InputError(
                f"{self.path}: unpacks to {member.file_size / 2**30:.1f} GiB and more, but only {free / 2**30:.1f} GiB "
                f"are free in {tempfile.gettempdir()}; name a larger folder in TMPDIR"
            )
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._files.append(file)
        with archive.open(member) as content:
            shutil.copyfileobj(content, file, _BLOCK_BYTES)
        file.flush()
        return file


class NoNumbersError(ValueError):
    """A member holds something else than numbers."""

    def __init__(self, member: str, dtype: np.dtype[Any]):
        what = "pickled objects, which are never read" if dtype.hasobject else f"{dtype}"
        super().__init__(f"{member} holds {what}, expected numbers; save x, y, t and p as arrays of numbers")


def damaged(path: Path, error: BaseException) -> InputError:
    """What to say of a damaged archive."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"no such file: {path}")
    if isinstance(error, NoNumbersError):
        return InputError(f"{path}: {error}")
    reason = " ".join(str(error).split())
    return InputError(f"{path}: damaged or truncated .npz ({reason}); copy or export it again")


def read_header(content: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of the array in a member, which is read up to its values."""
    version = npy_format.read_magic(content)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, is_fortran, dtype = read(content)
    return shape, is_fortran, dtype


def check_promise(member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any], header_bytes: int) -> None:
    """Numbers, as many bytes as the member has.

    Raises:
        ValueError: they are not.
    """
    fields = [field[0] for field in dtype.fields.values()] if dtype.fields else [dtype]
    if any(field.kind not in "iufb" for field in fields) or dtype.hasobject or dtype.itemsize > _MAX_RECORD_BYTES:
        raise NoNumbersError(member.filename, dtype)
    promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if promised != member.file_size - header_bytes:
        raise ValueError(f"{member.filename} promises {promised} bytes and holds {member.file_size - header_bytes}")


def _check_ratio(members: list[zipfile.ZipInfo], path: Path) -> None:
    total = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if total > _MIN_BYTES_TO_JUDGE and total > _MAX_RATIO * packed:
        raise InputError(
            f"{path}: its {packed / 2**20:.1f} MiB unpack to {total / 2**30:.1f} GiB, more than events ever do; it is "
            "damaged or made to fill the disk; if it is sound, save it again uncompressed (np.savez)"
        )
