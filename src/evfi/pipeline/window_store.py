"""Frames of a job's windows on disk, each piece written whole or not at all.

    FOLDER/000012-5f0c….zip          piece () of window 12; the name holds the first digits of the file's SHA-256
    FOLDER/000012.3-91aa….zip        its piece (3,), see `evfi.pipeline.pieces`

In a file: `piece.json` (which job, which piece, how its frames came about) and the frames made, `001.png` …, without the two
that bound the piece. Files are written under another name, brought to the disk, and renamed. One that was cut or altered does
not match its name any more; it is moved aside, and its piece counts as not made.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evfi.errors import InputError, OutputError
from evfi.files import is_partial, one_line, remove_leftovers, temporary_beside
from evfi.limits import MAX_PIXELS
from evfi.paths import open_to_read
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.pieces import PieceKey
from evfi.plain_json import loads
from evfi.zips import DAMAGE

_NAME: Final = re.compile(r"(\d{6,})((?:\.\d+)*)-([0-9a-f]{24})\.zip")
_PARTIAL_NAME: Final = re.compile(rf"\.{_NAME.pattern}\.\d+\.part")
_UNUSABLE: Final = ".unusable"
_DIGITS: Final = 24
_FACTS_FILE: Final = "piece.json"
_MAX_FACTS_BYTES: Final = 2**24
_MAX_PIECE_BYTES: Final = 2**34
"""A piece is in memory as a whole when it is written, with its frames; none is as large."""
_LARGE_BYTES: Final = 2**26
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every entry, so that the same frames make the same file."""


@dataclass(frozen=True, eq=False)
class KeptPiece:
    """One finished piece of work.

    Attributes:
        key: which one.
        facts: how its frames came about.
        frames: uint8 [N, H, W, 3], those made, without the two that bound the piece; N is 0 where a window is held or blended
            that has more frames than one piece: the video makes these one by one.
    """

    key: PieceKey
    facts: WindowFacts
    frames: NDArray[np.uint8]


class WindowStore:
    """The finished pieces of one job."""

    def __init__(self, folder: Path, job: str) -> None:
        """Take a folder; nothing is read or written yet.

        Args:
            folder: where pieces are kept; it is made when the first is written.
            job: fingerprint of all that the frames depend on; pieces of another job are not taken.
        """
        self.folder = folder
        self._job = job
        self._files: dict[PieceKey, Path] = {}

    def scan(self, wanted: Iterable[PieceKey]) -> tuple[dict[PieceKey, WindowFacts], list[str]]:
        """Scan the stored pieces.

        Args:
            wanted: the pieces that the job consists of.

        Returns:
            The facts of each wanted piece that is there and sound; and what was not taken, one line each.

        Raises:
            OutputError: the folder cannot be read, or a damaged file cannot be moved aside.
        """
        keys = set(wanted)
        remove_leftovers(self.folder, lambda name: _NAME.fullmatch(name) is not None)  # of a run that was killed
        found: dict[PieceKey, WindowFacts] = {}
        problems: list[str] = []
        for path in self._listed():
            key = _key_of(path.name)
            if key is None or key not in keys:
                continue  # perhaps another shard's, which may be at work
            if is_partial(path):
                _remove(path)  # of a run before partial files had a folder of their own
                continue
            if key in found:
                continue
            try:
                found[key] = self._opened(path).facts
                self._files[key] = path
            except InputError as error:
                problems.append(one_line(error))
                self._set_aside(path)
        return found, problems

    def write(self, piece: KeptPiece) -> None:
        """Keep a piece.

        Raises:
            OutputError: the disk refuses; nothing half-written is left under a piece's name.
        """
        content = _packed(piece, self._job)
        digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
        path = self.folder / f"{_stem(piece.key)}-{digest}.zip"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary_beside(path) as partial:
                with partial.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
        except OSError as error:
            raise OutputError(
                f"cannot keep window {piece.key[0]} in {self.folder}: {one_line(error)}; the windows kept so far are safe: "
                "free some space or fix the permissions, and run the same command again"
            ) from error
        before = self._files.get(piece.key)
        self._files[piece.key] = path
        if before is not None and before != path:
            _remove(before)  # made otherwise, e.g. blended

    def read(self, key: PieceKey) -> KeptPiece:
        """A piece that `scan` found or `write` kept.

        Raises:
            InputError: it is not there any more, or was altered meanwhile.
        """
        opened = self._opened(self._files[key])
        return KeptPiece(key, opened.facts, opened.frames())

    def __contains__(self, key: PieceKey) -> bool:
        return key in self._files

    @property
    def names(self) -> list[str]:
        """File names of all pieces, sorted; they identify the content."""
        return sorted(path.name for path in self._files.values())

    @property
    def num_bytes(self) -> int:
        """Size of all pieces on disk."""
        return sum(path.stat().st_size for path in self._files.values() if path.exists())

    def _listed(self) -> list[Path]:
        try:
            return sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        except OSError as error:
            raise OutputError(f"cannot read {self.folder}: {one_line(error)}") from error

    def _opened(self, path: Path) -> _Opened:
        match = _NAME.fullmatch(path.name)
        try:
            content = None if match is None else _content_of(path, match[3])
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)}); its window is made again") from error
        except ValueError as error:
            raise InputError(f"{path}: damaged ({one_line(error)}); its window is made again") from error
        if match is None or content is None:
            raise InputError(f"{path}: damaged (its checksum does not match its name); its window is made again")
        opened = _Opened(content, path)
        if opened.job != self._job:
            raise InputError(f"{path}: belongs to a job with other settings; its window is made again")
        if opened.stem != match[1] + match[2]:
            raise InputError(f"{path}: is piece {opened.stem} under another name; its window is made again")
        return opened

    def _set_aside(self, path: Path) -> None:
        try:
            path.replace(path.with_name(path.name + _UNUSABLE))
        except OSError as error:
            raise OutputError(f"cannot move {path} aside: {one_line(error)}; remove it") from error


def holds_pieces(folder: Path) -> bool:
    """Whether there is a file in a folder whose content has the checksum in its name.

    Args:
        folder: it may be missing.
    """
    named = ((path, _NAME.fullmatch(path.name)) for path in (folder.iterdir() if folder.is_dir() else []))
    for path, match in named:
        with suppress(OSError, ValueError):
            if match is not None and _content_of(path, match[3]) is not None:
                return True
    return False


def _content_of(path: Path, digits: str) -> bytes | None:
    """The content of a piece's file; None where its checksum is another. A large one is in memory only if its checksum fits.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or is larger than any piece.
    """
    with open_to_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_PIECE_BYTES:
            raise ValueError("it is too large")
        if size > _LARGE_BYTES and hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS] != digits:
            return None
        file.seek(0)
        content = file.read()
    return content if hashlib.sha256(content).hexdigest()[:_DIGITS] == digits else None


def remove_pieces(folder: Path) -> None:
    """Remove a folder of pieces, those of other settings and damaged ones too; other files stay, and the folder with them.

    Args:
        folder: it may be missing.

    Raises:
        OSError: the operating system refuses.
    """
    if not folder.is_dir():
        return
    remove_leftovers(folder, lambda name: _NAME.fullmatch(name) is not None)
    for path in folder.iterdir():
        if _key_of(path.name.removesuffix(_UNUSABLE)) is not None and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _stem(key: PieceKey) -> str:
    index, way = key
    return f"{index:06d}" + "".join(f".{part}" for part in way)


def _key_of(name: str) -> PieceKey | None:
    """The piece in a file of this name, or of this name while it is written."""
    match = _NAME.fullmatch(name) or _PARTIAL_NAME.fullmatch(name)
    if match is None:
        return None
    return int(match[1]), tuple(int(part) for part in match[2].split(".")[1:])


def _packed(piece: KeptPiece, job: str) -> bytes:
    told = {"job": job, "piece": _stem(piece.key), "frames": len(piece.frames), "facts": asdict(piece.facts)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, _FACTS_FILE, json.dumps(told, indent=1).encode() + b"\n")
        for number, frame in enumerate(piece.frames, start=1):
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, format="PNG", compress_level=1)
            _add(archive, f"{number:03d}.png", picture.getvalue())
    return packed.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content)


class _Opened:
    """A file whose checksum is right, so that what can be wrong is whose it is."""

    def __init__(self, content: bytes, path: Path) -> None:
        self.path, self.content = path, content
        try:
            self.archive = zipfile.ZipFile(io.BytesIO(content))
            told: dict[str, Any] = loads(self._member(_FACTS_FILE, _MAX_FACTS_BYTES))
            self.job, self.stem, self.num_frames = str(told["job"]), str(told["piece"]), int(told["frames"])
            self.facts = _facts(told["facts"])
        except (*DAMAGE, LookupError, TypeError, AttributeError) as error:
            raise self._foreign(error) from error

    def frames(self) -> NDArray[np.uint8]:
        try:
            frames = [self._picture(f"{number:03d}.png") for number in range(1, self.num_frames + 1)]
            return np.stack(frames) if frames else np.zeros((0, 1, 1, 3), np.uint8)
        except (*DAMAGE, LookupError) as error:
            raise self._foreign(error) from error

    def _member(self, name: str, max_bytes: int) -> bytes:
        """What is under a name; members are stored as they are, so that none takes more than the file does."""
        member = self.archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > max_bytes:
            raise ValueError(f"{name} is compressed, or larger than {max_bytes} bytes")
        return self.archive.read(member)

    def _picture(self, name: str) -> NDArray[np.uint8]:
        content = self._member(name, len(self.content))
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.mode != "RGB" or image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{name} is not a frame")
            return np.array(image)

    def _foreign(self, error: BaseException) -> InputError:
        return InputError(f"{self.path}: is not a piece of a job ({one_line(error)}); its window is made again")


def _facts(raw: dict[str, Any]) -> WindowFacts:
    known = {field.name for field in fields(WindowFacts)}
    values: dict[str, Any] = {name: value for name, value in raw.items() if name in known}
    return WindowFacts(**{**values, "notes": tuple(values["notes"])})


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the error that led here says more
