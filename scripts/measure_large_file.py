"""Time and memory of reading a very large EVT3 file: making its index, and then a slice from its end.

    python scripts/measure_large_file.py [--events 200] [--folder FOLDER]

Writes a RAW file of so many million events (about 2 bytes each) to a temporary folder and removes it in the end. The file
repeats one stretch of 16.8 s, which is one turn of the sensor's 24-bit clock, so the last slice is known. Each step runs
in a process of its own, whose peak resident memory is printed with the time that it took. Linux only.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from file_writers.prophesee import evt3_words, raw_header  # noqa: E402

SIZE: Final = (1280, 720)
TURN_US: Final = 2**24
TURN_EVENTS: Final = 4_000_000
SLICE_US: Final = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200, metavar="MILLIONS", help="how many events")
    parser.add_argument("--folder", type=Path, help="where to write the file (default: the system's temporary folder)")
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        print(json.dumps(_measured(STEPS[arguments.step], arguments.file)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "large.raw"
        num_turns = -(-arguments.events * 1_000_000 // TURN_EVENTS)
        expected = _write(path, num_turns)
        print(f"{num_turns * TURN_EVENTS / 1e6:.0f} million events, {path.stat().st_size / 2**20:.0f} MiB")
        os.environ["EVFI_CACHE"] = folder
        for step in ("import", "index", "slice", "all"):
            found = _run(step, path)
            print(f"{step:7}{found['seconds']:8.2f} s{found['peak_mib']:8.0f} MiB  {found['result']}")
            if step == "slice" and found["result"] != expected:
                raise SystemExit(f"expected {expected} in the last slice")


def _write(path: Path, num_turns: int) -> dict[str, int]:
    """Write the file; returns what its last slice holds."""
    x, y, t, p = _turn()
    words = evt3_words(x, y, t, p).tobytes()
    with path.open("wb") as file:
        file.write(raw_header("EVT3", SIZE))
        for _ in range(num_turns):
            file.write(words)
    last = t > t[-1] - SLICE_US
    return {"events": int(last.sum()), "sum_x": int(x[last].sum()), "end_us": int(t[-1]) + (num_turns - 1) * TURN_US}


def _turn() -> tuple[NDArray[np.int64], ...]:
    """Events of one turn of the clock: edges of 1 to 8 pixels."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, TURN_EVENTS)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), TURN_EVENTS))]
    lengths = np.append(lengths, TURN_EVENTS - lengths.sum())
    steps = np.arange(TURN_EVENTS) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    times = np.sort(rng.integers(0, TURN_US, len(lengths)))
    times[[0, -1]] = 0, TURN_US - 1
    columns = (times, rng.integers(0, SIZE[0] - 8, len(lengths)), rng.integers(0, SIZE[1], len(lengths)))
    t, x, y = (np.repeat(column, lengths) for column in columns)
    return x + steps, y, t, np.repeat(rng.integers(0, 2, len(lengths)), lengths)


def _run(step: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--file", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def _measured(step: Callable[[Path], object], path: Path) -> dict[str, Any]:
    start = time.perf_counter()
    result = step(path)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()  # unlike getrusage, it does not count the parent's memory
    peak_mib = int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024
    return {"seconds": seconds, "peak_mib": peak_mib, "result": result}


def _import(path: Path) -> str:
    import evfi.events.formats
    import evfi.events.formats.evt_words  # noqa: F401

    return "modules only, with the compiler"


def _index(path: Path) -> str:
    from evfi.events.formats import open_event_file

    return f"{open_event_file(path).report.num_events} events counted"


def _slice(path: Path) -> dict[str, int]:
    from evfi.events.formats import open_event_file

    source = open_event_file(path)
    end = source.time_range_us[1]
    stream = source.slice(end + 1 - SLICE_US, end + 1)
    return {"events": len(stream), "sum_x": int(stream.x.sum()), "end_us": end}


def _all(path: Path) -> str:
    from evfi.events.formats import open_event_file

    start = time.perf_counter()
    num_events = sum(len(piece) for piece in open_event_file(path).pieces())
    return f"{num_events} events read, {num_events / (time.perf_counter() - start) / 1e6:.0f} million per second"


STEPS: Final[dict[str, Callable[[Path], object]]] = {"import": _import, "index": _index, "slice": _slice, "all": _all}


if __name__ == "__main__":
    main()
