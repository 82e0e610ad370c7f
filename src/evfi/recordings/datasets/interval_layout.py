"""How pictures and event files of a dataset belong together, and frame times where only the event files tell them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.file_options import TIME_UNITS, TimeUnit
from evfi.events.formats.columns import to_microseconds
from evfi.events.formats.npz import read_arrays
from evfi.recordings.datasets.interval_convention import IntervalConvention
from evfi.recordings.recording import Times

_MAX_PROBED_FILES: Final = 20
_ENOUGH_EVENTS: Final = 500
_USUAL_INTERVAL_S: Final = (3e-4, 0.3)  # 3 to 3300 frames per second: a factor of less than 1000, so one unit fits


@dataclass(frozen=True)
class Layout:
    """Pictures and event files that belong together: file k holds the events from picture k to picture k + 1.

    Attributes:
        pictures: one per frame.
        files: one event file fewer.
        warnings: what was left out.
    """

    pictures: tuple[Path, ...]
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def numbered_files(folder: Path, suffix: str = ".npz", pattern: str = r"\d+") -> list[Path]:
    """Files whose names are numbers (or match `pattern`), in the order of the first number in them."""
    if not folder.is_dir():
        return []
    found = [file for file in folder.glob(f"*{suffix}") if re.fullmatch(pattern, file.stem)]
    return sorted(found, key=lambda file: (number_of(file) or 0, file.name))


def number_of(file: Path) -> int | None:
    """The first number in a file's name."""
    match = re.search(r"\d+", file.stem)
    return int(match.group()) if match else None


def pair_up(
    path: Path,
    convention: IntervalConvention,
    pictures: Sequence[Path],
    files: Sequence[Path],
    num_times: int | None = None,
) -> Layout:
    """Put pictures, event files and times together as the convention says.

    Args:
        path: the recording.
        convention: which files hold which interval, and what may be spare.
        pictures: in order.
        files: event files in order of their numbers.
        num_times: how many frame times there are, where a file says them.

    Raises:
        InputError: something is missing, or there is more of something than the convention knows.
        RecordingError: there are fewer than two frames.
    """
    _check_gaps(path, pictures)
    used, warnings = _without_leading(path, convention, list(files), len(pictures))
    _check_numbers(path, convention, used)
    counts = {
        "images": (len(pictures), convention.may_have_spare_images),
        "frame times": (len(pictures) if num_times is None else num_times, convention.may_have_spare_times),
        "event files": (len(used) + 1, convention.may_have_spare_events),
    }
    num_frames = min(count for count, _ in counts.values())
    for name, (count, may_be_spare) in counts.items():
        if count > num_frames and not may_be_spare:
            raise InputError(f"{path}: {_describe_counts(len(pictures), num_times, len(used))}")
        if count > num_frames:
            warnings.append(f"{count - num_frames} {name} at the end belong to no interval and were left out")
    if num_frames < 2:
        raise RecordingError(f"{path}: expected at least two frames, found {num_frames}")
    return Layout(tuple(pictures[:num_frames]), tuple(used[: num_frames - 1]), tuple(warnings))


def _describe_counts(num_pictures: int, num_times: int | None, num_files: int) -> str:
    if num_times is not None and num_times != num_pictures:
        return (
            f"expected one time per frame and one event file between two, found {num_times} times for {num_pictures} "
            f"frames and {num_files} event files; restore what is missing"
        )
    return (
        f"expected one event file fewer than images, found {num_pictures} images and {num_files} event files; "
        "restore what is missing"
    )


def _check_gaps(path: Path, pictures: Sequence[Path]) -> None:
    for before, after in pairwise(pictures):
        first, second = number_of(before), number_of(after)
        if first is not None and second is not None and second != first + 1:
            raise InputError(
                f"{path}: image {second - 1 if second > first + 1 else second} is not where it should be: "
                f"{after.name} follows {before.name}; restore the missing images or number them without gaps"
            )


def _without_leading(
    path: Path, convention: IntervalConvention, files: list[Path], num_pictures: int
) -> tuple[list[Path], list[str]]:
    """Leave out the file before the first frame, where files are numbered by their end."""
    if convention.covers != "previous" or convention.first_file != 1 or not files or number_of(files[0]) != 0:
        return files, []
    if len(files) == num_pictures - 1 and not convention.may_have_spare_images:
        raise InputError(
            f"{path}: expected event files from number 1 on, found {files[0].name} to {files[-1].name} for {num_pictures} "
            f"images: files seem to be numbered by their start frame; file n must hold {convention.interval}"
        )
    return files[1:], [f"{files[0].name} lies before the first frame and was left out"]


def _check_numbers(path: Path, convention: IntervalConvention, files: list[Path]) -> None:
    """File names must count up without a gap from where the convention says."""
    if not files:
        return
    first = number_of(files[0]) if convention.first_file is None else convention.first_file
    for expected, file in enumerate(files, start=first or 0):
        if number_of(file) != expected:
            name = str(expected).zfill(len(re.findall(r"\d+", file.stem)[0]))
            raise InputError(
                f"{path}: expected {file.parent.name}/{name}{file.suffix}, found {file.name} in its place; event file i "
                f"must hold {convention.interval.replace('n', 'i')}"
            )


@dataclass(frozen=True)
class Probe:
    """What a few event files of a folder hold, for telling layouts apart.

    Attributes:
        kinds: NumPy's letter for the type of each column; empty if all files looked at are.
        x: coordinates of some files [N].
        y: the same.
    """

    kinds: dict[str, str]
    x: NDArray[Any]
    y: NDArray[Any]


def probe_npz(files: Sequence[Path], keys: tuple[str, str, str, str]) -> Probe | None:
    """Look into the first files until there are enough events; None if one is damaged or lacks a member."""
    xs, ys, kinds = [np.zeros(0)], [np.zeros(0)], dict[str, str]()
    for file in files[:_MAX_PROBED_FILES]:
        try:
            arrays = read_arrays(file, keys)
        except InputError:
            return None
        if not set(keys) <= set(arrays):
            return None
        if arrays[keys[0]].size:
            kinds = {name: str(array.dtype.kind) for name, array in arrays.items()}
            xs.append(arrays[keys[0]].ravel())
            ys.append(arrays[keys[1]].ravel())
        if sum(len(x) for x in xs) >= _ENOUGH_EVENTS:
            break
    return Probe(kinds, np.concatenate(xs), np.concatenate(ys))


def frame_times_of_ranges(
    files: Sequence[Path],
    convention: IntervalConvention,
    unit: TimeUnit | None,
    read_times: Callable[[Path], NDArray[Any]] | None = None,
) -> tuple[Times, TimeUnit]:
    """Frame times from where one event file ends and the next begins.

    The first and the last frame lie a median interval further out, or at the first and after the last event if these
    lie beyond.

    Args:
        files: one per interval, in order; of each only the column of times is read.
        convention: the names of the columns.
        unit: unit of the times; None tells it from how long a file then lasts.
        read_times: reads the times of one file; by default, the member of an .npz that the convention names.

    Returns:
        int64 [len(files) + 1] in µs, and the unit.

    Raises:
        InputError: the files' ranges do not follow one another, or no unit makes sense of them.
        RecordingError: all files are empty.
    """
    read = read_times or (lambda file: npz_times(file, convention))
    ranges = [(times.min(), times.max()) if times.size else None for times in map(read, files)]
    filled = np.array([index for index, found in enumerate(ranges) if found is not None])
    if len(filled) == 0:
        raise RecordingError(f"{files[0].parent}: all event files are empty")
    raw = np.array([found for found in ranges if found is not None])
    chosen = unit or tell_unit_of_durations(raw[:, 1] - raw[:, 0], str(files[0].parent))
    ends = to_microseconds(raw.ravel(), chosen, str(files[0].parent)).reshape(-1, 2)
    _check_order(files, filled, ends)
    return _boundaries(filled, ends, len(files), files[0].parent), chosen


def tell_unit_of_durations(durations: NDArray[Any], where: str) -> TimeUnit:
    """The unit under which intervals last as long as they do with cameras.

    Raises:
        InputError: none does.
    """
    typical = float(np.median(durations))
    for name, per_second in zip(TIME_UNITS, (1, 1e3, 1e6, 1e9), strict=True):
        if _USUAL_INTERVAL_S[0] <= typical / per_second < _USUAL_INTERVAL_S[1]:
            return name  # type: ignore[return-value]
    raise InputError(
        f"{where}: the events of a file span {typical:g} units of time, which is not a frame interval in s, ms, µs or ns; "
        "set the unit with --events-unit"
    )


def npz_times(file: Path, convention: IntervalConvention) -> NDArray[Any]:
    """The times of an event file in its own unit.

    Raises:
        InputError: it is damaged or has none.
    """
    name = convention.keys[2]
    arrays = read_arrays(file, (name,))
    if name not in arrays:
        raise InputError(f"{file}: expected members {', '.join(convention.keys)}; missing: {name}")
    if arrays[name].dtype.kind not in "iuf":
        raise InputError(f"{file}: {name} must hold numbers, found {arrays[name].dtype}")
    return arrays[name]


def _check_order(files: Sequence[Path], filled: NDArray[Any], ends: Times) -> None:
    overlap = ends[:-1, 1] - ends[1:, 0]
    lengths = np.minimum(ends[:-1, 1] - ends[:-1, 0], ends[1:, 1] - ends[1:, 0])
    wrong = np.flatnonzero(overlap > np.maximum(lengths // 2, 1))
    if len(wrong) == 0:
        return
    first = int(wrong[0])
    names = files[filled[first]].name, files[filled[first + 1]].name
    spans = [f"{start} to {end}" for start, end in ends[first : first + 2].tolist()]
    reason = "the files' numbers do not follow their times"
    if len(wrong) == len(overlap):
        reason = "the times seem to restart in every file, but this layout's files share one clock"
    raise InputError(
        f"{files[0].parent}: expected {names[1]} to begin where {names[0]} ends, found {spans[0]} µs and then {spans[1]} "
        f"µs; {reason}"
    )


def _boundaries(filled: NDArray[Any], ends: Times, num_files: int, where: Path) -> Times:
    """Frame times; those beside empty files are interpolated."""
    if len(filled) == 1 and num_files > 1:
        raise RecordingError(f"{where}: only one event file is not empty, which is not enough to find the frame times")
    adjacent = np.flatnonzero(np.diff(filled) == 1)
    known = {int(filled[i]) + 1: int((ends[i, 1] + ends[i + 1, 0] + 1) // 2) for i in adjacent}
    lone = np.flatnonzero(np.diff(filled) > 1)
    known |= {int(filled[i]) + 1: int(ends[i, 1]) + 1 for i in lone}
    known |= {int(filled[i + 1]): int(ends[i + 1, 0]) for i in lone}
    order = np.array(sorted(known), np.int64)
    inner = np.array([known[int(i)] for i in order], np.int64)
    step = np.median(np.diff(inner) / np.diff(order)) if len(order) > 1 else np.median(ends[:, 1] - ends[:, 0])
    first, last = int(filled[0]), int(filled[-1]) + 1
    before = min(int(ends[0, 0]), round(inner[0] - step * (order[0] - first))) if len(order) else int(ends[0, 0])
    after = (
        max(int(ends[-1, 1]) + 1, round(inner[-1] + step * (last - order[-1]))) if len(order) else int(ends[-1, 1]) + 1
    )
    positions = np.array([first, *order, last])
    values = np.array([before, *inner, after], np.float64)
    frames = np.arange(num_files + 1)
    times = np.interp(frames, positions, values)
    times = np.where(frames < first, before - step * (first - frames), times)
    times = np.where(frames > last, after + step * (frames - last), times)
    return np.rint(times).astype(np.int64)
