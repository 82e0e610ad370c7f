"""Compiled loops over unpacked AEDAT 4 event packets (see `aedat4`).

A packet is a size, a FlatBuffers root with identifier EVTS, and a vector of 16-byte records: time, x, y, polarity.
Every access stays inside the packet, whatever its offsets say.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled
from evfi.events.stream import MAX_ABS_TIME_US

MIN_US, MAX_US, FIRST_US, LAST_US, NUM_UNSORTED, IMPOSSIBLE = range(6)
NUM_FACTS: Final = 6
_MAX_TIME: Final = MAX_ABS_TIME_US
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
    """Find the records of packets, each of which begins at the next multiple of 8 behind the one before.

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
        start = (ends[i] + 7) // 8 * 8
    return -1


@compiled
def measure(
    words: NDArray[np.int64], firsts: NDArray[np.int64], counts: NDArray[np.int64], facts: NDArray[np.int64]
) -> None:
    """Times of packets.

    Args:
        words: the packets as 64-bit words; a record is two of them, the first of which is the time.
        firsts: word at which each packet's records begin [P].
        counts: records per packet [P].
        facts: receives per packet the earliest, latest, first and last time, how many records are earlier than the one
            before them in the packet, and how many have an impossible time or polarity [P, 6]; zeros for a packet without
            records.
    """
    for i in range(len(counts)):
        if counts[i] == 0:
            continue
        start = firsts[i]
        low = high = last = words[start]
        unsorted, impossible = 0, 0
        for k in range(start, start + 2 * counts[i], 2):
            t = words[k]
            low = min(low, t)
            high = max(high, t)
            unsorted += t < last
            impossible += words[k + 1] & 0xFE00000000 != 0
            last = t
        impossible += low < -_MAX_TIME or high > _MAX_TIME
        facts[i, :4] = low, high, words[start], last
        facts[i, 4], facts[i, 5] = unsorted, impossible


@compiled
def decode(
    words: NDArray[np.int64],
    firsts: NDArray[np.int64],
    counts: NDArray[np.int64],
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
        words: the packets as 64-bit words, as for `measure`.
        firsts: word at which each packet's records begin [P].
        counts: records per packet [P], N in all.
        width: of the sensor.
        height: of the sensor.
        x: receives columns [N]; records outside the sensor are left out, here and below.
        y: receives rows [N].
        t: receives times [N].
        p: receives polarities, -1 or 1 [N].
        dropped: receives the times of records outside the sensor, as many as it has room for.

    Returns:
        How many records are inside the sensor, and whether those are in the order of time.
    """
    count, outside, ordered = 0, 0, True
    previous = -_MAX_TIME - 1
    for i in range(len(counts)):
        for k in range(firsts[i], firsts[i] + 2 * counts[i], 2):
            time, rest = words[k], words[k + 1]
            column, row = np.int16(rest & 0xFFFF), np.int16((rest >> 16) & 0xFFFF)
            if column < 0 or column >= width or row < 0 or row >= height:
                if outside < len(dropped):
                    dropped[outside] = time
                outside += 1
                continue
            x[count], y[count], t[count], p[count] = column, row, time, 2 * ((rest >> 32) & 1) - 1
            ordered = ordered and time >= previous
            previous = time
            count += 1
    return count, ordered
