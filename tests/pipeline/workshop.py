"""Jobs on recordings in memory, run in a folder of the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evfi.events.stream import EventStream
from evfi.pipeline.job import JobSetup, JobSummary, run_job
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_loop import OnState
from evfi.pipeline.job_plan import Job, plan_job
from evfi.pipeline.models import WindowInterpolator, WindowWorker
from evfi.pipeline.outputs import Targets
from evfi.recordings.memory import recording_from_memory
from evfi.recordings.recording import Recording
from evfi.workers.here import ThisProcess
from evfi.workers.plan import MakeScheduler
from evfi.workers.scheduler import Scheduler
from evfi.workers.tasks import OnDeviceStep
from stand_ins import HEIGHT, STEP_US, WIDTH, key_frames


def busy_recording(steps: Sequence[int] = range(5), *, events_per_step: int = 2000) -> Recording:
    """Key frames at some multiples of 40 ms, and events everywhere between them."""
    times = STEP_US * np.asarray(steps)
    generator, count = np.random.default_rng(2), events_per_step * (steps[-1] - steps[0])
    events = EventStream.from_arrays(
        generator.integers(0, WIDTH, count),
        generator.integers(0, HEIGHT, count),
        generator.integers(times[0], times[-1], count),
        generator.choice([-1, 1], count),
        (WIDTH, HEIGHT),
    )
    return recording_from_memory(key_frames(len(steps)), times, events)


@dataclass
class Workshop:
    """Runs jobs of one recording.

    Attributes:
        folder: where all is written.
        recording: the recording.
        most: frames that the model makes at a time.
        settings: of `JobSetup`, for all jobs.
    """

    folder: Path
    recording: Recording = field(default_factory=busy_recording)
    most: int = 2**30
    settings: dict[str, Any] = field(default_factory=dict)

    def targets(self, name: str = "a", **settings: Any) -> Targets:
        """A video and a folder of frames of this name."""
        return Targets(**{"video": self.folder / f"{name}.mp4", "frames_dir": self.folder / name, **settings})

    def job_folder(self, name: str = "a") -> Path:
        """The folder of the job of this name."""
        return self.folder / f"{name}.job"

    def job(self, name: str = "a", config: JobConfig | None = None, targets: Targets | None = None) -> Job:
        """Plan a job."""
        config = config or JobConfig(insert=1)
        return plan_job(self.recording, targets or self.targets(name), config, most=self.most)

    def run(
        self,
        name: str = "a",
        config: JobConfig | None = None,
        *,
        model: WindowInterpolator | None = None,
        scheduler: MakeScheduler | None = None,
        targets: Targets | None = None,
        on_state: OnState | None = None,
        **settings: Any,
    ) -> JobSummary:
        """Run a job; without a model or a scheduler, none must be needed."""
        if scheduler is None:

            def scheduler(on_step: OnDeviceStep | None) -> Scheduler:
                assert model is not None, "work was begun though all is done"
                return Scheduler(ThisProcess(lambda: WindowWorker(model), on_step))

        job = self.job(name, config, targets)
        made_of = {"seed": job.config.seed, "frames made at a time": job.most}
        setup = JobSetup(self.job_folder(name), made_of, lambda: self.recording, **{**self.settings, **settings})
        return run_job(job, setup, scheduler, on_state)


def contents(targets: Targets) -> dict[str, bytes]:
    """All bytes of a video, by what they are."""
    found: dict[str, bytes] = {}
    named = {
        "video": targets.video,
        "frames": targets.frames_dir,
        "comparison": targets.comparison,
        "timecodes": targets.timecodes_file,
    }
    for name, place in named.items():
        if place is not None:
            files = sorted(place.iterdir()) if place.is_dir() else [place]
            found.update({f"{name} {file.name if place.is_dir() else ''}": file.read_bytes() for file in files})
    return found
