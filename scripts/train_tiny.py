"""Train `evfi-tiny`: the settings of every stage, in runs of a few minutes that continue one another.

python scripts/train_tiny.py STAGE RUNS --textures textures.safetensors [--minutes 5] [--steps N] [--validation FOLDER ...]

STAGE is autoencoder, base, controlnet or refiner; RUNS is a folder that gets one run folder per stage. Run the same command
again to resume. `lossy` trains the autoencoder that spoils some of the refiner's predictions (8 px per latent, 4 channels).
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from pathlib import Path

import torch

from evfi.training.config import (
    AutoencoderNetwork,
    AutoencoderTraining,
    BaseTraining,
    ControlNetTraining,
    RefinerTraining,
    TrainConfig,
)
from evfi.training.loop import train


def stage_config(stage: str, runs: Path, arguments: argparse.Namespace) -> TrainConfig:
    """The settings that the shipped model is trained with."""
    textures, minutes = arguments.textures, arguments.minutes
    if stage == "autoencoder":
        config: TrainConfig = AutoencoderTraining(textures, runs / stage, max_minutes=minutes)
    elif stage == "lossy":
        network = AutoencoderNetwork(latent_channels=4, encoder_blocks=(1, 2, 2, 2), decoder_blocks=(2, 2, 2, 1))
        config = AutoencoderTraining(textures, runs / stage, max_minutes=minutes, network=network)
    elif stage == "refiner":
        lossy = arguments.lossy or runs / "lossy" / "model"
        config = RefinerTraining(
            textures,
            runs / stage,
            init=runs / "controlnet" / "model",
            max_minutes=minutes,
            lossy_autoencoder=lossy if lossy.is_dir() else None,
        )
    elif stage == "base":
        config = BaseTraining(textures, runs / stage, init=runs / "autoencoder" / "model", max_minutes=minutes)
    else:
        config = ControlNetTraining(
            textures, runs / "controlnet", init=runs / "base" / "model", max_minutes=minutes, train_base=True
        )
    changes = {"steps": arguments.steps, "batch_size": arguments.batch_size, "cooldown_steps": arguments.cooldown}
    changes |= {"init": arguments.init, "learning_rate": arguments.learning_rate}
    changes |= {"checkpoint_every": 4000, "validate_every": 4000}
    changes |= {"validation": tuple(arguments.validation) or None}
    return dataclasses.replace(config, **{key: value for key, value in changes.items() if value is not None})


def report(step: int, steps: int, loss: float) -> None:
    """Print a line now and then."""
    if step % 500 == 0:
        print(f"{time.strftime('%H:%M:%S')} step {step}/{steps} loss {loss:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("autoencoder", "base", "controlnet", "lossy", "refiner"))
    parser.add_argument("runs", type=Path)
    parser.add_argument("--textures", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--cooldown", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--init", type=Path, help="start from the networks in this folder")
    parser.add_argument("--lossy", type=Path, help="model folder of the autoencoder that spoils predictions")
    parser.add_argument("--validation", type=Path, nargs="*", default=())
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    print(train(stage_config(arguments.stage, arguments.runs, arguments), on_step=report))


if __name__ == "__main__":
    main()
