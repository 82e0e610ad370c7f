"""How long commands take that need no network: help, inspection of a recording, a job with nothing left to do.

    python scripts/measure_startup.py RECORDING [--runs 5]

Makes a job of the recording's first 0.3 s once (with the preset warp), then runs each command several times and prints the
medians of its user CPU seconds and of its elapsed seconds. On a machine with other load only the former mean something, and
they grow, too, where cores are shared. Linux and macOS.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch) / "video.mp4"
        job = ["interpolate", arguments.recording, "-o", video, "--insert", 1, "--end", 0.3, "--preset", "warp"]
        _seconds(job)  # the work; code is compiled once, too
        commands = {
            "evfi interpolate --help": ["interpolate", "--help"],
            "evfi inspect": ["inspect", arguments.recording],
            "evfi interpolate, nothing left to do": job,
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        _seconds(commands["evfi inspect"])
        for _ in range(arguments.runs):  # in turn, so that other load meets all of them
            for name, command in commands.items():
                found[name].append(_seconds(command))
    print(f"medians of {arguments.runs} runs: user CPU seconds, elapsed seconds")
    for name, pairs in found.items():
        user, elapsed = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{name:40}{user:6.2f}{elapsed:8.2f}")


def _seconds(command: list[object]) -> tuple[float, float]:
    """User CPU seconds and elapsed seconds of a command."""
    before, began = os.times().children_user, time.monotonic()
    words = [sys.executable, "-m", "evfi", *map(str, command)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return os.times().children_user - before, time.monotonic() - began


if __name__ == "__main__":
    main()
