"""Decoder of Prophesee's EVT3 words, and what all decoders of words share; import this module inside functions.

A decoder is a compiled function over an array of words that carries its state from call to call, so that a stream may be
cut into blocks at any word:

- `state` (int64, made by `word_state.initial_state`) is what it must know from earlier words; it is changed in place.
- `tally` (int64, made by `new_tally`) collects counts and extremes.
- `limits` (int64) are the sensor's width and height, and two numbers of events: after the first the decoder stops before
  a word that moves the clock, and it never goes beyond the second.
- Events inside the sensor are written to `x, y, t, p` as far as these reach, times of those outside to `outside_t`. With
  None for all five they are only counted, and `MIN_T` to `MAX_Y` of the tally are kept.
- It returns how many words it used up.

Clocks (24 bit in EVT3, 34 in EVT2 and EVT2.1, 32 in DAT) go on beyond their wraps. A wrap is a step back by at least half
the clock's range; smaller steps back occur on noisy buses and leave events out of order, nothing else. Events before the
first word of time have no known time: they are counted as undated and left out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled
from evfi.events.formats.word_state import (
    BASE_X,
    EVENTS,
    HIGH,
    LAST_T,
    LOOPS,
    LOW,
    MAX_T,
    MAX_X,
    MAX_Y,
    MIN_T,
    NO_LIMIT,
    NO_SIZE,
    NUM_STATE,
    OUTSIDE,
    ROW,
    TRIGGERS,
    UNDATED,
    UNKNOWN,
    UNSORTED,
    VECTOR_P,
    Columns,
    empty_columns,
    initial_state,
    new_tally,
)

__all__ = [  # for decoders of streams that are cut in other ways than files
    "EVENTS",
    "LOOPS",
    "NUM_STATE",
    "TRIGGERS",
    "UNDATED",
    "UNKNOWN",
    "Evt3Decoder",
    "decode_evt3",
    "empty_columns",
    "initial_state",
    "new_tally",
]

MAX_LOOPS: Final = 2**24  # more wraps than any recording has; keeps times of garbage within 2^58 µs
BIT_FACTOR: Final = 0x077CB531
BIT_OF_PRODUCT: Final = np.argsort([(BIT_FACTOR << k >> 27) & 31 for k in range(32)]).astype(np.int32)
"""The position of a single bit b below 2^32 is `BIT_OF_PRODUCT[(b * BIT_FACTOR >> 27) & 31]` (de Bruijn)."""
_NOT_CONTRAST: Final = -2  # the row while the stream tells other things than contrast events
_MAX_BASE_X: Final = 4096
_JITTER: Final = 16


class Evt3Decoder:
    """Decodes a stream of EVT3 words that comes in parts, such as packets of a message bus."""

    def __init__(self) -> None:
        self._state = initial_state()
        self._tally = new_tally()

    def decode(self, words: NDArray[np.uint16]) -> Columns:
        """Decode the next words of the stream.

        Args:
            words: EVT3 words [N] in the machine's byte order.

        Returns:
            x, y, t in µs and p (+1, -1) of the events that they hold, in the stream's order.
        """
        words = np.ascontiguousarray(words, np.uint16)
        limits = np.array([NO_SIZE, NO_SIZE, NO_LIMIT, NO_LIMIT], np.int64)
        counted = new_tally()
        decode_evt3(words, self._state.copy(), limits, None, None, None, None, None, counted)
        x, y, t, p = empty_columns(int(counted[EVENTS]))
        self._tally[EVENTS] = 0
        decode_evt3(words, self._state, limits, x, y, t, p, t[:0], self._tally)
        return x, y, t, p

    @property
    def num_triggers(self) -> int:
        """Edges of external triggers so far."""
        return int(self._tally[TRIGGERS])

    @property
    def num_unknown(self) -> int:
        """Words of no known kind so far."""
        return int(self._tally[UNKNOWN])

    @property
    def num_undated(self) -> int:
        """Events left out so far because their time or row was not told yet."""
        return int(self._tally[UNDATED])

    @property
    def num_clock_wraps(self) -> int:
        """How often the 24-bit clock began again."""
        return int(self._state[LOOPS])

    @property
    def num_unsorted(self) -> int:
        """Events so far that are earlier than the one before them."""
        return int(self._tally[UNSORTED])


@compiled
def loops_after(loops: int, old_high: int, new_high: int, num_steps: int) -> int:
    """How often a clock has wrapped once its high part steps from one value to another."""
    if old_high - new_high >= num_steps // 2:
        return min(loops + 1, MAX_LOOPS)
    if loops > 0 and new_high - old_high >= num_steps - _JITTER:
        return loops - 1  # the clock jitters back over its wrap
    return loops


@compiled
def decode_evt3(
    words: NDArray[np.uint16],
    state: NDArray[np.int64],
    limits: NDArray[np.int64],
    x: Any,
    y: Any,
    t: Any,
    p: Any,
    outside_t: Any,
    tally: NDArray[np.int64],
) -> int:
    """Decode 16-bit words: kind in bits 12-15, content in bits 0-11.

    The high and the low 12 bits of time come in words of their own; a new high time sets the low one to 0 until that is
    told. Rows, and the column and polarity of vectors, hold until told anew; each vector moves its column on.
    """
    width, height, soft_limit, hard_limit = limits[0], limits[1], limits[2], limits[3]
    high, low, loops, row = int(state[HIGH]), int(state[LOW]), int(state[LOOPS]), int(state[ROW])
    base_x, vector_p, last_t = int(state[BASE_X]), int(state[VECTOR_P]), int(state[LAST_T])
    n, num_outside = int(tally[EVENTS]), int(tally[OUTSIDE])
    max_x, max_y = int(tally[MAX_X]), int(tally[MAX_Y])
    now = (loops << 24) | (high << 12) | low
    num_words = len(words)
    i = 0
    while i < num_words:
        word = int(words[i])
        kind, content = word >> 12, word & 0xFFF
        if kind == 0:
            row = content & 0x7FF
        elif kind == 2 or kind == 4 or kind == 5:
            if n + num_outside + 12 > hard_limit:
                break
            if kind == 2:
                first_x, mask, polarity = content & 0x7FF, 1, (content >> 11) * 2 - 1
            else:
                num_bits = 12 if kind == 4 else 8
                first_x, mask, polarity = base_x, content & ((1 << num_bits) - 1), vector_p
                if base_x >= 0:
                    base_x = min(base_x + num_bits, _MAX_BASE_X)
            if high < 0 or row < 0 or first_x < 0:
                tally[UNKNOWN if row == _NOT_CONTRAST else UNDATED] += _num_bits(mask)
                mask = 0
            elif mask != 0:
                if now != last_t or n + num_outside == 0:
                    if now < last_t:
                        tally[UNSORTED] += 1
                    last_t = now
                    tally[MIN_T], tally[MAX_T] = min(tally[MIN_T], now), max(tally[MAX_T], now)
                max_y = max(max_y, row)
                if x is None and first_x + 11 <= max_x and first_x + 12 <= width and row < height:
                    n += _num_bits(mask)
                    mask = 0
            while mask != 0:
                lowest = mask & -mask
                mask ^= lowest
                column = first_x + BIT_OF_PRODUCT[((lowest * BIT_FACTOR) >> 27) & 31]
                max_x = max(max_x, column)
                if column < width and row < height:
                    if x is not None and n < len(x):
                        x[n], y[n], t[n], p[n] = column, row, now, polarity
                    n += 1
                else:
                    if outside_t is not None and num_outside < len(outside_t):
                        outside_t[num_outside] = now
                    num_outside += 1
        elif kind == 6:
            if n >= soft_limit and content != low:
                break
            low = content
            now = (loops << 24) | (high << 12) | low
        elif kind == 8:
            if content != high:
                if n >= soft_limit:
                    break
                if high >= 0:
                    loops = loops_after(loops, high, content, 4096)
                high, low = content, 0
                now = (loops << 24) | (high << 12)
        elif kind == 3:
            base_x, vector_p = content & 0x7FF, (content >> 11) * 2 - 1
        elif kind == 10:
            tally[TRIGGERS] += 1
        elif kind != 7 and kind != 14 and kind != 15:  # those go on with earlier words or tell of the camera
            tally[UNKNOWN] += 1
            if kind == 1:
                row = _NOT_CONTRAST
        i += 1
    state[HIGH], state[LOW], state[LOOPS], state[ROW] = high, low, loops, row
    state[BASE_X], state[VECTOR_P], state[LAST_T] = base_x, vector_p, last_t
    tally[EVENTS], tally[OUTSIDE], tally[MAX_X], tally[MAX_Y] = n, num_outside, max_x, max_y
    return i


@compiled
def _num_bits(mask: int) -> int:
    """How many of the lowest 16 bits are set."""
    mask = (mask & 0x5555) + ((mask >> 1) & 0x5555)
    mask = (mask & 0x3333) + ((mask >> 2) & 0x3333)
    mask = (mask & 0x0F0F) + ((mask >> 4) & 0x0F0F)
    return (mask + (mask >> 8)) & 0x1F
