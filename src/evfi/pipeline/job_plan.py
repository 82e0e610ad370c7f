"""Plan the interpolation of a whole recording, window by window, into a video.

A job is planned first, with every check that needs no model, and then run in a folder of its own, which keeps the frames of
each window as they are made. The video is put together from these while later windows are still being made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from evfi.errors import ConfigError, OutputError, RecordingError
from evfi.events.stream import MAX_ABS_TIME_US
from evfi.files import entry_of, one_line
from evfi.guard import Read, Written, check_places
from evfi.limits import check_sensor
from evfi.paths import read_bytes
from evfi.pipeline.earlier_results import known_results
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_folder import JobFolder, check_job_folder
from evfi.pipeline.outputs import Outputs, Targets
from evfi.pipeline.timeline import PlannedWindow, Timeline, plan_timeline
from evfi.pipeline.window_checks import find_time_gaps, typical_interval_us
from evfi.recordings.files import recording_reads
from evfi.recordings.recording import Recording
from evfi.report.document import is_page

_MAX_TIMES_BYTES: Final = 2**24
_NAMED_GAPS: Final = 3


@dataclass(frozen=True, eq=False)
class Job:
    """A planned job.

    Attributes:
        recording: where frames and events come from.
        timeline: the video's frames.
        targets: where they go.
        config: what was asked for.
        most: frames that the model makes at a time.
        typical_us: usual distance of key frames.
    """

    recording: Recording
    timeline: Timeline
    targets: Targets
    config: JobConfig
    most: int
    typical_us: int

    def limited_to(self, most: int) -> Job:
        """The same job for a model that makes this many frames at once, unless the user set another number."""
        return replace(self, most=self.config.max_insert or most)


@dataclass(frozen=True)
class JobSurroundings:
    """What a job writes and reads in addition to its results and its recording.

    Attributes:
        folder: the job's folder, or None where it is made for this run alone.
        has_report: whether a report is written.
        read: further things that are read, e.g. the model.
    """

    folder: Path | None = None
    has_report: bool = False
    read: tuple[Read, ...] = ()


def plan_job(
    recording: Recording,
    targets: Targets,
    config: JobConfig | None = None,
    *,
    most: int = 2**30,
    surroundings: JobSurroundings | None = None,
) -> Job:
    """Lay out a job and make sure that nothing stands in its way.

    Args:
        recording: key frames and events.
        targets: what to write.
        config: what to make.
        most: frames that the model makes at a time, where `config` does not say it.
        surroundings: what else is written and read.

    Raises:
        ConfigError: a setting is out of range or contradicts another, or two results have the same place.
        RecordingError: no window lies in the part asked for, none of them has events, or key frames are missing for long
            and gaps shall fail.
        OutputError: a result cannot be written, or would take the place of what is read or of somebody else's file.
    """
    config = config or JobConfig()
    check_job_places(targets, surroundings or JobSurroundings(), [*recording_reads(recording), *_reads_of(config)])
    check_sensor(str(recording.path), recording.events.sensor_size)
    times_us = recording.frames.times_us
    start_us, end_us = (None if at is None else int(times_us[0]) + round(at * 1e6) for at in (config.start, config.end))
    timeline = plan_timeline(
        times_us,
        insert=config.insert,
        slowdown=config.slowdown,
        fps=config.fps,
        times_us=None if config.times is None else read_times(config.times),
        start_us=start_us,
        end_us=end_us,
    )
    typical_us = typical_interval_us(times_us)
    outputs = Outputs(
        targets,
        recording.frames.size,
        timeline.playback.fps,
        is_constant=timeline.is_constant,
        may_exist=True,
    )
    if not timeline.is_constant:
        outputs.check_step(timeline.smallest_step_us)
        outputs.check_longest(timeline)
    _require_events(recording, timeline.windows)
    if config.on_gap == "fail":
        _refuse_time_gaps(recording, timeline.windows, typical_us)
    return Job(recording, timeline, targets, config, most, typical_us).limited_to(most)


def read_times(path: Path) -> list[int]:
    """Read output times: one whole number of µs per line; empty lines and those that begin with # say nothing.

    Raises:
        ConfigError: the file cannot be read or holds something else.
    """
    try:
        lines = read_bytes(path, _MAX_TIMES_BYTES).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the output times {path}: {one_line(error)}; name a text file") from error
    times = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            times.append(int(text))
        except ValueError:
            raise ConfigError(f"{path}, line {number}: expected a whole number of µs, found '{text[:40]}'") from None
        if abs(times[-1]) > MAX_ABS_TIME_US:
            raise ConfigError(f"{path}, line {number}: expected a time within ±2^61 µs, found '{text[:40]}'")
    if not times:
        raise ConfigError(f"{path} holds no times; give one per line, in µs")
    return times


def check_job_places(targets: Targets, surroundings: JobSurroundings, read: Sequence[Read]) -> None:
    """Make sure that a job writes over nothing that it reads, and nothing of somebody else's.

    Args:
        targets: what is written.
        surroundings: what else is written and read.
        read: what is read beside that.

    Raises:
        ConfigError: two results have the same place.
        OutputError: a result would take the place of something, or cannot be written.
    """
    folder, known = surroundings.folder, dict[Path, Any]()
    written = []
    if folder is not None:
        try:
            is_job = check_job_folder(folder)
        except OSError as error:
            raise OutputError(f"cannot use the job folder {folder}: {one_line(error)}; choose another") from error
        written.append(Written(folder, "the job's folder", "store", is_ours=is_job))
        known = known_results(JobFolder(folder))
    for name, place in targets.named.items():
        kind: Literal["store", "file"] = "store" if place == targets.frames_dir else "file"
        written.append(Written(place, name, kind, is_ours=entry_of(place) in known))
    if surroundings.has_report:
        written.append(Written(targets.report, "the report", is_ours=is_page(targets.report), is_named=False))
    check_places(written, [*surroundings.read, *read])


def _reads_of(config: JobConfig) -> list[Read]:
    return [] if config.times is None else [Read(config.times, "the list of output times")]


def _require_events(recording: Recording, windows: tuple[PlannedWindow, ...]) -> None:
    """Raise if no window has any event; reading stops at the first that has."""
    spans = [
        (int(window.spec.times_us[0]), int(window.spec.times_us[-1])) for window in windows if window.spec.num_inserted
    ]
    num_dropped = 0
    for span in spans:
        events = recording.read_events(*span)
        if len(events):
            return
        num_dropped += events.num_dropped
    if not spans:
        return
    if num_dropped:
        width, height = recording.events.sensor_size
        raise RecordingError(
            f"{recording.path}: all {num_dropped} events where frames are to be inserted lie outside the sensor "
            f"({width}×{height}); correct its size where it is declared, or with --sensor-size"
        )
    known = recording.events.time_range_us
    raise RecordingError(
        f"{recording.path}: no events between {spans[0][0]} and {spans[-1][1]} µs, where frames are to be inserted; its "
        f"events lie between {known[0]} and {known[1]} µs; choose another part, or check the clocks of frames and events"
    )


def _refuse_time_gaps(recording: Recording, windows: tuple[PlannedWindow, ...], typical_us: int) -> None:
    edges = np.array([window.spec.times_us[[0, -1]] for window in windows if window.spec.num_inserted])
    found = [edge for edge in edges if len(find_time_gaps(edge, typical_us))]
    if found:
        number = f"{len(found)} gaps" if len(found) > 1 else "a gap"
        told = ", ".join(f"{start} to {end}" for start, end in found[:_NAMED_GAPS])
        raise RecordingError(
            f"{recording.path}: {number} between key frames, at {told} µs{' …' if len(found) > _NAMED_GAPS else ''}; "
            "choose what to show there: --on-gap hold, blend or interpolate"
        )
