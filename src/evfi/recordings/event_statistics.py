"""Everything that one pass over a source's events tells, in memory that does not grow with the events.

Held are a count and a time per pixel (of sensors up to 8 megapixels), a count per bin of time, and the longest
stretches without an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import EvfiError
from evfi.events.source import EventSource

Counts = NDArray[np.int64]

_MAX_PIXELS: Final = 2**23
_MAX_BINS: Final = 2**20
_FINEST_BIN_US: Final = 1000
_MIN_BINS: Final = 256
NUM_GAPS: Final = 64


@dataclass(frozen=True, eq=False)
class EventStatistics:
    """What a pass over all events counted.

    Attributes:
        num_events: events that were read.
        num_left_out: events that the reader left out: outside the sensor, or filtered.
        num_positive: events of polarity +1.
        first_us: time of the first event.
        last_us: time of the last event.
        per_pixel: events of each pixel, int64 [H, W]; None where the sensor is too large.
        num_duplicates: events that equal an earlier one in pixel, time and polarity; None where the sensor is too large.
        bin_us: length of a bin of time.
        per_bin: events in each, from `first_us` on, int64 [B].
        gaps: the longest stretches without any event, the longest first: start and end in µs, int64 [G, 2].
        num_times: how many different times the events carry.
        max_at_once: the most events of one time.
        time_step_us: greatest step of which all times are multiples, counted from the first; 0 for a single time.
        until_marks: how many events lie before each of the marks that were asked for, int64 [M].
        at_marks: how many events lie exactly at each mark, int64 [M].
        error: why reading ended before the end; None where it did not.
    """

    num_events: int
    num_left_out: int
    num_positive: int
    first_us: int
    last_us: int
    per_pixel: Counts | None
    num_duplicates: int | None
    bin_us: int
    per_bin: Counts
    gaps: Counts
    num_times: int
    max_at_once: int
    time_step_us: int
    until_marks: Counts
    at_marks: Counts
    error: str | None

    @property
    def span_us(self) -> int:
        """From the first to the last event."""
        return self.last_us - self.first_us

    def peak(self, window_us: int) -> tuple[float, int, int]:
        """The highest rate over a window, at most the whole: events per second, the window's start and length in µs."""
        num_bins = min(len(self.per_bin), max(1, round(window_us / self.bin_us)))
        total = np.concatenate([[0], np.cumsum(self.per_bin)])
        sums = total[num_bins:] - total[:-num_bins]
        at = int(np.argmax(sums))
        length_us = num_bins * self.bin_us if num_bins < len(self.per_bin) else max(self.span_us, 1)
        return float(sums[at]) * 1e6 / length_us, self.first_us + at * self.bin_us, length_us

    def rate(self, num_columns: int) -> tuple[int, NDArray[np.float64]]:
        """Events per second over equal stretches of time, at most `num_columns`: their length in µs, float64 [C].

        The last stretch ends with the last event: it is as long as half to one and a half others.
        """
        per_column = -(-len(self.per_bin) // num_columns)
        step_us = per_column * self.bin_us
        count = max(1, round((self.span_us + 1) / step_us))
        lengths = np.full(count, step_us, np.float64)
        lengths[-1] = max(self.span_us + 1 - (count - 1) * step_us, 1)
        return step_us, np.add.reduceat(self.per_bin, np.arange(count) * per_column) * 1e6 / lengths


def count_events(source: EventSource, marks_us: Counts | None = None) -> EventStatistics:
    """Read all events of a source once and count.

    Args:
        source: the events. Where reading fails on the way, what came before is counted.
        marks_us: times at which to count, in order, int64 [M].
    """
    from evfi.recordings import event_loops as loops

    start_us, end_us = source.time_range_us
    width, height = source.sensor_size
    by_pixel = width * height <= _MAX_PIXELS
    pixels = np.zeros((width * height if by_pixel else 0, 2), np.int64)
    bin_us = _bin_length(end_us - start_us + 1)
    bins = np.zeros((end_us - start_us) // bin_us + 1, np.int64)
    gaps, state = np.zeros((NUM_GAPS, 2), np.int64), np.zeros(loops.NUM_STATES, np.int64)
    marks = np.zeros(0, np.int64) if marks_us is None else marks_us
    until, after = np.zeros(len(marks), np.int64), np.zeros(len(marks), np.int64)
    num_events = num_left_out = 0
    error = None
    try:
        for piece in source.pieces():
            loops.tally(piece.x, piece.y, piece.t, piece.p, width, start_us, bin_us, pixels, bins, gaps, state)
            until += np.searchsorted(piece.t, marks, side="left")
            after += np.searchsorted(piece.t, marks, side="right")
            num_events += len(piece)
            num_left_out += piece.num_dropped
    except (EvfiError, OSError) as problem:
        error = " ".join(str(problem).split())
    longest = gaps[gaps[:, 0] > 0]
    longest = longest[np.argsort(-longest[:, 0], kind="stable")]
    return EventStatistics(
        num_events=num_events,
        num_left_out=num_left_out,
        num_positive=int(state[loops.NUM_POSITIVE]),
        first_us=start_us,
        last_us=int(state[loops.PREVIOUS_US]) if num_events else start_us,
        per_pixel=pixels[:, 0].reshape(height, width).copy() if by_pixel else None,
        num_duplicates=int(state[loops.NUM_DUPLICATES]) if by_pixel else None,
        bin_us=bin_us,
        per_bin=bins,
        gaps=np.stack([longest[:, 1], longest.sum(axis=1)], axis=1),
        num_times=int(state[loops.NUM_TIMES]),
        max_at_once=int(state[loops.MAX_AT_ONCE]),
        time_step_us=int(state[loops.TIME_STEP_US]),
        until_marks=until,
        at_marks=after - until,
        error=error,
    )


def _bin_length(span_us: int) -> int:
    """A round length that makes neither too few nor too many bins."""
    length = _FINEST_BIN_US
    while length > 1 and span_us // length < _MIN_BINS:
        length //= 10
    length = max(length, 1)
    while span_us // length >= _MAX_BINS:
        length *= 2
    return length
