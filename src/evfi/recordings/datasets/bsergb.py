"""BS-ERGB's layout (Tulyakov et al., Time Lens++, CVPR 2022): one sequence per folder.

    images/000000.png …      one per frame
    images/timestamp.txt     one time in µs per frame
    events/000000.npz …      x, y (unsigned, in 1/32 px of the frame), timestamp (µs), polarity (0/1)

Conventions, checked on reading: event file i holds the interval from frame i to frame i + 1, so there is one file fewer
than frames. Whole coordinates are pixel centres, so sub-pixel ones are rounded to the nearest (half to even, as the
published models saw it). Events left of or above the frame wrapped around (65534 is -2/32 px); like all outside they
are dropped and counted. In some sequences the first lines of timestamp.txt are wrong: such a sequence is refused with
the lines to correct.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.formats.columns import chunk_of_columns
from evfi.events.formats.npz import read_arrays
from evfi.events.source import ChunkedEvents, EventChunk
from evfi.events.stream import EventStream
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times
from evfi.recordings.timestamps import read_timestamps

NAME: Final = "bs-ergb"
DESCRIPTION: Final = "a folder in BS-ERGB layout (images/*.png, images/timestamp.txt, events/*.npz in 1/32 px)"
SUBPIXELS: Final = 32

_KEYS: Final = ("x", "y", "timestamp", "polarity")
_TOLERANCE_US: Final = 1000  # how far an event may lie outside its file's interval: clocks are rounded differently
_MAX_STRAY_SHARE: Final = 0.01
_NUM_PROBES: Final = 5  # files per sequence that are checked on opening
_NUM_CACHED: Final = 8
_MIN_EVENTS_TO_JUDGE: Final = 500  # with fewer, where and when they lie tells nothing about the whole file
_LONG_INTERVAL: Final = 1.5  # times the median


def recognises(path: Path) -> bool:
    """Whether the folder is laid out so, told from names and from the first event file's columns."""
    if not (path / "images" / "timestamp.txt").is_file():
        return False
    files = _event_files(path)
    for file in files:
        try:
            arrays = read_arrays(file)
        except InputError:
            return True  # damaged: reading it says so
        if not set(_KEYS) <= set(arrays):
            return False
        if arrays["x"].size:  # empty files tell nothing of their type
            return all(arrays[name].dtype.kind == "u" for name in "xy")
    return bool(files)


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: files are missing, damaged, or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    pictures = find_pictures(path / "images")
    times = read_timestamps(path / "images" / "timestamp.txt", "us", num_frames=len(pictures))
    files = _event_files(path)
    _check_files(path, files, len(pictures))
    if len(pictures) < 2:
        raise RecordingError(f"{path}: expected at least two frames, found {len(pictures)}")
    frames = PictureFrames(pictures, times)
    reader = _IntervalReader(files, times, frames.size)
    time_range = reader.check_and_find_range()
    bounds = np.stack([times[:-1] - _TOLERANCE_US, times[1:] + _TOLERANCE_US], axis=1)
    events = ChunkedEvents(frames.size, time_range, bounds, reader.load, _NUM_CACHED)
    return Recording(path, NAME, frames, events, scale_mapping(frames.size, frames.size))


class _IntervalReader:
    """Reads event files and checks that they hold the interval they claim."""

    def __init__(self, files: list[Path], times: Times, size: tuple[int, int]):
        self._files, self._times, self._size = files, times, size

    def load(self, index: int) -> EventChunk:
        """Events of the interval from frame `index` to the next; strays beyond the tolerance count as dropped."""
        path = self._files[index]
        x, y, times, polarity = _read_columns(path)
        if not self._fits(index, times):
            raise InputError(self._describe_misfit(index, times))
        self._check_scale(path, x, y)
        near = self._near_interval(index, times)
        chunk = chunk_of_columns(_whole(x[near]), _whole(y[near]), times[near], polarity[near], self._size, str(path))
        return EventChunk(chunk.stream, np.sort(np.concatenate([chunk.dropped_us, times[~near]])))

    def check_and_find_range(self) -> tuple[int, int]:
        """Check a few files of the sequence; return the times of the first and of the last event.

        Raises:
            InputError: a file does not hold what it claims.
            RecordingError: all files are empty.
        """
        self._check_frame_times()
        num_files = len(self._files)
        probes = {round(i) for i in np.linspace(0, num_files - 1, _NUM_PROBES)} | set(range(min(3, num_files)))
        for index in sorted(probes):
            self.load(index)
        first = self._first_filled(range(num_files)).t[0]
        last = self._first_filled(range(num_files - 1, -1, -1)).t[-1]
        return int(first), int(last)

    def _first_filled(self, order: range) -> EventStream:
        for index in order:
            stream = self.load(index).stream
            if len(stream):
                return stream
        raise RecordingError(f"{self._files[0].parent}: all event files are empty")

    def _near_interval(self, index: int, times: Times) -> NDArray[np.bool_]:
        start, end = self._times[index] - _TOLERANCE_US, self._times[index + 1] + _TOLERANCE_US
        return np.asarray((times >= start) & (times <= end))

    def _fits(self, index: int, times: Times) -> bool:
        """Whether a file's events lie in their interval and, if it is unusually long, fill it."""
        if len(times) == 0:
            return True
        if np.mean(self._near_interval(index, times)) < 1 - _MAX_STRAY_SHARE:
            return False
        steps = np.diff(self._times)
        if len(times) < _MIN_EVENTS_TO_JUDGE or steps[index] < _LONG_INTERVAL * np.median(steps):
            return True
        return bool(times.max() - times.min() > steps[index] / 2)

    def _check_frame_times(self) -> None:
        wrong = np.flatnonzero(np.diff(self._times) <= 0)
        if len(wrong):
            line = int(wrong[0]) + 1
            raise InputError(
                f"{self._timestamp_file}: times must increase, but lines {line} and {line + 1} say "
                f"{self._times[line - 1]} and {self._times[line]}; {self._advice() or 'correct that line'}"
            )

    def _describe_misfit(self, index: int, times: Times) -> str:
        start, end = int(self._times[index]), int(self._times[index + 1])
        found = (
            f"{self._files[index]}: expected events between frames {index} and {index + 1} ({start} to {end} µs), "
            f"found {times.min()} to {times.max()} µs"
        )
        fitting = int(np.searchsorted(self._times, np.median(times), side="right")) - 1
        if fitting == index - 1 >= 0:
            return f"{found}, which fits frames {fitting} and {index}: files seem to be numbered by their end frame"
        if advice := self._advice():
            return f"{found}; {advice}"
        if 0 <= fitting < len(self._files):
            return f"{found}, which fits frames {fitting} and {fitting + 1}; check the files' numbers"
        return f"{found}, which fits no two frames; check that timestamp.txt belongs to these events (µs, one clock)"

    def _advice(self) -> str:
        """Name the lines at the start of timestamp.txt that disagree with the event files, if it is these alone."""
        for index in range(len(self._files)):
            times = _read_columns(self._files[index])[2]
            if len(times) and self._fits(index, times):
                break
        else:
            return ""
        if index == 0:
            return ""
        return (
            f"the first {index} line(s) of {self._timestamp_file.name} disagree with the event files: correct them, "
            f"or remove these lines, their images and event files and number the rest from 0"
        )

    def _check_scale(self, path: Path, x: NDArray[Any], y: NDArray[Any]) -> None:
        width, height = self._size
        inside = (x < width * SUBPIXELS) & (y < height * SUBPIXELS)
        if len(x) < _MIN_EVENTS_TO_JUDGE:
            return
        if np.mean(inside) < 0.5:
            raise InputError(
                f"{path}: {np.mean(~inside):.0%} of the events lie outside the {width}×{height} frames; "
                f"their coordinates do not seem to be 1/{SUBPIXELS} px of these frames"
            )
        if inside.any() and x[inside].max() < width and y[inside].max() < height:
            raise InputError(
                f"{path}: expected coordinates in 1/{SUBPIXELS} px, found none beyond {width}×{height}: "
                "they seem to be whole pixels; this is another dataset's convention"
            )

    @property
    def _timestamp_file(self) -> Path:
        return self._files[0].parents[1] / "images" / "timestamp.txt"


def _whole(coordinates: NDArray[Any]) -> NDArray[Any]:
    whole: NDArray[Any] = np.rint(coordinates / SUBPIXELS)
    return whole


def _event_files(path: Path) -> list[Path]:
    folder = path / "events"
    return sorted(file for file in folder.glob("*.npz") if file.stem.isdigit()) if folder.is_dir() else []


def _check_files(path: Path, files: list[Path], num_frames: int) -> None:
    """File names must be 0, 1, 2 … without a gap, one fewer than frames."""
    for expected, file in enumerate(files):
        if int(file.stem) != expected:
            raise InputError(
                f"{path}: expected events/{expected:06d}.npz, found {file.name} in its place; event file i must "
                "hold frames i to i + 1"
            )
    if len(files) != num_frames - 1:
        raise InputError(
            f"{path}: expected one event file fewer than images, found {num_frames} images and {len(files)} event "
            "files; restore what is missing"
        )


def _read_columns(path: Path) -> tuple[NDArray[Any], NDArray[Any], Times, NDArray[Any]]:
    """x and y in 1/32 px, times in µs and polarity of one event file."""
    arrays = read_arrays(path)
    missing = [name for name in _KEYS if name not in arrays]
    if missing:
        raise InputError(f"{path}: expected members {', '.join(_KEYS)}; missing: {', '.join(missing)}")
    x, y, times, polarity = (arrays[name] for name in _KEYS)
    if len({len(array) for array in (x, y, times, polarity)}) > 1 or x.ndim != 1:
        raise InputError(
            f"{path}: its columns must have one length, found {[array.shape for array in arrays.values()]}"
        )
    if len(x) and (x.dtype.kind not in "iu" or y.dtype.kind not in "iu" or times.dtype.kind not in "iu"):
        raise InputError(f"{path}: x, y and timestamp must be integers, found {x.dtype}, {y.dtype}, {times.dtype}")
    return x, y, times.astype(np.int64), polarity
