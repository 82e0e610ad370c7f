"""Files and folders that appear whole or not at all, and the folder for what can be made again.

Writers work in a private folder beside their target, on the same disk, and rename at success:

    .evfi-k3v0q8ma.part/evfi-temporary.json   a mark: what is being written here; locked while its writer lives
    .evfi-k3v0q8ma.part/street.mp4            the file, or the folder, as far as it is written

Its name cannot be foreseen, it is made by nobody else, and nobody else can put a link into it. Whoever writes the same target
next removes what a killed run left: a folder whose mark names the target, which nobody holds, and which has nothing else in it.

A link in place of a file is replaced: what it points to stays as it is. The cache is `$EVFI_CACHE`, else
`$XDG_CACHE_HOME/evfi`, else `~/.cache/evfi`.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from evfi.errors import ConfigError, EvfiError, OutputError, escaped
from evfi.paths import check_name, is_folder, open_file, real_path
from evfi.plain_json import loads, read_json

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)

_PREFIX: Final = ".evfi-"
_SUFFIX: Final = ".part"
_PARTIAL: Final = re.compile(r"\.evfi-[a-z0-9_]{8}\.part|\..+\.\d+\.part", re.DOTALL)
"""The second form is that of versions before the mark; such a file is no part of a recording, and is left where it is."""

_MARK_FILE: Final = "evfi-temporary.json"
_HELD: Final = ".evfi-held"
_UNUSABLE: Final = ".unusable"
_MARK: Final[dict[str, Any]] = {"format": "evfi-temporary", "version": 1}
_MAX_MARK_BYTES: Final = 4096
_MAX_REASON: Final = 500
_MOST_LISTINGS: Final = 1000
_LISTING_SHARE: Final = 100
"""A folder is listed again after so many times the time that listing it took."""
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def cache_folder() -> Path:
    """The folder for files that `evfi` extracts or computes, and that users fetch by hand (in its `models/`).

    Raises:
        ConfigError: `EVFI_CACHE` names no folder that can be, or there is no home folder.
    """
    own = os.environ.get("EVFI_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(own).expanduser() if own else (Path(shared) if shared else Path.home() / ".cache") / "evfi"
    except RuntimeError as error:
        found = f"EVFI_CACHE={own}: there is no such user" if own else "your home folder is unknown"
        raise ConfigError(f"{found}; set EVFI_CACHE to a folder for temporary data") from error
    check_name(cache, ConfigError)
    return cache


def entry_of(path: str | Path) -> Path:
    """Where a name lies: an absolute path without links, of which the last part alone may be one."""
    path = Path(path).absolute()
    return real_path(path) if path.name in ("", "..") else real_path(path.parent) / path.name


def check_writable(path: str | Path) -> None:
    """Make sure, before any work is done, that a file can be written.

    Args:
        path: The file that will be written later; where it exists it will be replaced, and so will a link to a file.

    Raises:
        OutputError: Its folder is missing or does not allow it, or the path is a folder, a device or write-protected.
    """
    path = Path(path)
    check_name(path, OutputError)
    try:
        kind = path.stat().st_mode
        is_there = True
    except (FileNotFoundError, NotADirectoryError):
        kind, is_there = 0, False
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}; choose another name") from error
    if is_there and stat.S_ISDIR(kind):
        raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
    if is_there and not stat.S_ISREG(kind):
        raise OutputError(f"cannot write {path}: it is a device or a pipe, not a regular file; choose another name")
    if is_there and not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is write-protected; choose another name, or allow writing to it")
    if not is_folder(path.absolute().parent):
        raise OutputError(f"cannot write {path}: there is no folder {path.absolute().parent}; create it first")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}; choose another folder") from error


def check_folder_writable(folder: str | Path, *, may_hold_something: bool = False) -> None:
    """Make sure, before any work is done, that a folder can be made.

    Args:
        folder: The folder that will be made later; it may exist, empty, but not as a link.
        may_hold_something: It need not be empty, because what is in it will be removed before.

    Raises:
        OutputError: It exists and holds something, or its parent is missing or does not allow it.
    """
    folder = Path(folder)
    check_name(folder, OutputError)
    if folder.is_symlink():
        raise OutputError(f"cannot make the folder {folder}: it is a link; name the folder that it points to")
    if folder.is_dir():
        if not may_hold_something and any(folder.iterdir()):
            raise OutputError(f"cannot write into {folder}: it is not empty; choose another folder or empty it")
        if os.path.ismount(folder):
            raise OutputError(f"cannot replace the folder {folder}: a disk is mounted there; name a folder in it")
        check_writable(folder / "probe")
    elif folder.exists():
        raise OutputError(f"cannot make the folder {folder}: a file with that name exists; choose another")
    check_writable(entry_of(folder).parent / "probe")


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a path in a private folder beside `path`, to be written there and renamed; what is left in the end is removed.

    What runs that were killed left of the same target is removed, too.

    Args:
        path: Where what is written shall go.

    Yields:
        A path with the same name, at which there is nothing.

    Raises:
        OSError: The operating system refuses.
    """
    parent = path.absolute().parent
    _remove_among(_partials_in(parent), path.name.__eq__)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=parent))
    mark = None
    try:
        mark = _write_mark(folder / _MARK_FILE, path.name)
        yield folder / path.name
    finally:
        if mark is not None:
            os.close(mark)
        _remove_private(folder, path.name)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path, renamed to `path` on success and removed on failure.

    Args:
        path: The file that shall exist in the end, whole, or not at all; a link is replaced, not followed.

    Yields:
        The path to write to.

    Raises:
        OutputError: The operating system refuses.
    """
    check_writable(path)
    try:
        with temporary_beside(path) as partial:
            yield partial
            partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder, renamed to `folder` on success and removed on failure.

    Args:
        folder: The folder that shall exist in the end, whole, or not at all; it may exist, empty, but not as a link.

    Yields:
        The folder to write into.

    Raises:
        OutputError: It exists and holds something, or the operating system refuses.
    """
    check_folder_writable(folder)
    folder = entry_of(folder)
    try:
        with temporary_beside(folder) as partial:
            partial.mkdir()
            yield partial
            partial.replace(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(
                f"cannot write {folder}: something was put there in the meantime; move it away, or choose another folder"
            ) from error
        raise OutputError(f"cannot write {folder}: {one_line(error)}") from error


@contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Keep others that hold the same place away, from before the work until the place is written.

    It is held by an empty private folder, whose mark is locked.

    Args:
        path: What will be written.

    Raises:
        OutputError: Another run holds it, or the operating system refuses.
    """
    path = entry_of(path)
    held = path.name + _HELD
    try:
        remove_leftovers(path.parent, held.__eq__)
        with temporary_beside(path.with_name(held)) as own:  # of two that begin at once, at least one sees the other
            for entry in path.parent.iterdir():
                if is_partial(entry) and entry != own.parent and _is_held(entry, held):
                    raise OutputError(
                        f"cannot write {path}: another process is writing it; wait until it is done, or choose another folder"
                    )
            yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def is_partial(path: Path) -> bool:
    """Whether a path has a name that is given to what is only being written."""
    return _PARTIAL.fullmatch(path.name) is not None


def remove_leftovers(folder: Path, is_target: Callable[[str], bool]) -> None:
    """Remove what runs that were killed left of some targets, and nothing that is being written or is not known by its mark.

    Args:
        folder: where the targets are.
        is_target: whether what a mark names is one of them.
    """
    with suppress(OSError):
        _remove_among([entry for entry in sorted(folder.iterdir()) if is_partial(entry)], is_target)


def set_aside(path: Path) -> Path:
    """Make room where something lies that is not known: rename it to `NAME.unusable`, or the next such name that is free.

    Args:
        path: A file, folder or link.

    Returns:
        Its new path.

    Raises:
        OutputError: The operating system refuses.
    """
    try:
        taken = {entry.name for entry in path.parent.iterdir()}
        names = (f"{path.name}{_UNUSABLE}{number or ''}" for number in itertools.count())
        return path.rename(path.with_name(next(name for name in names if name not in taken)))
    except OSError as error:
        raise OutputError(f"cannot move {path} aside: {one_line(error)}; move it away") from error


def make_room(place: Path, is_own: Callable[[Path], bool]) -> None:
    """Move aside what is in the way of a result and is not known as an earlier one, and say so.

    Args:
        place: of a file or folder that will be written.
        is_own: whether what is there is an earlier result.

    Raises:
        OutputError: it cannot be moved.
    """
    if os.path.lexists(place) and not is_own(place):
        _log.warning(
            "%s: nothing shows that an earlier run wrote it; it was moved aside to %s", place, set_aside(place).name
        )


def read_mark(file: Path, max_bytes: int) -> Any:
    """What a small JSON file says that marks a folder; None if it is none, larger, or a link."""
    try:
        return None if file.is_symlink() else read_json(file, max_bytes)
    except (OSError, ValueError):
        return None


def one_line(error: BaseException) -> str:
    """What an error says, in one line, without its number, and with control characters escaped.

    Libraries quote files at any length: what one of them says beyond `_MAX_REASON` letters is cut.
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = escaped(" ".join(str(text).split()))
    is_whole = isinstance(error, EvfiError) or len(line) <= _MAX_REASON
    return line if is_whole else f"{line[:_MAX_REASON]} …"


def _write_mark(file: Path, target: str) -> int:
    """Write the mark of a folder and lock it; the lock ends with the descriptor, or with the process."""
    mark = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600)
    try:
        _lock(mark)  # before it says anything: a mark without content is nobody's
        os.write(mark, json.dumps({**_MARK, "target": os.fsencode(target).hex()}).encode())
    except BaseException:
        os.close(mark)
        raise
    return mark


_listed: dict[Path, tuple[float, list[Path]]] = {}


def _partials_in(folder: Path) -> list[Path]:
    """Private folders in a folder. Many files may be written into a large one: listing takes 1% of the time at most."""
    began = time.monotonic()
    until, found = _listed.get(folder, (began, []))
    if began >= until:
        with suppress(OSError):
            found = [entry for entry in sorted(folder.iterdir()) if is_partial(entry)]
        if len(_listed) >= _MOST_LISTINGS:
            _listed.clear()
        _listed[folder] = began + _LISTING_SHARE * (time.monotonic() - began), found
    return found


def _remove_among(partials: Iterable[Path], is_target: Callable[[str], bool]) -> None:
    for entry in partials:
        with suppress(OSError, ValueError):
            if entry.is_dir() and not entry.is_symlink():
                _remove_leftover(entry, is_target)


def _remove_leftover(folder: Path, is_target: Callable[[str], bool]) -> None:
    mark = open_file(folder / _MARK_FILE, flags=os.O_RDWR | _NO_LINK)
    try:
        if not os.fstat(mark).st_size or not _lock(mark):  # one that is empty is about to be locked by its writer
            return
        target = _target_of(os.read(mark, _MAX_MARK_BYTES))
        if target is None or not is_target(target) or {entry.name for entry in folder.iterdir()} - {_MARK_FILE, target}:
            return
    finally:
        os.close(mark)
    _remove_private(folder, target)


def _remove_private(folder: Path, target: str) -> None:
    """Remove a private folder; where the disk refuses, it keeps its mark, so that a later run can do it."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        if folder.is_dir():
            os.close(_write_mark(folder / _MARK_FILE, target))


def _target_of(content: bytes) -> str | None:
    """What a mark says is being written; None if it is no mark."""
    try:
        told = loads(content)
        name = os.fsdecode(bytes.fromhex(told.pop("target")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return name if told == _MARK and name == Path(name).name else None


def _is_held(folder: Path, target: str) -> bool:
    """Whether a private folder's mark names a target and is locked; False where the disk knows no locks."""
    if sys.platform == "win32":
        return False
    with suppress(OSError, ValueError):
        mark = open_file(folder / _MARK_FILE, flags=os.O_RDWR | _NO_LINK)
        try:
            if _target_of(os.read(mark, _MAX_MARK_BYTES)) == target:
                fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(mark)
    return False


def _lock(descriptor: int) -> bool:
    """Take an open file; False if another process, or this one, has it, or if the disk knows no locks."""
    if sys.platform == "win32":
        return False  # what a killed run left stays there
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
