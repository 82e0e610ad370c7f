"""Decoder of ECF, the codec in which Prophesee's HDF5 files keep chunks of events (filter 0x8ECF).

A chunk, little-endian and unaligned: uint32 n << 2 | a << 1 | b; uint64 time of the first event; then one after another

- times: a byte is dt (4 bits) and a count (4 bits): that many events, dt µs later. Count 15: the count follows as uint16.
  dt 15: the low bits are the next four bits, lowest first, of one larger step; the next byte that begins otherwise ends it.
- if a: four events in three uint32, each of 24 bits: y (12 bits), x (11), polarity (1). The first and the last event lie
  whole in their word; of the others, the low bits come at the end of one word and the high ones at the top of the next;
- else rows: a uint16 is y (11 bits) and a count (5 bits); count 31: the count follows as uint16. Then
  - if b: likewise, four events in three uint16, each of 12 bits: x (11 bits), polarity (1);
  - else columns: a uint16 is x (11 bits) and a mask that says which of x + 1 … x + 5 follow (highest bit first); then
    polarities: a byte is polarity (1 bit) and a count (7 bits); count 127: the count follows as uint16.

Groups may reach beyond the last event; what they say there means nothing. Any content ends in a number of bytes used, or
in -1: the loops end with the bytes or the events.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled

HEADER_BYTES: Final = 12

Bytes = NDArray[np.uint8]


@compiled
def _byte(data: Bytes, position: int) -> int:
    return np.int64(data[position])  # type: ignore[return-value]  # int() would make it unsigned


@compiled
def num_events(data: Bytes) -> int:
    """How many events a chunk holds; -1 if it is too short to say."""
    if len(data) < HEADER_BYTES:
        return -1
    return (_byte(data, 0) | _byte(data, 1) << 8 | _byte(data, 2) << 16 | _byte(data, 3) << 24) >> 2


@compiled
def decode_times(data: Bytes, t: NDArray[np.int64]) -> int:
    """Fill in the times of a chunk.

    Args:
        data: the chunk.
        t: int64 [n], where n is what `num_events` says.

    Returns:
        Where the times end in the chunk; -1 if they are damaged.
    """
    now = np.int64(0)
    for i in range(8):
        now |= _byte(data, 4 + i) << np.int64(8 * i)
    position, done, n, size = HEADER_BYTES, 0, len(t), len(data)
    while done < n:
        if position >= size:
            return -1
        step, count = _byte(data, position) >> 4, _byte(data, position) & 15
        position += 1
        if step == 15:
            large, shift = np.int64(count), 4
            while position < size and _byte(data, position) >> 4 == 15:
                if shift > 56:
                    return -1
                large |= np.int64((data[position]) & 15) << np.int64(shift)
                shift += 4
                position += 1
            now += large
            continue
        now += step
        if count == 15:
            if position + 2 > size:
                return -1
            count = _byte(data, position) | _byte(data, position + 1) << 8
            position += 2
        if count > n - done:
            return -1
        for i in range(done, done + count):
            t[i] = now
        done += count
    return position


@compiled
def _decode_rows(data: Bytes, position: int, y: NDArray[np.int32]) -> int:
    done, n, size = 0, len(y), len(data)
    while done < n:
        if position + 2 > size:
            return -1
        value = _byte(data, position) | _byte(data, position + 1) << 8
        position += 2
        count = value & 31
        if count == 31:
            if position + 2 > size:
                return -1
            count = _byte(data, position) | _byte(data, position + 1) << 8
            position += 2
        if count > n - done:
            return -1
        for i in range(done, done + count):
            y[i] = value >> 5
        done += count
    return position


@compiled
def _decode_columns(data: Bytes, position: int, x: NDArray[np.int32]) -> int:
    done, n, size = 0, len(x), len(data)
    while done < n:
        if position + 2 > size:
            return -1
        value = _byte(data, position) | _byte(data, position + 1) << 8
        position += 2
        x[done] = value >> 5
        done += 1
        if value & 31 == 0:
            continue
        for j in range(5):
            if value & (16 >> j) and done < n:
                x[done] = (value >> 5) + j + 1
                done += 1
    return position


@compiled
def _decode_polarities(data: Bytes, position: int, p: NDArray[np.int8]) -> int:
    done, n, size = 0, len(p), len(data)
    while done < n:
        if position >= size:
            return -1
        value = _byte(data, position)
        position += 1
        count = value & 127
        if count == 127:
            if position + 2 > size:
                return -1
            count = _byte(data, position) | _byte(data, position + 1) << 8
            position += 2
        if count > n - done:
            return -1
        for i in range(done, done + count):
            p[i] = value >> 7
        done += count
    return position


@compiled
def _decode_pairs(data: Bytes, position: int, x: NDArray[np.int32], p: NDArray[np.int8]) -> int:
    n = len(x)
    for first in range(0, n, 4):
        if position + 6 > len(data):
            return -1
        a = _byte(data, position) | _byte(data, position + 1) << 8
        b = _byte(data, position + 2) | _byte(data, position + 3) << 8
        c = _byte(data, position + 4) | _byte(data, position + 5) << 8
        position += 6
        for j in range(min(4, n - first)):
            if j == 0:
                value = a >> 4
            elif j == 1:
                value = (a & 15) | b >> 8 << 4
            elif j == 2:
                value = (b & 255) | c >> 12 << 8
            else:
                value = c & 4095
            x[first + j] = value >> 1 & 2047
            p[first + j] = value & 1
    return position


@compiled
def _word(data: Bytes, position: int) -> int:
    return (
        _byte(data, position)
        | _byte(data, position + 1) << 8
        | _byte(data, position + 2) << 16
        | _byte(data, position + 3) << 24
    )


@compiled
def _decode_triples(data: Bytes, position: int, x: NDArray[np.int32], y: NDArray[np.int32], p: NDArray[np.int8]) -> int:
    n = len(x)
    for first in range(0, n, 4):
        if position + 12 > len(data):
            return -1
        a, b, c = _word(data, position), _word(data, position + 4), _word(data, position + 8)
        position += 12
        for j in range(min(4, n - first)):
            if j == 0:
                value = a >> 8
            elif j == 1:
                value = (a & 0xFF) | b >> 16 << 8
            elif j == 2:
                value = (b & 0xFFFF) | c >> 24 << 16
            else:
                value = c & 0xFFFFFF
            y[first + j] = value >> 12 & 2047
            x[first + j] = value >> 1 & 2047
            p[first + j] = value & 1
    return position


@compiled
def decode_events(data: Bytes, x: Any, y: Any, t: Any, p: Any) -> int:
    """Fill in all columns of a chunk.

    Args:
        data: the chunk.
        x, y: int32 [n], where n is what `num_events` says.
        t: int64 [n] in µs.
        p: int8 [n], 0 or 1.

    Returns:
        How many bytes were used; -1 if the chunk is damaged.
    """
    position = decode_times(data, t)
    if position < 0:
        return -1
    if data[0] & 2:
        return _decode_triples(data, position, x, y, p)
    position = _decode_rows(data, position, y)
    if position < 0:
        return -1
    if data[0] & 1:
        return _decode_pairs(data, position, x, p)
    position = _decode_columns(data, position, x)
    if position < 0:
        return -1
    return _decode_polarities(data, position, p)
