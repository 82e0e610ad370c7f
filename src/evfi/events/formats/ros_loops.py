"""Compiled loops over the events of ROS messages; import this module inside functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled

_TIME_HIGH, _TIME_LOW, _ADDRESS_X, _ADDRESS_Y, _BASE_Y, _VECTOR_8 = range(6)


@compiled
def read_records(
    data: NDArray[np.uint8],
    is_cdr: bool,
    is_big: bool,
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    p: NDArray[np.int8],
) -> int:
    """Read as many records as `x, y, t, p` have room for; times in whole µs, rounded.

    The first record of CDR lies like one of ROS 1; in the others x and y lie two bytes earlier, as nothing fills the
    space behind the polarity.

    Returns:
        How many polarities are neither 0 nor 1.
    """
    num_wrong = 0
    for i in range(len(t)):
        at = 16 * i if is_cdr else 13 * i
        near = at - 2 if is_cdr and i > 0 else at
        if is_big:
            x[i] = data[near] << 8 | data[near + 1]
            y[i] = data[near + 2] << 8 | data[near + 3]
            seconds = np.int64(data[at + 4]) << 24 | data[at + 5] << 16 | data[at + 6] << 8 | data[at + 7]
            nanoseconds = np.int64(data[at + 8]) << 24 | data[at + 9] << 16 | data[at + 10] << 8 | data[at + 11]
        else:
            x[i] = data[near] | data[near + 1] << 8
            y[i] = data[near + 2] | data[near + 3] << 8
            seconds = np.int64(data[at + 4]) | data[at + 5] << 8 | data[at + 6] << 16 | np.int64(data[at + 7]) << 24
            nanoseconds = (
                np.int64(data[at + 8]) | data[at + 9] << 8 | data[at + 10] << 16 | np.int64(data[at + 11]) << 24
            )
        t[i] = seconds * 1_000_000 + (nanoseconds + 500) // 1000
        polarity = data[at + 12]
        p[i] = 1 if polarity == 1 else -1
        if polarity > 1:
            num_wrong += 1
    return num_wrong


@compiled
def count_libcaer_words(words: NDArray[np.uint16]) -> tuple[int, int]:
    """How many events, and how many words of no known kind, a packet in libcaer_cmp holds."""
    num_events = num_unknown = 0
    for word in words:
        kind = word >> 12
        if kind == _ADDRESS_Y:
            num_events += 1
        elif kind == _VECTOR_8:
            mask = word & 0xFF
            while mask:
                mask &= mask - 1
                num_events += 1
        elif kind > _VECTOR_8:
            num_unknown += 1
    return num_events, num_unknown


@compiled
def read_libcaer_words(
    words: NDArray[np.uint16],
    time_base_ns: int,
    column: int,
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    p: NDArray[np.int8],
) -> int:
    """Decode a packet in libcaer_cmp: 16-bit words, their kind in bits 12-15.

    Times (high and low 12 bits, µs since the packet's time base) begin at zero in each packet; the column holds until told
    anew. A vector word stands for up to eight rows from the base row on, which it moves on.

    Args:
        words: the packet.
        time_base_ns: the packet's time base.
        column: the column told last.
        x, y, t, p: room for the events.

    Returns:
        The column told last.
    """
    high = low = row = 0
    polarity = np.int8(-1)
    now = (time_base_ns + 500) // 1000
    n = 0
    for word16 in words:
        word = int(word16)
        kind, content = word >> 12, word & 0xFFF
        if kind == _ADDRESS_Y:
            x[n], y[n], t[n], p[n] = column, content & 0x7FF, now, (content >> 11) * 2 - 1
            n += 1
        elif kind == _ADDRESS_X:
            column = content & 0x7FF
        elif kind in (_TIME_LOW, _TIME_HIGH):
            if kind == _TIME_LOW:
                low = content
            else:
                high = content
            now = (time_base_ns + (high << 12 | low) * 1000 + 500) // 1000
        elif kind == _BASE_Y:
            row, polarity = content & 0x7FF, np.int8((content >> 11) * 2 - 1)
        elif kind == _VECTOR_8:
            for bit in range(8):
                if content >> bit & 1:
                    x[n], y[n], t[n], p[n] = column, row + bit, now, polarity
                    n += 1
            row += 8
    return column


@compiled
def survey_events(
    x: NDArray[np.int32], y: NDArray[np.int32], t: NDArray[np.int64], last_t: int
) -> tuple[int, int, int, int, int]:
    """Earliest and latest time, largest x and y, and how many events are earlier than the one before them.

    Args:
        x, y, t: at least one event.
        last_t: time of the event before the first.
    """
    min_t = max_t = t[0]
    max_x, max_y = x[0], y[0]
    num_unsorted = 0
    for i in range(len(t)):
        now = t[i]
        num_unsorted += now < last_t
        last_t = now
        min_t, max_t = min(min_t, now), max(max_t, now)
        max_x, max_y = max(max_x, x[i]), max(max_y, y[i])
    return min_t, max_t, max_x, max_y, num_unsorted
