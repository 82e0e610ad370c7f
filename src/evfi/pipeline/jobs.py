"""Whole recordings: key frames and inserted frames, window by window, into a video and a folder of pictures.

A job is planned first, with every check that needs no model, and then run. What it writes appears when all is done.
A window without a single event is filled by blending its key frames, and counted; if no window has any, that is an error.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, RecordingError
from evfi.pipeline.blending import blend_linearly
from evfi.pipeline.outputs import Outputs
from evfi.pipeline.playback import Playback, plan_playback
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording, Window

Progress = Callable[[float, int], None]
"""Called with (windows done, counting parts of one, windows in all)."""

OnStep = Callable[[int, int], None]


class WindowInterpolator(Protocol):
    """What a job needs of an `evfi.interpolator.Interpolator`."""

    def interpolate_window(self, window: Window, *, seed: int, on_step: OnStep | None) -> NDArray[np.uint8]:
        """Make a window's frames, uint8 [F, H, W, 3], key frames first and last."""


@dataclass(frozen=True)
class JobConfig:
    """What is made of a recording.

    Attributes:
        insert: frames to insert between neighbouring key frames; 7 if neither this nor a slowdown is given.
        slowdown: instead of a number of frames: how many times slower than life the video plays.
        fps: frames per second at playback; by default the recording's key-frame rate, so that N inserted frames play N + 1
            times slower than life. Alone it changes only the speed of the video; with a slowdown, as many frames are
            inserted as that speed needs.
        start: seconds after the first key frame at which to begin (with the window that holds this time).
        end: seconds after the first key frame at which to stop.
        seed: of all random numbers; the same seed gives the same frames.
    """

    insert: int | None = None
    slowdown: float | None = None
    fps: float | None = None
    start: float | None = None
    end: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without a recording.

        Raises:
            ConfigError: A time or the seed is negative or no number.
        """
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be seconds after the first key frame, at least 0, got {value}")
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True, eq=False)
class Job:
    """A planned job.

    Attributes:
        recording: where frames and events come from.
        specs: the windows, in the order of time, each beginning where the one before ends.
        playback: inserted frames and speed.
        outputs: where the frames go.
        seed: of the random numbers.
    """

    recording: Recording
    specs: tuple[WindowSpec, ...]
    playback: Playback
    outputs: Outputs
    seed: int


@dataclass(frozen=True)
class JobSummary:
    """What a job has done.

    Attributes:
        num_windows: windows interpolated.
        num_inserted: frames made.
        num_frames: frames written, key frames included.
        num_blended: windows without events, whose frames are a blend of their key frames.
        num_dropped_events: events of these windows that were left out because they lie outside the frame or their interval.
        seconds: from the first window to the last.
        playback: inserted frames per window, speed and slowdown of the video.
        video: the video, if one was written.
        frames_dir: the folder of pictures, if one was written.
    """

    num_windows: int
    num_inserted: int
    num_frames: int
    num_blended: int
    num_dropped_events: int
    seconds: float
    playback: Playback
    video: Path | None
    frames_dir: Path | None

    @property
    def seconds_per_frame(self) -> float:
        """Mean time that an inserted frame took."""
        return self.seconds / max(self.num_inserted, 1)


def interpolate_recording(
    interpolator: WindowInterpolator,
    recording: Recording,
    output: str | Path | None,
    *,
    frames_dir: str | Path | None = None,
    config: JobConfig | None = None,
    progress: Progress | None = None,
) -> JobSummary:
    """Interpolate a recording into a video, a folder of pictures, or both: `plan_job`, then `run_job`."""
    return run_job(plan_job(recording, output, frames_dir=frames_dir, config=config), interpolator, progress)


def plan_job(
    recording: Recording,
    output: str | Path | None,
    *,
    frames_dir: str | Path | None = None,
    config: JobConfig | None = None,
) -> Job:
    """Lay out a job and make sure that nothing stands in its way.

    Args:
        recording: Key frames and events.
        output: The video to write, ``*.mp4``, or None.
        frames_dir: A folder for PNG pictures, missing or empty, or None.
        config: What to make.

    Raises:
        ConfigError: A setting is out of range or contradicts another.
        RecordingError: No window lies in the part asked for, or none of them has events.
        OutputError: A result cannot be written.
    """
    config = config or JobConfig()
    first_us = int(recording.frames.times_us[0])
    start_us, end_us = (None if at is None else first_us + round(at * 1e6) for at in (config.start, config.end))
    spans = recording.plan_windows(insert=1, start_us=start_us, end_us=end_us)
    duration_us = int(spans[-1].times_us[-1] - spans[0].times_us[0])
    playback = plan_playback(
        len(spans) * 1e6 / duration_us, insert=config.insert, slowdown=config.slowdown, fps=config.fps
    )
    specs = recording.plan_windows(insert=playback.insert, start_us=start_us, end_us=end_us)
    outputs = Outputs(output, frames_dir, recording.frames.size, playback.fps)
    _require_events(recording, specs)
    return Job(recording, tuple(specs), playback, outputs, config.seed)


def run_job(job: Job, interpolator: WindowInterpolator, progress: Progress | None = None) -> JobSummary:
    """Make and write all frames.

    Args:
        job: From `plan_job`; it can be run once.
        interpolator: Makes the frames of a window.
        progress: Called as the work proceeds.

    Raises:
        InputError: The recording turns out to be damaged.
        ResourceError: There is not enough memory.
        OutputError: The disk refuses. In all cases nothing is left behind.
    """
    began = time.perf_counter()
    counts = _Counts()
    total = len(job.specs)
    with job.outputs as outputs:
        for done, spec in enumerate(job.specs):
            window = job.recording.load_window(spec)
            counts.dropped_events += window.events.num_dropped
            frames = _frames_of(window, interpolator, job.seed, step_report(progress, done, total), counts)
            last = done == total - 1
            for frame, time_us in zip(frames if last else frames[:-1], spec.times_us, strict=last):
                outputs.write(frame, int(time_us))
                counts.frames += 1
            if progress is not None:
                progress(done + 1, total)
    seconds = time.perf_counter() - began
    return JobSummary(
        num_windows=total,
        num_inserted=sum(spec.num_inserted for spec in job.specs),
        num_frames=counts.frames,
        num_blended=counts.blended,
        num_dropped_events=counts.dropped_events,
        seconds=seconds,
        playback=job.playback,
        video=job.outputs.video,
        frames_dir=job.outputs.frames_dir,
    )


@dataclass
class _Counts:
    frames: int = 0
    blended: int = 0
    dropped_events: int = 0


def _frames_of(
    window: Window, interpolator: WindowInterpolator, seed: int, on_step: OnStep | None, counts: _Counts
) -> NDArray[np.uint8]:
    if len(window.events):
        return interpolator.interpolate_window(window, seed=seed, on_step=on_step)
    counts.blended += 1
    return blend_linearly(window.start_image, window.end_image, window.spec.times_us)


def step_report(progress: Progress | None, done: int, total: int) -> OnStep | None:
    """Turn steps within a window into progress over all windows.

    Args:
        progress: What to call; None calls nothing.
        done: Windows done before this one.
        total: Windows in all.
    """
    if progress is None:
        return None
    return lambda step, steps: progress(done + step / steps, total)


def _require_events(recording: Recording, specs: list[WindowSpec]) -> None:
    """Raise if no window has any event; reading stops at the first that has."""
    if any(len(recording.read_events(int(spec.times_us[0]), int(spec.times_us[-1]))) for spec in specs):
        return
    first, last = int(specs[0].times_us[0]), int(specs[-1].times_us[-1])
    known = recording.events.time_range_us
    raise RecordingError(
        f"{recording.path}: no events between {first} and {last} µs, where frames shall be inserted; its events lie "
        f"between {known[0]} and {known[1]} µs; choose another part, or check the clocks of frames and events"
    )
