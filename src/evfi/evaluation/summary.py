"""Averages of an evaluation.

- A window's value is the mean over its inserted frames, of those where the metric is defined.
- *Over windows* every window counts the same; *over sequences* every sequence does, with the mean of its windows; *over
  frames* every inserted frame does.
- Systems are compared on the same windows: those that all systems of a cell (skip, truth, metric, region) have. What
  another system lacks is counted in `num_left_out`, and `gaps` says it in words.
- A window in which no frame has a value is counted in `num_undefined` and not averaged. Dropped windows never count.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from evfi.evaluation.bootstrap import Interval, interval
from evfi.evaluation.results import EvaluationResults, Timing
from evfi.evaluation.score_cells import (
    Cell,
    WindowKey,
    by_sequence,
    cells_of,
    mean_of,
    mean_over_sequences,
    mean_over_windows,
)

Ends: TypeAlias = tuple[float, float]
"""(low, high) of a 95 % interval."""


@dataclass(frozen=True)
class SummaryRow:
    """The averages of one system.

    Attributes:
        skip: true frames left out between key frames.
        system: by name.
        truth: "raw" or "vae".
        metric: by name.
        region: "all" or the name of a smaller one.
        over_windows: average over windows; None where no window has a value, like the next two.
        over_sequences: average over sequences.
        over_frames: average over inserted frames.
        interval: 95 % interval of `over_sequences`; None where there is too little to draw from.
        interval_over_windows: that of `over_windows`.
        interval_over: what both were drawn over: "sequences", or "windows" of the same sequences; "" without any.
        num_windows: windows that were averaged.
        num_sequences: sequences that they belong to.
        num_undefined: windows without any value.
        num_left_out: windows that this system has and another lacks.
    """

    skip: int
    system: str
    truth: str
    metric: str
    region: str
    over_windows: float | None
    over_sequences: float | None
    over_frames: float | None
    interval: Ends | None
    interval_over_windows: Ends | None
    interval_over: str
    num_windows: int
    num_sequences: int
    num_undefined: int
    num_left_out: int


@dataclass(frozen=True)
class SequenceRow:
    """The average of one system over the windows of one sequence; attributes as in `SummaryRow`."""

    sequence: str
    skip: int
    system: str
    truth: str
    metric: str
    region: str
    over_windows: float | None
    interval: Ends | None
    num_windows: int
    num_undefined: int


@dataclass(frozen=True)
class SpeedRow:
    """How long a system takes; a process's first window, which pays for setting up, does not count.

    Attributes:
        skip: true frames left out between key frames.
        system: by name.
        frame_mean_s: seconds per inserted frame: all seconds by all inserted frames; None where no warm window was timed.
        frame_median_s: median over windows of seconds per inserted frame.
        window_mean_s: seconds per window.
        window_median_s: their median.
        num_windows: warm windows that were timed.
        num_cold: others, which do not count.
    """

    skip: int
    system: str
    frame_mean_s: float | None
    frame_median_s: float | None
    window_mean_s: float | None
    window_median_s: float | None
    num_windows: int
    num_cold: int


def summarise(results: EvaluationResults, seed: int = 0) -> tuple[SummaryRow, ...]:
    """Average every system over all windows.

    Args:
        results: of one evaluation.
        seed: of the bootstrap's draws.

    Returns:
        Rows by skip, truth, metric, region and system, in the order of the results.
    """
    return tuple(
        _summary_row(cell, system, common, seed)
        for cell in cells_of(results)
        for common in [cell.common_windows()]
        for system in cell.systems
    )


def summarise_sequences(results: EvaluationResults, seed: int = 0) -> tuple[SequenceRow, ...]:
    """Average every system over the windows of each sequence; rows by sequence, then as in `summarise`."""
    cells = [(cell, _by_sequence_name(cell.common_windows())) for cell in cells_of(results)]
    return tuple(
        _sequence_row(sequence.name, cell, system, windows, seed)
        for sequence in results.sequences
        for cell, common in cells
        for windows in [common.get(sequence.name, [])]
        if windows
        for system in cell.systems
    )


def summarise_speed(results: EvaluationResults) -> tuple[SpeedRow, ...]:
    """Average the seconds of every system and skip; rows by skip and system, where anything was timed."""
    inserted = {window.key: len(window.times_us) - 2 for window in results.windows if window.dropped is None}
    timed: dict[tuple[int, str], list[Timing]] = {}
    for timing in results.timings:
        if (timing.sequence, timing.skip, timing.index) in inserted:
            timed.setdefault((timing.skip, timing.system), []).append(timing)
    return tuple(
        _speed_row(skip, system.name, timed[skip, system.name], inserted)
        for skip in sorted({skip for skip, _ in timed})
        for system in results.systems
        if (skip, system.name) in timed
    )


def gaps(results: EvaluationResults) -> tuple[str, ...]:
    """What averages leave out because not every system has it, one line each; nothing where all is there."""
    windows: dict[int, set[WindowKey]] = {}
    for window in results.windows:
        if window.dropped is None:
            windows.setdefault(window.skip, set()).add((window.sequence, window.index))
    cells = cells_of(results)
    made: dict[tuple[int, str], set[WindowKey]] = {}
    for cell in cells:
        for system, values in cell.systems.items():
            made.setdefault((cell.skip, system), set()).update(values)
    lines = [
        f"skip {skip}: {system.name} is missing {lacking} of {len(windows[skip])} windows"
        for skip in sorted(windows)
        for system in results.systems
        if (lacking := len(windows[skip]) - len(made.get((skip, system.name), ())))
    ]
    return (*lines, *(line for cell in cells for line in _gaps_of(cell, made)))


def _gaps_of(cell: Cell, made: dict[tuple[int, str], set[WindowKey]]) -> Iterable[str]:
    """Windows that were made by all of a cell's systems, but not scored for all."""
    num_made = len(set.intersection(*(made[cell.skip, system] for system in cell.systems)))
    num_common = len(cell.common_windows())
    if num_common < num_made:
        yield (
            f"skip {cell.skip}, {cell.metric} ({cell.region}, {cell.truth}): only {num_common} of {num_made} windows are "
            f"scored for all systems"
        )


def _summary_row(cell: Cell, system: str, common: Sequence[WindowKey], seed: int) -> SummaryRow:
    values = cell.systems[system]
    groups = by_sequence({window: mean_of(values[window]) for window in common})
    num_windows = sum(map(len, groups.values()))
    ends = interval(list(groups.values()), "sequences", seed=seed)
    ends_over_windows = interval(list(groups.values()), "windows", seed=seed)
    return SummaryRow(
        skip=cell.skip,
        system=system,
        truth=cell.truth,
        metric=cell.metric,
        region=cell.region,
        over_windows=mean_over_windows(groups),
        over_sequences=mean_over_sequences(groups),
        over_frames=mean_of(value for window in common for value in values[window]),
        interval=_ends(ends),
        interval_over_windows=_ends(ends_over_windows),
        interval_over="" if ends is None else ends.over,
        num_windows=num_windows,
        num_sequences=len(groups),
        num_undefined=len(common) - num_windows,
        num_left_out=len(values) - len(common),
    )


def _by_sequence_name(windows: Iterable[WindowKey]) -> dict[str, list[WindowKey]]:
    groups: dict[str, list[WindowKey]] = {}
    for window in windows:
        groups.setdefault(window[0], []).append(window)
    return groups


def _sequence_row(sequence: str, cell: Cell, system: str, windows: Sequence[WindowKey], seed: int) -> SequenceRow:
    means = [mean_of(cell.systems[system][window]) for window in windows]
    defined = [mean for mean in means if mean is not None]
    return SequenceRow(
        sequence=sequence,
        skip=cell.skip,
        system=system,
        truth=cell.truth,
        metric=cell.metric,
        region=cell.region,
        over_windows=mean_of(defined),
        interval=_ends(interval([defined], seed=seed)),
        num_windows=len(defined),
        num_undefined=len(means) - len(defined),
    )


def _speed_row(
    skip: int, system: str, timings: Sequence[Timing], inserted: dict[tuple[str, int, int], int]
) -> SpeedRow:
    warm = [timing for timing in timings if timing.is_warm]
    counts = [inserted[timing.sequence, timing.skip, timing.index] for timing in warm]
    seconds = [timing.seconds for timing in warm]
    per_frame = [second / count for second, count in zip(seconds, counts, strict=True)]
    return SpeedRow(
        skip=skip,
        system=system,
        frame_mean_s=sum(seconds) / sum(counts) if warm else None,
        frame_median_s=statistics.median(per_frame) if warm else None,
        window_mean_s=mean_of(seconds),
        window_median_s=statistics.median(seconds) if warm else None,
        num_windows=len(warm),
        num_cold=len(timings) - len(warm),
    )


def _ends(found: Interval | None) -> Ends | None:
    return None if found is None else (found.low, found.high)
