"""Writers of HDF5 files of events, in the layouts that cameras, converters and datasets use."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Array = np.ndarray
CD_DTYPE = np.dtype([("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
TRIGGER_DTYPE = np.dtype([("p", "<i2"), ("t", "<i8"), ("id", "<i2")])


def encode_ecf(x: Array, y: Array, t: Array, p: Array, mode: str = "runs") -> bytes:
    """One chunk of ECF; `mode` says how rows, columns and polarities are coded: "runs", "pairs" or "triples"."""
    flags = {"runs": 0, "pairs": 1, "triples": 2}[mode]
    head = struct.pack("<Iq", len(t) << 2 | flags, int(t[0])) + _ecf_times(t)
    x, y, p = (np.asarray(column, np.int64) for column in (x, y, p))
    if mode == "triples":
        return head + _packed(y << 12 | x << 1 | p, 32, 24)
    rows = b"".join(_run(value, count, 5) for value, count in _runs(y))
    if mode == "pairs":
        return head + rows + _packed(x << 1 | p, 16, 12)
    return head + rows + _ecf_columns(x) + b"".join(_run_of_bytes(int(v) << 7, c, 127) for v, c in _runs(p))


def _runs(values: Array) -> list[tuple[int, int]]:
    starts = np.flatnonzero(np.r_[True, np.diff(values) != 0])
    counts = np.diff(np.r_[starts, len(values)])
    return [(int(values[start]), int(count)) for start, count in zip(starts, counts, strict=True)]


def _ecf_times(t: Array) -> bytes:
    out, now = bytearray(), int(t[0])
    for value, count in _runs(np.asarray(t, np.int64)):
        step = value - now
        if step >= 15:
            while step:
                out.append(0xF0 | step & 15)
                step >>= 4
        now = value
        out += _run_of_bytes(step << 4, count, 15)
    return bytes(out)


def _run_of_bytes(value: int, count: int, most: int) -> bytes:
    return bytes([value | count]) if count < most else bytes([value | most]) + struct.pack("<H", count)


def _run(value: int, count: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if count < most:
        return struct.pack("<H", value << bits | count)
    return struct.pack("<HH", value << bits | most, count)


def _ecf_columns(x: Array) -> bytes:
    out, i = bytearray(), 0
    while i < len(x):
        first, mask, i = int(x[i]), 0, i + 1
        for j in range(5):
            if i < len(x) and x[i] == first + j + 1:
                mask |= 16 >> j
                i += 1
        out += struct.pack("<H", first << 5 | mask)
    return bytes(out)


def _packed(values: Array, word_bits: int, bits: int) -> bytes:
    """Four values in three words: the two in the middle are split, low bits first."""
    rest = word_bits - bits
    v = np.append(values, np.zeros(-len(values) % 4, np.int64)).reshape(-1, 4)
    low = [(1 << rest) - 1, (1 << 2 * rest) - 1]
    words = [v[:, 0] << rest | v[:, 1] & low[0], v[:, 1] >> rest << 2 * rest | v[:, 2] & low[1]]
    words.append(v[:, 2] >> 2 * rest << bits | v[:, 3])
    return np.stack(words, 1).astype(f"<u{word_bits // 8}").tobytes()


def write_prophesee_hdf5(
    path: Path,
    x: Array,
    y: Array,
    t: Array,
    p: Array,
    size: tuple[int, int] | None = (64, 48),
    *,
    mode: str | None = "runs",
    chunk: int = 16384,
    num_triggers: int = 0,
    **create: Any,
) -> Path:
    """Prophesee's layout. `mode`: as `encode_ecf`, "mixed" for one after the other, or None to store records as `create`
    says (chunks, compression)."""
    with h5py.File(path, "w") as file:
        if size is not None:
            file.attrs["geometry"] = f"{size[0]}x{size[1]}"
        if mode is None:
            file.create_dataset("CD/events", data=_records(x, y, t, p), **create)
        else:
            _write_ecf(file, (x, y, t, p), mode, chunk)
        triggers = np.zeros(num_triggers, TRIGGER_DTYPE)
        file.create_dataset("EXT_TRIGGER/events", data=triggers)
        file.create_dataset("CD/indexes", data=np.zeros(1, [("id", "<u8"), ("ts", "<i8")]))
    return path


def _records(x: Array, y: Array, t: Array, p: Array) -> Array:
    rows = np.zeros(len(t), CD_DTYPE)
    for name, column in zip("xytp", (x, y, t, p), strict=True):
        rows[name] = column
    return rows


def _write_ecf(file: h5py.File, columns: tuple[Array, Array, Array, Array], mode: str, chunk: int) -> None:
    n = len(columns[2])
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((chunk,))
    plist.set_filter(0x8ECF, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((n,), (h5py.h5s.UNLIMITED,))
    group = file.create_group("CD")
    dataset = h5py.h5d.create(group.id, b"events", h5py.h5t.py_create(CD_DTYPE), space, plist)
    modes = ("runs", "pairs", "triples") if mode == "mixed" else (mode,)
    for number, first in enumerate(range(0, n, chunk)):
        part = [column[first : first + chunk] for column in columns]
        fill = chunk - len(part[2])  # the library codes whole chunks: rows beyond the end hold anything
        x, y, t, p = (np.append(column, np.repeat(column[-1:], fill)) for column in part)
        dataset.write_direct_chunk((first,), encode_ecf(x, y, t, p, modes[number % len(modes)]))


def write_dsec_hdf5(
    path: Path, x: Array, y: Array, t: Array, p: Array, *, offset: int = 0, filters: dict[str, Any] | None = None
) -> Path:
    """DSEC's layout; `t` before the offset is taken off. `filters` as h5py takes them; by default Blosc."""
    import hdf5plugin

    filters = dict(hdf5plugin.Blosc(cname="zstd")) if filters is None else filters
    relative = np.asarray(t, np.int64) - offset
    with h5py.File(path, "w") as file:
        for name, column, dtype in (("x", x, "u2"), ("y", y, "u2"), ("t", relative, "u4"), ("p", p, "u1")):
            file.create_dataset(f"events/{name}", data=np.asarray(column).astype(dtype), **filters)
        num_ms = int(relative[-1]) // 1000 + 1
        file["ms_to_idx"] = np.searchsorted(relative, 1000 * np.arange(num_ms)).astype(np.uint64)
        file["t_offset"] = np.int64(offset)
    return path


def write_event_utils_hdf5(
    path: Path,
    x: Array,
    y: Array,
    t: Array,
    p: Array,
    size: tuple[int, int] = (64, 48),
    *,
    images: Array | None = None,
    image_times_us: Array | None = None,
) -> Path:
    """The layout of event_utils (HQF): seconds, booleans, images with attributes."""
    with h5py.File(path, "w") as file:
        seconds = np.asarray(t) / 1e6
        for name, data in (("xs", np.int16(x)), ("ys", np.int16(y)), ("ts", seconds), ("ps", np.asarray(p) > 0)):
            file.create_dataset(f"events/{name}", data=data, chunks=True, maxshape=(None,))
        file.attrs["sensor_resolution"] = (size[1], size[0])
        for number, image in enumerate(images if images is not None else ()):
            dataset = file.create_dataset(f"images/image{number:09d}", data=image)
            dataset.attrs["size"] = image.shape
            dataset.attrs["timestamp"] = float(image_times_us[number]) / 1e6
            dataset.attrs["event_idx"] = int(np.searchsorted(t, image_times_us[number]))
            dataset.attrs["type"] = "greyscale" if image.ndim == 2 else "color_bgr"
    return path


def write_v2e_hdf5(path: Path, x: Array, y: Array, t: Array, p: Array, frames: Array | None = None) -> Path:
    """v2e's layout: one matrix t, x, y, p."""
    with h5py.File(path, "w") as file:
        rows = np.stack([t, x, y, np.asarray(p) > 0], 1).astype(np.uint32)
        file.create_dataset("events", data=rows, maxshape=(None, 4), compression="gzip")
        if frames is not None:
            file["frame"] = frames
    return path


def write_mvsec_hdf5(
    path: Path,
    x: Array,
    y: Array,
    t: Array,
    p: Array,
    *,
    images: Array | None = None,
    image_times_us: Array | None = None,
) -> Path:
    """MVSEC's data file: the left camera's events [x, y, t in s, ±1] and images."""
    with h5py.File(path, "w") as file:
        rows = np.stack([x, y, np.asarray(t) / 1e6, np.where(np.asarray(p) > 0, 1, -1)], 1)
        file["davis/left/events"] = rows.astype(np.float64)
        if images is not None:
            file["davis/left/image_raw"] = images
            file["davis/left/image_raw_ts"] = np.asarray(image_times_us) / 1e6
            file["davis/left/image_raw_event_inds"] = np.searchsorted(t, image_times_us)
    return path


def write_dsec_folder(
    folder: Path,
    events: tuple[Array, Array, Array, Array],
    images: Array,
    exposures_us: Array,
    *,
    sequence: str | None = None,
    offset: int = 0,
    calibration: str | None = None,
    rectify_map: Array | None = None,
) -> Path:
    """DSEC's folder, sorted into subfolders, or as it unpacks under the name of a sequence."""
    from PIL import Image

    names = (
        "events/left",
        "images/left/rectified",
        "images/timestamps.txt",
        "images/left/exposure_timestamps_left.txt",
    )
    names = (*names, "calibration/cam_to_cam.yaml")
    if sequence:
        flat = ("events_left", "images_rectified_left", "image_timestamps.txt", "image_exposure_timestamps_left.txt")
        names = (*(f"{sequence}_{name}" for name in flat), f"{sequence}_calibration/cam_to_cam.yaml")
    event_folder, pictures, times, exposures, cam_to_cam = (folder / name for name in names)
    for made in (event_folder, pictures, times.parent, exposures.parent, cam_to_cam.parent):
        made.mkdir(parents=True, exist_ok=True)
    write_dsec_hdf5(event_folder / "events.h5", *events, offset=offset)
    for number, image in enumerate(images):
        Image.fromarray(image).save(pictures / f"{number:06d}.png")
    times.write_text("".join(f"{start}\n" for start, _ in exposures_us))
    rows = "".join(f"{start}, {end}\n" for start, end in exposures_us)
    exposures.write_text(f"# exposure_start_timestamp_us, exposure_end_timestamp_us\n{rows}")
    if rectify_map is not None:
        with h5py.File(event_folder / "rectify_map.h5", "w") as file:
            file["rectify_map"] = rectify_map.astype(np.float32)
    if calibration is not None:
        cam_to_cam.write_text(calibration)
    return folder
