"""A whole job in one call: open the recording, plan, run or resume, report.

`evfi interpolate` is this and its options; Python users call `interpolate`. What another process needs in order to watch or
cancel a job is in `watching`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evfi.errors import ConfigError, EvfiError
from evfi.guard import Read
from evfi.paths import expanded
from evfi.pipeline.damaged_pictures import DamagedPictures
from evfi.pipeline.job import JobSetup, JobSummary, run_job
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_folder import JobFolder
from evfi.pipeline.job_loop import OnState
from evfi.pipeline.job_plan import Job, JobSurroundings, check_job_places, plan_job
from evfi.pipeline.models import ModelRequest
from evfi.pipeline.outputs import Targets
from evfi.pipeline.reporting import report_of_job
from evfi.recordings.estimation import estimate_alignment
from evfi.recordings.files import FileWatch, recording_fingerprint
from evfi.recordings.inspection_advice import advise_alignment
from evfi.recordings.opening import open_recording
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording
from evfi.workers.plan import plan_workers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobRequest:
    """A job: from which recording, by which model, to which results.

    Attributes:
        recording: a file or folder of any supported format.
        targets: what is written.
        config: which frames are made.
        opening: how the recording is read.
        model: which model, and how it samples.
        workers: see `evfi.workers.plan.plan_workers`.
        devices: likewise.
        folder: keeps the frames of finished windows; by default a hidden folder next to the output.
        fresh: throw away what the folder holds.
        shard: (number from 1, of how many): make only the frames of this part of the windows.
        merge: make no frames, only write the video of a job whose shards are all done.
        with_report: write an HTML report next to the video.
        remove_folder: remove the job's folder once the video is written.
    """

    recording: Path
    targets: Targets
    config: JobConfig = field(default_factory=JobConfig)
    opening: RecordingOptions = field(default_factory=RecordingOptions)
    model: ModelRequest = field(default_factory=ModelRequest)
    workers: str | int = "local"
    devices: str = "auto"
    folder: Path | None = None
    fresh: bool = False
    shard: tuple[int, int] | None = None
    merge: bool = False
    with_report: bool = True
    remove_folder: bool = False

    def __post_init__(self) -> None:
        """Check options that exclude each other, and types.

        Raises:
            ConfigError: some do, or a value is of another type.
        """
        for name, kind in (
            ("targets", Targets),
            ("config", JobConfig),
            ("opening", RecordingOptions),
            ("devices", str),
        ):
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigError(f"{name} must be of type {kind.__name__}, got {value!r}")
        if not isinstance(getattr(self.model, "name", None), str):
            raise ConfigError(f"model must be a name or a ModelRequest, got {self.model!r}")
        if self.merge and self.fresh:
            raise ConfigError("--fresh discards the windows that --merge combines; leave out one of them")
        if self.shard is not None and (self.merge or self.fresh or self.remove_folder):
            raise ConfigError("--shard only makes frames; leave out --merge, --fresh and --remove-job")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise ConfigError(f"shard must have the form (2, 5), the second of five, got {self.shard}")

    @property
    def job_folder(self) -> Path:
        """Where finished windows are kept."""
        return self.folder or self.targets.default_job


class JobSession:
    """A planned job whose recording is open; use it as a context manager.

    Attributes:
        request: what was asked for.
        recording: the opened recording, with warnings.
        job: the plan.
    """

    def __init__(self, request: JobRequest) -> None:
        """Open the recording and check all that can be checked without the model.

        Args:
            request: what is asked for.

        Raises:
            InputError: the recording cannot be read.
            RecordingError: it cannot be used for this.
            ConfigError: a setting is out of range or contradicts another, or two results have the same place.
            OutputError: a result cannot be written, or would replace what is read or somebody else's file.
        """
        self.request = request
        self._cancelled = threading.Event()
        with ExitStack() as stack:
            self.recording = stack.enter_context(open_recording(request.recording, request.opening))
            model = Read(expanded(request.model.name), "the model")
            self.job = plan_job(
                self.recording, request.targets, request.config, surroundings=self._surroundings((model,))
            )
            self._inputs = self._read_inputs()
            self._advice = self._advise() if request.shard is None and not request.merge else None
            self.recording.warnings += self._advice or ()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the recording."""
        self._stack.close()

    def cancel(self) -> None:
        """Stop `run`, from any thread; what is finished is kept, and the same request resumes it."""
        self._cancelled.set()

    def run(self, on_state: OnState | None = None) -> JobSummary:
        """Make the frames that are missing, and write video and report.

        Args:
            on_state: called with the job's progress, also from other threads; what it raises stops the job.

        Raises:
            EvfiError: see `evfi.pipeline.job.run_job`; finished windows are kept.
            JobCancelledError: `cancel` was called, here or by `evfi.pipeline.watching.cancel_job`.
            KeyboardInterrupt: with a message that says what is kept and how to resume.
        """
        request = self.request
        facts = request.model.facts()
        models = tuple(Read(place, "the model") for place in facts.places)
        check_job_places(request.targets, self._surroundings(models), ())
        job = self.job = self.job.limited_to(max(1, facts.num_frames - 2))
        workers = plan_workers(str(request.workers), request.devices)
        setup = self._setup(job, request.model.made_of(facts, workers.devices[0]))
        summary = run_job(job, setup, lambda on_step: workers.scheduler(request.model, on_step), on_state)
        try:
            if summary.video_facts is not None and request.with_report:
                report_of_job(job, summary, request.recording, self._settings(setup.made_of))
            if request.remove_folder:
                with JobFolder(summary.folder) as folder:
                    folder.remove()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "interrupted; the video is written, but not the report; run the same command again to write it"
            ) from None
        return summary

    def _surroundings(self, read: tuple[Read, ...]) -> JobSurroundings:
        return JobSurroundings(self.request.job_folder, self.request.with_report, read)

    def _setup(self, job: Job, of_model: Mapping[str, Any]) -> JobSetup:
        request = self.request
        made_of = {
            "recording": self._inputs.fingerprint,
            **of_model,
            "seed": job.config.seed,
            "frames made at a time": job.most,
        }
        return JobSetup(
            request.job_folder,
            made_of,
            self._open_again,
            self._inputs.watch,
            fresh=request.fresh,
            shard=request.shard,
            merge=request.merge,
            with_report=request.with_report,
            damaged=self._inputs.damaged,
            advice=self._advice,
            is_cancelled=self._cancelled.is_set,
        )

    def _read_inputs(self) -> _Inputs:
        request, recording, folder = self.request, self.recording, self.request.job_folder
        ignored = (*request.targets.all, request.targets.report, folder)
        places = recording.places
        watch = FileWatch(places, ignored, recording.frames.paths)  # before files are read for their fingerprint
        damaged = DamagedPictures(folder, places)
        stand_ins = {} if request.fresh else damaged.stand_ins()
        fingerprint = recording_fingerprint(recording, request.opening, ignored, stand_ins)
        return _Inputs(watch, damaged, fingerprint)

    def _advise(self) -> tuple[str, ...]:
        """Whether frames and events seem shifted in time, unless the user has seen to that.

        It takes about a second, so a job remembers it.
        """
        opening = self.request.opening
        if opening.estimate_offset or opening.time_offset_us:
            return ()
        kept = JobFolder(self.request.job_folder).advice(self._inputs.fingerprint)
        if kept is not None:
            return kept
        try:
            return tuple(advise_alignment(estimate_alignment(self.recording, shift=False), 0))
        except EvfiError:
            return ()  # what cannot be read is an error of the windows that need it

    def _open_again(self) -> Recording:
        plain = replace(self.request.opening, estimate_offset=False, estimate_shift=False)
        again = open_recording(self.request.recording, plain, must_overlap=False)
        return replace(again, sensor_to_frame=self.recording.sensor_to_frame)

    def _settings(self, made_of: Mapping[str, Any]) -> dict[str, Any]:
        """For the report."""
        request = self.request
        return {
            "Job": asdict(request.config),
            "Video": asdict(request.targets.encoding),
            "Recording": asdict(request.opening),
            "Made of": {name: value for name, value in made_of.items() if name != "sampling"},
            "Sampling": made_of["sampling"],
        }


@dataclass(frozen=True)
class _Inputs:
    """What is known of a recording's files: whether they change, which are damaged, and what they hold."""

    watch: FileWatch
    damaged: DamagedPictures
    fingerprint: str


def interpolate(
    recording: str | Path,
    output: str | Path | None = None,
    *,
    insert: int | None = None,
    frames_dir: str | Path | None = None,
    model: str | ModelRequest = "evfi-tiny",
    on_state: OnState | None = None,
    **settings: Any,
) -> JobSummary:
    """Turn a recording of key frames and events into slow-motion video; call it again to resume.

    Args:
        recording: a file or folder of any supported format.
        output: the video to write, ``*.mp4`` or ``*.mkv``, or None.
        insert: frames between two key frames; 7 by default.
        frames_dir: a folder for all frames as PNG pictures, or None.
        model: evfi-tiny, vdm-evfi, vdm-evfi-13, a folder, a zip archive, or a hub id; or a request with settings.
        on_state: called with the job's progress, also from other threads.
        settings: further fields of `JobRequest`.

    Returns:
        What was made, and where it is.

    Raises:
        EvfiError: something is wrong with recording, settings, model or disk; finished windows are kept.

    Example:
        >>> if __name__ == "__main__":  # worker processes import the script
        ...     evfi.interpolate("street.aedat4", "street.mp4", insert=7)  # doctest: +SKIP
    """
    video, folder = (None if place is None else Path(place) for place in (output, frames_dir))
    request = JobRequest(
        Path(recording),
        settings.pop("targets", None) or Targets(video, folder),
        settings.pop("config", None) or JobConfig(insert=insert),
        model=ModelRequest(model) if isinstance(model, str) else model,
        **settings,
    )
    with JobSession(request) as session:
        for warning in session.recording.warnings:
            _log.warning("%s", warning)
        return session.run(on_state)
