"""What the fuzzers of event files have in common: reading a file and judging what came of it, and processes with limits.

A maker of cases (`Maker`) writes the file or folder of a case; `judge` reads it strictly and with `tolerant`. What must not
happen: another exception than the package's own, a message of several lines or with letters that cannot be shown, a
crash of the interpreter, an index out of bounds in a compiled loop, no end within some seconds, memory beyond the limit,
events outside the sensor or out of order, a file that is read strictly but not with `tolerant`, and fewer events with
`tolerant` than without.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

TIME_LIMIT_S: Final = 10.0
"""Of a processor; other programs may take the rest of the time that passes, up to `WALL_FACTOR` times as much."""
FIRST_TIME_LIMIT_S: Final = 120.0
"""Of the first case that a process tries of a format: it imports libraries and compiles loops."""
WALL_FACTOR: Final = 6

MEMORY_LIMIT_BYTES: Final = 1 * 2**30
"""On top of what an idle worker has mapped."""

STACKS: Final = "stacks.txt"
"""Where a worker that hangs says what it is at."""

MAX_MESSAGE: Final = 2500
"""Letters of a message; the longest names eight topics and their types."""

MAX_SHOWN: Final = 20
MAX_FAILURES: Final = 200
"""Of one format; after that the rest of its cases are left out, which the table shows."""


@dataclass(frozen=True)
class Outcome:
    """What came of one file: "read", "refused" or a failure, and its description."""

    kind: str
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        return self.kind not in ("read", "refused")


@dataclass(frozen=True)
class Written:
    """A case as it lies on the disk.

    Attributes:
        path: its file or folder.
        has_events: whether it is an event file, to be opened as one.
        has_frames: whether it is a recording, to be opened as one.
    """

    path: Path
    has_events: bool = True
    has_frames: bool = False


class Maker(Protocol):
    """Writes the cases of one format; each depends on nothing but its number."""

    def write(self, number: int) -> Written:
        """Write a case."""

    def sound(self) -> Iterator[Written]:
        """Files with no fault: reading them first compiles and imports whatever the cases need."""


MakerOf = Callable[[str, Path, Path], Maker]
"""Makes the maker of a format: its name, a folder that all processes share, and one that is its own."""


def judge(written: Written) -> Outcome:
    """Read a file or folder strictly and tolerantly."""
    recording = Outcome("read")
    if written.has_frames:
        recording = _judged(_read_recording, written.path)
        tolerant = _judged(lambda path: _read_recording(path, tolerant=True), written.path)
        if recording.is_failure or tolerant.is_failure:
            return recording if recording.is_failure else Outcome(tolerant.kind, f"tolerant: {tolerant.detail}")
    if not written.has_events:
        return recording
    strict, num_strict = _counted(written.path, tolerant=False)
    tolerant, num_tolerant = _counted(written.path, tolerant=True)
    if strict.is_failure or tolerant.is_failure:
        return strict if strict.is_failure else Outcome(tolerant.kind, f"tolerant: {tolerant.detail}")
    if strict.kind == "read" and tolerant.kind != "read":
        return Outcome("contradiction", f"read strictly, but tolerant: {tolerant.detail}")
    if num_tolerant < num_strict:
        return Outcome("contradiction", f"{num_strict} events strictly, {num_tolerant} with tolerant")
    return strict


def _counted(path: Path, *, tolerant: bool) -> tuple[Outcome, int]:
    counted = [0]

    def read(path: Path) -> None:
        counted[0] = _read_events(path, tolerant=tolerant)

    outcome = _judged(read, path)
    return outcome, counted[0]


def _judged(read: Callable[[Path], None], path: Path) -> Outcome:
    from evfi.errors import EvfiError

    try:
        read(path)
    except EvfiError as error:
        text = str(error)
        is_one_line = 0 < len(text) < MAX_MESSAGE and "\n" not in text and text.isprintable()
        return Outcome("refused" if is_one_line else "ugly message", repr(text[:MAX_MESSAGE]))
    except MemoryError:
        return Outcome("memory", _where())
    except Exception as error:
        return Outcome("exception", f"{type(error).__name__}: {error} at {_where()}")
    return Outcome("read")


def _read_events(path: Path, *, tolerant: bool) -> int:
    from evfi.events.file_options import EventFileOptions
    from evfi.events.formats import open_event_file

    source = open_event_file(path, EventFileOptions(sensor_size=(64, 48), tolerant=tolerant))
    try:
        num_events = 0
        for piece in source.pieces():
            num_events += len(piece)
            _check(piece)
        source.slice(source.time_range_us[1] - 1000, source.time_range_us[1] + 1)
        return num_events
    finally:
        if hasattr(source, "close"):
            source.close()


def _read_recording(path: Path, *, tolerant: bool = False) -> None:
    from evfi.recordings.opening import open_recording

    with open_recording(path, tolerant=tolerant) as recording:
        for index in range(len(recording.frames)):
            frame = recording.frames.read(index)
            assert frame.shape == (*recording.frames.size[::-1], 3), "size of a frame"
        recording.load_window(recording.plan_windows(insert=1)[0])


def _check(piece: Any) -> None:
    width, height = piece.sensor_size
    assert (np.diff(piece.t) >= 0).all(), "out of order"
    assert ((piece.x >= 0) & (piece.x < width) & (piece.y >= 0) & (piece.y < height)).all(), "outside the sensor"
    assert (np.abs(piece.p) == 1).all(), "polarity"


def _where() -> str:
    frames = [frame for frame in traceback.extract_tb(sys.exc_info()[2]) if "evfi" in frame.filename] or [None]
    last = frames[-1]
    return "?" if last is None else f"{Path(last.filename).name}:{last.lineno} {last.name}"


def work(connection: Connection, folder: Path, maker_of: MakerOf) -> None:
    """A worker: takes (format, number), gives outcomes, until it is told None."""
    os.environ["EVFI_CACHE"] = str(folder / "cache")
    os.environ |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder.parent / "compiled")}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder.mkdir(parents=True, exist_ok=True)
    stacks = (folder / STACKS).open("w")
    faulthandler.register(signal.SIGUSR1, stacks)
    makers: dict[str, Maker] = {}
    is_limited = False
    while (case := connection.recv()) is not None:
        name, number = case
        if name not in makers:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            (folder / name).mkdir(exist_ok=True)
            makers[name] = maker_of(name, folder.parent / "shared" / name, folder / name)
            for written in makers[name].sound():
                judge(written)
            is_limited = False
        if not is_limited:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_LIMIT_BYTES, resource.RLIM_INFINITY))
            is_limited = True
        connection.send(judge(makers[name].write(number)))


class _Patience:
    """How long a worker may take for a case."""

    def __init__(self, process: int, limit_s: float):
        self.limit_s = limit_s
        self._process = process
        self._began = time.monotonic()
        self._used = self._processor_s()

    def is_over(self) -> bool:
        passed = time.monotonic() - self._began
        return passed > WALL_FACTOR * self.limit_s or self._processor_s() - self._used > self.limit_s

    def _processor_s(self) -> float:
        fields = Path(f"/proc/{self._process}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Pool:
    """Workers that are killed and replaced when they hang or die."""

    def __init__(self, num_workers: int, folder: Path, maker_of: MakerOf):
        self._context = multiprocessing.get_context("spawn")
        self._folder = folder
        self._maker_of = maker_of
        self._num_started = 0
        self._workers = [self._start() for _ in range(num_workers)]

    def run(self, cases: Iterator[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], Outcome]]:
        """Give every case to a worker; yields outcomes as they come."""
        busy: dict[int, tuple[tuple[str, int], _Patience]] = {}
        seen: set[tuple[int, str]] = set()
        exhausted = False
        while busy or not exhausted:
            for index, (_, connection) in enumerate(self._workers):
                if index not in busy and not exhausted:
                    case = next(cases, None)
                    if case is None:
                        exhausted = True
                        break
                    connection.send(case)
                    is_new = (self._number_of(index), case[0]) not in seen
                    seen.add((self._number_of(index), case[0]))
                    limit_s = FIRST_TIME_LIMIT_S if is_new else TIME_LIMIT_S
                    busy[index] = case, _Patience(int(self._workers[index][0].pid or 0), limit_s)
            ready = wait([self._workers[index][1] for index in busy], timeout=0.5)
            for index in list(busy):
                case, patience = busy[index]
                process, connection = self._workers[index]
                outcome: Outcome | None = None
                if connection in ready:
                    try:
                        outcome = connection.recv()
                    except (EOFError, OSError):
                        process.join()
                        outcome = Outcome("crash", f"exit status {process.exitcode}")
                elif patience.is_over():
                    outcome = Outcome("hang", f"no end within {patience.limit_s:g} s{self._place_of(index)}")
                if outcome is not None:
                    del busy[index]
                    if outcome.kind in ("crash", "hang"):
                        process.kill()
                        self._workers[index] = self._start()
                    yield case, outcome

    def close(self) -> None:
        for process, connection in self._workers:
            connection.send(None)
            process.join(5)
            process.kill()

    def _place_of(self, index: int) -> str:
        """What a worker is at."""
        process, _ = self._workers[index]
        os.kill(int(process.pid or 0), signal.SIGUSR1)
        time.sleep(1)
        lines = (self._folder / process.name / STACKS).read_text().splitlines()
        ours = [line.strip() for line in lines if "/evfi/" in line]
        return f" at {'; '.join(ours[:3])}" if ours else ""

    def _number_of(self, index: int) -> int:
        return int(self._workers[index][0].name)

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        self._num_started += 1
        folder = self._folder / str(self._num_started)
        arguments = (theirs, folder, self._maker_of)
        process = self._context.Process(target=work, args=arguments, name=str(self._num_started), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def arguments_of(description: str | None, names: list[str]) -> argparse.Namespace:
    """The command line of a fuzzer."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="files in all")
    parser.add_argument("--only", choices=names, help="one format alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each format")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no more files after so long")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    return parser.parse_args()


def run(
    arguments: argparse.Namespace, names: list[str], maker_of: MakerOf, prepare: Callable[[str, Path], None]
) -> int:
    """Try all cases and print a table; `prepare` fills the folder that all processes share. Returns the exit status."""
    names = [arguments.only] if arguments.only else names
    per_format = -(-arguments.cases // len(names))
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    began = time.monotonic()
    cases = (
        (name, arguments.first + number)
        for number in range(per_format)
        for name in names
        if time.monotonic() - began < 60 * arguments.minutes
        and counts[name].total() - counts[name]["read"] - counts[name]["refused"] < MAX_FAILURES
    )
    num_shown = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            shared = Path(folder) / "shared" / name
            shared.mkdir(parents=True)
            prepare(name, shared)
        pool = Pool(arguments.workers, Path(folder), maker_of)
        try:
            for (name, number), outcome in pool.run(cases):
                counts[name][outcome.kind] += 1
                if (outcome.is_failure and num_shown < MAX_SHOWN) or arguments.cases == 1:
                    num_shown += outcome.is_failure
                    print(f"{name} {number}: {outcome.kind}: {outcome.detail}", flush=True)
                if arguments.keep and (outcome.is_failure or arguments.cases == 1):
                    kept = arguments.keep / f"{name}-{number}"
                    kept.mkdir(parents=True, exist_ok=True)
                    maker_of(name, Path(folder) / "shared" / name, kept).write(number)
        finally:
            pool.close()
    return report(counts, time.monotonic() - began)


def report(counts: dict[str, Counter[str]], seconds: float) -> int:
    """Print a table; return the exit status."""
    failures = sorted({kind for counter in counts.values() for kind in counter} - {"read", "refused"})
    print("| format | cases | read | refused | " + " | ".join([*failures, "failures"]) + " |")
    print("|---|" + "---|" * (4 + len(failures)))
    for name, counter in counts.items():
        num_failed = sum(counter[kind] for kind in failures)
        row = [
            name,
            counter.total(),
            counter["read"],
            counter["refused"],
            *(counter[kind] for kind in failures),
            num_failed,
        ]
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    total = sum(counter.total() for counter in counts.values())
    num_failed = sum(counter[kind] for counter in counts.values() for kind in failures)
    print(f"{total} files, {num_failed} failures, {seconds:.0f} s")
    return 1 if num_failed else 0
