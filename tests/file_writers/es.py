"""Writes ES files (event stream 2.0) of change events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike


def write_es(path: Path, x: ArrayLike, y: ArrayLike, t: ArrayLike, p: ArrayLike, size: tuple[int, int]) -> Path:
    """Write events in order of time (µs), y counted from the top, p ±1."""
    columns = (np.asarray(column).tolist() for column in (x, y, t, p))
    out = bytearray(b"Event Stream\x02\x00\x00\x01" + np.array(size, "<u2").tobytes())
    last = 0
    for column, row, time, sign in zip(*columns, strict=True):
        overflows, delta = divmod(time - last, 127)
        out += b"\xff" * overflows + bytes([delta << 1 | (sign > 0)])
        out += np.array([column, size[1] - 1 - row], "<i4").astype("<u2").tobytes()
        last = time
    path.write_bytes(bytes(out))
    return path
