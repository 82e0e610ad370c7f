"""Build a job's report from its results."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from evfi.pipeline.job import JobSummary
from evfi.pipeline.job_plan import Job
from evfi.pipeline.job_report import JobReport, write_job_report


def report_of_job(job: Job, summary: JobSummary, path: Path, settings: Mapping[str, Mapping[str, object]]) -> None:
    """Write a job's report next to its video.

    Args:
        job: what was planned.
        summary: what was done.
        path: the recording, as the user named it.
        settings: values by name, by group.

    Raises:
        OutputError: the disk refuses.
    """
    playback = summary.playback
    rate = "constant frame rate" if summary.is_constant else "variable frame rate"
    targets = summary.targets
    named = {
        "Video": targets.video,
        "Frames": targets.frames_dir,
        "Comparison": targets.comparison,
        "Times": targets.timecodes_file,
        "Job": summary.folder,
    }
    devices = {device: (number, summary.busy_s.get(device, 0.0)) for device, number in summary.pieces.items()}
    write_job_report(
        targets.report,
        JobReport(
            title=path.absolute().name,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            settings=settings,
            outputs={name: str(place) for name, place in named.items() if place is not None},
            windows=summary.windows,
            video=summary.video_facts,
            seconds=summary.seconds,
            seconds_before=max(0.0, summary.work_s - sum(summary.busy_s.values())),
            playback=f"{playback.fps:.4g} frames per second ({rate}), {playback.speed}",
            warnings=job.recording.warnings,
            devices=devices,
        ),
    )
