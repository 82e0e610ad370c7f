"""Run an evaluation: find sequences, select windows, make frames, score them, write the results.

    OUT/evaluation.json   what the folder belongs to
    OUT/simulated/        recordings made of videos
    OUT/frames/           the systems' frames      OUT/truth/   true frames through the autoencoder
    OUT/scores/           values per window
    OUT/results.json, results.csv, report.html; outputs.json with their checksums

Everything but the results is kept as it is made: the same call resumes, and with more metrics,
systems or windows only the new work is done.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from evfi import __version__
from evfi.errors import ConfigError, OutputError
from evfi.evaluation.comparison import VAE_TRUTH
from evfi.evaluation.environment import describe_environment
from evfi.evaluation.generation import FrameMaking, Progress, TruthMaking, frame_store, make_missing, truth_store
from evfi.evaluation.kept_pictures import KeptPictures
from evfi.evaluation.loading import load_system
from evfi.evaluation.metrics.base import Metric
from evfi.evaluation.metrics.registry import default_metrics
from evfi.evaluation.model_system import load_vae_truth
from evfi.evaluation.outputs import REPORT_FILE, RESULTS_FILE, TABLE_FILE, write_output
from evfi.evaluation.plan import EvaluationPlan, plan_windows
from evfi.evaluation.protocol import Protocol, load_protocol
from evfi.evaluation.report import write_report
from evfi.evaluation.results import EvaluationResults, MetricInfo, SystemInfo, Timing
from evfi.evaluation.results_file import write_results
from evfi.evaluation.results_table import write_csv
from evfi.evaluation.scoring import VAE, collect_scores, score_missing, usable_metrics
from evfi.evaluation.sequences import VideoOptions, find_sequences, prepare_sequence
from evfi.evaluation.systems import System, SystemRequest
from evfi.events.simulate import SimulatorConfig
from evfi.files import one_line, read_mark, written_whole
from evfi.paths import check_name, real_path
from evfi.recordings.options import RecordingOptions
from evfi.workers.devices import parse_devices
from evfi.workers.plan import WorkerPlan, parse_workers, plan_workers

_log = logging.getLogger(__name__)

_MARK: Final = "evaluation.json"
_MARK_CONTENT: Final = {"format": "evfi-evaluation-folder", "version": 1}
_MAX_MARK_BYTES: Final = 4096
_FOLDERS: Final = ("frames", "truth", "scores", "simulated")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated and how.

    Attributes:
        protocol: the evaluation protocol, by name (raw, vdm-evfi, timelens-xl, cbmnet, continuitycam, refid) or as a
            .json file.
        skips: numbers of frames left out between two key frames, each evaluated separately; by default the protocol's.
        windows: maximum number of windows per sequence and skip, sampled evenly; by default all.
        metrics: metrics to compute; by default all that need no download, and the protocol's own.
        seed: seed of all random numbers; the same seed gives the same frames.
        workers: where frames are made and scored: here (in this process), local (a process per device), a number of processes
            that share the devices, ray, or ray://ADDRESS; by default a process per device where several are named, else here.
            Results do not depend on it. Seconds per frame are measured only with one worker.
    """

    protocol: str = "raw"
    skips: tuple[int, ...] = ()
    windows: int | None = None
    metrics: tuple[str, ...] = ()
    seed: int = 0
    workers: int | str | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a setting is out of range.
        """
        if any(skip < 1 for skip in self.skips):
            raise ConfigError(f"skips must be at least 1 (frames left out between key frames), got {min(self.skips)}")
        if doubled := next((skip for skip in self.skips if self.skips.count(skip) > 1), None):
            raise ConfigError(f"skips must differ, got {doubled} more than once")
        if self.windows is not None and self.windows < 1:
            raise ConfigError(f"windows must be at least 1, got {self.windows}")
        if self.workers is not None:
            parse_workers(str(self.workers))
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True)
class EvaluationInputs:
    """Data and systems of an evaluation.

    Attributes:
        data: recordings, videos, folders of them.
        systems: what is compared.
        opening: what recordings leave open.
        video: how videos become sequences.
        simulator: the simulated event camera for videos.
        devices: "auto" (the first GPU if there is one), "cpu", "cuda", or names with commas between them; one worker each.
        dtype: precision of models; by default float16 on a GPU and float32 on the CPU.
        command: what the user typed, for the record.
    """

    data: tuple[Path, ...]
    systems: tuple[SystemRequest, ...]
    opening: RecordingOptions = field(default_factory=RecordingOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)
    devices: str = "auto"
    dtype: str | None = None
    command: str = ""


def evaluate(
    inputs: EvaluationInputs, output: Path, config: EvaluationConfig | None = None, progress: Progress | None = None
) -> EvaluationResults:
    """Evaluate systems on data, and write results, table and report.

    Args:
        inputs: data and systems.
        output: a folder: missing, empty, or of an earlier evaluation, which is then gone on with.
        config: what is evaluated and how.
        progress: called as the work proceeds.

    Returns:
        What `output/results.json` holds.

    Raises:
        EvfiError: something is wrong with data, settings, models or the disk; what was made before is kept.
    """
    config = config or EvaluationConfig()
    report = progress or (lambda done, total, note: None)
    protocol = load_protocol(config.protocol)
    _check_systems(inputs.systems, protocol)
    defaults = (metric.name for metric in default_metrics())
    wanted = config.metrics or tuple(dict.fromkeys((*protocol.metrics, *defaults)))
    workers = _planned_workers(inputs, config)
    metrics, missing = usable_metrics(wanted, workers.devices[0])
    for name, reason in missing.items():
        _log.warning("skipping metric %s: %s", name, reason)
    if not metrics:
        raise ConfigError(f"no metric can be computed: {next(iter(missing.values()))}")
    loaded = _LoadedSystems(inputs, protocol, workers)
    _check_apart(output, inputs.data)
    is_new = not output.exists()
    _claim_folder(output)
    with _kept_when_interrupted(output), _removed_if_unused(output, is_new):
        plan = _plan(inputs, output, config, protocol, report)
        vae = _make_truth(plan, loaded, report)
        _make_frames(plan, loaded, report)
        score_missing(plan, loaded.infos, metrics, vae, workers, report)
    timings, notes = _facts_of_frames(plan, loaded.infos)
    results = EvaluationResults(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        evfi_version=__version__,
        command=inputs.command,
        settings=_settings(inputs, config) | ({VAE_TRUTH: vae} if vae else {}),
        protocol=protocol.to_dict(),
        environment=describe_environment(),
        sequences=tuple(sequence.info for sequence in plan.sequences),
        systems=loaded.infos,
        metrics=tuple(_metric_info(metric) for metric in metrics),
        windows=plan.windows,
        timings=timings,
        scores=collect_scores(plan, loaded.infos, metrics, vae),
        missing=missing,
        notes=(*plan.notes, *notes),
    )
    write_outputs(plan, results)
    return results


def _planned_workers(inputs: EvaluationInputs, config: EvaluationConfig) -> WorkerPlan:
    if config.workers is not None:
        return plan_workers(str(config.workers), inputs.devices)
    several = inputs.devices != "auto" and len(parse_devices(inputs.devices)) > 1
    return plan_workers("local" if several else "here", inputs.devices)


class _LoadedSystems:
    """The systems; the first model stays loaded, the others are loaded again when their turn comes."""

    def __init__(self, inputs: EvaluationInputs, protocol: Protocol, workers: WorkerPlan) -> None:
        self.inputs, self.workers = inputs, workers
        self.requests = tuple(_under_protocol(request, protocol) for request in inputs.systems)
        self.kept: tuple[SystemRequest, System] | None = None
        infos = []
        for request in self.requests:
            system = load_system(request, protocol.size, workers.devices[0], inputs.dtype)
            infos.append(system.info)
            if request.kind == "model" and self.kept is None and workers.kind == "here":
                self.kept = request, system
        self.infos: tuple[SystemInfo, ...] = tuple(infos)

    def making(self, plan: EvaluationPlan, request: SystemRequest, info: SystemInfo) -> FrameMaking:
        """Making frames with one of them."""
        ready = self.kept[1] if self.kept is not None and self.kept[0] == request else None
        return FrameMaking(plan, request, info, self.inputs.dtype, len(self.workers.devices) == 1, ready)


def _check_systems(requests: Sequence[SystemRequest], protocol: Protocol) -> None:
    if not requests:
        raise ConfigError("expected a model, a baseline or a folder of frames to evaluate, got none")
    names = [request.name for request in requests]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"systems must have different names, got {', '.join(doubled)} more than once")
    if odd := next((name for name in names if not name.strip() or not name.isprintable()), None):
        raise ConfigError(f"the name of a system must be printable and not empty, got {odd!r}")
    if VAE in protocol.truths and all(request.kind != "model" for request in requests):
        raise ConfigError(
            f"protocol {protocol.name} compares with ground truth passed through a model's autoencoder; name a model too"
        )


def _under_protocol(request: SystemRequest, protocol: Protocol) -> SystemRequest:
    """A model samples as the protocol says, unless the user says otherwise."""
    if request.kind != "model":
        return request
    return replace(request, protocol=dict(protocol.sampling))


def _check_apart(output: Path, data: Sequence[Path]) -> None:
    """Results within the data would be taken for data, and change its fingerprint."""
    check_name(output, OutputError)
    if within := next((path for path in data if real_path(output).is_relative_to(real_path(path))), None):
        raise ConfigError(f"the folder for results, {output}, is inside the data, {within}; choose another")


def _claim_folder(output: Path) -> None:
    """Make the folder, or make sure that it belongs to an evaluation."""
    if linked := next((name for name in _FOLDERS if (output / name).is_symlink()), None):
        raise OutputError(
            f"cannot use the folder {output}: its {linked}/ is a link, which may lead to another evaluation; replace it "
            "with a folder, or choose another output folder"
        )
    mark = output / _MARK
    try:
        if output.exists() and not output.is_dir():
            raise OutputError(f"cannot make the folder {output}: a file with that name exists; choose another")
        if output.is_dir() and any(output.iterdir()) and read_mark(mark, _MAX_MARK_BYTES) != _MARK_CONTENT:
            raise OutputError(
                f"cannot write into {output}: it is not empty and does not belong to an earlier evaluation; "
                "choose another folder"
            )
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output}: {one_line(error)}; choose another") from error
    with written_whole(mark) as partial:
        partial.write_text(json.dumps(_MARK_CONTENT) + "\n", encoding="utf-8")


@contextmanager
def _kept_when_interrupted(output: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"interrupted; finished work is kept in {output}; run the same command to resume"
        ) from interrupt


@contextmanager
def _removed_if_unused(output: Path, is_new: bool) -> Iterator[None]:
    """After an error, remove a new folder in which nothing was made."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if is_new and [path.name for path in output.iterdir()] == [_MARK]:
                (output / _MARK).unlink()
                output.rmdir()
        raise


def _plan(
    inputs: EvaluationInputs, output: Path, config: EvaluationConfig, protocol: Protocol, report: Progress
) -> EvaluationPlan:
    found = find_sequences(inputs.data, inputs.opening)
    sequences = []
    for number, (name, path) in enumerate(found.items(), start=1):
        note = f"sequence {number} of {len(found)}: {name}"
        sequences.append(
            prepare_sequence(
                name,
                path,
                output / "simulated",
                opening=inputs.opening,
                video=inputs.video,
                simulator=inputs.simulator,
                seed=config.seed,
                progress=lambda done, total, note=note: report(done, total, f"simulating events, {note}"),  # type: ignore[misc]
            )
        )
        for warning in sequences[-1].info.warnings:
            _log.warning("%s: %s", name, warning)
    windows, notes = plan_windows(sequences, protocol, config.skips or protocol.skips, config.windows)
    for note in notes:
        _log.warning("left out: %s", note)
    return EvaluationPlan(output, protocol, tuple(sequences), tuple(windows), config.seed, tuple(notes))


def _make_truth(plan: EvaluationPlan, loaded: _LoadedSystems, report: Progress) -> str | None:
    """Pass true frames through the first model's autoencoder where the protocol wants it; return its fingerprint."""
    if VAE not in plan.protocol.truths:
        return None
    request = next(request for request in loaded.requests if request.kind == "model")
    workers, dtype = loaded.workers, loaded.inputs.dtype
    truth = load_vae_truth(request, workers.devices[0], dtype)
    making = TruthMaking(plan, request, dtype, truth if workers.kind == "here" else None)
    store = truth_store(plan, truth.fingerprint)
    make_missing(plan, store, making, workers, _noted(report, "ground truth through the autoencoder"))
    return truth.fingerprint


def _make_frames(plan: EvaluationPlan, loaded: _LoadedSystems, report: Progress) -> None:
    for request, info in zip(loaded.requests, loaded.infos, strict=True):
        progress = _noted(report, f"frames of {info.name}")
        make_missing(plan, frame_store(plan, info), loaded.making(plan, request, info), loaded.workers, progress)


def _noted(report: Progress, note: str) -> Callable[[int, int], None]:
    return lambda done, total: report(done, total, note)


def _metric_info(metric: Metric) -> MetricInfo:
    return MetricInfo(**{field.name: getattr(metric, field.name) for field in fields(MetricInfo)})


def _facts_of_frames(plan: EvaluationPlan, systems: Sequence[SystemInfo]) -> tuple[tuple[Timing, ...], list[str]]:
    """How long windows took, and what systems had to say of them, e.g. that one without events was blended."""
    timings: list[Timing] = []
    notes: list[str] = []
    for system in systems:
        store = frame_store(plan, system)
        for record in plan.scored:
            facts = store.facts(record, plan.sequence(record.sequence).info)
            if facts is None:
                continue
            if facts.seconds is not None:
                timings.append(Timing(*record.key, system.name, facts.seconds, facts.is_warm))
            notes += facts.notes
    return tuple(timings), notes


def _settings(inputs: EvaluationInputs, config: EvaluationConfig) -> dict[str, Any]:
    """The whole configuration in words that JSON can hold."""
    raw = {"config": asdict(config), "inputs": asdict(inputs)}
    settings: dict[str, Any] = json.loads(json.dumps(raw, default=str))
    return settings


def write_outputs(plan: EvaluationPlan, results: EvaluationResults) -> None:
    """Write results.json, results.csv and report.html into the plan's folder, in the place of earlier ones.

    Raises:
        OutputError: the disk refuses.
    """
    write_output(plan.folder / RESULTS_FILE, lambda path: write_results(path, results))
    write_output(plan.folder / TABLE_FILE, lambda path: write_csv(path, results))
    with closing(KeptPictures(plan, results.systems)) as pictures:
        write_output(plan.folder / REPORT_FILE, lambda path: write_report(path, results, pictures))
