"""Measure how fast event files are opened and read whole, side by side with other libraries.

    python scripts/bench_formats.py [--events 16000000] [--runs 3] [--formats aedat4 npz] [--output table.md]

Files are made by the writers of the tests. Each measurement runs in a process of its own that has first read a tiny file of
the same format, so that imports and the loading of compiled code are not counted; the file is in the disk's cache. "first"
opens without a kept index, "again" with one. Figures are the best run and, in brackets, the median.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evfi.evaluation.environment import processor_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SIZE = (640, 480)
NUM_WARM = 2000
START_US = 1_000_000
SLOW_LIBRARY_EVENTS = 500_000
"""Libraries below 2 M events/s read no more than so many."""

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def make_events(count: int) -> Columns:
    """x, y, t (µs), p (0/1): short runs of neighbouring pixels of one row that fire at once, a few events per µs."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(0.3, count), 12)
    num_runs = int(np.searchsorted(np.cumsum(lengths), count)) + 1
    lengths = lengths[:num_runs]
    first_x, row = rng.integers(0, SIZE[0] - 12, num_runs), rng.integers(0, SIZE[1], num_runs)
    times = START_US + np.cumsum(rng.integers(0, 4, num_runs))
    sign = rng.integers(0, 2, num_runs)
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    x = np.repeat(first_x, lengths) + within
    y, t, p = (np.repeat(column, lengths) for column in (row, times, sign))
    return x[:count].astype(np.uint16), y[:count].astype(np.uint16), t[:count], p[:count].astype(np.uint8)


def write_aedat4(path: Path, columns: Columns) -> None:
    """By dv-processing, LZ4."""
    import dv_processing as dv

    config = dv.io.MonoCameraWriter.Config("camera", dv.CompressionType.LZ4)
    config.addEventStream(SIZE)
    writer = dv.io.MonoCameraWriter(str(path), config)
    for first in range(0, len(columns[0]), 2**16):
        store = dv.EventStore()
        for x, y, t, p in zip(*(column[first : first + 2**16].tolist() for column in columns), strict=True):
            store.push_back(t, x, y, bool(p))
        writer.writeEvents(store)
    del writer


def write_raw(encoding: str) -> Callable[[Path, Columns], None]:
    """Prophesee RAW of this encoding."""

    def write(path: Path, columns: Columns) -> None:
        from file_writers import prophesee

        prophesee.write_raw(path, encoding, *columns, SIZE)  # type: ignore[arg-type]

    return write


def write_dat(path: Path, columns: Columns) -> None:
    """Prophesee DAT."""
    from file_writers import prophesee

    prophesee.write_dat(path, *columns, SIZE)


def write_dsec(path: Path, columns: Columns) -> None:
    """DSEC's HDF5, Blosc."""
    from file_writers import hdf5

    hdf5.write_dsec_hdf5(path, *columns)


def write_ros1(path: Path, columns: Columns) -> None:
    """ROS 1 bag of event arrays."""
    from file_writers import rosbag

    rosbag.write_bag(path, "ros1", list(rosbag.event_arrays(*columns, SIZE, per_message=20_000)))


def write_npz(path: Path, columns: Columns) -> None:
    """NumPy archive, not compressed."""
    x, y, t, p = columns
    np.savez(path, x=x, y=y, t=t, p=p, sensor_size=SIZE)


def write_text(path: Path, columns: Columns) -> None:
    """Lines of a size and `t x y p`, seconds."""
    x, y, t, p = (column.tolist() for column in columns)
    with path.open("w") as file:
        for first in range(0, len(t), 2**17):
            part = slice(first, first + 2**17)
            rows = zip(t[part], x[part], y[part], p[part], strict=True)
            file.write("".join([f"{a // 10**6}.{a % 10**6:06d} {b} {c} {d}\n" for a, b, c, d in rows]))


def write_es(path: Path, columns: Columns) -> None:
    """Event Stream, by the package event_stream."""
    import event_stream

    records = np.zeros(len(columns[0]), [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])
    records["x"], records["y"], records["t"], records["on"] = columns
    with event_stream.Encoder(str(path), "dvs", *SIZE) as encoder:
        for first in range(0, len(records), 2**16):
            encoder.write(records[first : first + 2**16])


def read_evfi(path: Path) -> int:
    """This project's reader."""
    from evfi.events.file_options import EventFileOptions
    from evfi.events.formats import open_event_file

    unit = "s" if path.suffix == ".txt" else None
    source = open_event_file(path, EventFileOptions(sensor_size=SIZE, time_unit=unit))
    return sum(len(piece) for piece in source.pieces())


def read_dv(path: Path) -> int:
    import dv_processing as dv

    reader, count = dv.io.MonoCameraRecording(str(path)), 0
    while (store := reader.getNextEventBatch()) is not None:
        store.timestamps(), store.coordinates(), store.polarities()
        count += len(store)
    return count


def read_aedat(path: Path) -> int:
    import aedat

    return sum(len(packet["events"]) for packet in aedat.Decoder(str(path)) if "events" in packet)


def read_expelliarmus(encoding: str) -> Callable[[Path], int]:
    def read(path: Path) -> int:
        from expelliarmus import Wizard

        return len(Wizard(encoding=encoding).read(path))

    return read


def read_evt3(path: Path) -> int:
    import evt3

    events = evt3.decode_file(str(path))
    return len(events.timestamp)


def read_faery(path: Path) -> int:
    import faery

    return sum(len(packet) for packet in faery.events_stream_from_file(path))


def read_evlib(path: Path) -> int:
    import evlib

    return int(evlib.load_events(str(path)).collect().height)


def read_h5py(path: Path) -> int:
    import h5py
    import hdf5plugin  # noqa: F401

    with h5py.File(path) as file:
        columns = [file[f"events/{name}"][:] for name in "xytp"]
    return len(columns[0])


def read_rosbags(path: Path) -> int:
    from rosbags.rosbag1 import Reader
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store, count = get_typestore(Stores.ROS1_NOETIC), 0
    with Reader(path) as reader:
        for connection, _, data in reader.messages():
            if not count:
                store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
            count += len(store.deserialize_ros1(data, connection.msgtype).events)
            if count >= SLOW_LIBRARY_EVENTS:
                break
    return count


def read_numpy(path: Path) -> int:
    with np.load(path) as archive:
        columns = [archive[name] for name in "xytp"]
    return len(columns[0])


def read_loadtxt(path: Path) -> int:
    return len(np.loadtxt(path, max_rows=SLOW_LIBRARY_EVENTS))


def read_polars(path: Path) -> int:
    import polars

    return int(polars.read_csv(path, separator=" ", has_header=False).height)


def read_event_stream(path: Path) -> int:
    import event_stream

    return sum(len(packet) for packet in event_stream.Decoder(str(path)))


@dataclass(frozen=True)
class Format:
    """A format to measure: how its files are named and made, and who else reads them (package, reader)."""

    suffix: str
    write: Callable[[Path, Columns], None]
    target: float | None
    others: dict[str, tuple[str, Callable[[Path], int]]]


FORMATS = {
    "aedat4": Format(
        ".aedat4", write_aedat4, 25, {"dv-processing": ("dv_processing", read_dv), "aedat": ("aedat", read_aedat)}
    ),
    "evt3": Format(
        ".raw",
        write_raw("EVT3"),
        80,
        {
            "expelliarmus": ("expelliarmus", read_expelliarmus("evt3")),
            "evt3": ("evt3", read_evt3),
            "faery": ("faery", read_faery),
            "evlib": ("evlib", read_evlib),
        },
    ),
    "evt2": Format(
        ".raw",
        write_raw("EVT2"),
        120,
        {
            "expelliarmus": ("expelliarmus", read_expelliarmus("evt2")),
            "faery": ("faery", read_faery),
            "evlib": ("evlib", read_evlib),
        },
    ),
    "evt21": Format(".raw", write_raw("EVT21"), None, {"faery": ("faery", read_faery)}),
    "dat": Format(
        ".dat",
        write_dat,
        80,
        {"expelliarmus": ("expelliarmus", read_expelliarmus("dat")), "faery": ("faery", read_faery)},
    ),
    "hdf5-dsec": Format(".h5", write_dsec, 50, {"h5py": ("h5py", read_h5py)}),
    "npz": Format(".npz", write_npz, 60, {"numpy": ("numpy", read_numpy)}),
    "ros1": Format(".bag", write_ros1, 25, {"rosbags objects": ("rosbags", read_rosbags)}),
    "text": Format(".txt", write_text, 10, {"polars": ("polars", read_polars), "numpy": ("numpy", read_loadtxt)}),
    "es": Format(".es", write_es, None, {"event_stream": ("event_stream", read_event_stream)}),
}


def measure_here(format_name: str, reader: str, path: Path, warm: Path) -> dict[str, Any]:
    """In a process of its own: read a tiny file, then the large one."""
    read = read_evfi if reader == "evfi" else FORMATS[format_name].others[reader][1]
    read(warm)
    begin = time.perf_counter()
    count = read(path)
    return {"seconds": time.perf_counter() - begin, "count": count}


def measure(format_name: str, reader: str, path: Path, warm: Path, cache: Path) -> dict[str, Any]:
    """One measurement in a fresh process; "error" where it fails."""
    command = [sys.executable, __file__, "--measure", format_name, reader, str(path), str(warm)]
    environment = {**os.environ, "EVFI_CACHE": str(cache), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1][:90]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def row_of(name: str, folder: Path, columns: Columns, num_runs: int) -> str:
    """The table's line of one format."""
    kind = FORMATS[name]
    path, warm = (folder / f"{name}-{part}{kind.suffix}" for part in ("all", "warm"))
    try:
        kind.write(warm, tuple(column[:NUM_WARM] for column in columns))  # type: ignore[arg-type]
        kind.write(path, columns)
    except ImportError as error:
        return f"| {name} | not made: {error} | | | | | |"
    rates: dict[str, list[float]] = {"first": [], "again": []}
    others: dict[str, list[float] | str] = {}
    for run in range(num_runs):  # side by side: one after the other, in turn
        for when in rates:
            result = measure(name, "evfi", path, warm, folder / f"cache-{name}-{run}")
            if "error" in result:
                return f"| {name} | {result['error']} | | | | | |"
            if result["count"] != len(columns[0]):
                return f"| {name} | {result['count']} events found of {len(columns[0])} | | | | | |"
            rates[when].append(result["count"] / result["seconds"] / 1e6)
        for library, (package, _) in kind.others.items():
            others[library] = _other_rate(name, library, package, (path, warm), others.get(library, []))
    path.unlink()
    return _describe(name, kind, rates, others, len(columns[0]))


def _other_rate(
    name: str, library: str, package: str, paths: tuple[Path, Path], before: list[float] | str
) -> list[float] | str:
    if isinstance(before, str):
        return before
    try:
        importlib.import_module(package)
    except ImportError:
        return "not installed"
    result = measure(name, library, *paths, paths[0].parent / "cache-others")
    if "error" in result:
        return f"failed: {result['error']}"
    return [*before, result["count"] / result["seconds"] / 1e6]


def _describe(
    name: str, kind: Format, rates: dict[str, list[float]], others: dict[str, list[float] | str], count: int
) -> str:
    shown = [f"{library}: {_shown(found)}" for library, found in others.items()]
    numbers = {library: max(found) for library, found in others.items() if not isinstance(found, str)}
    best = max(numbers.values(), default=None)
    first = max(rates["first"])
    ratio = "" if best is None else f"{first / best:.2f}"
    target = "" if kind.target is None else f"{kind.target:g}"
    verdict = ""
    if kind.target is not None:
        best_again = max(rates["again"])
        verdict = "pass" if first >= kind.target else ("again only" if best_again >= kind.target else "FAIL")
    ours = (_shown(rates[when]) for when in ("first", "again"))
    return f"| {name} | {' | '.join(ours)} | {'; '.join(shown)} | {ratio} | {target} | {verdict} |"


def _shown(found: list[float] | str) -> str:
    return found if isinstance(found, str) else f"{max(found):.1f} ({statistics.median(found):.1f})"


def machine() -> str:
    """The processor and how many cores may be used."""
    return f"{processor_name()}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=16_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, reader, path, warm = arguments.measure
        print(json.dumps(measure_here(name, reader, Path(path), Path(warm))))
        return
    columns = make_events(arguments.events)
    lines = [
        f"{arguments.events} events of {SIZE[0]}×{SIZE[1]}, {arguments.runs} runs, M events/s; {machine()}.",
        "",
        "| format | evfi, first | evfi, again | others | ratio to the best | target | |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.formats:
            print(f"{name} …", file=sys.stderr, flush=True)
            lines.append(row_of(name, Path(folder), columns, arguments.runs))
    print("\n".join(lines))
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
