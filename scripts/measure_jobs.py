"""Measure what docs/jobs.md tells of jobs: throughput of several GPUs beside one, what the job layer costs, and two faults.

    python scripts/measure_jobs.py OUT.json [--model svd-random] [--windows 48] [--devices cuda:0,cuda:1]

The parts, of which --parts names some:
bare    windows one after the other in this process, without any job layer, on the first device
one     the same windows as a job with one worker
all     the same windows as a job with a worker per device
fault   the same as `all`, with one worker killed and one meeting a GPU error on the way
tiny    bare and one again with evfi-tiny, whose windows are so short that the job layer shows

With --model stand-in, which waits where a GPU would work, --devices meta:0,meta:1,meta:2,meta:3 shows what the layer costs
without any GPU.

Throughput is windows per second from the moment all workers have finished their first window, which loads and compiles.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evfi.events.stacks import StackConfig, event_stacks
from evfi.events.stream import EventStream
from evfi.fingerprints import fingerprint_of_files
from evfi.interpolator import Interpolator
from evfi.models.random import RANDOM_MODELS, random_bundle
from evfi.pipeline.blending import blend_linearly
from evfi.pipeline.job import JobSetup, run_job
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_plan import plan_job
from evfi.pipeline.models import WindowWorker
from evfi.pipeline.outputs import Targets
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.recordings.opening import open_recording
from evfi.recordings.recording import Window
from evfi.video.geometry import frame_size
from evfi.workers.local import LocalProcesses
from evfi.workers.scheduler import Scheduler
from evfi.workers.tasks import OnStep, Outcome

INTERVAL_US = 40_000


@dataclass(frozen=True)
class Model:
    """Loads a model by name, with random weights where it is one of those; `faults` break it on purpose."""

    name: str
    faults: bool = False

    def __call__(self, device: str) -> WindowWorker:
        return WindowWorker(self.load(device))

    def load(self, device: str) -> Any:
        if self.name == "stand-in":
            return StandIn()
        if self.name in RANDOM_MODELS:
            dtype = torch.float16 if device.startswith("cuda") else torch.float32
            loaded = Interpolator(random_bundle(self.name, dtype=dtype, device=device))
        else:
            loaded = Interpolator.from_pretrained(self.name, device)
        return Faulty(loaded, device) if self.faults else loaded


class StandIn:
    """Does what a window needs of the CPU, and waits where a GPU would work; for devices meta:0, meta:1, …"""

    WAIT_S = 1.4

    def prepare(self, window: Window) -> Any:
        return event_stacks(window.events, window.spec.times_us, frame_size(window.start_image), StackConfig())

    def interpolate_window(self, window: Window, *, seed: int, on_step: OnStep | None, prepared: Any = None) -> Any:
        if prepared is None:
            self.prepare(window)
        time.sleep(self.WAIT_S)
        return blend_linearly(window.start_image, window.end_image, window.spec.times_us)


class Faulty:
    """Breaks at its fifth window: the first device's worker is killed, the others meet an error of their GPU."""

    def __init__(self, interpolator: Interpolator, device: str) -> None:
        self.interpolator, self.device, self.count = interpolator, device, 0
        self.broken = Path(tempfile.gettempdir()) / f"broken-{device.replace(':', '-')}"

    def prepare(self, window: Window) -> Any:
        return self.interpolator.prepare(window)

    def interpolate_window(self, window: Window, *, seed: int, on_step: OnStep | None, prepared: Any = None) -> Any:
        self.count += 1
        if self.count == 5 and not self.broken.exists():
            self.broken.touch()
            if self.device in ("cuda:0", "cpu"):
                os.kill(os.getpid(), signal.SIGKILL)
            values = torch.zeros(8, device=self.device)
            values[torch.full((4,), 1 << 20, device=self.device)].sum().item()
        return self.interpolator.interpolate_window(window, seed=seed, on_step=on_step, prepared=prepared)


class TimedScheduler(Scheduler):
    """Notes when each piece came back, and from where."""

    def __init__(self, *arguments: Any) -> None:
        self.seen: list[tuple[float, str]] = []
        super().__init__(*arguments)

    def next_outcome(self, timeout: float) -> Outcome | None:
        outcome = super().next_outcome(timeout)
        if outcome is not None and outcome.failure is None:
            self.seen.append((time.perf_counter(), outcome.device))
        return outcome


def make_recording(folder: Path, size: tuple[int, int], windows: int, events: int) -> None:
    """A texture that moves to the right, and events anywhere."""
    width, height = size
    generator = np.random.default_rng(0)
    rough = generator.integers(0, 256, (-(-height // 8), -(-width // 8) + windows, 3), dtype=np.uint8)
    texture = np.repeat(np.repeat(rough, 8, 0), 8, 1)[:height]

    def streams() -> Any:
        for number in range(windows):
            times = np.sort(generator.integers(0, INTERVAL_US, events)) + number * INTERVAL_US
            x, y = generator.integers(0, width, events), generator.integers(0, height, events)
            yield EventStream.from_arrays(x, y, times, generator.choice([-1, 1], events), size)

    frames = (np.ascontiguousarray(texture[:, 8 * n : 8 * n + width]) for n in range(windows + 1))
    write_plain_recording(folder, frames, np.arange(windows + 1) * INTERVAL_US, streams())


def bare(model: Model, recording_path: Path, insert: int, device: str, windows: int) -> dict[str, Any]:
    interpolator = model.load(device)
    with open_recording(recording_path) as recording:
        specs = recording.plan_windows(insert=insert)[:windows]
        interpolator.interpolate_window(recording.load_window(specs[0]), seed=0, on_step=None)
        began, preparing = time.perf_counter(), 0.0
        for spec in specs[1:]:
            window = recording.load_window(spec)
            loaded = time.perf_counter()
            prepared = interpolator.prepare(window)
            preparing += time.perf_counter() - loaded
            interpolator.interpolate_window(window, seed=0, on_step=None, prepared=prepared)
        seconds = time.perf_counter() - began
    return {
        "windows": len(specs),
        "windows_per_s": (len(specs) - 1) / seconds,
        "seconds_per_window": seconds / (len(specs) - 1),
        "preparing_per_window_s": preparing / (len(specs) - 1),
    }


def as_job(
    model: Model, recording_path: Path, insert: int, devices: tuple[str, ...], folder: Path, *, end: float | None = None
) -> dict[str, Any]:
    workers: list[TimedScheduler] = []

    def start(on_step: Any) -> TimedScheduler:
        workers.append(TimedScheduler(LocalProcesses(model, devices, on_step)))
        return workers[0]

    began = time.perf_counter()
    with open_recording(recording_path) as recording:
        job = plan_job(
            recording, Targets(frames_dir=folder / "video"), JobConfig(insert=insert, end=end, on_gap="interpolate")
        )
        setup = JobSetup(folder / "job", {"model": model.name}, lambda: open_recording(recording_path))
        summary = run_job(job, setup, start)
    seen = workers[0].seen
    firsts = {device: min(at for at, where in seen if where == device) for _, device in seen}
    steady = [at for at, _ in seen if at > max(firsts.values())]
    after_first = steady[-1] - max(firsts.values())
    return {
        "windows": summary.num_windows,
        "devices": list(devices),
        "pieces": dict(summary.pieces),
        "attempts": sum(facts.attempts for facts in summary.windows),
        "seconds": summary.seconds,
        "total_s": time.perf_counter() - began,
        "start_s": max(firsts.values()) - began,
        "finish_s": time.perf_counter() - seen[-1][0],
        "windows_per_s": len(steady) / after_first,
        "busy_per_window_s": sum(summary.busy_s.values()) / len(seen),
        "video": fingerprint_of_files([folder / "video"]),
        "kept_mb": summary.num_bytes / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="svd-random")
    parser.add_argument("--size", default="512x320")
    parser.add_argument("--insert", type=int, default=3)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--devices", default="cuda:0,cuda:1")
    parser.add_argument("--parts", default="bare,one,all,fault,tiny")
    options = parser.parse_args()
    devices, results = tuple(options.devices.split(",")), {}
    scratch = Path(tempfile.mkdtemp())
    recording = scratch / "recording"
    width, height = (int(side) for side in options.size.split("x"))
    make_recording(recording, (width, height), options.windows, 100_000)
    model = Model(options.model)
    for part in options.parts.split(","):
        folder = scratch / part
        folder.mkdir()
        if part == "bare":
            results[part] = bare(model, recording, options.insert, devices[0], max(4, options.windows // 3))
        elif part == "tiny":
            small = Model("evfi-tiny")
            results["tiny bare"] = bare(small, recording, 7, devices[0], options.windows)
            results["tiny one"] = as_job(small, recording, 7, devices[:1], folder)
        else:
            used = devices[:1] if part == "one" else devices
            results[part] = as_job(replace(model, faults=part == "fault"), recording, options.insert, used, folder)
        print(part, json.dumps({name: value for name, value in results.items() if name.startswith(part)}), flush=True)
        options.output.write_text(
            json.dumps(
                {"options": {k: str(v) for k, v in vars(options).items()}, "device": _device(), **results}, indent=1
            )
        )
        torch.cuda.empty_cache() if torch.cuda.is_available() else None
    shutil.rmtree(scratch)


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
