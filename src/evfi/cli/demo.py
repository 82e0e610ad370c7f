"""`evfi demo`: try evfi without files of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from evfi.cli.options import parse
from evfi.cli.progress import ProgressReport
from evfi.cli.terminal import print_lines
from evfi.demo.folder import PICTURE, RECORDING, VIDEO, prepare_folder
from evfi.demo.recording import DemoConfig
from evfi.demo.run import DemoSummary, run_demo
from evfi.guard import Read, Written, check_places
from evfi.paths import expanded


@dataclass(frozen=True)
class DemoCommand:
    """Render a short scene with known in-between frames, record it with a simulated event camera, and interpolate it.

        evfi demo

    Attributes:
        output: folder for the video, the picture and the recording. Results of an earlier demo are replaced if they are
            unchanged; nothing else is.
        model: as in `evfi interpolate`.
        device: as in `evfi interpolate`.
        scene: the synthetic recording.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("evfi-demo")
    model: str = "evfi-tiny"
    device: str = "cpu"
    scene: DemoConfig = field(default_factory=DemoConfig)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `demo`.
    """
    command = parse(DemoCommand, "demo", arguments)
    prepare_folder(command.output)
    written = [Written(command.output / name, f"the demo's {name}", "store") for name in (VIDEO, PICTURE, RECORDING)]
    check_places(written, [Read(expanded(command.model), "the model")])

    from evfi.interpolator import Interpolator

    interpolator = Interpolator.from_pretrained(command.model, command.device)
    with ProgressReport("windows") as progress:
        summary = run_demo(
            command.output, interpolator, name=interpolator.bundle.info.name, config=command.scene, progress=progress
        )
    print_lines(*describe(summary, interpolator.bundle.info.name))


def describe(summary: DemoSummary, name: str) -> list[str]:
    """The demo's results for people, line by line."""
    rows = [("", "whole frame", "moving parts")]
    for title, scores in ((name, summary.ours), ("linear blending", summary.blending)):
        rows.append((title, f"{scores.whole:.2f} dB", f"{scores.moving:.2f} dB"))
    return [
        f"{summary.num_inserted} frames inserted in {summary.seconds:.0f} s; mean PSNR against the ground truth:",
        *(f"  {title:16}{whole:>12}{moving:>14}" for title, whole, moving in rows),
        f"video      {summary.video}",
        f"picture    {summary.picture}",
        f"recording  {summary.recording}  (try: evfi interpolate {summary.recording} -o slow.mp4 --insert 15)",
    ]
