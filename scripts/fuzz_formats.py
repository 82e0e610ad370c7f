"""Feed damaged event files to every reader and see that each ends in events, or in one line of error.

    python scripts/fuzz_formats.py --cases 100000

Small files of every format are written, then cut, flipped, overwritten, reordered and spliced at random. Each damaged file
is opened and read to its end, strictly and with `tolerant`, in worker processes whose memory is limited. What must not
happen: another exception than the package's own, a message of several lines, a crash of the interpreter, no end within
some seconds, memory beyond the limit, events outside the sensor or out of order, a damaged file that is read strictly
but not with `tolerant`, and fewer events with `tolerant` than without.

A case is named by its format and number; `--only FORMAT --first N --cases 1` repeats it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
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
from typing import Any, Final

import numpy as np

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from file_writers.samples import SAMPLES  # noqa: E402

TIME_LIMIT_S: Final = 10.0
MEMORY_LIMIT_BYTES: Final = 1 * 2**30
"""On top of what an idle worker has mapped."""

MAX_SHOWN: Final = 20
MAX_FAILURES: Final = 200
"""Of one format; after that the rest of its cases are left out, which the table shows."""


@dataclass(frozen=True)
class Outcome:
    """What became of one damaged file: "read", "refused" or a failure, and its description."""

    kind: str
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        return self.kind not in ("read", "refused")


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file's content in one to three ways."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            break
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        mutation(data, rng)
    return bytes(data)


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def _flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for position in rng.integers(len(data), size=int(rng.integers(1, 9))):
        data[int(position)] ^= 1 << int(rng.integers(8))


def _flip_bits_of_head(data: bytearray, rng: np.random.Generator) -> None:
    for position in rng.integers(min(len(data), 512), size=int(rng.integers(1, 5))):
        data[int(position)] ^= 1 << int(rng.integers(8))


def _overwrite(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _span(data, rng, 64)
    data[start : start + length] = rng.bytes(length)


def _overwrite_with_extremes(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data)))
    extremes = (b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"9" * 12, b"-1", b"nan", b"1e308")
    extreme = extremes[int(rng.integers(len(extremes)))]
    data[start : start + len(extreme)] = extreme


def _delete(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _span(data, rng, 256)
    del data[start : start + length]


def _insert(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _span(data, rng, 64)
    data[start:start] = rng.bytes(length)


def _repeat(data: bytearray, rng: np.random.Generator) -> None:
    start, length = _span(data, rng, 1024)
    data[start:start] = data[start : start + length]


def _swap(data: bytearray, rng: np.random.Generator) -> None:
    (first, length), (second, _) = _span(data, rng, 256), _span(data, rng, 256)
    if first + length <= second and second + length <= len(data):
        data[first : first + length], data[second : second + length] = (
            data[second : second + length],
            data[first : first + length],
        )


def _empty(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(3)) :]


MUTATIONS: Final[tuple[Callable[[bytearray, np.random.Generator], None], ...]] = (
    _cut,
    _cut,
    _flip_bits,
    _flip_bits,
    _flip_bits_of_head,
    _overwrite,
    _overwrite_with_extremes,
    _delete,
    _insert,
    _repeat,
    _swap,
    _empty,
)


def _span(data: bytearray, rng: np.random.Generator, longest: int) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, int(rng.integers(1, longest + 1))


class Workshop:
    """Makes a format's damaged files in a folder of its own, and reads them."""

    def __init__(self, name: str, samples: Path, folder: Path):
        self._name = name
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._samples = sorted(samples.iterdir())

    def try_case(self, number: int) -> Outcome:
        """Damage a sample and read it, strictly and tolerantly."""
        rng = np.random.default_rng([number, *self._name.encode()])
        sample = self._samples[number % len(self._samples)]
        if sample.is_dir():
            return self._try_folder(sample, rng)
        path = self._folder / f"case-{number % 4}{sample.suffix}"
        path.write_bytes(mutate(sample.read_bytes(), rng))
        if sample.name.startswith("frames"):
            looked_at = self._judged(_read_recording, path)
            if looked_at.is_failure:
                return looked_at
        strict, num_strict = self._read(path, tolerant=False)
        tolerant, num_tolerant = self._read(path, tolerant=True)
        if strict.is_failure or tolerant.is_failure:
            return strict if strict.is_failure else Outcome(tolerant.kind, f"tolerant: {tolerant.detail}")
        if strict.kind == "read" and tolerant.kind != "read":
            return Outcome("contradiction", f"read strictly, but tolerant: {tolerant.detail}")
        if num_tolerant < num_strict:
            return Outcome("contradiction", f"{num_strict} events strictly, {num_tolerant} with tolerant")
        return strict if strict.kind == "refused" else Outcome("read")

    def _try_folder(self, sample: Path, rng: np.random.Generator) -> Outcome:
        """Damage, remove or rename one file of a recording's folder, and read the recording."""
        folder = self._folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sample, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        file = files[int(rng.integers(len(files)))]
        kind = int(rng.integers(8))
        if kind == 0:
            file.unlink()
        elif kind == 1:
            file.rename(file.with_name(f"x{file.name}"))
        else:
            file.write_bytes(mutate(file.read_bytes(), rng))
        strict = self._judged(_read_recording, folder)
        tolerant = self._judged(lambda path: _read_recording(path, tolerant=True), folder)
        return tolerant if tolerant.is_failure else strict

    def _read(self, path: Path, *, tolerant: bool) -> tuple[Outcome, int]:
        counted = [0]

        def read(path: Path) -> None:
            counted[0] = _read_events(path, tolerant=tolerant)

        outcome = self._judged(read, path)
        return outcome, counted[0]

    def _judged(self, read: Callable[[Path], None], path: Path) -> Outcome:
        from evfi.errors import EvfiError

        try:
            read(path)
        except EvfiError as error:
            text = str(error)
            is_one_line = bool(text) and "\n" not in text and text.isprintable()
            return Outcome("refused" if is_one_line else "ugly message", repr(text))
        except MemoryError:
            return Outcome("memory", _where())
        except Exception as error:
            return Outcome("exception", f"{type(error).__name__}: {error} at {_where()}")
        return Outcome("read")


def _read_events(path: Path, *, tolerant: bool) -> int:
    from evfi.events.formats import open_event_file
    from evfi.events.formats.columns import EventFileOptions

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


def work(connection: Connection, folder: Path) -> None:
    """A worker: takes (format, number), gives outcomes, until it is told None."""
    os.environ["EVFI_CACHE"] = str(folder / "cache")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    workshops: dict[str, Workshop] = {}
    is_limited = False
    while (case := connection.recv()) is not None:
        name, number = case
        if name not in workshops:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            workshops[name] = Workshop(name, folder.parent / "samples" / name, folder / name)
            workshops[name].try_case(number)  # compiles, imports
            is_limited = False
        if not is_limited:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_LIMIT_BYTES, resource.RLIM_INFINITY))
            is_limited = True
        connection.send(workshops[name].try_case(number))


class Pool:
    """Workers that are killed and replaced when they hang or die."""

    def __init__(self, num_workers: int, folder: Path):
        self._context = multiprocessing.get_context("spawn")
        self._folder = folder
        self._num_started = 0
        self._workers = [self._start() for _ in range(num_workers)]

    def run(self, cases: Iterator[tuple[str, int]]) -> Iterator[tuple[tuple[str, int], Outcome]]:
        """Give every case to a worker; yields outcomes as they come."""
        busy: dict[int, tuple[tuple[str, int], float]] = {}
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
                    busy[index] = case, time.monotonic() + (120 if is_new else TIME_LIMIT_S)
            ready = wait([self._workers[index][1] for index in busy], timeout=0.5)
            for index in list(busy):
                case, deadline = busy[index]
                process, connection = self._workers[index]
                outcome: Outcome | None = None
                if connection in ready:
                    try:
                        outcome = connection.recv()
                    except (EOFError, OSError):
                        process.join()
                        outcome = Outcome("crash", f"exit status {process.exitcode}")
                elif time.monotonic() > deadline:
                    outcome = Outcome("hang", f"no end within {TIME_LIMIT_S:g} s")
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

    def _number_of(self, index: int) -> int:
        return int(self._workers[index][0].name)

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        self._num_started += 1
        folder = self._folder / str(self._num_started)
        process = self._context.Process(target=work, args=(theirs, folder), name=str(self._num_started), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="damaged files in all")
    parser.add_argument("--only", choices=sorted(SAMPLES), help="one format alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each format")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else sorted(SAMPLES)
    per_format = -(-arguments.cases // len(names))
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    cases = (
        (name, arguments.first + number)
        for name in names
        for number in range(per_format)
        if counts[name].total() - counts[name]["read"] - counts[name]["refused"] < MAX_FAILURES
    )
    num_shown = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            samples = Path(folder) / "samples" / name
            samples.mkdir(parents=True)
            SAMPLES[name](samples)
        pool = Pool(arguments.workers, Path(folder))
        try:
            for (name, number), outcome in pool.run(cases):
                counts[name][outcome.kind] += 1
                if (outcome.is_failure and num_shown < MAX_SHOWN) or arguments.cases == 1:
                    num_shown += outcome.is_failure
                    print(f"{name} {number}: {outcome.kind}: {outcome.detail}", flush=True)
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
    print(f"{total} damaged files, {num_failed} failures, {seconds:.0f} s")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
