"""Select the windows of a recording that a protocol scores, and drop those that it leaves out.

Intervals are those between neighbouring frames, numbered by their first frame. Their events are counted as they stand in
the recording, before anything is aligned. Where a dataset keeps one event file per interval, whole files are counted,
with events outside the frame and strays at the ends, because that is what published evaluations count; elsewhere the
events of [start, end) on the sensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from evfi.errors import ConfigError, RecordingError
from evfi.evaluation.protocol import WINDOW_STRIDE, DropRule, Protocol, WindowRule
from evfi.recordings.datasets.interval_files import IntervalEvents
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SelectedWindow:
    """One window that the protocol looked at.

    Attributes:
        spec: its frames; `times_us` are those of all its true frames, `index` counts dropped windows too.
        dropped: why it is left out; None if it is scored.
    """

    spec: WindowSpec
    dropped: str | None


def select_windows(recording: Recording, protocol: Protocol, skip: int) -> list[SelectedWindow]:
    """Lay out a protocol's windows.

    Args:
        recording: all true frames, and the events.
        protocol: the rules.
        skip: frames left out between two key frames, at least 1.

    Returns:
        All windows in the order of time, dropped ones too; at least one.

    Raises:
        ConfigError: `skip` is less than 1.
        RecordingError: the sequence is too short for a window.
        InputError: an event file is damaged.
    """
    if skip < 1:
        raise ConfigError(f"skip must be at least 1 (frames left out between two key frames), got {skip}")
    times = np.asarray(recording.frames.times_us, np.int64)
    starts = window_starts(len(times), protocol.windows, skip)
    if not starts:
        raise RecordingError(f"{recording.path}: {_describe_shortage(len(times), protocol, skip)}")
    judge = _Judge(recording, protocol.drop)
    return [
        SelectedWindow(
            WindowSpec(index, start, start + skip + 1, times[start : start + skip + 2].copy()),
            judge.reason_to_drop(start, start + skip + 1),
        )
        for index, start in enumerate(starts)
    ]


def window_starts(num_frames: int, rule: WindowRule, skip: int) -> range:
    """First frames of all windows of a sequence; none if it is too short. No window reaches past the last frame."""
    stride = skip + 1 if rule.stride == WINDOW_STRIDE else rule.stride
    stop = num_frames - rule.frames_needed(skip) + 1
    if rule.at_least_one and num_frames >= rule.first + rule.frames_needed(skip, with_margin=False):
        stop = max(rule.first + 1, stop)
    return range(rule.first, stop, stride)


def spread(windows: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of them, evenly: the middle ones of `limit` equal parts, in order.

    Raises:
        ConfigError: `limit` is less than 1.
    """
    if limit < 1:
        raise ConfigError(f"the number of windows must be at least 1, got {limit}")
    if len(windows) <= limit:
        return list(windows)
    return [windows[(2 * part + 1) * len(windows) // (2 * limit)] for part in range(limit)]


def _describe_shortage(num_frames: int, protocol: Protocol, skip: int) -> str:
    rule = protocol.windows
    needed = rule.frames_needed(skip, with_margin=not rule.at_least_one)
    parts = [f"a window has {skip + 2} frames"]
    if rule.first:
        parts.append(f"it starts at frame {rule.first}")
    if needed > skip + 2:
        parts.append(f"{needed - skip - 2} must follow it")
    return (
        f"protocol {protocol.name} with skip {skip} needs at least {rule.first + needed} frames ({', '.join(parts)}), "
        f"found {num_frames}; use a smaller skip or another protocol"
    )


class _Judge:
    """Says why a window is dropped; every interval is read once at most."""

    def __init__(self, recording: Recording, rule: DropRule) -> None:
        self._recording, self._rule = recording, rule
        self._reasons: dict[int, str | None] = {}

    def reason_to_drop(self, start_frame: int, end_frame: int) -> str | None:
        """What is wrong with the first bad interval from frame to frame; None if none is bad."""
        if not self._rule.asks:
            return None
        for interval in range(start_frame, end_frame):
            if interval not in self._reasons:
                self._reasons[interval] = self._judge(interval)
            if reason := self._reasons[interval]:
                return reason
        return None

    def _judge(self, interval: int) -> str | None:
        reason = complaint(*count_polarities(self._recording, interval), self._rule)
        start, end = (int(time) for time in self._recording.frames.times_us[interval : interval + 2])
        return f"interval {interval} ({start} to {end} µs) {reason}" if reason else None


def count_polarities(recording: Recording, interval: int) -> tuple[int, int]:
    """How many positive and how many negative events lie between frame `interval` and the next.

    Raises:
        InputError: the file that holds them is damaged.
    """
    if isinstance(recording.events, IntervalEvents):
        return recording.events.count_polarities(interval)
    start, end = (int(time) for time in recording.frames.times_us[interval : interval + 2])
    signs = recording.events.slice(start, end).p
    positive = int(np.count_nonzero(signs > 0))
    return positive, len(signs) - positive


def complaint(positive: int, negative: int, rule: DropRule) -> str | None:
    """What a rule finds wrong with so many events of each polarity; None if nothing. The limits themselves are allowed."""
    if positive == negative == 0:
        return "has no events" if rule.empty else None
    if rule.one_polarity and not (positive and negative):
        sign, count = ("positive", positive) if positive else ("negative", negative)
        return f"has {count} {sign} events and none of the other polarity"
    found = f"has {positive} positive and {negative} negative events: ratio"
    if rule.max_ratio is not None and positive > (limit := _exact(rule.max_ratio)) * negative:
        return f"{found} {_shown(positive, negative, limit)} is above {rule.max_ratio:g}"
    if rule.min_ratio is not None and positive < (limit := _exact(rule.min_ratio)) * negative:
        return f"{found} {_shown(positive, negative, limit)} is below {rule.min_ratio:g}"
    return None


def _exact(limit: float) -> Fraction:
    """The number as it is written: 0.2 is a fifth, not the nearest binary fraction."""
    return Fraction(repr(limit))


def _shown(positive: int, negative: int, limit: Fraction) -> str:
    """The ratio with as many digits as tell it from the limit."""
    if not negative:
        return "infinite"
    for digits in range(1, 16):
        text = f"{positive / negative:.{digits}f}"
        if Fraction(text) != limit:
            return text
    return f"{positive}/{negative}"
