"""Feed damaged event files to every reader and see that each ends in events, or in one line of error.

    python scripts/fuzz_formats.py --cases 100000

Small files of every format are written, then cut, flipped, overwritten, reordered and spliced at random. Each damaged file
is opened and read to its end, strictly and with `tolerant`, in worker processes whose memory is limited; `fuzzing` says
what must not happen.

A case is named by its format and number; `--only FORMAT --first N --cases 1` repeats it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

import fuzzing
from file_writers.samples import SAMPLES


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
    """Makes a format's damaged files."""

    def __init__(self, name: str, samples: Path, folder: Path):
        self._name = name
        self._folder = folder
        self._samples = sorted(samples.iterdir())

    def sound(self) -> Iterator[fuzzing.Written]:
        """The samples themselves."""
        for sample in self._samples:
            yield fuzzing.Written(sample, not sample.is_dir(), sample.is_dir() or sample.name.startswith("frames"))

    def write(self, number: int) -> fuzzing.Written:
        """Damage a sample, or one file of a recording's folder."""
        rng = np.random.default_rng([number, *self._name.encode()])
        sample = self._samples[number % len(self._samples)]
        if sample.is_dir():
            return self._write_folder(sample, rng)
        path = self._folder / f"case-{number % 4}{sample.suffix}"
        path.write_bytes(mutate(sample.read_bytes(), rng))
        return fuzzing.Written(path, has_frames=sample.name.startswith("frames"))

    def _write_folder(self, sample: Path, rng: np.random.Generator) -> fuzzing.Written:
        """Damage, remove or rename one file."""
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
        return fuzzing.Written(folder, has_events=False, has_frames=True)


def write_samples(name: str, folder: Path) -> None:
    """Write the sound files of a format."""
    SAMPLES[name](folder)


if __name__ == "__main__":
    names = sorted(SAMPLES)
    sys.exit(fuzzing.run(fuzzing.arguments_of(__doc__, names), names, Workshop, write_samples))
