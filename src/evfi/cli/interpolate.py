"""`evfi interpolate`: turn a recording into slow-motion video."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from evfi.cli.job_progress import ProgressMode, job_progress
from evfi.cli.options import make_sampling_options, parse, sampling_overrides
from evfi.errors import ConfigError
from evfi.pipeline.job_config import JobConfig
from evfi.recordings.options import RecordingOptions
from evfi.sampling.presets import PresetName
from evfi.video.writer import VideoConfig

if TYPE_CHECKING:
    from evfi.pipeline.session import JobRequest

    SamplingOptions = Any
else:
    SamplingOptions = make_sampling_options()

_log = logging.getLogger(__name__)

_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class JobOptions:
    """How the work is done and kept.

    Attributes:
        workers: local: one process per device; a number: this many processes, which share the devices; here: in this process,
            on one device; ray: actors of a Ray cluster, one per GPU; ray://ADDRESS: those of the cluster at that address.
        dtype: precision of the networks; by default float16 on a GPU and float32 on the CPU.
        max_memory: limit of GPU memory, such as 8GiB; by default what is free. Networks that are not in use are moved to the
            host's memory if necessary.
        job: the folder that keeps the frames of finished windows; by default a hidden folder next to the output.
        fresh: discard what the job's folder holds and start again.
        shard: 2/5, for example, makes only the second fifth of the windows; give all shards the same --job to share the work.
        merge: make no frames, only write the video of a job whose shards are all done.
        remove_job: remove the job's folder once the video is written.
        progress: auto: a progress bar on a terminal, occasional lines elsewhere; json: one JSON object per line on
            stdout; or quiet.
    """

    workers: str = "local"
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    max_memory: str | None = None
    job: Path | None = None
    fresh: bool = False
    shard: str | None = None
    merge: bool = False
    remove_job: bool = False
    progress: ProgressMode = "auto"


@dataclass(frozen=True)
class InterpolateCommand:
    """Turn a recording of key frames and events into slow-motion video.

        evfi interpolate street.aedat4 -o street.mp4 --insert 7

    Run the same command to resume after an interruption.

    Attributes:
        recording: a file or folder; its format is detected from the content: AEDAT4, ROS 1 or ROS 2 bags, HDF5 (event_utils,
            MVSEC), DSEC, BS-ERGB, HS-ERGB, HQ-EVFI and the other datasets of docs/datasets.md, ECD text, or frames (pictures
            or a video) with an event file: AEDAT4, Prophesee RAW or DAT, HDF5, NPZ, ES, ROS bag, text or CSV.
        output: the video to write: .mp4 (H.264 or H.265) or .mkv (lossless). An existing file is replaced, unless it is an
            input.
        frames_dir: a folder for all frames as PNG files; key frames are copied bit for bit. It must be missing, empty, or hold
            the frames of an earlier run of the same job.
        model: evfi-tiny (in the package), vdm-evfi, vdm-evfi-13, a folder, a zip archive, or a hub id.
        preset: exact samples with the model's own settings; balanced and fast need fewer
            computations, with nearly the same result; warp leaves out the diffusion model: the refiner works from events and
            key frames alone, which is much faster. Single settings override it.
        devices: auto (all GPUs, or the CPU if there is none), cpu, cuda (all GPUs), or names such as cuda:0,cuda:1; one worker
            each.
        compare: write a second video next to the first: input, events and result side by side.
        timecodes: write a text file next to the video with the time of each frame.
        no_report: do not write an HTML report next to the video.
        frame_options: which frames to make, and how fast to play them.
        execution: how the work is done and kept.
        opening: what the input files leave out or state wrongly.
        encoding: how videos are encoded.
        sampling: how the model samples.
    """

    recording: tyro.conf.Positional[Path]
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    frames_dir: Path | None = None
    model: str = "evfi-tiny"
    preset: PresetName = "exact"
    devices: Annotated[str, tyro.conf.arg(aliases=("--device",))] = "auto"
    compare: bool = False
    timecodes: bool = False
    no_report: bool = False
    frame_options: Annotated[JobConfig, tyro.conf.arg(name="frame")] = field(default_factory=JobConfig)
    opening: Annotated[RecordingOptions, tyro.conf.arg(name="input")] = field(default_factory=RecordingOptions)
    encoding: Annotated[VideoConfig, tyro.conf.arg(name="video")] = field(default_factory=VideoConfig)
    execution: Annotated[JobOptions, tyro.conf.arg(name="job")] = field(default_factory=JobOptions)
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="advanced")] = field(default_factory=SamplingOptions)

    @property
    def request(self) -> JobRequest:
        """The job.

        Raises:
            ConfigError: an option is out of range, or some exclude each other.
        """
        from evfi.engine.memory import parse_memory  # all that --help does without is imported once there is a job
        from evfi.pipeline.models import ModelRequest
        from evfi.pipeline.outputs import Targets
        from evfi.pipeline.session import JobRequest

        seed = ["seed"] if self.frame_options.seed != JobConfig.seed else []  # of the diffusion model's noise
        overrides = sampling_overrides(self.sampling, self.preset, seed)
        limit = None if self.execution.max_memory is None else parse_memory(self.execution.max_memory)
        return JobRequest(
            recording=self.recording,
            targets=Targets(self.output, self.frames_dir, self.compare, self.timecodes, self.encoding),
            config=self.frame_options,
            opening=self.opening,
            model=ModelRequest(self.model, self.execution.dtype, limit, self.preset, overrides),
            workers=self.execution.workers,
            devices=self.devices,
            folder=self.execution.job,
            fresh=self.execution.fresh,
            shard=_parse_shard(self.execution.shard),
            merge=self.execution.merge,
            with_report=not self.no_report,
            remove_folder=self.execution.remove_job,
        )


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `interpolate`.
    """
    command = parse(InterpolateCommand, "interpolate", arguments)
    request = command.request

    from evfi.pipeline.session import JobSession

    with JobSession(request) as session:
        for warning in session.recording.warnings:
            _log.warning("%s", warning)
        with job_progress(command.execution.progress) as progress:
            summary = session.run(progress)
    progress.done(summary)


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SHARD.fullmatch(text)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise ConfigError(f"shard must have the form 2/5 (the second of five), got '{text}'")
    return number, of
