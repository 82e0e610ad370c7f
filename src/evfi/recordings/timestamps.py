"""Files with one time per frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evfi.errors import InputError
from evfi.events.file_options import TimeUnit
from evfi.events.formats.columns import to_microseconds
from evfi.recordings.recording import Times
from evfi.recordings.text_lines import numbered_lines, time_in_line


def read_timestamps(path: Path, unit: TimeUnit, *, num_frames: int | None) -> Times:
    """Read a text file of one time per line; a byte order mark, blank lines and comments (`#`) are skipped.

    Args:
        path: the file.
        unit: unit of its times; microseconds must be whole numbers.
        num_frames: how many times are expected; None takes as many as there are.

    Returns:
        int64 [N] in µs, in the file's order.

    Raises:
        InputError: the file is missing, a line is no number, or there are more or fewer than frames.
    """
    values: list[int | float] = []
    num_found = 0
    for number, text in numbered_lines(path, "frame times"):
        value = time_in_line(text, path, number)
        num_found += 1
        if num_frames is None or num_found <= num_frames:
            values.append(value)
    if num_frames is not None and num_found != num_frames:
        raise InputError(f"{path}: expected one time per frame, found {num_found} times for {num_frames} frames")
    return to_microseconds(np.asarray(values), unit, str(path)) if values else np.zeros(0, np.int64)
