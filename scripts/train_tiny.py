"""Train `evfi-tiny`: the settings of every stage, in runs of a few minutes that continue one another.

python scripts/train_tiny.py STAGE RUNS --textures textures.safetensors [--minutes 5] [--steps N] [--validation FOLDER ...]

STAGE is autoencoder, base or controlnet; RUNS is a folder that gets one run folder per stage. The same command goes on
where the last one stopped. `profile` times the parts of a step instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import torch

from evfi.training.batches import StepKey
from evfi.training.checkpoint import trained
from evfi.training.config import AutoencoderTraining, BaseTraining, ControlNetTraining, TrainConfig
from evfi.training.loop import train
from evfi.training.stages import build_stage
from evfi.training.textures import load_textures


def stage_config(stage: str, runs: Path, arguments: argparse.Namespace) -> TrainConfig:
    """The settings that the shipped model is trained with."""
    textures, minutes = arguments.textures, arguments.minutes
    if stage == "autoencoder":
        config: TrainConfig = AutoencoderTraining(textures, runs / stage, max_minutes=minutes)
    elif stage == "base":
        config = BaseTraining(textures, runs / stage, init=runs / "autoencoder" / "model", max_minutes=minutes)
    else:
        config = ControlNetTraining(
            textures, runs / "controlnet", init=runs / "base" / "model", max_minutes=minutes, train_base=True
        )
    changes = {"steps": arguments.steps, "batch_size": arguments.batch_size, "cooldown_steps": arguments.cooldown}
    changes |= {"init": arguments.init, "data_workers": arguments.workers}
    changes |= {"checkpoint_every": 1000, "validate_every": 2000}
    changes |= {"validation": tuple(arguments.validation) or None}
    return dataclasses.replace(config, **{key: value for key, value in changes.items() if value is not None})


def report(step: int, steps: int, loss: float) -> None:
    """Print a line now and then."""
    if step % 200 == 0:
        print(f"{time.strftime('%H:%M:%S')} step {step}/{steps} loss {loss:.4f}", flush=True)


def profile(config: TrainConfig, repeats: int = 12) -> None:
    """Mean milliseconds of making a batch and of the rest of a step."""
    stage = build_stage(config, load_textures(config.textures).to("cuda"))
    optimizer = torch.optim.AdamW(trained(stage).values(), fused=True)
    times = {"batch": 0.0, "step": 0.0}
    for number in range(repeats + 4):
        torch.cuda.synchronize()
        start = time.perf_counter()
        batch = stage.maker.make(StepKey(0, number))
        torch.cuda.synchronize()
        made = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = stage(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if number >= 4:
            times["batch"] += (made - start) * 1000 / repeats
            times["step"] += (time.perf_counter() - made) * 1000 / repeats
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"{config.stage} batch {config.batch_size}: {times}, peak {memory:.1f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("autoencoder", "base", "controlnet", "profile"))
    parser.add_argument("runs", type=Path)
    parser.add_argument("--textures", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--cooldown", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--init", type=Path, help="start from the networks in this folder")
    parser.add_argument("--workers", type=int, default=2, help="processes that make batches")
    parser.add_argument("--validation", type=Path, nargs="*", default=())
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    if arguments.stage == "profile":
        for stage in ("autoencoder", "controlnet"):
            profile(stage_config(stage, arguments.runs, arguments))
        return
    print(train(stage_config(arguments.stage, arguments.runs, arguments), on_step=report))


if __name__ == "__main__":
    main()
