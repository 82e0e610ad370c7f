"""`evfi interpolate`: a recording goes in, slow-motion video comes out."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from evfi.cli.job_progress import JobProgress, ProgressMode, job_progress
from evfi.cli.options import make_sampling_options, parse, sampling_overrides
from evfi.engine.memory import parse_memory
from evfi.errors import ConfigError, EvfiError
from evfi.guard import Read
from evfi.pipeline.damaged_pictures import DamagedPictures
from evfi.pipeline.job import JobSetup, JobSummary, run_job
from evfi.pipeline.job_folder import JobFolder
from evfi.pipeline.job_plan import Job, JobConfig, JobSurroundings, check_job_places, plan_job
from evfi.pipeline.models import ModelRequest
from evfi.pipeline.outputs import Targets
from evfi.pipeline.reporting import report_of_job
from evfi.recordings.estimation import estimate_alignment
from evfi.recordings.files import FileWatch, recording_fingerprint
from evfi.recordings.inspection_advice import advise_alignment
from evfi.recordings.opening import open_recording
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording
from evfi.sampling.presets import PresetName
from evfi.video.writer import VideoConfig
from evfi.workers.plan import plan_workers

if TYPE_CHECKING:
    SamplingOptions = Any
else:
    SamplingOptions = make_sampling_options()

_log = logging.getLogger(__name__)

_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class InterpolateCommand:
    """Turn a recording of key frames and events into slow-motion video.

        evfi interpolate street.aedat4 -o street.mp4 --insert 7

    The same command goes on where it was interrupted.

    Attributes:
        recording: a file or folder: AEDAT4, the BS-ERGB layout, the ECD text layout, or frames, events and timestamps side by
            side; what it is is told from its content.
        output: the video to write, .mp4 (H.264 or H.265) or .mkv (lossless); a file, or a link to one, is replaced where it
            exists, unless something is read from it.
        frames_dir: a folder for all frames as PNG files; key frames are in it bit for bit. It must be missing or empty, or hold
            the frames of an earlier run of the same job.
        compare: write a second video beside the first: input held, events and result side by side.
        timecodes: write a text file beside the video that says when each of its frames is shown.
        no_report: write no report.html beside the video.
        model: evfi-tiny (in the package), vdm-evfi, vdm-evfi-13, a folder, a zip archive, or a hub id.
        devices: auto (all GPUs, or the CPU), cpu, cuda (all GPUs), or names as in cuda:0,cuda:1; one worker each.
        workers: local: a process per device; a number: so many processes, which share the devices; here: run in this process,
            on one device; ray: actors of a Ray cluster, one per GPU; ray://ADDRESS: those of the cluster at that address.
        dtype: precision of the networks; by default float16 on a GPU and float32 on the CPU.
        max_memory: GPU memory that may be taken, as 8GiB; by default what is free. Networks that are not in use wait in the
            host's memory where that is needed.
        preset: exact samples as the model says; balanced and fast take fewer computations and come close to it; warp leaves out
            the diffusion model: the refiner works from events and key frames alone, far faster. Options for single settings win
            over it.
        job: the folder that keeps the frames of finished windows; by default a hidden one beside the output.
        fresh: throw away what the job's folder holds.
        shard: as 2/5: do only the second fifth of the windows; runs of all shards with one --job share the work.
        merge: do no work, only write the video of a job whose shards are all done.
        remove_job: remove the job's folder once the video is written.
        progress: auto: a bar on a terminal, now and then a line elsewhere; json: one JSON object per line on stdout; quiet.
        opening: what the files leave open.
        film: what is made.
        encoding: how videos are encoded.
        sampling: how frames are made.
    """

    recording: tyro.conf.Positional[Path]
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    frames_dir: Path | None = None
    compare: bool = False
    timecodes: bool = False
    no_report: bool = False
    model: str = "evfi-tiny"
    devices: Annotated[str, tyro.conf.arg(aliases=("--device",))] = "auto"
    workers: str = "local"
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    max_memory: str | None = None
    preset: PresetName = "exact"
    job: Path | None = None
    fresh: bool = False
    shard: str | None = None
    merge: bool = False
    remove_job: bool = False
    progress: ProgressMode = "auto"
    opening: RecordingOptions = field(default_factory=RecordingOptions)
    film: JobConfig = field(default_factory=JobConfig)
    encoding: VideoConfig = field(default_factory=VideoConfig)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    @property
    def job_folder(self) -> Path:
        """Where finished windows are kept."""
        return self.job or self.targets.default_job

    @property
    def targets(self) -> Targets:
        """What is written."""
        return Targets(self.output, self.frames_dir, self.compare, self.timecodes, self.encoding)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `interpolate`.
    """
    command = parse(InterpolateCommand, "interpolate", arguments)
    seed = ["seed"] if command.film.seed != JobConfig.seed else []  # of the diffusion model's noise
    overrides = sampling_overrides(command.sampling, command.preset, seed)
    limit = None if command.max_memory is None else parse_memory(command.max_memory)
    shard = _parse_shard(command)
    with open_recording(command.recording, command.opening) as recording:
        # all that can be refused without the model
        job = plan_job(recording, command.targets, command.film, surroundings=_surroundings(command))
        if shard is None and not command.merge:
            recording.warnings += _advice_on_alignment(command, recording)
        for warning in recording.warnings:
            _log.warning("%s", warning)

        request = ModelRequest(command.model, command.dtype, limit, command.preset, overrides)
        with job_progress(command.progress) as progress:
            summary, made_of = _run_job(command, job, request, shard, progress)
    try:
        if summary.film is not None and not command.no_report:
            _write_report(command, job, summary, made_of)
        if command.remove_job and shard is None:
            _remove_folder(summary)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; the work is done, but not the report: the same command writes it"
        ) from None
    progress.done(summary)


def _surroundings(command: InterpolateCommand) -> JobSurroundings:
    return JobSurroundings(
        command.job_folder, not command.no_report, (Read(Path(command.model).expanduser(), "the model"),)
    )


def _advice_on_alignment(command: InterpolateCommand, recording: Recording) -> tuple[str, ...]:
    """Whether frames and events seem shifted in time, unless the user has seen to that: about a second of work."""
    options = command.opening
    if options.estimate_offset or options.time_offset_us:
        return ()
    try:
        return tuple(advise_alignment(estimate_alignment(recording, shift=False), 0))
    except EvfiError:
        return ()  # what cannot be read is told of the windows that need it


def _run_job(
    command: InterpolateCommand,
    job: Job,
    request: ModelRequest,
    shard: tuple[int, int] | None,
    progress: JobProgress,
) -> tuple[JobSummary, dict[str, Any]]:

    facts = request.facts()
    models = tuple(Read(place, "the model") for place in facts.places)
    check_job_places(command.targets, replace(_surroundings(command), read=models), ())
    job = job.limited_to(max(1, facts.num_frames - 2))
    workers = plan_workers(command.workers, command.devices)
    setup = _setup(command, job, shard, request.made_of(facts, workers.devices[0]))
    summary = run_job(job, setup, lambda on_step: workers.scheduler(request, on_step), progress)
    return summary, dict(setup.made_of)


def _setup(command: InterpolateCommand, job: Job, shard: tuple[int, int] | None, of_model: dict[str, Any]) -> JobSetup:

    recording = job.recording
    folder = command.job_folder
    ignored = (*command.targets.all, command.targets.report, folder)
    places, pictures = recording.places, recording.frames.paths
    watch = FileWatch(places, ignored, pictures)  # before files are read for their fingerprint
    damaged = DamagedPictures(folder, places)
    stand_ins = {} if command.fresh else damaged.stand_ins()
    made_of = {
        "recording": recording_fingerprint(recording, command.opening, ignored, stand_ins),
        **of_model,
        "seed": job.config.seed,
        "frames made at a time": job.most,
    }
    plain = replace(command.opening, estimate_offset=False, estimate_shift=False)

    def open_again() -> Recording:
        return replace(
            open_recording(command.recording, plain, must_overlap=False), sensor_to_frame=recording.sensor_to_frame
        )

    return JobSetup(
        folder,
        made_of,
        open_again,
        watch,
        fresh=command.fresh,
        shard=shard,
        merge=command.merge,
        with_report=not command.no_report,
        damaged=damaged,
    )


def _parse_shard(command: InterpolateCommand) -> tuple[int, int] | None:
    if command.merge and command.fresh:
        raise ConfigError("--fresh throws away what --merge would put together; leave one of them out")
    if command.shard is None:
        return None
    match = _SHARD.fullmatch(command.shard)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise ConfigError(f"shard must be as 2/5 (the second of five), got '{command.shard}'")
    if command.merge or command.fresh or command.remove_job:
        raise ConfigError("a shard does work and nothing else; leave out --merge, --fresh and --remove-job")
    return number, of


def _write_report(command: InterpolateCommand, job: Job, summary: JobSummary, made_of: dict[str, Any]) -> None:

    settings = {
        "Film": asdict(command.film),
        "Video": asdict(command.encoding),
        "Recording": asdict(command.opening),
        "Made of": {name: value for name, value in made_of.items() if name != "sampling"},
        "Sampling": made_of["sampling"],
    }
    report_of_job(job, summary, command.recording, settings)


def _remove_folder(summary: JobSummary) -> None:

    with JobFolder(summary.folder) as folder:
        folder.remove()
