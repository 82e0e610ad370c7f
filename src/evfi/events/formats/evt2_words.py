"""Decoders of Prophesee's EVT2 and EVT2.1 words and of DAT records, as `evt_words` describes; import it inside functions.

Their rows of state use `HIGH`, `LOOPS` and `LAST_T` only; for DAT, `HIGH` is the whole clock.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled
from evfi.events.formats.evt_words import BIT_FACTOR, BIT_OF_PRODUCT, loops_after
from evfi.events.formats.word_state import (
    EVENTS,
    HIGH,
    LAST_T,
    LOOPS,
    MAX_T,
    MAX_X,
    MAX_Y,
    MIN_T,
    OUTSIDE,
    TRIGGERS,
    UNDATED,
    UNKNOWN,
    UNSORTED,
)

_HIGH_STEPS = 2**28  # of EVT2's and EVT2.1's high time


@compiled
def decode_evt2(
    words: NDArray[np.uint32],
    state: NDArray[np.int64],
    limits: NDArray[np.int64],
    x: Any,
    y: Any,
    t: Any,
    p: Any,
    outside_t: Any,
    tally: NDArray[np.int64],
) -> int:
    """Decode 32-bit words: kind in bits 28-31; events have the low 6 bits of time in 22-27, x in 11-21, y in 0-10."""
    width, height, soft_limit, hard_limit = limits[0], limits[1], limits[2], limits[3]
    high, loops, last_t = int(state[HIGH]), int(state[LOOPS]), int(state[LAST_T])
    n, num_outside = int(tally[EVENTS]), int(tally[OUTSIDE])
    base = (loops << 34) | (high << 6)
    num_words = len(words)
    i = 0
    while i < num_words:
        word = int(words[i])
        kind = word >> 28
        if kind <= 1:
            if n + num_outside >= hard_limit:
                break
            if high < 0:
                tally[UNDATED] += 1
            else:
                now = base + ((word >> 22) & 0x3F)
                column, row = (word >> 11) & 0x7FF, word & 0x7FF
                if now < last_t:
                    tally[UNSORTED] += 1
                last_t = now
                if x is None:
                    tally[MIN_T], tally[MAX_T] = min(tally[MIN_T], now), max(tally[MAX_T], now)
                    tally[MAX_X], tally[MAX_Y] = max(tally[MAX_X], column), max(tally[MAX_Y], row)
                if column < width and row < height:
                    if x is not None and n < len(x):
                        x[n], y[n], t[n], p[n] = column, row, now, kind * 2 - 1
                    n += 1
                else:
                    if outside_t is not None and num_outside < len(outside_t):
                        outside_t[num_outside] = now
                    num_outside += 1
        elif kind == 8:
            new_high = word & 0xFFFFFFF
            if new_high != high:
                if n >= soft_limit:
                    break
                if high >= 0:
                    loops = loops_after(loops, high, new_high, _HIGH_STEPS)
                high = new_high
                base = (loops << 34) | (high << 6)
        elif kind == 10:
            tally[TRIGGERS] += 1
        elif kind < 14:  # 14 describes the camera, 15 continues the word before
            tally[UNKNOWN] += 1
        i += 1
    state[HIGH], state[LOOPS], state[LAST_T] = high, loops, last_t
    tally[EVENTS], tally[OUTSIDE] = n, num_outside
    return i


@compiled
def decode_evt21_little(
    words: NDArray[np.uint64],
    state: NDArray[np.int64],
    limits: NDArray[np.int64],
    x: Any,
    y: Any,
    t: Any,
    p: Any,
    outside_t: Any,
    tally: NDArray[np.int64],
) -> int:
    """Decode 64-bit little-endian words whose upper half is like a word of EVT2 and whose lower half is the mask."""
    return _decode_evt21(words, 32, state, limits, x, y, t, p, outside_t, tally)


@compiled
def decode_evt21_legacy(
    words: NDArray[np.uint64],
    state: NDArray[np.int64],
    limits: NDArray[np.int64],
    x: Any,
    y: Any,
    t: Any,
    p: Any,
    outside_t: Any,
    tally: NDArray[np.int64],
) -> int:
    """Decode 64-bit little-endian words whose lower half is like a word of EVT2 and whose upper half is the mask."""
    return _decode_evt21(words, 0, state, limits, x, y, t, p, outside_t, tally)


@compiled
def _decode_evt21(
    words: NDArray[np.uint64],
    head_shift: int,
    state: NDArray[np.int64],
    limits: NDArray[np.int64],
    x: Any,
    y: Any,
    t: Any,
    p: Any,
    outside_t: Any,
    tally: NDArray[np.int64],
) -> int:
    """Decode words of a head, which is like a word of EVT2, and a mask: bit k is an event at column x + k."""
    width, height, soft_limit, hard_limit = limits[0], limits[1], limits[2], limits[3]
    high, loops, last_t = int(state[HIGH]), int(state[LOOPS]), int(state[LAST_T])
    n, num_outside = int(tally[EVENTS]), int(tally[OUTSIDE])
    base = (loops << 34) | (high << 6)
    num_words = len(words)
    i = 0
    while i < num_words:
        head = int(np.int64((words[i] >> np.uint64(head_shift)) & np.uint64(0xFFFFFFFF)))
        kind = head >> 28
        if kind <= 1:
            if n + num_outside + 32 > hard_limit:
                break
            mask = int(np.int64((words[i] >> np.uint64(32 - head_shift)) & np.uint64(0xFFFFFFFF)))
            now = base + ((head >> 22) & 0x3F)
            first_x, row = (head >> 11) & 0x7FF, head & 0x7FF
            if mask != 0 and high >= 0:
                if now < last_t:
                    tally[UNSORTED] += 1
                last_t = now
                if x is None:
                    tally[MIN_T], tally[MAX_T] = min(tally[MIN_T], now), max(tally[MAX_T], now)
                    tally[MAX_Y] = max(tally[MAX_Y], row)
            while mask != 0:
                lowest = mask & -mask
                mask ^= lowest
                column = first_x + BIT_OF_PRODUCT[((lowest * BIT_FACTOR) >> 27) & 31]
                if high < 0:
                    tally[UNDATED] += 1
                    continue
                if x is None:
                    tally[MAX_X] = max(tally[MAX_X], column)
                if column < width and row < height:
                    if x is not None and n < len(x):
                        x[n], y[n], t[n], p[n] = column, row, now, kind * 2 - 1
                    n += 1
                else:
                    if outside_t is not None and num_outside < len(outside_t):
                        outside_t[num_outside] = now
                    num_outside += 1
        elif kind == 8:
            new_high = head & 0xFFFFFFF
            if new_high != high:
                if n >= soft_limit:
                    break
                if high >= 0:
                    loops = loops_after(loops, high, new_high, _HIGH_STEPS)
                high = new_high
                base = (loops << 34) | (high << 6)
        elif kind == 10:
            tally[TRIGGERS] += 1
        elif kind < 14:
            tally[UNKNOWN] += 1
        i += 1
    state[HIGH], state[LOOPS], state[LAST_T] = high, loops, last_t
    tally[EVENTS], tally[OUTSIDE] = n, num_outside
    return i


@compiled
def decode_dat(
    words: NDArray[np.uint64],
    state: NDArray[np.int64],
    limits: NDArray[np.int64],
    x: Any,
    y: Any,
    t: Any,
    p: Any,
    outside_t: Any,
    tally: NDArray[np.int64],
) -> int:
    """Decode 64-bit records: time in bits 0-31, x in 32-45, y in 46-59, polarity in 60-63."""
    width, height, soft_limit, hard_limit = limits[0], limits[1], limits[2], limits[3]
    clock, loops, last_t = int(state[HIGH]), int(state[LOOPS]), int(state[LAST_T])
    n, num_outside = int(tally[EVENTS]), int(tally[OUTSIDE])
    num_words = len(words)
    i = 0
    while i < num_words:
        word = words[i]
        polarity = np.int64(word >> np.uint64(60))
        if polarity > 1:
            tally[UNKNOWN] += 1
            i += 1
            continue
        new_clock = int(np.int64(word & np.uint64(0xFFFFFFFF)))
        if new_clock != clock:
            if n >= soft_limit:
                break
            if clock >= 0:
                loops = loops_after(loops, clock, new_clock, 2**32)
            clock = new_clock
        if n + num_outside >= hard_limit:
            break
        now = (loops << 32) | clock
        column = np.int64((word >> np.uint64(32)) & np.uint64(0x3FFF))
        row = np.int64((word >> np.uint64(46)) & np.uint64(0x3FFF))
        if now < last_t:
            tally[UNSORTED] += 1
        last_t = now
        if x is None:
            tally[MIN_T], tally[MAX_T] = min(tally[MIN_T], now), max(tally[MAX_T], now)
            tally[MAX_X], tally[MAX_Y] = max(tally[MAX_X], column), max(tally[MAX_Y], row)
        if column < width and row < height:
            if x is not None and n < len(x):
                x[n], y[n], t[n], p[n] = column, row, now, polarity * 2 - 1
            n += 1
        else:
            if outside_t is not None and num_outside < len(outside_t):
                outside_t[num_outside] = now
            num_outside += 1
        i += 1
    state[HIGH], state[LOOPS], state[LAST_T] = clock, loops, last_t
    tally[EVENTS], tally[OUTSIDE] = n, num_outside
    return i
