"""Time whole windows on a CPU with the plain and the fast engine, in turn, and say how far their results lie apart.

python scripts/measure_cpu.py RECORDING [--windows 7] [--case 346x260x5 ...] [--threads N]

Each engine has a process of its own, so that what one leaves in memory does not help or hinder the other; the processes are
asked for a window in turn, and the ratio is taken pair by pair: what slows the machine down meets both. The first window of
each, which compiles and prepares, is not counted. Processor seconds, of all threads together, hardly depend on what else the
machine does if OMP_WAIT_POLICY=passive is set; otherwise they count the waiting of threads for each other too. Frames are
resized and events moved to the size of a case.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from evfi.events.stream import EventStream
from evfi.interpolator import Interpolator, window_inputs
from evfi.recordings.opening import open_recording
from evfi.recordings.recording import Window
from evfi.sampling.noise import SeededNoise
from evfi.sampling.two_sided import fusion_weights
from evfi.video.geometry import FrameGeometry, frame_size

ENGINES = ("plain", "fast")


class Case(NamedTuple):
    """A size in px and a number of frames, key frames included."""

    width: int
    height: int
    frames: int


def case(text: str) -> Case:
    return Case(*(int(part) for part in text.split("x")))


def resized(window: Window, size: tuple[int, int]) -> Window:
    """The window at another size."""
    keys = [np.array(Image.fromarray(key).resize(size)) for key in (window.start_image, window.end_image)]
    events, (width, height) = window.events, window.events.sensor_size
    x, y = (events.x.astype(np.int64) * size[0] // width, events.y.astype(np.int64) * size[1] // height)
    moved = EventStream(x.astype(np.int32), y.astype(np.int32), events.t, events.p, size)
    return replace(window, start_image=keys[0], end_image=keys[1], events=moved)


def serve(pipe: Connection, engine: Any, recording: str, asked: Case, threads: int | None) -> None:
    """Make windows as they are asked for; the first answer is (latents, frames), others are seconds."""
    if threads is not None:
        torch.set_num_threads(threads)
    opened = open_recording(recording)
    specs = list(opened.plan_windows(asked.frames - 2))
    window = resized(opened.load_window(specs[len(specs) // 2]), (asked.width, asked.height))
    made = Interpolator.from_pretrained("evfi-tiny", "cpu", engine=engine)
    geometry = FrameGeometry(
        frame_size(window.start_image), made.bundle.vae_factor, made.config.size_mode, made.config.upscale
    )
    weights = fusion_weights(torch.from_numpy(window.spec.times_us))
    inputs = window_inputs(window, geometry, made.bundle)
    latents = made.engine.sample(inputs, made.config, SeededNoise(0, window.spec.index), weights=weights)
    pipe.send((latents.numpy(), made.engine.decode(latents, made.config).numpy()))
    made.interpolate_window(window)
    while pipe.recv():
        began = time.perf_counter(), time.process_time()
        made.interpolate_window(window)
        pipe.send((time.perf_counter() - began[0], time.process_time() - began[1]))


def measure(recording: str, asked: Case, windows: int, threads: int | None) -> None:
    context = get_context("spawn")
    pipes: list[Connection] = []
    results: list[tuple[Any, Any]] = []
    times: list[tuple[float, float]] = []
    for engine in ENGINES:
        here, there = context.Pipe()
        context.Process(target=serve, args=(there, engine, recording, asked, threads), daemon=True).start()
        pipes.append(here)
        results.append(here.recv())
    for _ in range(windows):
        for pipe in pipes:
            pipe.send(True)
            times.append(pipe.recv())
    for pipe in pipes:
        pipe.send(False)
    errors = [float(np.linalg.norm(b - a) / np.linalg.norm(a)) for a, b in zip(*results, strict=True)]
    print(
        f"{asked.width}x{asked.height}, {asked.frames} frames: errors of latents {errors[0]:.1e}, of frames {errors[1]:.1e}"
    )
    for place, name in enumerate(("seconds", "processor seconds")):
        plain, fast = ([both[place] for both in times[engine::2]] for engine in range(2))
        ratios = sorted(a / b for a, b in zip(plain, fast, strict=True))
        print(
            f"  {name}: plain {statistics.median(plain):.2f} (least {min(plain):.2f}), fast {statistics.median(fast):.2f} "
            f"({min(fast):.2f}); ratio of pairs {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
            f"of least {min(plain) / min(fast):.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording")
    parser.add_argument("--windows", type=int, default=7)
    parser.add_argument("--threads", type=int)
    cases = [Case(346, 260, 5), Case(346, 260, 9), Case(640, 360, 9)]
    parser.add_argument("--case", type=case, nargs="+", default=cases, help="WIDTHxHEIGHTxFRAMES")
    arguments = parser.parse_args()
    for asked in arguments.case:
        measure(arguments.recording, asked, arguments.windows, arguments.threads)


if __name__ == "__main__":
    main()
