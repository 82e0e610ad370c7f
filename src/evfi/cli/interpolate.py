"""`evfi interpolate`: a recording goes in, slow-motion video comes out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from evfi.cli.options import make_sampling_options, parse, sampling_overrides
from evfi.cli.progress import ProgressReport
from evfi.engine.memory import parse_memory
from evfi.pipeline.jobs import JobConfig, JobSummary, plan_job, run_job
from evfi.recordings.opening import open_recording
from evfi.recordings.options import RecordingOptions
from evfi.sampling.presets import PresetName

if TYPE_CHECKING:
    SamplingOptions = Any
else:
    SamplingOptions = make_sampling_options()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InterpolateCommand:
    """Turn a recording of key frames and events into slow-motion video.

        evfi interpolate street.aedat4 -o street.mp4 --insert 7

    Attributes:
        recording: a file or folder: AEDAT4, the BS-ERGB layout, the ECD text layout, or frames, events and timestamps side by
            side; what it is is told from its content.
        output: the video to write, an .mp4 file; it is replaced where it exists.
        frames_dir: a folder for all frames as PNG files; key frames are in it bit for bit.
        model: evfi-tiny (in the package), vdm-evfi, vdm-evfi-13, a folder, a zip archive, or a hub id.
        device: auto (the GPU if there is one), cpu, cuda, or cuda:N.
        dtype: precision of the networks; by default float16 on a GPU and float32 on the CPU.
        max_memory: GPU memory that may be taken, as 8GiB; by default what is free. Networks that are not in use wait in the
            host's memory where that is needed.
        preset: exact samples as the model says; balanced and fast take fewer computations and come close to it. Options for
            single settings win over it.
        opening: what the files leave open.
        job: what is made.
        sampling: how it is made.
    """

    recording: tyro.conf.Positional[Path]
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    frames_dir: Path | None = None
    model: str = "evfi-tiny"
    device: str = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    max_memory: str | None = None
    preset: PresetName = "exact"
    opening: RecordingOptions = field(default_factory=RecordingOptions)
    job: JobConfig = field(default_factory=JobConfig)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `interpolate`.
    """
    command = parse(InterpolateCommand, "interpolate", arguments)
    overrides = sampling_overrides(command.sampling)
    limit = None if command.max_memory is None else parse_memory(command.max_memory)
    with open_recording(command.recording, command.opening) as recording:
        for warning in recording.warnings:
            _log.warning("%s", warning)
        job = plan_job(recording, command.output, frames_dir=command.frames_dir, config=command.job)

        from evfi.interpolator import Interpolator  # heavy: not before everything else is known to be well

        interpolator = Interpolator.from_pretrained(
            command.model, command.device, command.dtype, max_memory=limit, preset=command.preset, **overrides
        )
        with ProgressReport("windows") as progress:
            summary = run_job(job, interpolator, progress)
    print(describe(summary))


def describe(summary: JobSummary) -> str:
    """A job's summary for people, several lines."""
    playback = summary.playback
    lines = [
        f"windows   {summary.num_windows}"
        + (f", {summary.num_blended} of them without events: blended" if summary.num_blended else ""),
        f"frames    {summary.num_frames}, {summary.num_inserted} of them new",
        f"time      {summary.seconds:.1f} s, {summary.seconds_per_frame:.2f} s per new frame",
        f"playback  {playback.fps:.4g} fps, {playback.slowdown:.3g} times slower than life",
    ]
    if summary.num_dropped_events:
        lines.append(
            f"events    {summary.num_dropped_events} left out: outside the frame or their interval, or filtered"
        )
    if summary.video is not None:
        lines.append(f"video     {summary.video}")
    if summary.frames_dir is not None:
        lines.append(f"pictures  {summary.frames_dir}")
    return "\n".join(lines)
