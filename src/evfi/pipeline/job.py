"""Run a planned job in its folder: distribute the work, write the video and the report."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from evfi.errors import JobCancelledError, RecordingError
from evfi.files import entry_of, held_alone, temporary_beside
from evfi.fingerprints import fingerprint_of, fingerprint_of_files
from evfi.pipeline.damaged_pictures import DamagedPictures
from evfi.pipeline.earlier_results import EarlierResults
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.job_folder import JobDescription, JobFolder
from evfi.pipeline.job_loop import CancelledError, JobLoop, LoopConfig, OnState, WorkResult
from evfi.pipeline.job_plan import Job, plan_job
from evfi.pipeline.models import WindowInterpolator, WindowWorker
from evfi.pipeline.outputs import Outputs, Targets
from evfi.pipeline.playback import Playback
from evfi.pipeline.timeline import PlannedWindow
from evfi.pipeline.video_statistics import VideoFacts
from evfi.pipeline.video_thread import VideoSource, VideoThread
from evfi.pipeline.window_store import WindowStore
from evfi.recordings.files import FileWatch
from evfi.recordings.recording import FramesAround, FrameSource, Recording
from evfi.video.geometry import Frame
from evfi.workers.here import ThisProcess
from evfi.workers.plan import MakeScheduler
from evfi.workers.scheduler import Scheduler

_log = logging.getLogger(__name__)

_SETTINGS: Final = "film"  # the key under which job folders have kept the fingerprint of a result's settings ever since
_BEGUN: Final = {_SETTINGS: "", "content": ""}
"""What is noted of a result before it is there whole."""


@dataclass(frozen=True, eq=False)
class JobSetup:
    """Where and how a job is run.

    Attributes:
        folder: the job's folder.
        made_of: all that the frames depend on beside their times, by name; values that JSON can hold.
        open_recording: opens the recording once more, for reading beside the work.
        watch: tells when the recording's files change.
        fresh: throw away what is in the folder.
        shard: (number from 1, of how many): do only this part of the windows, and write no video.
        merge: do no work, only write the video of windows that are done.
        with_report: whether a video without its report beside it counts as not written.
        damaged: remembers pictures that cannot be read, so that the job can be resumed when they are put right.
        advice: what was advised about the recording, for the next run; None where nobody looked.
        is_cancelled: asked now and then whether to stop, also from other threads.
    """

    folder: Path
    made_of: Mapping[str, Any]
    open_recording: Callable[[], AbstractContextManager[Recording]]
    watch: FileWatch | None = None
    fresh: bool = False
    shard: tuple[int, int] | None = None
    merge: bool = False
    with_report: bool = False
    damaged: DamagedPictures | None = None
    advice: tuple[str, ...] | None = None
    is_cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class JobSummary:
    """What a job has done.

    Attributes:
        num_windows: windows with frames made, of this shard if it is one.
        num_kept: those that earlier runs made.
        num_inserted: frames made for them.
        num_frames: frames of the video, key frames included; 0 where none was written.
        num_key_frames: key frames in the part of the recording that is shown, and those shown.
        num_dropped_events: events of these windows that were left out because they lie outside the frame or their interval.
        seconds: this run's time.
        work_s: time that the frames took on their devices, over all runs.
        windows: each window's facts, in order.
        pieces: pieces of work done in this run, per device.
        busy_s: seconds of work in this run, per device.
        playback: inserted frames per window, speed and slowdown of the video.
        is_constant: whether the video has a constant frame rate.
        video_facts: what was gathered while the video was written; None where none was.
        targets: where the video is.
        folder: the job's folder.
        num_bytes: size of what is kept there.
    """

    num_windows: int
    num_kept: int
    num_inserted: int
    num_frames: int
    num_key_frames: tuple[int, int]
    num_dropped_events: int
    seconds: float
    work_s: float
    windows: tuple[WindowFacts, ...]
    pieces: Mapping[str, int]
    busy_s: Mapping[str, float]
    playback: Playback
    is_constant: bool
    video_facts: VideoFacts | None
    targets: Targets
    folder: Path
    num_bytes: int

    @property
    def findings(self) -> Mapping[str, int]:
        """How many windows are unusual, by kind."""
        return Counter(facts.finding for facts in self.windows if facts.finding)

    @property
    def seconds_per_frame(self) -> float:
        """Mean time that an inserted frame took on its device."""
        return self.work_s / max(self.num_inserted, 1)


def run_job(job: Job, setup: JobSetup, make_scheduler: MakeScheduler, on_state: OnState | None = None) -> JobSummary:
    """Do the missing work of a job, and write its video.

    Args:
        job: from `plan_job`.
        setup: where and how.
        make_scheduler: starts whoever does the work; called only if work is missing.
        on_state: called as the work proceeds, also from other threads.

    Raises:
        ConfigError: the folder is of a job with other settings.
        RecordingError: some windows cannot be made from the recording as it is; all others are kept.
        InputError: the recording's files changed or are gone.
        ResourceError: there is not enough memory, or no worker is left.
        OutputError: the disk refuses, or another process works on the job or writes the same folder of frames.
        JobCancelledError: `setup.is_cancelled` said so, or another process asked for it.
        KeyboardInterrupt: with a message that says what is kept and how to resume.
    """
    began = time.perf_counter()
    with JobFolder(setup.folder, setup.shard) as folder, _frames_held(job.targets, setup.shard):
        run = _Run(job, setup, folder, on_state)
        try:
            return run.run(make_scheduler, began)
        except CancelledError as error:
            raise JobCancelledError(run.how_to_resume("cancelled")) from error
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(run.how_to_resume("interrupted")) from error


def _frames_held(targets: Targets, shard: tuple[int, int] | None) -> AbstractContextManager[None]:
    """Keep other jobs from the folder of frames, which cannot be replaced as a file can; a shard writes none."""
    return nullcontext() if targets.frames_dir is None or shard is not None else held_alone(targets.frames_dir)


class _Run:
    """One run of a job, whose folder is locked."""

    def __init__(self, job: Job, setup: JobSetup, folder: JobFolder, on_state: OnState | None) -> None:
        self.job, self.setup, self.folder = job, setup, folder
        description = JobDescription(setup.made_of, _listed(job.timeline.windows))
        problems = folder.claim(description, fresh=setup.fresh)
        if setup.advice is not None:
            problems += folder.keep_advice(setup.made_of["recording"], setup.advice)
        for problem in problems:
            _log.warning("%s", problem)
        self._fingerprint = description.fingerprint
        self.store = WindowStore(folder.windows, self._fingerprint)
        config = LoopConfig(job.most, job.config.seed, job.config.on_gap, job.typical_us)
        windows = _of_shard(job.timeline.windows, setup.shard)
        self.loop = JobLoop(
            job.recording,
            windows,
            self.store,
            config,
            watch=setup.watch,
            on_state=on_state,
            on_window=self._log_window,
            is_cancelled=self._is_cancelled,
        )
        for problem in self.loop.resume():
            _log.warning("%s", problem)

    def run(self, make_scheduler: MakeScheduler, began: float) -> JobSummary:
        """Do the work and write the video."""
        loop, folder = self.loop, self.folder
        folder.log("begun", windows=len(loop.windows), missing=loop.num_missing, shard=self.setup.shard)
        if self.setup.merge and loop.num_missing:
            raise RecordingError(
                f"{loop.num_missing} windows of the job in {folder.path} are not done yet; run the missing shards first, or "
                "leave out --merge to do them here"
            )
        thread = None if self.setup.shard is not None or self._is_up_to_date() else self._video_thread()
        scheduler: Scheduler | None = None
        try:
            scheduler = make_scheduler(loop.on_step) if loop.num_missing else None
            if thread is not None:
                thread.start()
            result = loop.run(scheduler, thread)
            for index, failure in result.failures.items():
                folder.log("failed", window=index, message=failure.message, details=failure.details)
            if result.failures and self.setup.damaged is not None:
                failed = [window.spec for window in self.job.timeline.windows if window.spec.index in result.failures]
                self.setup.damaged.remember(self.job.recording, failed)
            result.raise_failures(f"in {folder.path}")
            facts = thread.finish() if thread is not None else None
        except BaseException as error:
            folder.log("stopped", missing=loop.num_missing, error=f"{type(error).__name__}: {error}")
            raise
        finally:
            if scheduler is not None:
                scheduler.close()
            if thread is not None:
                thread.stop()
        if thread is not None:
            self._remember_results()
        folder.log("done", seconds=round(time.perf_counter() - began, 3))
        return self._summary(result, facts, time.perf_counter() - began)

    def _log_window(self, facts: WindowFacts) -> None:
        self.folder.log("window", index=facts.index, treatment=facts.treatment, seconds=round(facts.seconds, 3))

    def _is_cancelled(self) -> bool:
        return self.setup.is_cancelled() or self.folder.is_cancel_requested()

    def _video_thread(self) -> VideoThread:
        timeline, targets, size = self.job.timeline, self.job.targets, self.job.recording.frames.size
        earlier = EarlierResults(self.folder, timeline, size)
        for problem in earlier.problems:
            _log.warning("%s", problem)
        earlier.check(targets)
        frames_there = earlier.frames_in(targets.frames_dir)
        outputs = Outputs(
            targets, size, timeline.playback.fps, is_constant=timeline.is_constant, earlier_frames=frames_there
        )
        most_frames = max(frames_there, timeline.num_frames)  # a killed run leaves some of either
        begun = {self.folder.name_of(place): {**_BEGUN, **self._count_of(place, most_frames)} for place in targets.all}
        self.folder.keep_results({**earlier.entries, **begun})
        source = VideoSource(timeline, self.loop.tree_of, self.store.read, self.setup.open_recording)
        if self.setup.watch is not None:
            source = replace(source, check_inputs=self.setup.watch.check)
        return VideoThread(source, outputs)

    def how_to_resume(self, what: str) -> str:
        """What to say after an interruption."""
        total = len(_of_shard(self.job.timeline.windows, self.setup.shard))
        done = total - self.loop.num_missing
        return (
            f"{what}; {done} of {total} windows are done and kept in {self.folder.path}: run the same command to resume"
        )

    # results that need not be written again

    def _video_settings(self) -> str:
        """Fingerprint of everything that the video depends on."""
        timeline = self.job.timeline
        shown = [(window.spec.index, window.shows_start, window.shows_end) for window in timeline.windows]
        facts = [asdict(timeline.playback), timeline.is_constant, asdict(self.job.targets.encoding), shown]
        return fingerprint_of([self._fingerprint, facts, self.store.names])

    def _is_up_to_date(self) -> bool:
        if self.loop.num_missing or (self.setup.with_report and not self.job.targets.report.exists()):
            return False
        known, settings = self.folder.results(), self._video_settings()
        for place in self.job.targets.all:
            entry = known.get(self.folder.name_of(place))
            if entry is None or entry[_SETTINGS] != settings or not place.exists():
                return False
            if fingerprint_of_files([place]) != entry["content"]:
                return False
        return True

    def _remember_results(self) -> None:
        settings = self._video_settings()
        self.folder.keep_results(
            {
                self.folder.name_of(place): {
                    _SETTINGS: settings,
                    "content": fingerprint_of_files([place]),
                    **self._count_of(place, self.job.timeline.num_frames),
                }
                for place in self.job.targets.all
            }
        )

    def _count_of(self, place: Path, number: int) -> dict[str, int]:
        """The record of a folder of frames, by which a later run recognises its pictures."""
        return {"frames": number} if place == self.job.targets.frames_dir else {}

    def _summary(self, result: WorkResult, facts: VideoFacts | None, seconds: float) -> JobSummary:
        timeline = self.job.timeline
        windows = tuple(result.facts[index] for index in sorted(result.facts))
        is_whole = self.setup.shard is None
        return JobSummary(
            num_windows=len(windows),
            num_kept=result.num_kept,
            num_inserted=result.num_frames,
            num_frames=timeline.num_frames if is_whole else 0,
            num_key_frames=(timeline.num_key_frames, timeline.num_shown_key_frames),
            num_dropped_events=sum(facts.num_dropped for facts in windows),
            seconds=seconds,
            work_s=sum(facts.seconds for facts in windows),
            windows=windows,
            pieces=result.pieces,
            busy_s=result.busy_s,
            playback=timeline.playback,
            is_constant=timeline.is_constant,
            video_facts=facts,
            targets=self.job.targets,
            folder=self.folder.path,
            num_bytes=self.store.num_bytes,
        )


def interpolate_recording(
    interpolator: WindowInterpolator,
    recording: Recording,
    output: str | Path | None,
    *,
    frames_dir: str | Path | None = None,
    config: JobConfig | None = None,
    on_state: OnState | None = None,
) -> JobSummary:
    """Interpolate an opened recording with a loaded model, in this process, in one go; only the video is kept.

    Args:
        interpolator: makes the frames of a window.
        recording: key frames and events.
        output: the video to write, ``*.mp4`` or ``*.mkv``, or None; a file, or a link to one, is replaced where it exists,
            unless the recording is read from it.
        frames_dir: a folder for PNG pictures, missing or empty and no link, or None.
        config: what to make.
        on_state: called as the work proceeds.

    Raises:
        EvfiError: as `plan_job` and `run_job`; nothing is left behind.
    """
    video, folder = (None if place is None else Path(place) for place in (output, frames_dir))
    targets = Targets(video, folder)
    shared = replace(recording, frames=_OneAtATime(recording.frames))
    job = plan_job(shared, targets, config)
    with temporary_beside(entry_of(targets.main)) as scratch:
        setup = JobSetup(scratch, {}, lambda: nullcontext(shared))
        return run_job(
            job, setup, lambda on_step: Scheduler(ThisProcess(lambda: WindowWorker(interpolator), on_step)), on_state
        )


class _OneAtATime(FramesAround):
    """Frames of a source that may be in the middle of a video when another thread asks for one."""

    def __init__(self, frames: FrameSource) -> None:
        super().__init__(frames)
        self._lock = threading.Lock()
        self._size, self._is_grey = frames.size, frames.is_grey  # they may be read from frames

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every frame."""
        return self._size

    @property
    def is_grey(self) -> bool:
        """Whether the frames are grey."""
        return self._is_grey

    def read(self, index: int) -> Frame:
        """Frame `index`."""
        with self._lock:
            return self._frames.read(index)


def _listed(windows: Collection[PlannedWindow]) -> tuple[tuple[int, int, int, tuple[int, ...]], ...]:
    return tuple(
        (spec.index, spec.start_frame, spec.end_frame, tuple(int(time) for time in spec.times_us))
        for spec in (window.spec for window in windows)
    )


def _of_shard(windows: tuple[PlannedWindow, ...], shard: tuple[int, int] | None) -> tuple[PlannedWindow, ...]:
    """The windows of one shard: a stretch of the recording."""
    if shard is None:
        return windows
    number, of = shard
    return windows[len(windows) * (number - 1) // of : len(windows) * number // of]
