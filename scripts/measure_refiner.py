"""Speed and memory of the refiner, with and without the diffusion model, on the CPU or a GPU.

python scripts/measure_refiner.py [--device cuda] [--json OUT]

Windows are made up: two pictures of smooth noise, one shifted against the other, and random events. Memory of a case is the
most that was taken beyond what lay there when the model was loaded: on a GPU of tensors, on a CPU of the process.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from evfi.events.stream import EventStream
from evfi.interpolator import Interpolator
from evfi.recordings.planning import plan_windows
from evfi.recordings.recording import Window

PAGE = 4096
CASES: dict[str, list[tuple[str, int, int, int, dict[str, Any]]]] = {
    "cpu": [
        ("refiner alone", 346, 260, 7, {"diffusion": False}),
        ("diffusion alone", 346, 260, 7, {"refinement": False}),
        ("both", 346, 260, 7, {}),
        ("refiner alone", 1952, 1264, 1, {"diffusion": False}),
        ("refiner alone", 3840, 2160, 1, {"diffusion": False}),
    ],
    "cuda": [
        ("refiner alone", 346, 260, 7, {"diffusion": False}),
        ("refiner alone", 1280, 720, 7, {"diffusion": False}),
        ("diffusion alone", 640, 360, 7, {"refinement": False}),
        ("both", 640, 360, 7, {}),
        ("refiner alone", 1952, 1264, 3, {"diffusion": False}),
        ("refiner alone", 3840, 2160, 3, {"diffusion": False}),
    ],
}


def made_up_window(width: int, height: int, inserted: int, events_per_pixel: float = 1.0) -> Window:
    """A window of 40 ms."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (height // 8 + 2, width // 8 + 4, 3), np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((width + 16, height), Image.Resampling.BICUBIC))
    number = int(width * height * events_per_pixel)
    times = np.sort(random.integers(0, 40_000, number))
    x, y = random.integers(0, width, number), random.integers(0, height, number)
    events = EventStream.from_arrays(x, y, times, random.choice([-1, 1], number), (width, height))
    (spec,) = plan_windows(np.array([0, 40_000]), insert=inserted)
    return Window(spec, wide[:, :width].copy(), wide[:, 12 : width + 12].copy(), events)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def peak_beyond(action: Callable[[], Any], device: str) -> int:
    """The most bytes that an action takes beyond those that lie there before it."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - before
    before, most, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            with suppress(OSError):
                most[0] = max(most[0], resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    action()
    done.set()
    watcher.join()
    return most[0] - before


def measure(device: str, repeats: int) -> list[dict[str, Any]]:
    """One row per case."""
    rows = []
    loaded: dict[str, Interpolator] = {}
    for name, width, height, inserted, settings in CASES[device]:
        key = json.dumps(settings)
        interpolator = loaded.get(key) or Interpolator.from_pretrained("evfi-tiny", device, **settings)
        loaded[key] = interpolator
        window = made_up_window(width, height, inserted)
        peak = peak_beyond(lambda: interpolator.interpolate_window(window), device)  # noqa: B023
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            interpolator.interpolate_window(window)
            seconds.append(time.perf_counter() - began)
        best = float(np.median(seconds))
        row = {"case": name, "width": width, "height": height, "inserted": inserted, "window_s": best}
        row |= {"frame_s": best / inserted, "frames_per_s": inserted / best, "peak_gib": peak / 2**30}
        rows.append({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.device, arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
