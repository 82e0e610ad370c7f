"""Write the results of an evaluation, replacing only earlier results.

    OUT/outputs.json   SHA-256 of results.json, results.csv and report.html as they were written

What lies in the place of a result and has another checksum was changed, or is somebody else's: it is moved aside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from evfi.errors import OutputError
from evfi.files import make_room, one_line, read_mark, temporary_beside, written_whole
from evfi.fingerprints import digest_of_file

RESULTS_FILE, TABLE_FILE, REPORT_FILE = "results.json", "results.csv", "report.html"
NOTE_FILE: Final = "outputs.json"
_NOTE: Final[dict[str, Any]] = {"format": "evfi-evaluation-outputs", "version": 1}
_MAX_NOTE_BYTES: Final = 2**16


def write_output(path: Path, write: Callable[[Path], None]) -> None:
    """Write one of the results, in the place of an earlier one; anything else there is moved aside, with a warning.

    Args:
        path: the file, in the evaluation's folder.
        write: writes it to a path.

    Raises:
        OutputError: the disk refuses.
    """
    note = path.with_name(NOTE_FILE)
    try:
        with temporary_beside(path) as partial:
            _write(write, partial, path)
            new = digest_of_file(partial)
            known = _noted(note)
            make_room(path, lambda file: _is_known(file, known.get(path.name, ())))
            before = known.get(path.name, ()) if path.exists() else ()
            _write_note(note, {**known, path.name: tuple(dict.fromkeys((*before, new)))})  # before it gets its name
            partial.replace(path)
        _write_note(note, {**known, path.name: (new,)})
    except OSError as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error


def _write(write: Callable[[Path], None], partial: Path, path: Path) -> None:
    try:
        write(partial)
    except OutputError as error:
        raise OutputError(str(error).replace(str(partial), str(path))) from error


def _is_known(file: Path, digests: tuple[str, ...]) -> bool:
    return not file.is_symlink() and file.is_file() and digest_of_file(file) in digests


def _noted(note: Path) -> dict[str, tuple[str, ...]]:
    """Checksums by name; none where the note is missing or damaged."""
    raw = read_mark(note, _MAX_NOTE_BYTES)
    if not _is_note(raw):
        return {}
    return {name: tuple(digests) for name, digests in raw["outputs"].items()}


def _is_note(raw: Any) -> bool:
    return (
        isinstance(raw, dict)
        and raw.keys() == {*_NOTE, "outputs"}
        and all(raw[key] == value for key, value in _NOTE.items())
        and isinstance(raw["outputs"], dict)
        and all(isinstance(digests, list) for digests in raw["outputs"].values())
        and all(isinstance(digest, str) for digests in raw["outputs"].values() for digest in digests)
    )


def _write_note(note: Path, outputs: dict[str, tuple[str, ...]]) -> None:
    make_room(note, lambda file: _is_note(read_mark(file, _MAX_NOTE_BYTES)))
    with written_whole(note) as partial:
        partial.write_text(json.dumps({**_NOTE, "outputs": outputs}, indent=1) + "\n", encoding="utf-8")
