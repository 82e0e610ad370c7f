"""Small text files of one entry per line: lists of frames and their times."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from evfi.errors import InputError
from evfi.files import one_line
from evfi.paths import open_to_read

_MAX_BYTES: Final = 2**24  # about a million lines
_MAX_TIME: Final = 2**63
_SHOWN: Final = 40


def numbered_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """The lines of a file without blanks around them; a byte order mark, blank lines and comments (`#`) are left out.

    Args:
        path: the file.
        what: what it holds, for errors.

    Yields:
        The line's number, from 1 on, and its text.

    Raises:
        InputError: the file cannot be read, or is far larger than such a list.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise InputError(
                f"{path}: expected a file of {what} of at most {_MAX_BYTES // 2**20} MiB, found {size} bytes"
            )
        with open_to_read(path) as opened, io.TextIOWrapper(opened, encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                text = line.strip()
                if text and not text.startswith("#"):
                    yield number, text
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the {what} {path}: {one_line(error)}; name a text file") from None


def time_in_line(text: str, path: Path, line: int) -> int | float:
    """A time, as the file has it.

    Args:
        text: the number.
        path: the file, for errors.
        line: the line's number.

    Raises:
        InputError: it is no number, or none that can be a time.
    """
    value: int | float
    try:
        value = int(text)
    except ValueError:
        try:
            value = float(text)
        except ValueError:
            raise InputError(f"{path}: line {line}: expected one time, found '{text[:_SHOWN]}'") from None
    if not abs(value) < _MAX_TIME:  # also what is not a number
        raise InputError(
            f"{path}: line {line}: expected a finite time within 64 bits, found '{text[:_SHOWN]}'; check its unit"
        )
    return value
