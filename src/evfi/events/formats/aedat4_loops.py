"""Compiled loops over unpacked AEDAT 4 event packets (see `aedat4`).

A packet is a size, a FlatBuffers root with identifier EVTS, and a vector of 16-byte records: time, x, y, polarity.
Every access stays inside the packet, whatever its offsets say.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.events.compiled import compiled

MIN_US, MAX_US, FIRST_US, LAST_US, NUM_UNSORTED = range(5)
NUM_FACTS: Final = 5
_EVTS: Final = 0x53545645


@compiled
def _u32(data: NDArray[np.uint8], at: Any) -> Any:
    return (
        np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
    )


@compiled
def _locate_one(data: NDArray[np.uint8], start: int, end: int) -> Any:
    """Where the records of one packet begin and how many they are; (-1, -1) if the packet is damaged."""
    if end - start < 16 or _u32(data, start) != end - start - 4:
        return -1, -1
    base = start + 4
    table = base + _u32(data, base)
    if _u32(data, base + 4) != _EVTS or table + 4 > end:
        return -1, -1
    back = _u32(data, table)
    fields = table - (back if back < 2**31 else back - 2**32)
    if fields < base or fields + 4 > end:
        return -1, -1
    if (np.int64(data[fields]) | np.int64(data[fields + 1]) << 8) < 6:
        return base, 0
    if fields + 6 > end:
        return -1, -1
    offset = np.int64(data[fields + 4]) | np.int64(data[fields + 5]) << 8
    if offset == 0:
        return base, 0
    if table + offset + 4 > end:
        return -1, -1
    vector = table + offset + _u32(data, table + offset)
    if vector + 4 > end:
        return -1, -1
    count = _u32(data, vector)
    if vector + 4 + 16 * count > end:
        return -1, -1
    return vector + 4, count


@compiled
def locate(
    data: NDArray[np.uint8], ends: NDArray[np.int64], positions: NDArray[np.int64], counts: NDArray[np.int64]
) -> int:
    """Find the records of packets that follow one another.

    Args:
        data: the packets.
        ends: where each packet ends [P].
        positions: receives where its records begin [P].
        counts: receives how many records it holds [P].

    Returns:
        Number of the first damaged packet, -1 if none is.
    """
    start = 0
    for i in range(len(ends)):
        position, count = _locate_one(data, start, ends[i])
        if position < 0:
            return i
        positions[i], counts[i] = position, count
        start = ends[i]
    return -1


@compiled
def gather(
    data: NDArray[np.uint8], positions: NDArray[np.int64], counts: NDArray[np.int64], records: NDArray[np.uint8]
) -> None:
    """Copy the records of all packets behind one another, so that they are aligned."""
    end = 0
    for i in range(len(counts)):
        size = 16 * counts[i]
        records[end : end + size] = data[positions[i] : positions[i] + size]
        end += size


@compiled
def measure(words: NDArray[np.int64], counts: NDArray[np.int64], facts: NDArray[np.int64]) -> None:
    """Times of packets.

    Args:
        words: records as two 64-bit words, the first of which is the time [N, 2].
        counts: records per packet [P].
        facts: receives per packet the earliest, latest, first and last time, and how many records are earlier than the
            one before them in the packet [P, 5]; zeros for a packet without records.
    """
    at = 0
    for i in range(len(counts)):
        if counts[i] == 0:
            continue
        first = words[at, 0]
        low, high, last, unsorted = first, first, first, 0
        for k in range(at + 1, at + counts[i]):
            t = words[k, 0]
            low = min(low, t)
            high = max(high, t)
            unsorted += t < last
            last = t
        facts[i, 0], facts[i, 1], facts[i, 2], facts[i, 3], facts[i, 4] = low, high, first, last, unsorted
        at += counts[i]


@compiled
def decode(
    words: NDArray[np.int64],
    width: int,
    height: int,
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    p: NDArray[np.int8],
    dropped: NDArray[np.int64],
) -> Any:
    """Records to columns.

    Args:
        words: records as two 64-bit words [N, 2].
        width: of the sensor.
        height: of the sensor.
        x: receives columns [N]; records outside the sensor are left out, here and below.
        y: receives rows [N].
        t: receives times [N].
        p: receives polarities, -1 or 1 [N].
        dropped: receives the times of records outside the sensor, as many as it has room for.

    Returns:
        How many records are inside the sensor; whether those are in the order of time; the first record whose polarity
        is neither 0 nor 1, -1 if there is none.
    """
    count, outside, ordered, wrong = 0, 0, True, -1
    previous = words[0, 0] if len(words) else 0
    for i in range(len(words)):
        time, rest = words[i, 0], words[i, 1]
        column, row, sign = np.int16(rest & 0xFFFF), np.int16((rest >> 16) & 0xFFFF), (rest >> 32) & 0xFF
        if sign > 1 and wrong < 0:
            wrong = i
        if column < 0 or column >= width or row < 0 or row >= height:
            if outside < len(dropped):
                dropped[outside] = time
            outside += 1
            continue
        x[count], y[count], t[count], p[count] = column, row, time, 2 * sign - 1
        ordered = ordered and time >= previous
        previous = time
        count += 1
    return count, ordered, wrong
