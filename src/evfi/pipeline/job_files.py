"""The files of a job's folder: known by their content, read if their checksum matches, written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from evfi.errors import OutputError
from evfi.files import one_line, set_aside, written_whole
from evfi.fingerprints import fingerprint_of
from evfi.plain_json import loads, read_json

JOB_FILE: Final = "job.json"
RESULTS_FILE: Final = "outputs.json"
ADVICE_FILE: Final = "alignment.json"
LOG_FILE: Final = "log.jsonl"
MAX_MARK_BYTES: Final = 4096
_FORMAT: Final = "evfi-job"
_FORMAT_VERSION: Final = 1
_MAX_BYTES: Final = 2**28
_JSON_BEGINS: Final = f'{{\n "format": "{_FORMAT}'.encode()
_LOG_BEGINS: Final = b'{"at": "'
_LOG_KEYS: Final = {"at", "host", "pid", "what"}


def num_log_lines(file: Path) -> int:
    """How many of a log's first lines are a job's, one at most; a link or anything else has none."""
    first = _beginning(file).split(b"\n")[0]
    try:
        told = loads(first)
    except ValueError:
        return 0
    return int(isinstance(told, dict) and told.keys() >= _LOG_KEYS)


def _beginning(file: Path) -> bytes:
    """The first bytes of a regular file; none if it does not exist."""
    try:
        if file.is_symlink() or not file.is_file():
            return b""
        with file.open("rb") as stream:
            return stream.read(MAX_MARK_BYTES)
    except OSError:
        return b""


def is_own(file: Path) -> bool:
    """Whether a file under one of the job's names is the job's, whole, cut or empty."""
    if file.is_symlink() or not file.is_file():
        return False
    begins = _beginning(file)
    if file.name == LOG_FILE:
        return begins.startswith(_LOG_BEGINS) or _LOG_BEGINS.startswith(begins)
    return begins.startswith(_JSON_BEGINS) or _JSON_BEGINS.startswith(begins)


def set_aside_if_foreign(file: Path) -> None:
    """Make room for a file of the job where there is one that is not known as the job's."""
    if not os.path.lexists(file) or is_own(file):
        return
    set_aside(file)


def read_note(file: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """What a job remembers in a JSON file whose checksum matches, or None; and a line if it is damaged.

    Raises:
        OutputError: the file cannot be read.
    """
    try:
        if not file.exists():
            return None, []
        content = read_json(file, _MAX_BYTES)
        if content["format"] != _FORMAT or content["version"] != _FORMAT_VERSION:
            raise ValueError("it was written by another version")
        values, is_valid = _NOTES[file.name]
        if content["fingerprint"] != fingerprint_of(values(content)):
            raise ValueError("its checksum does not match")
        if not is_valid(content):
            raise ValueError("it does not describe a job")
    except OSError as error:
        raise OutputError(f"cannot read {file}: {one_line(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        return None, [f"{file}: damaged ({one_line(error)}); it is written again"]
    return content, []


def write_note(file: Path, content: Mapping[str, Any]) -> None:
    """Write what a job remembers, for `read_note`.

    Raises:
        OutputError: the disk refuses.
    """
    values, _ = _NOTES[file.name]
    checksum = fingerprint_of(values(content))
    write_json(file, {"format": _FORMAT, "version": _FORMAT_VERSION, **content, "fingerprint": checksum})


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file of the job, whole; what is not the job's is moved aside.

    Raises:
        OutputError: the disk refuses.
    """
    set_aside_if_foreign(file)
    with written_whole(file) as partial, partial.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


def _is_description(content: Mapping[str, Any]) -> bool:
    """Whether what a job is made of, and its windows, have the form in which they are written."""
    windows = content["windows"]
    return isinstance(content["made_of"], dict) and bool(windows) and all(map(_is_window, windows))


def _is_window(window: Any) -> bool:
    index, first, last, times = window
    return len(times) >= 2 and all(type(number) is int for number in (index, first, last, *times))


def _are_results(results: Any) -> bool:
    """Whether results have the form in which they are noted; a path cannot hold the letter NUL."""
    return (
        isinstance(results, dict)
        and all("\0" not in name for name in results)
        and all(isinstance(entry, dict) for entry in results.values())
    )


def _is_advice(content: Mapping[str, Any]) -> bool:
    advice = content["advice"]
    return isinstance(advice, list) and all(isinstance(line, str) for line in advice)


_NOTES: Final[Mapping[str, tuple[Callable[[Mapping[str, Any]], Any], Callable[[Mapping[str, Any]], bool]]]] = {
    JOB_FILE: (lambda content: [content["made_of"], content["windows"]], _is_description),
    RESULTS_FILE: (lambda content: content["results"], lambda content: _are_results(content["results"])),
    ADVICE_FILE: (lambda content: [content["of"], content["advice"]], _is_advice),
}
"""By a note's file: the values that its checksum is of, and whether they have the form in which they are written."""
