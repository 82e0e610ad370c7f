"""Which moments of a recording become frames of the video, and when each is shown.

Three ways to say it:

    a number to insert    so many frames, evenly, between every two key frames, which all stay; where key frames are uneven,
                          each frame is shown for as long as its time says (a variable frame rate)
    a slowdown            a grid of constant rate over the recording's time; how many frames fall between two key frames
                          follows from their distance; a key frame is shown where the grid meets it
    a list of times       these moments and no others, shown at a constant rate

In every video, what is shown at a moment is what the recording's clock says for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from evfi.errors import ConfigError
from evfi.pipeline.playback import Playback, plan_playback
from evfi.recordings.planning import MAX_FRAMES, MAX_INSERT, Times, WindowSpec, plan_windows

_EVEN: Final = 0.05
"""Frames whose times stray from an even grid by at most this part of its step are shown at a constant rate."""

_MEETS: Final = 0.1
"""A key frame within this part of the grid's step around a grid time is taken for it."""

_TYPICAL: Final = 1.5
"""Key frames further apart than so many median intervals do not count for the key-frame rate: there, some are missing."""


@dataclass(frozen=True, eq=False)
class PlannedWindow:
    """A window and which of its key frames it contributes to the video; its inner frames are all shown.

    Attributes:
        spec: key frames and times.
        shows_start: whether its first key frame is shown.
        shows_end: whether its last key frame is shown (else the next window shows it, or none does).
    """

    spec: WindowSpec
    shows_start: bool
    shows_end: bool

    @property
    def positions(self) -> range:
        """Which of the window's frames are shown."""
        return range(0 if self.shows_start else 1, len(self.spec.times_us) - (0 if self.shows_end else 1))

    @property
    def shown_times_us(self) -> Times:
        """Times of the frames that are shown."""
        return self.spec.times_us[self.positions.start : self.positions.stop]


@dataclass(frozen=True, eq=False)
class Timeline:
    """The whole video.

    Attributes:
        windows: in the order of time; none without a frame to show.
        playback: frames per window (of a typical one), frame rate and slowdown.
        is_constant: whether every frame is shown equally long.
        num_key_frames: key frames in the part of the recording that is shown.
    """

    windows: tuple[PlannedWindow, ...]
    playback: Playback
    is_constant: bool
    num_key_frames: int

    @property
    def num_frames(self) -> int:
        """The number of frames of the video."""
        return sum(len(window.positions) for window in self.windows)

    @property
    def num_inserted(self) -> int:
        """The number of interpolated frames of the video."""
        return sum(window.spec.num_inserted for window in self.windows)

    @property
    def num_shown_key_frames(self) -> int:
        """The number of the recording's own frames in the video."""
        return self.num_frames - self.num_inserted

    @property
    def times_us(self) -> Times:
        """Time of each frame in the recording."""
        return np.concatenate([window.shown_times_us for window in self.windows])

    @property
    def smallest_step_us(self) -> float:
        """The shortest time for which a frame is shown."""
        if self.is_constant or self.num_frames < 2:
            return 1e6 / self.playback.fps
        return float(np.diff(self.times_us).min()) * self.playback.slowdown

    def too_far_apart(self, longest_us: float, in_a_row: int) -> tuple[PlannedWindow, float] | None:
        """Where frames of a variable rate are shown too long for a video.

        Args:
            longest_us: the longest time that so many frames in a row may be shown, µs of the video.
            in_a_row: how many.

        Returns:
            The window with the longest step there, and how long these frames are shown, µs; None where all is well.
        """
        times = self.times_us
        shown = (times - times[0]) * self.playback.slowdown
        number = min(in_a_row, len(shown) - 1)
        spans = shown[number:] - shown[: len(shown) - number]
        if self.is_constant or not len(spans) or spans.max() <= longest_us:
            return None
        first = int(np.argmax(spans))
        step = first + int(np.argmax(np.diff(times[first : first + number + 1])))
        until = np.cumsum([len(window.positions) for window in self.windows])
        return self.windows[int(np.searchsorted(until, step, side="right"))], float(spans.max())

    def shown_us(self) -> Iterator[int]:
        """When each frame is shown, in µs from the video's start."""
        if self.is_constant:
            yield from (round(index * 1e6 / self.playback.fps) for index in range(self.num_frames))
            return
        first = int(self.windows[0].shown_times_us[0])
        for window in self.windows:
            yield from (round((int(time) - first) * self.playback.slowdown) for time in window.shown_times_us)


def key_frame_rate(times_us: Times) -> float:
    """Key frames per second where none are missing.

    Args:
        times_us: times of all key frames, int64 [N], at least two.
    """
    steps = np.diff(times_us)
    usual = steps[steps <= _TYPICAL * np.median(steps)]
    return float(len(usual) * 1e6 / usual.sum())


def plan_timeline(
    frame_times_us: Times,
    *,
    insert: int | None = None,
    slowdown: float | None = None,
    fps: float | None = None,
    times_us: Sequence[int] | Times | None = None,
    start_us: int | None = None,
    end_us: int | None = None,
) -> Timeline:
    """Lay out a video.

    Args:
        frame_times_us: times of all frames of the recording, int64 [N], strictly increasing.
        insert: frames between neighbouring key frames; 7 where neither this, a slowdown nor times are given.
        slowdown: how many times slower than real time the video plays, on a grid of constant rate.
        fps: frames per second at playback.
        times_us: the moments to show, strictly increasing.
        start_us: begin with the window that holds this time.
        end_us: stop at this time.

    Raises:
        ConfigError: settings are out of range or contradict each other.
        RecordingError: no window lies in the part asked for.
    """
    if times_us is not None:
        given = {"insert": insert, "slowdown": slowdown, "start": start_us, "end": end_us}
        if other := next((name for name, value in given.items() if value is not None), None):
            raise ConfigError(f"output times already set which frames are made; leave out {other}")
        return _of_times(frame_times_us, np.asarray(times_us), fps)
    spans = plan_windows(frame_times_us, insert=1, start_us=start_us, end_us=end_us)
    keys = np.append([span.times_us[0] for span in spans], spans[-1].times_us[-1]).astype(np.int64)
    playback = plan_playback(key_frame_rate(keys), insert=insert, slowdown=slowdown, fps=fps)
    if slowdown is not None:
        return _on_grid(spans, keys, playback)
    specs = plan_windows(frame_times_us, insert=playback.insert, start_us=start_us, end_us=end_us)
    last = len(specs) - 1
    windows = tuple(PlannedWindow(spec, True, number == last) for number, spec in enumerate(specs))
    timeline = Timeline(windows, playback, True, len(keys))
    return replace(timeline, is_constant=_is_even(timeline.times_us, 1e6 / (playback.fps * playback.slowdown)))


def _is_even(times_us: Times, step_us: float) -> bool:
    """Whether times follow a grid of this step."""
    grid = times_us[0] + np.arange(len(times_us)) * step_us
    return bool(np.abs(times_us - grid).max() <= _EVEN * step_us)


def _on_grid(spans: Sequence[WindowSpec], keys: Times, playback: Playback) -> Timeline:
    step = 1e6 / (playback.fps * playback.slowdown)
    if step < 1:
        raise ConfigError(
            f"a slowdown of {playback.slowdown:g} at {playback.fps:g} fps asks for frames {step:.3g} µs apart; "
            "times are whole microseconds: lower the slowdown or the fps"
        )
    _check_grid(spans, keys, step, playback)
    since = keys - keys[0]
    ticks = np.arange(int(since[-1] / step + _MEETS) + 1) * step
    whole = np.floor(ticks + 0.5).astype(np.int64)
    nearest = np.clip(np.searchsorted(since, ticks), 1, len(keys) - 1)
    nearest -= ticks - since[nearest - 1] < since[nearest] - ticks
    is_key = (np.abs(since[nearest] - ticks) <= _MEETS * step) | (since[nearest] == whole)
    met = set(nearest[is_key].tolist())
    inner = keys[0] + whole[~is_key]
    places = np.searchsorted(inner, keys)
    windows = []
    for number, span in enumerate(spans):
        start, end = span.times_us[[0, -1]]
        times = np.concatenate([[start], inner[places[number] : places[number + 1]], [end]])
        window = PlannedWindow(
            replace(span, times_us=times), number in met, number + 1 == len(spans) and number + 1 in met
        )
        if len(window.positions):
            windows.append(window)
    return Timeline(tuple(windows), playback, True, len(keys))


def _is_among(time_us: int, times_us: Times) -> bool:
    """Whether a time is one of these, which increase."""
    return bool(times_us[min(int(np.searchsorted(times_us, time_us)), len(times_us) - 1)] == time_us)


def _check_grid(spans: Sequence[WindowSpec], keys: Times, step_us: float, playback: Playback) -> None:
    """Refuse a grid of more frames than can be made, before memory is taken for it."""
    asked = f"a slowdown of {playback.slowdown:g} at {playback.fps:g} fps asks for about"
    widest = int(np.argmax(np.diff(keys)))
    gap_us = int(keys[widest + 1] - keys[widest])
    if gap_us / step_us > MAX_INSERT:
        span = spans[widest]
        raise ConfigError(
            f"{asked} {gap_us / step_us:.3g} frames between frames {span.start_frame} and {span.end_frame} of the recording "
            f"(at {keys[widest]} and {keys[widest + 1]} µs), at most {MAX_INSERT} can be made between two; check the frame "
            "times, leave this part out (--start, --end), or use a lower slowdown or fps"
        )
    if (number := int(keys[-1] - keys[0]) / step_us) > MAX_FRAMES:
        raise ConfigError(
            f"{asked} {number:.3g} frames, at most {MAX_FRAMES} can be made at a time; use a lower slowdown or fps, or make "
            "parts (--start, --end)"
        )


def _of_times(frame_times_us: Times, times_us: Times, fps: float | None) -> Timeline:
    specs = plan_windows(frame_times_us, times_us=times_us)
    windows: list[PlannedWindow] = []
    shown: set[int] = set()
    for spec in specs:
        start, end = int(spec.times_us[0]), int(spec.times_us[-1])
        wants = [time not in shown and _is_among(time, times_us) for time in (start, end)]
        shown.update((start, end))
        windows.append(PlannedWindow(spec, *wants))
    keys = frame_times_us[specs[0].start_frame : specs[-1].end_frame + 1]
    rate = key_frame_rate(frame_times_us)
    number, duration = len(times_us), int(times_us[-1] - times_us[0])
    playback = plan_playback(rate, insert=max([1, *(spec.num_inserted for spec in specs)]), fps=fps)
    slowdown = (number - 1) * 1e6 / duration / playback.fps if number > 1 else 1.0
    return Timeline(tuple(windows), replace(playback, slowdown=slowdown), True, len(keys))
