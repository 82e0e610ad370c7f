"""Where the time of a training step goes, on a GPU: making batches, the step itself, and both together.

python scripts/profile_training.py TEXTURES INIT [--stages refiner controlnet] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from evfi.training.batches import BatchSource, StepKey
from evfi.training.checkpoint import trained
from evfi.training.config import ControlNetTraining, RefinerTraining, TrainConfig
from evfi.training.graphs import GraphedLoss
from evfi.training.stages import build_stage
from evfi.training.textures import load_textures


def timed(action: Callable[[int], Any], repeats: int, warm_up: int = 3) -> float:
    """Mean milliseconds of an action that is given its number."""
    for number in range(warm_up):
        action(number)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for number in range(warm_up, warm_up + repeats):
        action(number)
    torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1000 / repeats


def kernels(action: Callable[[], Any]) -> str:
    """The GPU's time by kind of operation, as a table."""
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        action()
        torch.cuda.synchronize()
    table: str = profiler.key_averages().table(sort_by="self_device_time_total", row_limit=28, max_name_column_width=60)
    rows = table.splitlines()
    return "\n".join(row[:62] + row[-62:] for row in rows)


def profile(config: TrainConfig, repeats: int) -> dict[str, float]:
    """Figures of one stage in milliseconds."""
    is_refiner = isinstance(config, RefinerTraining)
    stage: Any = build_stage(config, load_textures(config.textures).to("cuda"))
    optimizer = torch.optim.AdamW(trained(stage).values(), fused=True)
    figures: dict[str, float] = {}

    def report(name: str, value: float) -> None:
        figures[name] = round(value, 2)
        print(config.stage, name, figures[name], flush=True)

    def step_of(module: Any) -> Callable[[Any], None]:
        def step(batch: Any) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                loss = module(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained(stage).values(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    if is_refiner:
        report("windows", timed(lambda n: stage.maker._made(StepKey(5, n % 4)), 8, 4))
        print(kernels(lambda: [stage.maker._made(StepKey(5, n)) for n in range(4)]), flush=True)
    report("batch", timed(lambda n: stage.maker.make(StepKey(0, n % 20)), repeats))
    fixed = stage.maker.make(StepKey(0, 20))
    step = step_of(stage)
    report("step", timed(lambda n: step(fixed), repeats))
    report("peak_gib", torch.cuda.max_memory_allocated() / 2**30)
    print(kernels(lambda: step(fixed)), flush=True)
    report("both in turn", timed(lambda n: step(stage.maker.make(StepKey(0, n % 20))), repeats))
    source = BatchSource(config, stage.maker, 0, 200)
    parameters = list(trained(stage).values())
    recorded = GraphedLoss(torch.autocast("cuda", torch.bfloat16)(stage), parameters, source.paused)

    def replay(number: int) -> None:
        recorded(source.take(200 + number))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    report("recorded, made ahead", timed(replay, 3 * repeats, 8))
    source.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("textures", type=Path)
    parser.add_argument("init", type=Path)
    parser.add_argument("--stages", nargs="+", default=["refiner", "controlnet"])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    given: dict[str, Any] = {"textures": arguments.textures, "output": Path("unused"), "init": arguments.init}
    configs: dict[str, TrainConfig] = {
        "refiner": RefinerTraining(**given, pool_start=4, num_frames=(3, 5, 9)),
        "controlnet": ControlNetTraining(**given, train_base=True),
    }
    figures = {name: profile(configs[name], arguments.repeats) for name in arguments.stages}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
