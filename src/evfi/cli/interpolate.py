"""`evfi interpolate`: a recording goes in, slow-motion video comes out."""

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
    def request(self) -> JobRequest:
        """The job.

        Raises:
            ConfigError: an option is out of range, or some exclude each other.
        """
        from evfi.engine.memory import parse_memory  # all that --help does without is imported once there is a job
        from evfi.pipeline.models import ModelRequest
        from evfi.pipeline.outputs import Targets
        from evfi.pipeline.session import JobRequest

        seed = ["seed"] if self.film.seed != JobConfig.seed else []  # of the diffusion model's noise
        overrides = sampling_overrides(self.sampling, self.preset, seed)
        limit = None if self.max_memory is None else parse_memory(self.max_memory)
        return JobRequest(
            recording=self.recording,
            targets=Targets(self.output, self.frames_dir, self.compare, self.timecodes, self.encoding),
            config=self.film,
            opening=self.opening,
            model=ModelRequest(self.model, self.dtype, limit, self.preset, overrides),
            workers=self.workers,
            devices=self.devices,
            folder=self.job,
            fresh=self.fresh,
            shard=_parse_shard(self.shard),
            merge=self.merge,
            with_report=not self.no_report,
            remove_folder=self.remove_job,
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
        with job_progress(command.progress) as progress:
            summary = session.run(progress)
    progress.done(summary)


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _SHARD.fullmatch(text)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise ConfigError(f"shard must be as 2/5 (the second of five), got '{text}'")
    return number, of
