"""What decoders of words keep from call to call and what they count; `evt_words` tells how they use it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

EVENTS, OUTSIDE, TRIGGERS, UNKNOWN, UNDATED, UNSORTED, MIN_T, MAX_T, MAX_X, MAX_Y = range(10)  # of a tally
HIGH, LOW, LOOPS, ROW, BASE_X, VECTOR_P, LAST_T = range(7)  # of a state
NUM_STATE: Final = 7
NO_TIME: Final = -(2**62)
NO_LIMIT: Final = 2**62
NO_SIZE: Final = 2**30

Columns = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int8]]


def initial_state() -> NDArray[np.int64]:
    """The state of a decoder that has seen nothing yet."""
    return np.array([-1, 0, 0, -1, -1, -1, NO_TIME], np.int64)


def new_tally() -> NDArray[np.int64]:
    """A tally without any count."""
    return np.array([0, 0, 0, 0, 0, 0, -NO_TIME, NO_TIME, -1, -1], np.int64)


def empty_columns(count: int) -> Columns:
    """Room for x, y, t and p of so many events."""
    return np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int8)
