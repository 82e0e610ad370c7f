"""The base of readers for datasets with one event file per interval between two frames.

A reader declares an `IntervalConvention`, finds its pictures, event files and frame times, and calls `open_intervals`.
Opening looks at a few event files; a slice reads only the files that it touches. What is read is checked against the
convention, and an error names the convention that fits better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.file_options import TIME_UNITS, TimeUnit
from evfi.events.formats.columns import chunk_of_columns, polarity_convention, to_microseconds
from evfi.events.formats.npz import read_arrays
from evfi.events.report import ReadReport
from evfi.events.source import ChunkedEvents, EventChunk
from evfi.events.stream import EventStream
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.datasets.interval_layout import frame_times_of_ranges, npz_times, numbered_files, pair_up
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times
from evfi.recordings.timestamps import read_timestamps

TOLERANCE_US: Final = 1000  # how far an event may lie outside its file's interval: clocks are rounded differently

_MAX_STRAY_SHARE: Final = 0.01
_NUM_PROBES: Final = 5  # files per sequence that are checked on opening
_NUM_CACHED: Final = 8
_MIN_EVENTS_TO_JUDGE: Final = 500  # with fewer, where and when they lie tells nothing about the whole file
_LONG_INTERVAL: Final = 1.5  # times the median
_MAX_ADVICE_FILES: Final = 100
_USUAL_SCALES: Final = (1, 32, 128)
_MAX_SWAPPED_INSIDE: Final = 0.98
_MIN_UNSWAPPED_INSIDE: Final = 0.995


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of one event file, as they stand there; swapped axes are put right.

    Attributes:
        x: columns in steps of the convention [N].
        y: rows in steps of the convention [N].
        t: times in the file's unit [N].
        p: polarities in the file's code [N].
    """

    x: NDArray[Any]
    y: NDArray[Any]
    t: NDArray[Any]
    p: NDArray[Any]

    def __len__(self) -> int:
        return len(self.t)


ReadColumns = Callable[[Path, IntervalConvention], Columns]


def read_npz_columns(path: Path, convention: IntervalConvention) -> Columns:
    """Read an event file whose members are named by the convention.

    Raises:
        InputError: it is damaged, lacks a member, or the members cannot be columns of one table.
    """
    arrays = read_arrays(path, convention.keys)
    missing = [name for name in convention.keys if name not in arrays]
    if missing:
        raise InputError(f"{path}: expected members {', '.join(convention.keys)}; missing: {', '.join(missing)}")
    x, y, t, p = (arrays[name] for name in convention.keys)
    if len({array.shape for array in (x, y, t, p)}) > 1 or x.ndim != 1:
        raise InputError(
            f"{path}: its columns must have equal lengths, found {[array.shape for array in arrays.values()]}"
        )
    if len(x) and not convention.are_floats and not all(array.dtype.kind in "iu" for array in (x, y, t)):
        names = f"{convention.keys[0]}, {convention.keys[1]} and {convention.keys[2]}"
        raise InputError(f"{path}: {names} must be integers, found {x.dtype}, {y.dtype}, {t.dtype}")
    return Columns(y, x, t, p) if convention.is_swapped else Columns(x, y, t, p)


def open_intervals(
    path: Path,
    convention: IntervalConvention,
    frames: PictureFrames,
    files: Sequence[Path],
    options: RecordingOptions,
    *,
    stamps: Path | None = None,
    unit: TimeUnit | None = None,
    read_columns: ReadColumns = read_npz_columns,
    warnings: Sequence[str] = (),
) -> Recording:
    """Open a recording whose k-th event file holds the events from frame k to frame k + 1.

    Args:
        path: what the user named.
        convention: what the files mean.
        frames: the frames with their times.
        files: one event file fewer than frames.
        options: what the user said.
        stamps: the file of the frames' times, where there is one.
        unit: unit of the event times, where the convention leaves it open.
        read_columns: reads one event file.
        warnings: what the reader has to tell the user.

    Raises:
        InputError: files are damaged or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    chosen = options.events_unit or unit or convention.time_unit or "us"
    reader = _IntervalReader(list(files), frames, stamps, convention, chosen, read_columns)
    damage = reader.find_damage() if options.tolerant else []
    time_range = reader.check_and_find_range()
    times = frames.times_us
    bounds = np.stack([times[:-1] - TOLERANCE_US, times[1:] + TOLERANCE_US], axis=1)
    report = ReadReport(
        f"{convention.format} ({len(files)} files)",
        convention=convention.describe(chosen),
        num_lost_bytes=sum(file.stat().st_size for file in damage),
        notes=(*reader.notes, *(f"left out the damaged event file {file}" for file in damage)),
    )
    events = IntervalEvents(frames.size, time_range, bounds, reader, report)
    mapping = scale_mapping(frames.size, frames.size)
    return Recording(
        path,
        convention.format,
        frames,
        events,
        mapping,
        tuple(warnings),
        convention=convention.describe(chosen),
        places=tuple(file for file in files if not file.is_relative_to(path)),
    )


def open_stamped(
    path: Path, convention: IntervalConvention, images: str, events: str, options: RecordingOptions
) -> Recording:
    """Open a recording whose frame times lie beside the pictures in timestamp.txt, in µs.

    Args:
        path: the sequence.
        convention: what the files mean.
        images: name of the folder of pictures.
        events: name of the folder of event files.
        options: what the user said.

    Raises:
        InputError: files are missing, damaged or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    if not (path / images).is_dir() or not (path / events).is_dir():
        raise InputError(f"{path}: expected the folders {images} and {events}; name one sequence of the dataset")
    stamps = path / images / "timestamp.txt"
    times = read_timestamps(stamps, "us", num_frames=None)
    pictures, files = find_pictures(path / images), numbered_files(path / events)
    layout = pair_up(path, convention, pictures, files, len(times))
    frames = PictureFrames(layout.pictures, times[: len(layout.pictures)])
    return open_intervals(path, convention, frames, layout.files, options, stamps=stamps, warnings=layout.warnings)


def open_unstamped(
    path: Path,
    convention: IntervalConvention,
    images: Path,
    events: Path,
    options: RecordingOptions,
    *,
    pattern: str = r"\d+",
) -> Recording:
    """Open a recording without frame times: they are taken from the ranges of the event files.

    Args:
        path: the sequence.
        convention: what the files mean.
        images: the folder of pictures.
        events: the folder of event files.
        options: what the user said.
        pattern: what the names of event files match, without their suffix.

    Raises:
        InputError: files are missing, damaged or break the convention.
        RecordingError: there is nothing to interpolate.
    """
    if not images.is_dir() or not events.is_dir():
        raise InputError(f"{path}: expected the folders {images} and {events}; name one sequence of the dataset")
    layout = pair_up(path, convention, find_pictures(images), numbered_files(events, pattern=pattern))
    given = options.events_unit or convention.time_unit
    read_times = _times_or_none if options.tolerant else npz_times
    times, unit = frame_times_of_ranges(layout.files, convention, given, lambda file: read_times(file, convention))
    frames = PictureFrames(layout.pictures, times)
    told = "no frame times: they are taken from where one event file ends and the next begins"
    return open_intervals(path, convention, frames, layout.files, options, unit=unit, warnings=(*layout.warnings, told))


def _times_or_none(file: Path, convention: IntervalConvention) -> NDArray[Any]:
    """The times of an event file; none of one that is damaged, which `open_intervals` then reports."""
    try:
        return npz_times(file, convention)
    except InputError:
        return np.zeros(0)


class IntervalEvents(ChunkedEvents):
    """The events of one file per interval, as an event source.

    Args:
        sensor_size: (width, height).
        time_range_us: times of the first and of the last event.
        bounds_us: earliest and latest time that each file may hold, int64 [C, 2].
        reader: reads one file.
        report: what the reader found.
    """

    def __init__(
        self,
        sensor_size: tuple[int, int],
        time_range_us: tuple[int, int],
        bounds_us: NDArray[np.int64],
        reader: _IntervalReader,
        report: ReadReport,
    ):
        super().__init__(sensor_size, time_range_us, bounds_us, reader.load, _NUM_CACHED, report)
        self._reader = reader

    @property
    def files(self) -> tuple[Path, ...]:
        """The event files, one per interval."""
        return self._reader.files

    def count_polarities(self, index: int) -> tuple[int, int]:
        """How many positive and negative events file `index` holds, wherever they lie: outside the frame, too.

        Raises:
            InputError: the file is damaged.
        """
        return self._reader.count_polarities(index)


class _IntervalReader:
    """Reads event files and checks that they hold what the convention says."""

    def __init__(
        self,
        files: list[Path],
        frames: PictureFrames,
        stamps: Path | None,
        convention: IntervalConvention,
        unit: TimeUnit,
        read_columns: ReadColumns,
    ):
        self.files, self._times, self._size = tuple(files), frames.times_us, frames.size
        self._convention, self._unit, self._read_columns = convention, unit, read_columns
        self._stamps = stamps
        self._damaged: set[int] = set()
        self.notes: list[str] = []

    def load(self, index: int) -> EventChunk:
        """Events of the interval from frame `index` to the next; strays beyond the tolerance count as dropped."""
        path = self.files[index]
        if index in self._damaged:
            empty = EventStream.empty(self._size)
            return EventChunk(empty, empty.t)
        columns = self._read_columns(path, self._convention)
        times = _to_us(columns.t, self._unit, path)
        if not self._fits(index, times):
            raise InputError(self._describe_misfit(index, columns.t, times))
        self._check_place(path, columns)
        near = self._near_interval(index, times)
        x, y = (self._whole(values[near]) for values in (columns.x, columns.y))
        chunk = chunk_of_columns(x, y, times[near], columns.p[near], self._size, str(path))
        return EventChunk(chunk.stream, np.sort(np.concatenate([chunk.dropped_us, times[~near]])))

    def count_polarities(self, index: int) -> tuple[int, int]:
        """Positive and negative events of a whole file, those that `load` leaves out too; none of a damaged file."""
        if index in self._damaged:
            return 0, 0
        path = self.files[index]
        polarities = self._read_columns(path, self._convention).p
        polarity_convention(polarities, str(path))
        positive = int(np.count_nonzero(polarities == 1))
        return positive, len(polarities) - positive

    def find_damage(self) -> list[Path]:
        """Read every file once and leave out those that cannot be read at all."""
        for index, path in enumerate(self.files):
            try:
                self._read_columns(path, self._convention)
            except InputError:
                self._damaged.add(index)
        return [self.files[index] for index in sorted(self._damaged)]

    def check_and_find_range(self) -> tuple[int, int]:
        """Check a few files of the sequence; return the times of the first and of the last event.

        Raises:
            InputError: a file does not hold what it claims.
            RecordingError: all files are empty.
        """
        self._check_frame_times()
        num_files = len(self.files)
        probes = {round(i) for i in np.linspace(0, num_files - 1, _NUM_PROBES)} | set(range(min(3, num_files)))
        for index in sorted(probes - self._damaged):
            self.load(index)
        self._note_oddities(sorted(probes - self._damaged))
        first = self._first_filled(range(num_files)).t[0]
        last = self._first_filled(range(num_files - 1, -1, -1)).t[-1]
        return int(first), int(last)

    def _note_oddities(self, indices: list[int]) -> None:
        """Tell of what is read without harm, but differs from the convention."""
        unsorted, farthest = 0, np.zeros(2)
        for index in indices:
            columns = self._read_columns(self.files[index], self._convention)
            unsorted += bool((columns.t[1:] < columns.t[:-1]).any())
            code = "-1/+1" if (columns.p == -1).any() else "0/1" if (columns.p == 0).any() else None
            if code not in (None, self._convention.polarity):
                self.notes.append(f"polarities are {code}, expected {self._convention.polarity}; read as {code}")
                break
            farthest = np.maximum(farthest, self._farthest(columns))
        if unsorted:
            self.notes.append(f"the events of {unsorted} of {len(indices)} files checked were not in order of time")
        steps = self._convention.steps_per_pixel
        if steps > 1 and farthest.max() > 0 and (farthest < np.array(self._size) * steps / 2).all():
            self.notes.append(
                "all events checked lie in the frames' upper left quarter; if the scene moves elsewhere, their "
                f"coordinates are not in {self._convention.scale}"
            )

    def _farthest(self, columns: Columns) -> NDArray[np.float64]:
        inside = self._inside(columns.x, columns.y)
        if not inside.any():
            return np.zeros(2)
        return np.array([columns.x[inside].max(), columns.y[inside].max()], np.float64)

    def _first_filled(self, order: range) -> EventStream:
        for index in order:
            stream = self.load(index).stream
            if len(stream):
                return stream
        raise RecordingError(f"{self.files[0].parent}: all event files are empty")

    def _near_interval(self, index: int, times: Times) -> NDArray[np.bool_]:
        start, end = self._times[index] - TOLERANCE_US, self._times[index + 1] + TOLERANCE_US
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
            if self._stamps is None:
                pair = f"frames {line - 1} and {line} are at {self._times[line - 1]} and {self._times[line]} µs"
                raise InputError(
                    f"{self.files[0].parent}: frame times must increase, but {pair}; check the files' numbers"
                )
            raise InputError(
                f"{self._stamps}: times must increase, but lines {line} and {line + 1} say "
                f"{self._times[line - 1]} and {self._times[line]}; {self._advice() or 'correct that line'}"
            )

    def _describe_misfit(self, index: int, raw: NDArray[Any], times: Times) -> str:
        start, end = int(self._times[index]), int(self._times[index + 1])
        found = (
            f"{self.files[index]}: expected events between frames {index} and {index + 1} ({start} to {end} µs), "
            f"found {times.min()} to {times.max()} µs"
        )
        fitting = int(np.searchsorted(self._times, np.median(times), side="right")) - 1
        neighbour, edge = (index - 1, "end") if self._convention.covers == "next" else (index + 1, "start")
        if fitting == neighbour and 0 <= fitting < len(self.files):
            fits = f"{fitting} and {fitting + 1}"
            return f"{found}, which fits frames {fits}: files seem to be numbered by their {edge} frame"
        if advice := self._advice():
            return f"{found}; {advice}"
        if 0 <= fitting < len(self.files):
            return f"{found}, which fits frames {fitting} and {fitting + 1}; check the files' numbers"
        if unit := self._better_unit(index, raw):
            return f"{found}, which fits if the times are in {unit}: give that unit (--events-unit {unit})"
        if self._fits(index, times + start) or self._fits(index, times + end - times.max()):
            return (
                f"{found}, which fits if every file counts from its own frame, but this layout's files share one clock"
            )
        where = self._stamps.name if self._stamps else "the frames' times"
        return f"{found}, which fits no two frames; check that {where} belongs to these events (µs, one clock)"

    def _better_unit(self, index: int, raw: NDArray[Any]) -> str | None:
        for unit in TIME_UNITS:
            try:
                if unit != self._unit and self._fits(index, _to_us(raw, unit, self.files[index])):  # type: ignore[arg-type]
                    return unit
            except InputError:
                continue
        return None

    def _advice(self) -> str:
        """Name the lines at the start of the times that disagree with the event files, if it is these alone."""
        for index in range(min(len(self.files), _MAX_ADVICE_FILES)):
            times = _to_us(self._read_columns(self.files[index], self._convention).t, self._unit, self.files[index])
            if len(times) and self._fits(index, times):
                break
        else:
            return ""
        if index == 0 or self._stamps is None:
            return ""
        return (
            f"the first {index} line(s) of {self._stamps.name} disagree with the event files: correct them, "
            f"or remove these lines, their images and event files and number the rest from 0"
        )

    def _check_place(self, path: Path, columns: Columns) -> None:
        """Compare the range of coordinates with the frames' size."""
        if len(columns) < _MIN_EVENTS_TO_JUDGE:
            return
        width, height = self._size
        inside = float(np.mean(self._inside(columns.x, columns.y)))
        swapped = float(np.mean(self._inside(columns.y, columns.x)))
        if inside < _MAX_SWAPPED_INSIDE and swapped > _MIN_UNSWAPPED_INSIDE:
            raise InputError(
                f"{path}: {1 - inside:.0%} of the events lie outside the {width}×{height} frames, and would lie inside "
                "with x and y swapped; this is another dataset's convention"
            )
        scale = self._convention.scale
        if inside < 0.5:
            advice = self._better_scale(columns)
            raise InputError(
                f"{path}: {1 - inside:.0%} of the events lie outside the {width}×{height} frames; "
                f"their coordinates do not seem to be {scale} of these frames{advice}"
            )
        farthest = self._farthest(columns)
        if self._convention.steps_per_pixel > 1 and farthest[0] < width and farthest[1] < height:
            raise InputError(
                f"{path}: expected coordinates in {scale}, found none beyond {width}×{height}: "
                "they seem to be whole pixels; this is another dataset's convention"
            )

    def _better_scale(self, columns: Columns) -> str:
        for steps in _USUAL_SCALES:
            if steps > self._convention.steps_per_pixel:
                width, height = (side * steps for side in self._size)
                if np.mean((columns.x < width) & (columns.y < height)) > _MIN_UNSWAPPED_INSIDE:
                    return f", but 1/{steps} px; this is another dataset's convention"
        return ""

    def _inside(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        steps = self._convention.steps_per_pixel
        width, height = (side * steps for side in self._size)
        inside: NDArray[np.bool_] = (x > -steps) & (x < width) & (y > -steps) & (y < height)
        return inside

    def _whole(self, coordinates: NDArray[Any]) -> NDArray[Any]:
        if self._convention.steps_per_pixel == 1 and coordinates.dtype.kind in "iu":
            return coordinates
        whole: NDArray[Any] = np.rint(coordinates / self._convention.steps_per_pixel)
        return whole


def _to_us(times: NDArray[Any], unit: TimeUnit, path: Path) -> Times:
    """Times in whole µs; fractions of a µs are rounded."""
    finite = times.dtype.kind != "f" or np.isfinite(times).all()
    if unit == "us" and times.dtype.kind == "f" and finite:
        times = np.rint(times)
    return to_microseconds(times, unit, str(path))
