"""The one loop over all events that `event_statistics` makes, compiled."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled

NUM_POSITIVE: Final = 0
NUM_DUPLICATES: Final = 1
NUM_TIMES: Final = 2
NUM_AT_ONCE: Final = 3
MAX_AT_ONCE: Final = 4
PREVIOUS_US: Final = 5
TIME_STEP_US: Final = 6
SMALLEST_GAP: Final = 7
"""What each number of the state is; `TIME_STEP_US` is the greatest common divisor of all steps of time, 0 before any."""
NUM_STATES: Final = 8


@compiled
def tally(
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    p: NDArray[np.int8],
    width: int,
    start_us: int,
    bin_us: int,
    pixels: NDArray[np.int64],
    bins: NDArray[np.int64],
    gaps: NDArray[np.int64],
    state: NDArray[np.int64],
) -> None:
    """Count a piece of a stream into what was counted before it.

    Args:
        x: columns [N].
        y: rows [N].
        t: times in order [N], µs; not before those of the piece before.
        p: polarities [N].
        width: of the sensor.
        start_us: time of the stream's first event.
        bin_us: length of a bin of time.
        pixels: per pixel, how many events it had, and its latest time, as 4 × (1 + time since the start) + 1 for a darker
            and + 2 for a brighter one at that time, int64 [W·H, 2]; of no length: nothing is counted by pixel.
        bins: events per bin of time, int64 [B].
        gaps: the longest stretches without an event: length and start in µs, int64 [G, 2].
        state: the numbers named at the top, int64.
    """
    last_bin = len(bins) - 1
    bin_index, bin_end = 0, start_us - 1
    num_positive = num_duplicates = num_times = 0
    num_at_once, max_at_once = state[NUM_AT_ONCE], state[MAX_AT_ONCE]
    previous, is_first = state[PREVIOUS_US], state[NUM_TIMES] == 0
    by_pixel = len(pixels) > 0
    for i in range(len(t)):
        time = t[i]
        if time != previous or is_first:
            if not is_first:
                _note_step(previous, time - previous, gaps, state)
            is_first, previous = False, time
            max_at_once = max(max_at_once, num_at_once)
            num_times += 1
            num_at_once = 0
        num_at_once += 1
        if time >= bin_end:
            bin_index = min(max((time - start_us) // bin_us, 0), last_bin)
            bin_end = start_us + (bin_index + 1) * bin_us
        bins[bin_index] += 1
        num_positive += p[i] > 0
        if by_pixel:
            pixel = y[i] * width + x[i]
            now, sign = (time - start_us + 1) << 2, 2 if p[i] > 0 else 1
            latest = pixels[pixel, 1]
            if latest >> 2 == now >> 2:
                num_duplicates += (latest & sign) != 0
                now |= latest & 3
            pixels[pixel, 0] += 1
            pixels[pixel, 1] = now | sign
    state[NUM_POSITIVE] += num_positive
    state[NUM_DUPLICATES] += num_duplicates
    state[NUM_TIMES] += num_times
    state[NUM_AT_ONCE], state[MAX_AT_ONCE] = num_at_once, max(max_at_once, num_at_once)
    state[PREVIOUS_US] = previous


@compiled
def _note_step(previous_us: int, step_us: int, gaps: NDArray[np.int64], state: NDArray[np.int64]) -> None:
    """Take a step of time into the longest gaps and the common divisor."""
    larger, smaller = step_us, state[TIME_STEP_US]
    while smaller > 1:
        larger, smaller = smaller, larger % smaller
    state[TIME_STEP_US] = smaller if smaller == 1 else larger
    smallest = state[SMALLEST_GAP]
    if step_us > gaps[smallest, 0]:
        gaps[smallest, 0], gaps[smallest, 1] = step_us, previous_us
        for gap in range(len(gaps)):
            if gaps[gap, 0] < gaps[smallest, 0]:
                smallest = gap
        state[SMALLEST_GAP] = smallest
