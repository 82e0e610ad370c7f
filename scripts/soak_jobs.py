"""Does a long job keep its memory and its files? Runs `evfi interpolate` over some thousand windows and watches its processes.

    python scripts/soak_jobs.py --windows 2000

A synthetic recording (64×48, a picture and about a hundred events per 10 ms) is interpolated by a small network with random
weights, one step per window, in one worker process. Every two seconds, /proc tells the memory and the open files of the
process that runs the job and of its worker. Printed are the memory after the first 50 windows, halfway and at the end, and
the largest numbers of open files. The exit status is 1 if the memory of either grew by more than a tenth from halfway to the
end, or the video has another length than it should.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

WIDTH, HEIGHT, STEP_US = 64, 48, 10_000
EVENTS_PER_WINDOW = 100
WARM_UP = 50
INTERVAL_S = 2.0
MOST_GROWTH = 1.1


@dataclass(frozen=True)
class Sample:
    """The processes at a moment; memory in MB."""

    seconds: float
    windows: int
    driver_mb: float
    worker_mb: float
    driver_files: int
    worker_files: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write all samples there")
    parser.add_argument("--folder", type=Path, help="work there and leave what was made")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True)
        return soak(arguments.folder, arguments.windows, arguments.json)
    with tempfile.TemporaryDirectory(prefix="evfi-soak-") as folder:
        return soak(Path(folder), arguments.windows, arguments.json)


def soak(folder: Path, windows: int, json_file: Path | None) -> int:
    write_recording(folder / "scene", windows)
    write_model(folder / "model")
    command = [sys.executable, "-m", "evfi", "interpolate", str(folder / "scene"), "-o", str(folder / "video.mp4")]
    command += ["--frames-dir", str(folder / "pictures")]
    command += [
        "--insert",
        "1",
        "--model",
        str(folder / "model"),
        "--steps",
        "1",
        "--devices",
        "cpu",
        "--progress",
        "json",
    ]
    command += ["--tile-width", str(WIDTH), "--tile-height", str(HEIGHT)]
    print("evfi", *command[3:])
    with (folder / "progress.jsonl").open("w") as progress:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=progress, env=environment)
        samples = list(watch(process, folder / ".video.mp4.evfi" / "windows"))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(sample) for sample in samples]))
    if process.returncode != 0:
        print(f"the job ended with status {process.returncode}")
        return 1
    return tell(samples, folder, windows)


def write_recording(folder: Path, windows: int) -> None:
    from evfi.events.stream import EventStream
    from evfi.recordings.datasets.plain_writer import write_plain_recording

    generator = np.random.default_rng(0)
    texture = generator.integers(0, 255, (HEIGHT, 2 * WIDTH, 3), dtype=np.uint8)
    frames = (texture[:, at % WIDTH : at % WIDTH + WIDTH] for at in range(windows + 1))
    count = EVENTS_PER_WINDOW * windows
    events = EventStream.from_arrays(
        generator.integers(0, WIDTH, count),
        generator.integers(0, HEIGHT, count),
        np.sort(generator.integers(0, STEP_US * windows, count)),
        generator.choice([-1, 1], count),
        (WIDTH, HEIGHT),
    )
    write_plain_recording(folder, frames, STEP_US * np.arange(windows + 1), events)


def write_model(folder: Path) -> None:
    from tiny_models import tiny_bundle

    tiny_bundle().save(folder)


def watch(process: subprocess.Popen[bytes], pieces: Path) -> Iterator[Sample]:
    """Samples until the process ends."""
    began = time.monotonic()
    while process.poll() is None:
        try:
            worker = worker_of(process.pid)
            number = len(list(pieces.iterdir())) if pieces.is_dir() else 0
            figures = memory_mb(process.pid), memory_mb(worker), open_files(process.pid), open_files(worker)
            yield Sample(round(time.monotonic() - began, 1), number, *figures)
        except OSError:
            pass  # one of them has just ended
        time.sleep(INTERVAL_S)


def worker_of(driver: int) -> int | None:
    """The process that the driver started to work on windows."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = re.search(r"\) . (\d+) ", (entry / "stat").read_text())
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent is not None and int(parent[1]) == driver and b"spawn_main" in command:
                return int(entry.name)
    return None


def memory_mb(process: int | None) -> float:
    """Resident memory."""
    if process is None:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1e3 if found else 0.0


def open_files(process: int | None) -> int:
    return 0 if process is None else sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def tell(samples: list[Sample], folder: Path, windows: int) -> int:
    from evfi.video.io import VideoFrames

    at_work = [sample for sample in samples if sample.worker_mb and sample.windows >= WARM_UP]
    chosen = [at_work[0], at_work[len(at_work) // 2], at_work[-1]]
    print(f"{'':24}{'process':>10}{'worker':>10}")
    for name, one in zip(("after the warm-up", "halfway", "at the end"), chosen, strict=True):
        print(
            f"{name:18}{one.driver_mb:10.0f} MB{one.worker_mb:7.0f} MB   ({one.windows} windows, {one.seconds:.0f} s)"
        )
    after = [sample for sample in samples if sample.seconds > at_work[-1].seconds]
    print(f"video and report   {max((one.driver_mb for one in after), default=0):10.0f} MB")
    print(
        f"most open files   {max(one.driver_files for one in samples):10} {max(one.worker_files for one in samples):9}"
    )
    with VideoFrames(folder / "video.mp4") as video:
        frames = len(video)
    print(f"video              {frames} frames (expected {2 * windows + 1})")
    for name in ("video.mp4", "video.report.html", ".video.mp4.evfi/job.json", ".video.mp4.evfi/log.jsonl"):
        print(f"{name:28}{(folder / name).stat().st_size / 1e6:8.2f} MB")
    _, half, last = chosen
    grown = last.driver_mb / half.driver_mb, last.worker_mb / half.worker_mb
    print(f"growth from halfway to the end: {grown[0]:.3f} and {grown[1]:.3f}")
    return 0 if frames == 2 * windows + 1 and max(grown) <= MOST_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
