"""The loop over the bytes of an ES file of change events (`es.py`), compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled


@compiled
def decode_es(
    data: NDArray[np.uint8],
    time: int,
    max_events: int,
    height: int,
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    p: NDArray[np.int8],
) -> tuple[int, int, int, int]:
    """Decode whole events until the bytes or the room end.

    Returns:
        Events decoded, bytes used up, the time after them in µs, and how many filler bytes were passed over.
    """
    position, count, unknown = 0, 0, 0
    while position < len(data) and count < max_events:
        first = data[position]
        if first == 0xFF:
            time += 127
            position += 1
            continue
        if first == 0xFE:
            unknown += 1
            position += 1
            continue
        if position + 5 > len(data):
            break
        time += first >> 1
        x[count] = data[position + 1] | (np.int32(data[position + 2]) << 8)
        y[count] = height - 1 - (data[position + 3] | (np.int32(data[position + 4]) << 8))
        t[count] = time
        p[count] = 1 if first & 1 else -1
        count += 1
        position += 5
    return count, position, time, unknown
