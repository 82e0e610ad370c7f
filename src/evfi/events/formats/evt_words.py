"""Decoders of Prophesee's event words (EVT2, EVT2.1, EVT3), compiled; import this module inside functions.

Every decoder is a function over an array of words that carries its state from call to call, so that a stream may be cut
into blocks at any word. All share these conventions:

- `state` (int64, a row of `initial_state`) is what the decoder must know from earlier words; it is changed in place.
- `tally` (int64, see `TALLY`) collects counts and extremes; start it with `new_tally`.
- Events are written to `x, y, t, p` as far as these reach; with empty arrays events are only counted. Events outside
  `limits[:2]` (width, height) are not written; their times go to `outside_t`.
- A call returns how many words it used up: it stops before a word that moves the clock once `limits[2]` events were
  found, and before any word that could lead to more than `limits[3]`.

Clocks of 24 bit (EVT3) and 34 bit (EVT2, EVT2.1) are continued beyond their wraps. A wrap is a step back of at least half
the clock's range; smaller steps back occur on noisy buses and leave events out of order, nothing else. Events that come
before the first word of high time have no known time: they are counted as undated and left out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.events.compiled import compiled

EVENTS, OUTSIDE, TRIGGERS, UNKNOWN, UNDATED, UNSORTED, MIN_T, MAX_T, MAX_X, MAX_Y = range(10)
NUM_TALLY: Final = 10
HIGH, LOW, LOOPS, ROW, BASE_X, VECTOR_P, LAST_T = range(7)
NUM_STATE: Final = 7
NO_TIME: Final = -(2**62)
_NO_LIMIT: Final = 2**62
_NOT_CD: Final = -2  # the row of words that are no contrast events
_MAX_BASE_X: Final = 4096
_JITTER: Final = 16  # steps of high time by which a clock may go back over its wrap
_BIT_OF_PRODUCT: Final = np.array(
    [
        0,
        1,
        28,
        2,
        29,
        14,
        24,
        3,
        30,
        22,
        20,
        15,
        25,
        17,
        4,
        8,
        31,
        27,
        13,
        23,
        21,
        19,
        16,
        7,
        26,
        12,
        18,
        6,
        11,
        5,
        10,
        9,
    ],
    np.int32,
)  # the lowest set bit of m is _BIT_OF_PRODUCT[(m & -m) * 0x077CB531 >> 27 & 31]


def initial_state() -> NDArray[np.int64]:
    """The state of a decoder that has seen nothing yet."""
    return np.array([-1, 0, 0, -1, -1, 0, NO_TIME], np.int64)


def new_tally() -> NDArray[np.int64]:
    """A tally without any count."""
    tally = np.zeros(NUM_TALLY, np.int64)
    tally[MIN_T], tally[MAX_T], tally[MAX_X], tally[MAX_Y] = 2**62, NO_TIME, -1, -1
    return tally


class Evt3Decoder:
    """Decodes a stream of EVT3 words that comes in parts, such as packets of a message bus."""

    def __init__(self) -> None:
        self._state = initial_state()
        self._tally = new_tally()

    def decode(
        self, words: NDArray[np.uint16]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int8]]:
        """Decode the next words of the stream.

        Args:
            words: EVT3 words [N] in the machine's byte order.

        Returns:
            x, y, t in µs and p (+1, -1) of the events that they hold, in the stream's order.
        """
        words = np.ascontiguousarray(words, np.uint16)
        limits = np.array([2**30, 2**30, _NO_LIMIT, _NO_LIMIT], np.int64)
        counted, nothing = new_tally(), empty_columns(0)
        decode_evt3(words, self._state.copy(), limits, *nothing, nothing[2], counted)
        x, y, t, p = columns = empty_columns(int(counted[EVENTS]))
        self._tally[EVENTS] = 0
        decode_evt3(words, self._state, limits, *columns, nothing[2], self._tally)
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


def empty_columns(
    count: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int8]]:
    """Room for x, y, t and p of so many events."""
    return np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int8)


@compiled
def wraps_between(old_high: int, new_high: int, num_steps: int) -> int:
    """How many wraps a clock makes from one high time to the next: 1, 0, or -1 where it jitters back over a wrap."""
    if old_high - new_high >= num_steps // 2:
        return 1
    if new_high - old_high >= num_steps - _JITTER:
        return -1
    return 0


@compiled
def decode_evt3(
    words: NDArray[np.uint16],
    state: NDArray[np.int64],
    limits: NDArray[np.int64],
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    p: NDArray[np.int8],
    outside_t: NDArray[np.int64],
    tally: NDArray[np.int64],
) -> int:
    """Decode 16-bit words: type in bits 12-15, content in bits 0-11.

    Time is 24 bit: high and low 12 bits come in words of their own, and a new high time sets the low one to 0 until that
    is told. Rows, and the column and polarity of vectors, hold until told anew; each vector moves its column on.
    """
    width, height, soft_limit, hard_limit = limits[0], limits[1], limits[2], limits[3]
    high, low, loops, row = state[HIGH], state[LOW], state[LOOPS], state[ROW]
    base_x, vector_p, last_t = state[BASE_X], np.int8(state[VECTOR_P]), state[LAST_T]
    capacity, outside_capacity = len(t), len(outside_t)
    n, num_outside = tally[EVENTS], tally[OUTSIDE]
    min_t, max_t, max_x, max_y = tally[MIN_T], tally[MAX_T], tally[MAX_X], tally[MAX_Y]
    num_triggers = num_unknown = num_undated = num_unsorted = 0
    now = (loops << 24) | (high << 12) | low
    num_words = len(words)
    i = 0
    while i < num_words:
        word = int(words[i])
        kind, content = word >> 12, word & 0xFFF
        if kind == 2 or kind == 4 or kind == 5:
            if n + num_outside + 12 > hard_limit:
                break
            if kind == 2:
                first_x, mask, polarity = content & 0x7FF, 1, np.int8((content >> 11) * 2 - 1)
            else:
                num_bits = 12 if kind == 4 else 8
                first_x, mask, polarity = base_x, content & ((1 << num_bits) - 1), vector_p
                if base_x >= 0:
                    base_x = min(base_x + num_bits, _MAX_BASE_X)
            if high < 0 or row < 0 or first_x < 0:
                while mask:
                    mask &= mask - 1
                    if row == _NOT_CD:
                        num_unknown += 1
                    else:
                        num_undated += 1
            elif mask:
                if now < last_t:
                    num_unsorted += 1
                last_t = now
                min_t, max_t, max_y = min(min_t, now), max(max_t, now), max(max_y, row)
                while mask:
                    lowest = mask & -mask
                    column = first_x + _BIT_OF_PRODUCT[((lowest * 0x077CB531) >> 27) & 31]
                    mask ^= lowest
                    max_x = max(max_x, column)
                    if column < width and row < height:
                        if n < capacity:
                            x[n], y[n], t[n], p[n] = column, row, now, polarity
                        n += 1
                    else:
                        if num_outside < outside_capacity:
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
                    loops = max(loops + wraps_between(high, content, 4096), 0)
                high, low = content, 0
                now = (loops << 24) | (high << 12)
        elif kind == 0:
            row = content & 0x7FF
        elif kind == 3:
            base_x, vector_p = content & 0x7FF, np.int8((content >> 11) * 2 - 1)
        elif kind == 10:
            num_triggers += 1
        elif kind != 7 and kind != 14 and kind != 15:
            num_unknown += 1
            if kind == 1:
                row = _NOT_CD
        i += 1
    state[HIGH], state[LOW], state[LOOPS], state[ROW] = high, low, loops, row
    state[BASE_X], state[VECTOR_P], state[LAST_T] = base_x, vector_p, last_t
    tally[EVENTS], tally[OUTSIDE] = n, num_outside
    tally[MIN_T], tally[MAX_T], tally[MAX_X], tally[MAX_Y] = min_t, max_t, max_x, max_y
    tally[TRIGGERS] += num_triggers
    tally[UNKNOWN] += num_unknown
    tally[UNDATED] += num_undated
    tally[UNSORTED] += num_unsorted
    return i
