"""Make the numbers of docs/results.md again.

    python scripts/reproduce_results.py videos FOLDER_OF_VIDEOS -o OUT
    python scripts/reproduce_results.py recordings RECORDING ... -o OUT
    python scripts/reproduce_results.py ablations FOLDER_OF_VIDEOS -o OUT

videos: the first 97 frames of each at 360 rows, events simulated, skips 1, 3, 7 and 15, at most 12 windows of each.
recordings: real events, skips 1, 3 and 7, at most 12 windows of each.
ablations: as videos, skip 7 alone and at most 4 windows, evfi-tiny with one thing changed at a time.

Prints the tables in Markdown; OUT keeps frames, scores, results.json and report.html, and the same call goes on there.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from pathlib import Path

from evfi.evaluation.results_table import as_markdown, markdown_table, speed_table
from evfi.evaluation.run import EvaluationConfig, EvaluationInputs, evaluate
from evfi.evaluation.sequences import VideoOptions
from evfi.evaluation.summary import summarise, summarise_speed
from evfi.evaluation.systems import SystemRequest

MODEL = "evfi-tiny"
BASELINES = ("hold", "linear", "rife")
VIDEO = VideoOptions(height=360, max_frames=97)

ABLATIONS: dict[str, dict[str, object]] = {
    MODEL: {},
    "without refiner": {"refinement": False},
    "without diffusion": {"diffusion": False},
    "no events in the diffusion model": {"controlnet_scale": 0.0},  # the refiner still sees them
    "one-sided": {"two_sided": False},
    "tiles of 192": {"tile_width": 192, "tile_height": 192},
    "guidance 1 to 3": {"max_guidance_scale": 3.0},
    "1 step": {"num_inference_steps": 1},
    "5 steps": {"num_inference_steps": 5},
    "10 steps": {"num_inference_steps": 10},
    "25 steps": {"num_inference_steps": 25},
}


def requests_of(part: str) -> tuple[SystemRequest, ...]:
    """The systems of one part."""
    if part == "ablations":
        return tuple(SystemRequest(name, "model", MODEL, dict(settings)) for name, settings in ABLATIONS.items())
    baselines = (SystemRequest(name, "baseline", name) for name in BASELINES)
    models = (SystemRequest(MODEL, "model", MODEL), SystemRequest("warp", "model", MODEL, preset="warp"))
    return (*models, *baselines)


def config_of(part: str, arguments: argparse.Namespace) -> EvaluationConfig:
    """Windows of one part."""
    skips = {"videos": (1, 3, 7, 15), "recordings": (1, 3, 7), "ablations": (7,)}[part]
    windows = arguments.windows or (4 if part == "ablations" else 12)
    return EvaluationConfig(
        skips=tuple(arguments.skips or skips),
        windows=windows,
        metrics=tuple(arguments.metrics or ()),
        workers=arguments.workers,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("videos", "recordings", "ablations"))
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--skips", type=int, nargs="+")
    parser.add_argument("--metrics", nargs="+")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    inputs = EvaluationInputs(
        data=tuple(arguments.data),
        systems=requests_of(arguments.part),
        video=VIDEO,
        devices=arguments.device,
        command=shlex.join(["python", *sys.argv]),
    )
    began = time.monotonic()
    shown = [began]

    def show(done: float, total: int, note: str) -> None:
        if time.monotonic() - shown[0] > 20 or done == total:
            shown[0] = time.monotonic()
            print(f"{time.monotonic() - began:6.0f} s  {note}: {done} of {total}", file=sys.stderr, flush=True)

    results = evaluate(inputs, arguments.output, config_of(arguments.part, arguments), show)
    print(markdown_table(summarise(results), results.metrics))
    print()
    print(as_markdown(speed_table(summarise_speed(results))))


if __name__ == "__main__":
    main()
