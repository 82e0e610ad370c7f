"""`evfi train`: train one of a model's four parts, or continue its training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from evfi.cli.options import parse
from evfi.cli.progress import ProgressReport
from evfi.cli.terminal import print_lines
from evfi.training.config import AutoencoderTraining, BaseTraining, ControlNetTraining, RefinerTraining


@dataclass(frozen=True)
class TrainCommand:
    """Train one of a model's four parts; run the same command again to resume a run that was interrupted.

    The parts build on each other: train the autoencoder, then base with --init naming the autoencoder's model, then
    controlnet with --init naming that of base, then refiner with --init naming that of controlnet.

    Attributes:
        stage: the part to train.
    """

    stage: (
        Annotated[AutoencoderTraining, tyro.conf.subcommand(name="autoencoder")]
        | Annotated[BaseTraining, tyro.conf.subcommand(name="base")]
        | Annotated[ControlNetTraining, tyro.conf.subcommand(name="controlnet")]
        | Annotated[RefinerTraining, tyro.conf.subcommand(name="refiner")]
    )


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `train`.
    """
    command = parse(TrainCommand, "train", arguments, for_experts=True)

    from evfi.training.loop import train

    with ProgressReport("steps") as progress:
        summary = train(command.stage, on_step=lambda step, steps, loss: progress(step, steps, _loss_note(loss)))
    state = "finished" if summary.finished else "stopped; run the same command to resume"
    lines = [f"steps   {summary.steps}, {state}", f"model   {summary.model}"]
    lines += [f"{name}   {value:.4g}" for name, value in summary.figures.items()]
    print_lines(*lines)


def _loss_note(loss: float) -> str:
    """What the progress shows of the loss; nothing before the first one is known."""
    return "" if math.isnan(loss) else f"loss {loss:.4f}"
