"""Which key frames bound a window and which times lie in it.

A window's times start and end with those of its key frames; what lies between is to be made. Its index counts windows
from the first key frame on, whatever part of the recording is asked for, so that a seed gives the same frames again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evfi.errors import ConfigError, RecordingError

Times = NDArray[np.int64]

MAX_INSERT: Final = 1_000_000
"""Between two key frames, however it is asked for; more come of a wrong time stamp."""
MAX_FRAMES: Final = 10_000_000
"""Of a video: a century of work at a second each, or three days of video at 30 frames per second."""


@dataclass(frozen=True, eq=False)
class WindowSpec:
    """One window of a recording.

    Attributes:
        index: number of the window, counted from the recording's first key frame.
        start_frame: index of the first key frame in the recording.
        end_frame: index of the last key frame in the recording.
        times_us: output times, int64 [F], strictly increasing; the first and the last are the key frames' times.
    """

    index: int
    start_frame: int
    end_frame: int
    times_us: Times

    @property
    def num_inserted(self) -> int:
        """How many frames lie between the key frames (0: nothing to make)."""
        return len(self.times_us) - 2


def plan_windows(
    frame_times_us: Times,
    *,
    insert: int | None = None,
    times_us: ArrayLike | None = None,
    start_us: int | None = None,
    end_us: int | None = None,
    skip: int = 1,
) -> list[WindowSpec]:
    """Lay out windows between neighbouring key frames.

    Give either `insert` or `times_us`.

    Args:
        frame_times_us: times of all frames, int64 [N], strictly increasing.
        insert: frames to insert per window, at least 1, evenly spaced; times are rounded to the nearest µs (half up).
        times_us: output times in µs, strictly increasing, within the first and last key frame. Each goes into the
            window that holds it; windows without any are left out. The time of a key frame asks for that key frame,
            which a neighbouring window contains anyway; if no such window was needed, the one that starts there is
            added with no frame to insert.
        start_us: with `insert`, leave out windows that end at or before this time.
        end_us: with `insert`, leave out windows that start at or after this time.
        skip: use every `skip`-th frame as a key frame, beginning with the first.

    Raises:
        ConfigError: a setting is out of range or contradicts another.
        RecordingError: no window is left.
    """
    if (insert is None) == (times_us is None):
        raise ConfigError("give either the number of frames to insert or the output times, not both or neither")
    if skip < 1:
        raise ConfigError(f"skip must be at least 1 (every frame is a key frame), got {skip}")
    frames = np.arange(0, len(frame_times_us), skip)
    key_times = np.asarray(frame_times_us, np.int64)[frames]
    if len(key_times) < 2:
        raise RecordingError(f"skip={skip} leaves fewer than two of {len(frame_times_us)} frames; use a smaller skip")

    if times_us is not None:
        if start_us is not None or end_us is not None:
            raise ConfigError("give either output times or a start and end, not both")
        chosen = _assign_times(key_times, _checked_times(times_us, key_times))
    else:
        assert insert is not None
        chosen = _evenly_spaced(key_times, insert, _windows_between(key_times, start_us, end_us))
    return [WindowSpec(i, int(frames[i]), int(frames[i + 1]), times) for i, times in chosen.items()]


def _windows_between(key_times: Times, start_us: int | None, end_us: int | None) -> range:
    """Indices of the windows that overlap [start_us, end_us)."""
    start = int(key_times[0]) if start_us is None else start_us
    end = int(key_times[-1]) if end_us is None else end_us
    if end_us is None and start >= end:
        raise RecordingError(
            f"no window after {start} µs; the key frames lie between {key_times[0]} and {key_times[-1]} µs; "
            "choose an earlier start"
        )
    if end <= start:
        raise ConfigError(f"the end ({end} µs) must lie after the start ({start} µs)")
    first = int(np.searchsorted(key_times[1:], start, side="right"))
    stop = int(np.searchsorted(key_times[:-1], end, side="left"))
    if stop <= first:
        raise RecordingError(
            f"no window between {start} and {end} µs; the key frames lie between {key_times[0]} and {key_times[-1]} µs"
        )
    return range(first, stop)


def _evenly_spaced(key_times: Times, insert: int, windows: range) -> dict[int, Times]:
    if not 1 <= insert <= MAX_INSERT:
        raise ConfigError(f"the number of frames to insert must be 1 to {MAX_INSERT}, got {insert}")
    if insert * len(windows) > MAX_FRAMES:
        raise ConfigError(
            f"{insert} frames in each of {len(windows)} windows are more than the {MAX_FRAMES} allowed at a time; "
            "insert fewer, or interpolate in parts (--start, --end)"
        )
    steps_us = np.diff(key_times[windows.start : windows.stop + 1])
    shortest = windows.start + int(np.argmin(steps_us))
    if (length := int(key_times[shortest + 1] - key_times[shortest])) <= insert:
        raise ConfigError(
            f"cannot insert {insert} frames at whole microseconds into the {length} µs after key frame time "
            f"{key_times[shortest]} µs; insert fewer"
        )
    num_steps = insert + 1
    steps = np.arange(num_steps + 1, dtype=np.int64)
    chosen = {}
    for i in windows:
        whole, rest = divmod(int(key_times[i + 1] - key_times[i]), num_steps)
        chosen[i] = key_times[i] + steps * whole + (2 * steps * rest + num_steps) // (2 * num_steps)
    return chosen


def _checked_times(times_us: ArrayLike, key_times: Times) -> Times:
    raw = np.asarray(times_us)
    if raw.dtype.kind == "O":
        raise ConfigError("output times must lie within ±2^61 µs; check their unit")
    times = np.nan_to_num(raw).astype(np.int64) if raw.dtype.kind == "f" else raw.astype(np.int64)
    if raw.ndim != 1 or len(raw) == 0 or raw.dtype.kind not in "iuf" or (times != raw).any():
        raise ConfigError("output times must be a non-empty list of whole microseconds")
    if len(times) > MAX_FRAMES:
        raise ConfigError(
            f"output times must be at most {MAX_FRAMES} at a time, got {len(times)}; split them into parts"
        )
    if (np.diff(times) <= 0).any():
        raise ConfigError("output times must increase strictly; sort them and remove duplicates")
    for time in (times[0], times[-1]):
        if not key_times[0] <= time <= key_times[-1]:
            raise ConfigError(
                f"output time {time} µs lies outside the key frames, which span {key_times[0]} to {key_times[-1]} µs"
            )
    return times


def _assign_times(key_times: Times, times: Times) -> dict[int, Times]:
    window_of = np.searchsorted(key_times, times, side="right") - 1
    is_key = times == key_times[window_of]
    inner_times, inner_windows = times[~is_key], window_of[~is_key]
    used, counts = np.unique(inner_windows, return_counts=True)
    if len(counts) and counts.max() > MAX_INSERT:
        full = int(used[np.argmax(counts)])
        raise ConfigError(
            f"{counts.max()} output times lie between the key frames at {key_times[full]} and {key_times[full + 1]} µs, "
            f"at most {MAX_INSERT} are allowed between two; give fewer"
        )
    ends = np.cumsum(counts)
    inner = {int(i): inner_times[end - count : end] for i, count, end in zip(used, counts, ends, strict=True)}
    last = len(key_times) - 2
    for i in window_of[is_key].tolist():
        if i not in inner and i - 1 not in inner:
            inner[min(i, last)] = times[:0]
    return {i: np.concatenate([key_times[i : i + 1], inner[i], key_times[i + 1 : i + 2]]) for i in sorted(inner)}
