"""Check that results are consistent: names are unique, and references resolve.

Types are not looked at: Python's annotations say them, and `results_file` checks those of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from evfi.evaluation.results import EvaluationResults, Score, WindowRecord

SYSTEM_KINDS: Final = ("model", "baseline", "frames")
TRUTHS: Final = ("raw", "vae")


def fault_of(results: EvaluationResults) -> str | None:
    """The first inconsistency of results, in one line.

    Args:
        results: of the right types.

    Returns:
        Where and what; None where nothing is wrong.
    """
    return (
        _fault_of_names(results)
        or _fault_of_windows(results)
        or _fault_of_timings(results)
        or _fault_of_scores(results)
    )


def _fault_of_names(results: EvaluationResults) -> str | None:
    for field, names in (
        ("sequences", [sequence.name for sequence in results.sequences]),
        ("systems", [system.name for system in results.systems]),
        ("metrics", [metric.name for metric in results.metrics]),
    ):
        seen: set[str] = set()
        for number, name in enumerate(names):
            if not name or not name.isprintable():
                return f"{field}[{number}].name: expected printable text, found {name!r}"
            if name in seen:
                return f"{field}[{number}].name: duplicate {name!r}"
            seen.add(name)
    for number, system in enumerate(results.systems):
        if system.kind not in SYSTEM_KINDS:
            return f"systems[{number}].kind: expected one of {', '.join(SYSTEM_KINDS)}, found {system.kind!r}"
    return None


def _fault_of_windows(results: EvaluationResults) -> str | None:
    num_frames = {sequence.name: sequence.num_frames for sequence in results.sequences}
    seen: set[tuple[str, int, int]] = set()
    for number, window in enumerate(results.windows):
        if window.sequence not in num_frames:
            return f"windows[{number}].sequence: there is no sequence {window.sequence!r}"
        if window.key in seen:
            return f"windows[{number}]: duplicate {window.key}"
        if fault := _fault_of_window(window, num_frames[window.sequence]):
            return f"windows[{number}]{fault}"
        seen.add(window.key)
    return None


def _fault_of_window(window: WindowRecord, num_frames: int) -> str | None:
    if window.skip < 1 or window.index < 0:
        return f": skip must be at least 1 and index at least 0, found {window.skip} and {window.index}"
    if not 0 <= window.start_frame < window.end_frame < num_frames:
        return (
            f": expected start_frame < end_frame among {num_frames} frames, found {window.start_frame} and "
            f"{window.end_frame}"
        )
    times = window.times_us
    if len(times) < 3 or any(after <= before for before, after in pairwise(times)):
        return f".times_us: expected at least 3 that increase, found {str(times)[:60]}"
    return None


def _fault_of_timings(results: EvaluationResults) -> str | None:
    windows = {window.key for window in results.windows}
    systems = {system.name for system in results.systems}
    for number, timing in enumerate(results.timings):
        if timing.system not in systems:
            return f"timings[{number}].system: there is no system {timing.system!r}"
        if (timing.sequence, timing.skip, timing.index) not in windows:
            return f"timings[{number}]: there is no window {(timing.sequence, timing.skip, timing.index)}"
        if not (math.isfinite(timing.seconds) and timing.seconds >= 0):
            return f"timings[{number}].seconds: expected 0 or more, found {timing.seconds}"
    return None


def _fault_of_scores(results: EvaluationResults) -> str | None:
    inserted = {window.key: len(window.times_us) - 2 for window in results.windows if window.dropped is None}
    systems = {system.name for system in results.systems}
    metrics = {metric.name for metric in results.metrics}
    seen: set[tuple[str | int, ...]] = set()
    for number, score in enumerate(results.scores):
        window = score.sequence, score.skip, score.index
        if window not in inserted:
            return f"scores[{number}]: there is no window {window}, or it is dropped"
        if score.system not in systems:
            return f"scores[{number}].system: there is no system {score.system!r}"
        if score.metric not in metrics:
            return f"scores[{number}].metric: there is no metric {score.metric!r}"
        if fault := _fault_of_score(score, inserted[window]):
            return f"scores[{number}]{fault}"
        key = (*window, score.system, score.truth, score.metric, score.region)
        if key in seen:
            return f"scores[{number}]: duplicate {key}"
        seen.add(key)
    return None


def _fault_of_score(score: Score, num_inserted: int) -> str | None:
    if score.truth not in TRUTHS:
        return f".truth: expected one of {', '.join(TRUTHS)}, found {score.truth!r}"
    if not score.region or not score.region.isprintable():
        return f".region: expected printable text, found {score.region!r}"
    if len(score.values) != num_inserted:
        return f".values: expected one for each of {num_inserted} inserted frames, found {len(score.values)}"
    if not _are_finite(score.values):
        return ".values: expected finite numbers"
    return None


def _are_finite(values: Iterable[float | None]) -> bool:
    """Whether all are numbers or undefined: None, or NaN before it is written."""
    return not any(value is not None and math.isinf(value) for value in values)
