"""The demo's folder: files of an earlier demo are recognised by checksum, and nothing else is replaced.

FOLDER/demo.json lists the files of the demo with their SHA-256. A demo from before that list is known by its content: its
recording shows the demo's scene, which can be rendered again, and its picture and video have the sizes that follow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from evfi.demo.pictures import sheet_size, video_size
from evfi.demo.scene import Scene, to_srgb
from evfi.errors import EvfiError, OutputError
from evfi.files import check_writable, one_line, read_mark, written_whole
from evfi.recordings.datasets.plain_writer import FORMAT_MARK
from evfi.video.geometry import Size, frame_size
from evfi.video.io import VideoFrames, read_image

VIDEO: Final = "demo.mp4"
PICTURE: Final = "demo.png"
RECORDING: Final = "recording"
NOTE: Final = "demo.json"

_NOTE: Final[dict[str, Any]] = {"format": "evfi-demo", "version": 1}
_MAX_NOTE_BYTES: Final = 2**26
_MAX_DECLARATION_BYTES: Final = 2**20
_OWN_FOLDERS: Final = (RECORDING, "frames")
_OLD_FILES: Final = re.compile(r"frames/\d{6}\.png|timestamps\.txt|events\.npz|recording\.json")
_MOST_DIFFERENT: Final = 2  # levels by which processors may render the scene differently

Files = Mapping[str, tuple[str, ...]]
"""Names within the folder, and for each the SHA-256 that it may have."""


def prepare_folder(folder: Path) -> Files:
    """Make sure before the work that results can be written into the demo's folder; it is made with the results.

    Args:
        folder: missing, or a folder in which nothing but an earlier demo has the demo's names.

    Returns:
        The files of an earlier demo.

    Raises:
        OutputError: it cannot be written, or something else is in a result's place.
    """
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise OutputError(f"cannot make the folder {folder}: a file with that name exists; choose another")
        check_writable(folder)
        return {}
    for name in (VIDEO, PICTURE, NOTE):
        check_writable(folder / name)
    if not any(os.path.lexists(folder / name) for name in (VIDEO, PICTURE, NOTE, RECORDING)):
        return {}
    return _files_of_earlier_demo(folder)


def replace_results(folder: Path, made: Path, earlier: Files) -> None:
    """Put a demo's results in the place of those of an earlier one.

    Args:
        folder: the demo's.
        made: a folder on the same disk that holds the results.
        earlier: from `prepare_folder`.

    Raises:
        OutputError: something was put there meanwhile, or the disk refuses.
    """
    new = {name: (_digest(made / name),) for name in _names_in(made)}
    names = dict.fromkeys((*earlier, *new))
    both = {name: tuple(dict.fromkeys((*earlier.get(name, ()), *new.get(name, ())))) for name in names}
    _write_note(folder, both)  # a demo that is killed now is known by either
    try:
        _remove_recording(folder, earlier)
        for name in (RECORDING, PICTURE, VIDEO):
            (made / name).replace(folder / name)
    except OSError as error:
        raise OutputError(f"cannot replace the demo in {folder}: {one_line(error)}; move its contents away") from error
    _write_note(folder, new)


def _files_of_earlier_demo(folder: Path) -> Files:
    noted = _read_note(folder / NOTE)
    if noted is None and os.path.lexists(folder / NOTE):
        raise _foreign(folder, NOTE, "is not a demo's file list")
    if noted is None:
        _check_old_demo(folder)
    found: dict[str, tuple[str, ...]] = {}
    for name in _names_in(folder):
        digest = _digest(folder / name)
        if noted is not None and digest not in noted.get(name, ()):
            raise _foreign(folder, name, "has changed since an earlier demo wrote it")
        found[name] = (digest,)
    return found


def _check_old_demo(folder: Path) -> None:
    """Raise if results without a list of checksums are not what a demo makes."""
    size = _size_of_demo_recording(folder / RECORDING)
    if size is None:
        name = next(name for name in (RECORDING, VIDEO, PICTURE) if os.path.lexists(folder / name))
        raise _foreign(folder, name, "is not a demo's recording" if name == RECORDING else "is not from a demo")
    for name, is_one in ((PICTURE, _is_sheet), (VIDEO, _is_video)):
        if os.path.lexists(folder / name) and not is_one(folder / name, size):
            raise _foreign(folder, name, "is not from a demo")


def _is_sheet(path: Path, size: Size) -> bool:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.size == sheet_size(size)
    except OSError:
        return False


def _is_video(path: Path, size: Size) -> bool:
    width, height = video_size(size)
    try:
        with VideoFrames(path) as video:
            return video.size == (width + width % 2, height + height % 2)
    except EvfiError:
        return False


def _size_of_demo_recording(folder: Path) -> Size | None:
    """(width, height) of the frames of a demo's recording; None if it is not one, or holds anything else."""
    try:
        names = [file.relative_to(folder).as_posix() for file in _files_below(folder)]
        declared = read_mark(folder / "recording.json", _MAX_DECLARATION_BYTES)
        if declared["format"] != FORMAT_MARK["format"] or not all(_OLD_FILES.fullmatch(name) for name in names):
            return None
        times = [int(line) for line in (folder / "timestamps.txt").read_text("utf-8").split()]
        pictures = sorted((folder / "frames").iterdir())
        size = frame_size(read_image(pictures[0]))
        scene = Scene(*size)
        for time_us, picture in zip(times, pictures, strict=True):
            shown = to_srgb(scene.render(time_us * 1e-6)).astype(np.int16)
            if np.abs(shown - read_image(picture)).max() > _MOST_DIFFERENT:
                return None
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, EvfiError):
        return None
    return size


def _names_in(folder: Path) -> list[str]:
    """The results in a folder, by their names within it.

    Raises:
        OutputError: one of them is a link, or something else that no demo writes.
    """
    files = [folder / name for name in (PICTURE, VIDEO) if os.path.lexists(folder / name)]
    for file in files:
        if file.is_symlink() or not file.is_file():
            raise _foreign(folder, file.name, "is not a regular file")
    recording = folder / RECORDING
    if os.path.lexists(recording):
        try:
            files += _files_below(recording)
        except ValueError as error:
            raise _foreign(folder, RECORDING, str(error)) from None
    return [file.relative_to(folder).as_posix() for file in files]


def _files_below(folder: Path) -> Iterator[Path]:
    """All files of a recording.

    Raises:
        ValueError: it holds a link or an empty folder, or is no folder.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError("is not a demo's recording")
    entries = sorted(folder.iterdir())
    if not entries and folder.name not in _OWN_FOLDERS:  # a demo that was killed may leave its own empty
        raise ValueError(f"holds the empty folder {folder.name}")
    for entry in entries:
        if entry.is_file() and not entry.is_symlink():
            yield entry
        else:
            yield from _files_below(entry)


def _remove_recording(folder: Path, earlier: Files) -> None:
    """Remove the files of an earlier recording and its folders; whatever else came to be there stays, and is an error."""
    recording = folder / RECORDING
    for name in earlier:
        if name.startswith(f"{RECORDING}/"):
            (folder / name).unlink(missing_ok=True)
    for place in (recording / "frames", recording):
        if place.is_dir():
            place.rmdir()


def _foreign(folder: Path, name: str, problem: str) -> OutputError:
    return OutputError(f"cannot write {folder / name}: it {problem}; move it away, or choose another folder")


def _read_note(file: Path) -> dict[str, tuple[str, ...]] | None:
    told = read_mark(file, _MAX_NOTE_BYTES)
    try:
        files = {str(name): tuple(map(str, digests)) for name, digests in told.pop("files").items()}
    except (KeyError, TypeError, AttributeError):
        return None
    return files if told == _NOTE else None


def _write_note(folder: Path, files: Files) -> None:
    with written_whole(folder / NOTE) as partial:
        partial.write_text(json.dumps({**_NOTE, "files": files}, indent=1) + "\n", encoding="utf-8")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
