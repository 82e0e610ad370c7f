"""Files with one time per frame."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError
from evfi.events.formats.columns import TimeUnit, to_microseconds
from evfi.recordings.recording import Times

_MAX_BYTES: Final = 64 * 2**20


def read_timestamps(path: Path, unit: TimeUnit, *, num_frames: int | None) -> Times:
    """Read a text file of one time per line; blank lines and lines that begin with `#` are skipped.

    Args:
        path: the file.
        unit: unit of its times; microseconds must be whole numbers.
        num_frames: how many times are expected; None takes as many as there are.

    Returns:
        int64 [N] in µs, in the file's order.

    Raises:
        InputError: the file is missing, a line is no number, or there are more or fewer than frames.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for one time per frame")
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read the frame times {path}: {error.strerror}") from None
    values: list[int | float] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            values.append(_number(text, path, number))
    if num_frames is not None and len(values) != num_frames:
        raise InputError(f"{path}: expected one time per frame, found {len(values)} times for {num_frames} frames")
    return to_microseconds(np.asarray(values), unit, str(path)) if values else np.zeros(0, np.int64)


def _number(text: str, path: Path, line: int) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: line {line}: expected one time, found '{text[:40]}'") from None
