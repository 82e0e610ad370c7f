"""Files and folders that appear whole or not at all, and the folder for what can be made again.

Writers work under a temporary name beside their target, on the same disk, and rename at success. The cache is
`$EVFI_CACHE`, else `$XDG_CACHE_HOME/evfi`, else `~/.cache/evfi`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from evfi.errors import OutputError

_PARTIAL: Final = re.compile(r"\..+\.\d+\.part", re.DOTALL)


def cache_folder() -> Path:
    """The folder for files that `evfi` extracts or computes, and that users fetch by hand (in its `models/`)."""
    if own := os.environ.get("EVFI_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "evfi"


def check_writable(path: str | Path) -> None:
    """Make sure, before any work is done, that a file can be written.

    Args:
        path: The file that will be written later.

    Raises:
        OutputError: Its folder is missing or does not allow it, or the path is a folder itself.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.absolute().parent}; create it first")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}; choose another folder") from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, renamed to it on success and removed on failure.

    Args:
        path: The file that shall exist in the end, whole, or not at all.

    Yields:
        The path to write to.

    Raises:
        OutputError: The operating system refuses.
    """
    check_writable(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def is_partial(path: Path) -> bool:
    """Whether a path is a temporary name of `written_whole` or `folder_written_whole`."""
    return _PARTIAL.fullmatch(path.name) is not None


def check_folder_writable(folder: str | Path) -> None:
    """Make sure, before any work is done, that a folder can be made.

    Args:
        folder: The folder that will be made later.

    Raises:
        OutputError: It exists and holds something, or its parent is missing or does not allow it.
    """
    folder = Path(folder)
    if folder.is_dir():
        if any(folder.iterdir()):
            raise OutputError(f"cannot write into {folder}: it is not empty; choose another folder or empty it")
        check_writable(folder / "probe")
    elif folder.exists():
        raise OutputError(f"cannot make the folder {folder}: there is a file of that name; choose another")
    else:
        check_writable(folder)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, renamed to it on success and removed on failure.

    Args:
        folder: The folder that shall exist in the end, whole, or not at all; it may exist, empty.

    Yields:
        The folder to write into.

    Raises:
        OutputError: It exists and holds something, or the operating system refuses.
    """
    folder = folder.absolute()
    check_folder_writable(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        partial.mkdir()
        yield partial
        partial.replace(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {one_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_being_written(partial: Path) -> bool:
    """Whether another process that gave a temporary name still lives, on this machine.

    Args:
        partial: a path for which `is_partial` holds.
    """
    number = int(partial.name.split(".")[-2])
    if os.name != "posix" or number == os.getpid():  # who writes a file on Windows keeps it from being removed;
        return False  # in containers, one run after the other has the same number
    try:
        os.kill(number, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def one_line(error: BaseException) -> str:
    """What an error says, in one line and without its number."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
