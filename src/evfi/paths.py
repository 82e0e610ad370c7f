"""Names that users and strangers give: what the system refuses is an error of one line, and only ordinary files are read.

A name may be too long, a link may point to itself, a pipe may never end. The functions of `pathlib` raise errors for some of
these names and wait for ever for others; those here do not.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from evfi.errors import EvfiError, InputError

_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_HARMLESS: Final = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)
"""Errors of names that may be right: nothing is there, or access is denied. Whoever opens them says so."""


def check_name(path: str | Path, error: type[EvfiError] = InputError) -> None:
    """Make sure that the system accepts a name, whether or not something is there.

    Args:
        path: what a user named.
        error: the class of error.

    Raises:
        EvfiError: of class `error`: the name is too long, or a circular link.
    """
    try:
        Path(path).stat()
    except OSError as problem:
        if problem.errno not in _HARMLESS:
            raise error(f"cannot use {path}: {problem.strerror or problem}; choose another name") from problem
    except ValueError as problem:  # the letter NUL
        raise error(f"cannot use {path}: {problem}; choose another name") from problem


def expanded(path: str | Path) -> Path:
    """A path with `~` and `~user` filled in; where there is no such user it stays as it is, as in a shell."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def real_path(path: Path) -> Path:
    """The absolute path without links, also of what is missing; a circular link stays as it is."""
    return Path(os.path.realpath(path))


def is_folder(path: str | Path | os.DirEntry[str]) -> bool:
    """Whether a path leads to a folder; False where the system refuses the name or a link on the way."""
    return _is(path, stat.S_IFDIR)


def is_file(path: str | Path | os.DirEntry[str]) -> bool:
    """Whether a path leads to an ordinary file; False where the system refuses the name or a link on the way."""
    return _is(path, stat.S_IFREG)


def open_file(path: Path, *, flags: int = os.O_RDONLY) -> int:
    """Open an ordinary file; opening a pipe would wait for ever.

    Args:
        path: the file; it may be behind a link, unless `flags` say otherwise.
        flags: of `os.open`.

    Returns:
        A descriptor.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is a folder, a pipe or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # opening a device may already do something
        raise ValueError("it is not a regular file")
    descriptor = os.open(path, flags | _NO_WAIT)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # put there meanwhile
        os.close(descriptor)
        raise ValueError("it is not a regular file")
    return descriptor


def open_to_read(path: Path) -> io.BufferedReader:
    """Open an ordinary file to read its bytes; see `open_file`."""
    return os.fdopen(open_file(path), "rb")


def read_bytes(file: Path, max_bytes: int) -> bytes:
    """The content of an ordinary file.

    Args:
        file: the file; it may be behind a link.
        max_bytes: how large it may be.

    Raises:
        OSError: it cannot be read.
        ValueError: it is a folder, a pipe or a device, or larger.
    """
    with open_to_read(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = b"" if size > max_bytes else stream.read(max_bytes + 1)
    if max(size, len(content)) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes // 1024} KiB")
    return content


def _is(path: str | Path | os.DirEntry[str], kind: int) -> bool:
    with suppress(OSError, ValueError):
        return stat.S_IFMT(os.stat(path).st_mode) == kind  # noqa: PTH116 - entries of folders, too
    return False
