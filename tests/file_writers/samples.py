"""Small event files of every format: what the fuzzer damages.

Each entry of `SAMPLES` writes the files of one format into a folder and returns their paths. All hold the same few hundred
events of a 64×48 sensor, in as many variants as the format has.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZE = (64, 48)
NUM_EVENTS = 300


def sample_events() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, t (µs), p (0/1) of the events that every sample holds."""
    rng = np.random.default_rng(0)
    t = 1000 + np.sort(rng.integers(0, 50_000, NUM_EVENTS))
    return rng.integers(0, SIZE[0], NUM_EVENTS), rng.integers(0, SIZE[1], NUM_EVENTS), t, rng.integers(0, 2, NUM_EVENTS)


def _aedat4(folder: Path) -> list[Path]:
    from file_writers.aedat4 import write_aedat4

    x, y, t, p = sample_events()
    events = np.stack([t, x // 2, y // 2, p], 1)
    frames = np.random.default_rng(1).integers(0, 256, (3, 24, 32), np.uint8)
    return [
        write_aedat4(
            folder / f"{name}.aedat4", events=events, frames=frames if name == "frames" else None, compression=how
        )
        for name, how in (("lz4", "LZ4"), ("zstd", "ZSTD"), ("none", "NONE"), ("frames", "LZ4"))
    ]


def _prophesee_raw(folder: Path) -> list[Path]:
    from file_writers.prophesee import write_raw

    kinds = (("EVT2", "little"), ("EVT21", "little"), ("EVT21", "legacy"), ("EVT3", "little"))
    return [
        write_raw(folder / f"{encoding}-{order}.raw", encoding, *sample_events(), SIZE, order=order)  # type: ignore[arg-type]
        for encoding, order in kinds
    ]


def _prophesee_dat(folder: Path) -> list[Path]:
    from file_writers.prophesee import write_dat

    return [write_dat(folder / "events.dat", *sample_events(), size=SIZE)]


def _rosbag(folder: Path) -> list[Path]:
    from file_writers.rosbag import event_arrays, event_packets, image, write_bag

    columns = sample_events()
    arrays = list(event_arrays(*columns, SIZE, per_message=50))
    frames = [image(np.full((24, 32), 60 * i, np.uint8), "mono8", 1000 + 20_000 * i) for i in range(3)]
    paths = [
        write_bag(folder / "none.bag", "ros1", arrays),
        write_bag(folder / "bz2.bag", "ros1", arrays, "bz2"),
        write_bag(folder / "frames.bag", "ros1", arrays + frames, "lz4"),
    ]
    for encoding in ("evt3", "libcaer", "libcaer_cmp", "mono"):
        packets = list(event_packets(*columns, SIZE, encoding, per_message=50, ros_minus_camera_us=10**9))
        paths.append(write_bag(folder / f"{encoding}.bag", "ros1", packets))
    for kind, compression in (("ros2", None), ("ros2", "message"), ("mcap", None), ("mcap", "storage")):
        written = write_bag(folder / f"{kind}-{compression}", kind, arrays + frames, compression)  # type: ignore[arg-type]
        (file,) = (file for file in written.iterdir() if file.suffix != ".yaml")
        paths.append(file.rename(folder / f"frames-{written.name}{file.suffix}"))
        shutil.rmtree(written)
    return paths


def _hdf5(folder: Path) -> list[Path]:
    from file_writers.hdf5 import write_dsec_hdf5, write_event_utils_hdf5, write_prophesee_hdf5, write_v2e_hdf5

    columns = sample_events()
    modes = ("runs", "pairs", "triples", None)
    paths = [write_prophesee_hdf5(folder / f"{mode}.h5", *columns, SIZE, mode=mode, chunk=100) for mode in modes]
    paths += [write_dsec_hdf5(folder / "dsec.h5", *columns), write_v2e_hdf5(folder / "v2e.h5", *columns)]
    return [*paths, write_event_utils_hdf5(folder / "frames-event_utils.h5", *columns, SIZE)]


def _npz(folder: Path) -> list[Path]:
    x, y, t, p = sample_events()
    small = {"x": x.astype(np.uint16), "y": y.astype(np.uint16), "t": t, "p": p.astype(np.int8)}
    np.savez(folder / "stored.npz", **small, sensor_size=SIZE)
    np.savez_compressed(folder / "packed.npz", timestamp=t / 1e6, xs=x, ys=y, polarity=p.astype(bool))
    np.savez_compressed(folder / "rows.npz", events=np.stack([t, x, y, p], 1))
    return sorted(folder.iterdir())


def _text(folder: Path) -> list[Path]:
    x, y, t, p = sample_events()
    rows = list(zip(t.tolist(), x.tolist(), y.tolist(), p.tolist(), strict=True))
    (folder / "seconds.txt").write_text("".join(f"{t / 1e6:.6f} {x} {y} {p}\n" for t, x, y, p in rows))
    (folder / "sized.txt").write_text("64 48\n" + "".join(f"{t}\t{x}\t{y}\t{2 * p - 1}\n" for t, x, y, p in rows))
    (folder / "named.csv").write_text("x,y,polarity,t\r\n" + "".join(f"{x},{y},{p},{t}\r\n" for t, x, y, p in rows))
    (folder / "packed.txt.gz").write_bytes(gzip.compress((folder / "seconds.txt").read_bytes()))
    return sorted(folder.iterdir())


def _es(folder: Path) -> list[Path]:
    from file_writers.es import write_es

    return [write_es(folder / "events.es", *sample_events(), SIZE)]


def _datasets(folder: Path) -> list[Path]:
    from file_writers.datasets import LAYOUTS, known_recording

    recording = known_recording()
    for name, (_, write) in LAYOUTS.items():
        (folder / name).mkdir()
        write(folder / name, recording)
    return sorted(folder.iterdir())


SAMPLES: dict[str, Callable[[Path], list[Path]]] = {
    "aedat4": _aedat4,
    "datasets": _datasets,
    "es": _es,
    "hdf5": _hdf5,
    "npz": _npz,
    "prophesee-dat": _prophesee_dat,
    "prophesee-raw": _prophesee_raw,
    "rosbag": _rosbag,
    "text": _text,
}
