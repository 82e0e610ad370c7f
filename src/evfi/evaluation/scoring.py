"""Score kept frames: every metric on every window, system and ground truth; existing values are not computed again.

    OUT/scores/SYSTEM-xxxxxxxx/SEQUENCE/skipK/00012.json

A value is identified by metric, its version, the ground truth and the region. What was computed from other frames, another
part of them, or with another definition of the regions is computed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from evfi.errors import ModelError
from evfi.evaluation.cropping import cropped
from evfi.evaluation.frame_store import FrameStore, made_of
from evfi.evaluation.generation import Progress, frame_store, kept_frames, scored_truth, truth_store, window_name
from evfi.evaluation.metrics.base import Metric, ScoredWindow
from evfi.evaluation.metrics.base import Score as ScoreFunction
from evfi.evaluation.metrics.regions import REGIONS_VERSION, regions_of
from evfi.evaluation.metrics.registry import metric_named
from evfi.evaluation.plan import EvaluationPlan, OpenRecordings
from evfi.evaluation.results import Score, SystemInfo, WindowRecord
from evfi.files import make_room, read_mark, written_whole
from evfi.fingerprints import fingerprint_of
from evfi.workers.plan import WorkerPlan
from evfi.workers.scheduler import run_tasks
from evfi.workers.tasks import OnStep, Task

RAW: Final = "raw"
VAE: Final = "vae"
_MAX_BYTES: Final = 2**26
_SCORE_KEYS: Final = {"made_of", "metrics"}
"""Of the values of one window: some 10 kB for each of its frames would be plenty."""


@dataclass(frozen=True)
class ScoreRequest:
    """One system's frames of one window, and the scores still to be computed.

    Attributes:
        system: whose frames.
        record: which window.
        missing: (truth, metric) pairs.
    """

    system: SystemInfo
    record: WindowRecord
    missing: tuple[tuple[str, str], ...]


class ScoreFile:
    """The values of one window of one system."""

    def __init__(self, plan: EvaluationPlan, system: SystemInfo, record: WindowRecord, vae: str | None) -> None:
        """Find the file and read what is in it.

        Args:
            plan: the evaluation.
            system: whose frames.
            record: which window.
            vae: fingerprint of the autoencoder that true frames pass through, if any.
        """
        store = frame_store(plan, system)
        self.path = plan.folder / "scores" / store.folder.name / record.sequence / f"skip{record.skip}"
        self.path /= f"{record.index:05d}.json"
        info = plan.sequence(record.sequence).info
        crop = plan.protocol.crop
        part = [REGIONS_VERSION, None if crop is None else [crop.multiple, crop.fewer]]
        own = fingerprint_of([made_of(store.maker, record, info), part])
        self.made_of = {RAW: own} | ({VAE: fingerprint_of([own, truth_store(plan, vae).maker])} if vae else {})
        self.values: dict[str, dict[str, Any]] = self._read(len(record.times_us) - 2)

    def _read(self, num_inserted: int) -> dict[str, dict[str, Any]]:
        """Values by truth and metric, those only that are of the same frames and truth; damaged ones count as absent."""
        raw = read_mark(self.path, _MAX_BYTES)
        try:
            return {
                truth: {name: entry for name, entry in raw[truth]["metrics"].items() if _is_whole(entry, num_inserted)}
                for truth, expected in self.made_of.items()
                if truth in raw and raw[truth]["made_of"] == expected
            }
        except (TypeError, KeyError, AttributeError):
            return {}

    def lacks(self, truth: str, metric: Metric) -> bool:
        """Whether a metric is still to be computed."""
        return bool(self.values.get(truth, {}).get(metric.name, {}).get("version") != metric.version)

    def add(self, truth: str, metric: Metric, regions: dict[str, NDArray[np.float64]]) -> None:
        """Take the values of a metric."""
        self.values.setdefault(truth, {})[metric.name] = {
            "version": metric.version,
            "regions": {name: [_number(value) for value in values] for name, values in regions.items()},
        }

    def write(self) -> None:
        """Keep all values.

        Raises:
            OutputError: the disk refuses.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            truth: {"made_of": self.made_of[truth], "metrics": metrics} for truth, metrics in self.values.items()
        }
        make_room(self.path, lambda file: _is_scores(read_mark(file, _MAX_BYTES)))
        with written_whole(self.path) as partial:
            partial.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _is_scores(raw: Any) -> bool:
    """Whether a file holds scores, of whichever frames; anything else is none of ours."""
    return isinstance(raw, dict) and all(isinstance(part, dict) and part.keys() == _SCORE_KEYS for part in raw.values())


def _is_whole(entry: dict[str, Any], num_inserted: int) -> bool:
    """Whether the values of a metric are those of a window with so many inserted frames."""
    return all(
        len(values) == num_inserted and all(value is None or type(value) is float for value in values)
        for values in entry["regions"].values()
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class Scoring:
    """Computes metrics of kept frames; a `WorkerFactory`.

    Attributes:
        plan: the evaluation; all its frames are made.
        metrics: which.
        vae: fingerprint of the autoencoder that true frames pass through, if any.
    """

    plan: EvaluationPlan
    metrics: tuple[str, ...]
    vae: str | None

    def __call__(self, device: str) -> Scorer:
        """Load the metrics."""
        return Scorer(self, {name: metric_named(name).load(torch.device(device)) for name in self.metrics})


class Scorer:
    """Computes and keeps metrics of windows; a `Worker`."""

    def __init__(self, scoring: Scoring, functions: Mapping[str, ScoreFunction]) -> None:
        """Take loaded metrics."""
        self._plan, self._vae, self._functions = scoring.plan, scoring.vae, functions
        self._recordings = OpenRecordings(scoring.plan)
        self._last: tuple[WindowRecord, Any] | None = None

    def prepare(self, item: ScoreRequest) -> None:
        """Nothing is done ahead."""

    def perform(self, item: ScoreRequest, prepared: None, on_step: OnStep | None) -> None:
        """Compute and keep what is missing of one window."""
        raw, regions, events = self._truth(item.record)
        info = self._plan.sequence(item.record.sequence).info
        frames = kept_frames(self._plan, item.system, item.record, raw)
        file = ScoreFile(self._plan, item.system, item.record, self._vae)
        times = np.array(item.record.times_us, np.int64)
        for truth in dict.fromkeys(truth for truth, _ in item.missing):
            reference = raw if truth == RAW else self._vae_store().read(item.record, info)
            window = cropped(ScoredWindow(frames, reference, times, regions, events), self._plan.protocol.crop)
            for name in (name for kind, name in item.missing if kind == truth):
                file.add(truth, metric_named(name), self._functions[name](window))
        self._recordings.check(item.record)
        file.write()

    def close(self) -> None:
        """Close the recording that is open."""
        self._recordings.close()

    def _vae_store(self) -> FrameStore:
        assert self._vae is not None
        return truth_store(self._plan, self._vae)

    def _truth(self, record: WindowRecord) -> Any:
        """True frames, regions and events of a window; kept for the next system."""
        if self._last is None or self._last[0] != record:
            frames = scored_truth(self._plan, self._recordings, record)
            events = self._recordings[record.sequence].read_events(record.times_us[0], record.times_us[-1])
            self._last = record, (frames, regions_of(frames), events if len(events) else None)
        return self._last[1]


def usable_metrics(names: Sequence[str], device: str) -> tuple[tuple[Metric, ...], dict[str, str]]:
    """Make sure that metrics can be computed here.

    Args:
        names: of metrics.
        device: where.

    Returns:
        The metrics that can, and for the others the reason.

    Raises:
        ConfigError: a name is unknown.
    """
    usable, missing = [], {}
    for name in dict.fromkeys(names):
        metric = metric_named(name)
        try:
            metric.load(torch.device(device))
        except ModelError as error:
            missing[name] = str(error)
        else:
            usable.append(metric)
    return tuple(usable), missing


def score_missing(
    plan: EvaluationPlan,
    systems: Sequence[SystemInfo],
    metrics: Sequence[Metric],
    vae: str | None,
    workers: WorkerPlan,
    progress: Progress,
) -> None:
    """Compute every value that is not there yet.

    Args:
        plan: the evaluation; all its frames are made.
        systems: whose frames.
        metrics: which.
        vae: fingerprint of the autoencoder that true frames pass through, if the protocol wants that.
        workers: who computes.
        progress: called with (done, in all, note).
    """
    requests = []
    for record in plan.scored:  # system by system within a window: its truth is read once
        for system in systems:
            file = ScoreFile(plan, system, record, vae)
            missing = tuple(
                (truth, metric.name) for truth, metric in wanted_values(plan, metrics) if file.lacks(truth, metric)
            )
            if missing:
                requests.append(ScoreRequest(system, record, missing))
    if not requests:
        return
    tasks = (
        Task((one.system.name, *one.record.key), one, f"{one.system.name}, {window_name(one.record)}")
        for one in requests
    )
    scoring = Scoring(plan, tuple(metric.name for metric in metrics), vae)
    for done, _ in enumerate(run_tasks(workers.at_most(len(requests)).scheduler(scoring), tasks), start=1):
        progress(done, len(requests), "scoring")


def wanted_values(plan: EvaluationPlan, metrics: Sequence[Metric]) -> Iterator[tuple[str, Metric]]:
    """Pairs of truth and metric: those that do not look at the truth once, as raw."""
    for truth in plan.protocol.truths:
        for metric in metrics:
            if metric.needs_truth or truth == RAW:
                yield truth, metric


def collect_scores(
    plan: EvaluationPlan, systems: Sequence[SystemInfo], metrics: Sequence[Metric], vae: str | None
) -> tuple[Score, ...]:
    """All kept values as records."""
    scores = []
    for record in plan.scored:
        for system in systems:
            file = ScoreFile(plan, system, record, vae)
            for truth, metric in wanted_values(plan, metrics):
                entry = file.values[truth][metric.name]
                scores += [
                    Score(*record.key, system.name, truth, metric.name, region, tuple(values))
                    for region, values in entry["regions"].items()
                ]
    return tuple(scores)
