"""`evfi simulate`: make a recording from an ordinary video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from evfi.cli.options import parse
from evfi.cli.progress import ProgressReport
from evfi.cli.terminal import print_lines
from evfi.events.simulate import SimulatorConfig
from evfi.recordings.simulate import simulate_recording


@dataclass(frozen=True)
class SimulateCommand:
    """Make a recording from an ordinary video: some frames become key frames, all are used to simulate events.

        evfi simulate dog.mp4 -o dog --keep-every 8 --height 360

    Attributes:
        video: any video file.
        output: the folder to make; `evfi interpolate` reads it.
        keep_every: keep one frame in this many as a key frame; interpolation must recover the others.
        height: scale frames to this height in px; by default they are not scaled.
        max_frames: use only this many frames from the start of the video.
        seed: seed of the simulated noise; the same seed gives the same events.
        camera: the simulated event camera.
    """

    video: tyro.conf.Positional[Path]
    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    keep_every: int = 8
    height: int | None = None
    max_frames: int | None = None
    seed: int = 0
    camera: SimulatorConfig = field(default_factory=SimulatorConfig)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `simulate`.
    """
    command = parse(SimulateCommand, "simulate", arguments)
    with ProgressReport("frames") as progress:
        result = simulate_recording(
            command.video,
            command.output,
            keep_every=command.keep_every,
            height=command.height,
            max_frames=command.max_frames,
            config=command.camera,
            seed=command.seed,
            progress=progress,
        )
    print_lines(
        f"frames     {result.num_video_frames}, {result.num_key_frames} of them key frames, "
        f"{result.size[0]}×{result.size[1]}",
        f"events     {result.num_events}",
        f"recording  {result.folder}",
    )
