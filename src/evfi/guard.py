"""What is written is kept apart from what is read, and from each other, before any work begins.

Files are known by their identity (device and number), so that another spelling of a path, a link and a hard link are the same
file. A folder that is read holds all that is in it, behind links too. What is new in such a folder may lie there only under
a name that its reader does not look for, and only what was verified to be an earlier result is replaced there.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from evfi.errors import ConfigError, OutputError
from evfi.files import cache_folder, check_folder_writable, check_writable, entry_of, is_partial
from evfi.paths import check_name, is_folder, real_path

_Identity = tuple[int, int]


@dataclass(frozen=True)
class Written:
    """Something that will be written.

    Attributes:
        path: where.
        name: what it is, as "the video".
        kind: a file; a folder that must not exist, or be empty; or a store, a folder whose own code checks what is in it.
        is_ours: whether what is there already was verified to be an earlier result.
        is_named: whether the user named it, so that a file of that name is replaced; otherwise only what is ours is.
    """

    path: Path
    name: str
    kind: Literal["file", "folder", "store"] = "file"
    is_ours: bool = False
    is_named: bool = True

    @property
    def place(self) -> Path:
        """Its absolute path; a store may be a link, which is followed."""
        return real_path(self.path) if self.kind == "store" else entry_of(self.path)


@dataclass(frozen=True)
class Read:
    """Something that is read; it may be missing.

    Attributes:
        path: a file, or a folder with all that is in it.
        name: what it is, as "the recording".
        looks_for: whether a name directly in the folder is one that its reader looks for; None: it looks for all.
    """

    path: Path
    name: str
    looks_for: Callable[[str], bool] | None = None


def check_places(written: Sequence[Written], read: Sequence[Read]) -> None:
    """Make sure that nothing that is read, or that somebody else put there, is lost by what will be written.

    Args:
        written: all that will be written.
        read: all that was or will be read.

    Raises:
        ConfigError: two results would have the same place, or one would lie in the other.
        OutputError: a result would replace or change what is read, or cannot be written.
    """
    for one in written:
        check_name(one.path, OutputError)
    _check_apart(written)
    held = _Held(read, {one.place for one in written if one.is_ours})
    for one in written:
        held.check(one)
    for one in written:
        check_possible(one)


def check_cache(read: Sequence[Path]) -> None:
    """Make sure that what `evfi` keeps of files that it reads does not become part of them.

    Args:
        read: files and folders that will be read.

    Raises:
        OutputError: the cache lies in one of them.
    """
    folders = {identity: path for path in read if is_folder(path) and (identity := _identity(path)) is not None}
    cache = real_path(cache_folder())
    for folder in (cache, *cache.parents) if folders else ():
        if (inside := folders.get(_identity(folder) or (0, 0))) is not None:
            raise OutputError(
                f"the cache {cache} lies in {inside}, which is an input; set EVFI_CACHE to another folder"
            )


def _check_apart(written: Sequence[Written]) -> None:
    for one, other in combinations(written, 2):
        parts, others = _spelled_alike(one.place), _spelled_alike(other.place)
        if parts == others:
            raise ConfigError(f"{one.name} and {other.name} would both be {one.path}; choose different names")
        for inner, outer, is_inside in (
            (one, other, parts[: len(others)] == others),
            (other, one, others[: len(parts)] == parts),
        ):
            if is_inside:
                raise ConfigError(
                    f"{inner.name}, {inner.path}, would lie in {outer.name}, {outer.path}; choose another place"
                )


def _spelled_alike(path: Path) -> tuple[str, ...]:
    """A path's parts, the same for names that some disks take for the same."""
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in path.parts)


def check_possible(one: Written) -> None:
    """Make sure that something can be written, and that what is in its place may be replaced.

    Raises:
        OutputError: it cannot, or nothing shows that what is there is an earlier result and the user did not name it.
    """
    if one.kind == "file":
        check_writable(one.path)
        if os.path.lexists(one.path) and not (one.is_named or one.is_ours):
            raise OutputError(
                f"cannot write {one.path}, {one.name}: a file with that name exists, and nothing shows that an earlier run "
                "wrote it; move it away, or choose another name for the results"
            )
    elif one.kind == "folder" and not one.is_ours:
        check_folder_writable(one.path)


class _Held:
    """The files and folders that are read, by their identity."""

    def __init__(self, read: Sequence[Read], ours: Collection[Path]) -> None:
        self._files: dict[_Identity, Read] = {}
        self._folders: dict[_Identity, tuple[Read, str]] = {}
        for one in read:
            if is_folder(one.path):
                self._add_folder(one, ours)
            elif (identity := _identity(one.path)) is not None:
                self._files.setdefault(identity, one)

    def _add_folder(self, one: Read, ours: Collection[Path]) -> None:
        """A folder with all that is in it, each folder with the name under which it, or what it is in, lies in the first."""
        waiting = [(real_path(one.path), "")]
        while waiting:
            folder, top = waiting.pop()
            identity = _identity(folder)
            if identity is None or (identity in self._folders and top):
                continue
            self._folders[identity] = (one, top)
            for entry in _entries(folder):
                if Path(entry.path) in ours or is_partial(Path(entry.path)):
                    continue
                if is_folder(entry):
                    waiting.append((real_path(Path(entry.path)), top or entry.name))
                elif (file := _identity(entry.path)) is not None:
                    self._files.setdefault(file, one)

    def check(self, one: Written) -> None:
        """Raise if a result is what is read, holds some of it, or would become part of it."""
        found, top = self._nearest(one.place) or (None, "")
        is_looked_for = found is not None and (found.looks_for is None or found.looks_for(top))
        if found is not None and not is_looked_for and not one.is_ours and os.path.lexists(one.path):
            raise OutputError(
                f"cannot write {one.path}, {one.name}: it already exists in {found.name}, {found.path}, and nothing shows "
                "that an earlier run of the same job wrote it; move it away, or choose another name"
            )
        for identity in _identities(one):
            held = self._files.get(identity) or self._folders.get(identity, (None, ""))[0]
            if held is not None:
                raise OutputError(f"cannot write {one.path}: {held.name} is read from it; choose another name")
        if found is not None and is_looked_for:
            raise OutputError(
                f"cannot write {one.path}, {one.name}: it would become part of {found.name}, {found.path}; choose another place"
            )

    def _nearest(self, place: Path) -> tuple[Read, str] | None:
        """The innermost folder that is read and holds a place, and the place's first name within what is read."""
        below = place
        for folder in place.parents:
            identity = _identity(folder)
            if identity is not None and identity in self._folders:
                found, top = self._folders[identity]
                return found, top or below.name
            below = folder
        return None


def _identities(one: Written) -> Iterator[_Identity]:
    """What exists at a place; of a folder that is not known as ours, and will be refused, only the first level."""
    identity = _identity(one.path)
    if identity is None:
        return
    yield identity
    waiting = [one.path] if is_folder(one.path) else []
    while waiting:
        for entry in _entries(waiting.pop()):
            if one.is_ours and entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            if (inside := _identity(entry.path)) is not None:
                yield inside


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where it cannot be read, for then nothing is read from it either."""
    with suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _identity(path: str | Path) -> _Identity | None:
    """Device and number of what a path leads to; None where there is nothing."""
    with suppress(OSError):
        facts = Path(path).stat()
        return facts.st_dev, facts.st_ino
    return None
