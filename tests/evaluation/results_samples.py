"""Small results made by hand, for tests of what reads, averages, compares and shows them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from evfi.evaluation.results import (
    EvaluationResults,
    MetricInfo,
    Score,
    SequenceInfo,
    SystemInfo,
    Timing,
    WindowRecord,
)

FRAME_US = 10_000
"""From one true frame to the next."""

METRICS = (
    MetricInfo("psnr", "PSNR", "-10 log10 of the mean square error of RGB in [0, 1].", True, "dB", 2),
    MetricInfo("lpips_alex", "LPIPS", "Distance of AlexNet features, version 0.1.", False, "", 3, 2),
    MetricInfo("event_consistency", "Events", "Correlation with sums of events.", True, "", 3, 1, needs_truth=False),
)

SYSTEMS = (
    SystemInfo("evfi-tiny", "model", {"steps": 10, "tiles": None}, "a" * 64, "cpu", "Apache-2.0"),
    SystemInfo("linear", "baseline", {}, "b" * 64, "cpu"),
    SystemInfo("other", "frames", {"folder": "their <frames> & more"}, "c" * 64),
)

WINDOWS_OF_SKIP = {1: 4, 3: 2}


def sequence_info(name: str, num_frames: int = 9, simulated: bool = False) -> SequenceInfo:
    return SequenceInfo(
        name=name,
        path=f"data/{name}",
        format="frames_events",
        convention="timestamps in us",
        num_frames=num_frames,
        size=(64, 48),
        sensor_size=(64, 48),
        frame_rate=1e6 / FRAME_US,
        fingerprint=(name.encode().hex() + "0" * 64)[:64],
        simulated={"threshold": 0.2, "seed": 0} if simulated else None,
        warnings=() if simulated else ("2 events outside the sensor were left out",),
    )


def window_record(sequence: str, skip: int, index: int, dropped: str | None = None) -> WindowRecord:
    start = index * (skip + 1)
    times = tuple(FRAME_US * number for number in range(start, start + skip + 2))
    return WindowRecord(sequence, skip, index, start, start + skip + 1, times, dropped)


def results_of(
    values: Mapping[str, Mapping[str, Sequence[Sequence[float | None]]]],
    *,
    skip: int = 1,
    metric: MetricInfo = METRICS[0],
    truth: str = "raw",
    region: str = "all",
) -> EvaluationResults:
    """Results of one metric, from values by system and sequence, then window, then inserted frame.

    An empty list of frames is a window that the system lacks.
    """
    counts: dict[str, int] = {}
    for by_sequence in values.values():
        for sequence, windows in by_sequence.items():
            counts[sequence] = max(counts.get(sequence, 0), len(windows))
    return EvaluationResults(
        created="2026-11-23T04:00:00+00:00",
        evfi_version="0.4.0",
        command="evfi evaluate data",
        settings={"seed": 0, "data": ["data"]},
        protocol={"name": "raw", "skips": [skip], "truths": [truth], "size": "original"},
        environment={"python": "3.12.1", "cores": 2, "gpu": None},
        sequences=tuple(sequence_info(name, count * (skip + 1) + 1) for name, count in counts.items()),
        systems=tuple(SystemInfo(name, "baseline", {}, (name.encode().hex() + "0" * 64)[:64]) for name in values),
        metrics=(metric,),
        windows=tuple(window_record(name, skip, index) for name, count in counts.items() for index in range(count)),
        scores=tuple(
            Score(sequence, skip, index, system, truth, metric.name, region, tuple(frames))
            for system, by_sequence in values.items()
            for sequence, windows in by_sequence.items()
            for index, frames in enumerate(windows)
            if frames
        ),
    )


def sample_results() -> EvaluationResults:
    """Three sequences, three systems, skips 1 and 3, both truths, two regions, every kind of gap.

    Window 1 of "dog" at skip 1 is dropped. In window 0 of "street" nothing moves: its region "moving" is not defined (at
    skip 3 in the second inserted frame only). The system "other" has no timings.
    """
    windows = _sample_windows()
    scored = [window for window in windows if window.dropped is None]
    sequences = (
        sequence_info("coffee", simulated=True),
        sequence_info("dog", simulated=True),
        sequence_info("street"),
    )
    return EvaluationResults(
        created="2026-11-23T04:00:00+00:00",
        evfi_version="0.4.0",
        command="evfi evaluate data --model evfi-tiny --baseline linear --results 'their <frames> & more'",
        settings={"seed": 0, "data": ["data"], "limit": None},
        protocol={
            "name": "sample",
            "title": "Sample",
            "description": "Windows one after the other; <b>both</b> truths.",
            "skips": [1, 3],
            "truths": ["raw", "vae"],
            "size": "original",
            "metrics": ["psnr", "lpips_alex"],
        },
        environment={"python": "3.12.1", "numpy": "2.4.0", "cores": 2, "gpu": None},
        sequences=sequences,
        systems=SYSTEMS,
        metrics=METRICS,
        windows=windows,
        timings=tuple(
            Timing(
                w.sequence,
                w.skip,
                w.index,
                system.name,
                (0.5 if system.kind == "model" else 0.01) * w.skip,
                w.index > 0,
            )
            for w in scored
            for system in SYSTEMS[:2]
        ),
        scores=tuple(score for window in scored for score in _sample_scores(window)),
        missing={"lpips_vgg": "weights of VGG are not here; fetch them with evfi fetch <name>"},
    )


def replaced(results: EvaluationResults, **changes: object) -> EvaluationResults:
    """The same with other fields."""
    return dataclasses.replace(results, **changes)  # type: ignore[arg-type]


def _sample_windows() -> tuple[WindowRecord, ...]:
    dropped = {("dog", 1, 1): "its events are all positive"}
    return tuple(
        window_record(sequence, skip, index, dropped.get((sequence, skip, index)))
        for sequence in ("coffee", "dog", "street")
        for skip, count in WINDOWS_OF_SKIP.items()
        for index in range(count)
    )


def _sample_scores(window: WindowRecord) -> list[Score]:
    scores = []
    for rank, system in enumerate(SYSTEMS):
        for truth in ("raw", "vae"):
            for metric in METRICS:
                for region in ("all", "moving") if metric.needs_truth else ("all",):
                    values = tuple(
                        _sample_value(window, rank, truth, metric, region, frame) for frame in range(window.skip)
                    )
                    scores.append(Score(*window.key, system.name, truth, metric.name, region, values))
    return scores


def _sample_value(
    window: WindowRecord, rank: int, truth: str, metric: MetricInfo, region: str, frame: int
) -> float | None:
    """A smooth made-up number: better for earlier systems, worse towards the middle of the window."""
    if region == "moving" and window.sequence == "street" and window.index == 0 and (window.skip == 1 or frame == 1):
        return None
    middle = math.sin(math.pi * (frame + 1) / (window.skip + 1))
    place = {"coffee": 0.0, "dog": 0.5, "street": 1.0}[window.sequence]
    worse = rank + middle + place + 0.3 * math.sin(7.0 * window.index + rank) + (region == "moving") * 2
    if metric.name == "psnr":
        return 32.0 - 2.0 * worse + (truth == "vae")
    if metric.name == "lpips_alex":
        return 0.05 + 0.03 * worse - 0.01 * (truth == "vae")
    return 0.8 - 0.1 * worse
