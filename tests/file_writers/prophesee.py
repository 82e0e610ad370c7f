"""Writes Prophesee RAW (EVT2, EVT2.1, EVT3) and DAT files; polarities are 0 or 1, times µs in ascending order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Encoding = Literal["EVT2", "EVT21", "EVT3"]
WordOrder = Literal["little", "legacy"]
TRIGGER16, TRIGGER32 = 0xA001, 0xA0000001
_VERSIONS = {"EVT2": "2.0", "EVT21": "2.1", "EVT3": "3.0"}
_GROUP = 32  # columns of one vector


def write_raw(
    path: Path,
    encoding: Encoding,
    x: NDArray[Any],
    y: NDArray[Any],
    t: NDArray[Any],
    p: NDArray[Any],
    size: tuple[int, int] | None = (1280, 720),
    *,
    order: WordOrder = "little",
    num_triggers: int = 0,
) -> Path:
    """Write a RAW file with a header of today; `size` None leaves the sensor out of it."""
    if encoding == "EVT2":
        data = evt2_words(x, y, t, p, num_triggers).tobytes()
    elif encoding == "EVT21":
        data = evt21_words(x, y, t, p, order, num_triggers).tobytes()
    else:
        data = evt3_words(x, y, t, p, num_triggers).tobytes()
    path.write_bytes(raw_header(encoding, size, order) + data)
    return path


def raw_header(encoding: Encoding, size: tuple[int, int] | None, order: WordOrder = "little") -> bytes:
    """A header of a RAW file."""
    options = f";height={size[1]};width={size[0]}" if size else ""
    if encoding == "EVT21":
        options += f";endianness={order}"
    geometry = f"% geometry {size[0]}x{size[1]}\n" if size else ""
    return (
        f"% camera_integrator_name Maker\n% date 2024-01-02 03:04:05\n% evt {_VERSIONS[encoding]}\n"
        f"% format {encoding}{options}\n{geometry}% end\n"
    ).encode()


def write_dat(
    path: Path,
    x: NDArray[Any],
    y: NDArray[Any],
    t: NDArray[Any],
    p: NDArray[Any],
    size: tuple[int, int] | None = (1280, 720),
    *,
    kind: int = 12,
) -> Path:
    """Write a DAT file."""
    sizes = f"% Width {size[0]}\n% Height {size[1]}\n" if size else ""
    header = f"% Data file containing CD events\n% Date 2024-01-02 03:04:05\n% Version 2\n{sizes}"
    path.write_bytes(header.encode() + bytes([kind, 8]) + dat_words(x, y, t, p).tobytes())
    return path


def dat_words(x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any]) -> NDArray[np.uint64]:
    """Records of DAT."""
    address = _wide(x) | _wide(y) << np.uint64(14) | _wide(p) << np.uint64(28)
    return (address << np.uint64(32) | _wide(t) & np.uint64(0xFFFFFFFF)).astype("<u8")


def evt2_words(
    x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any], num_triggers: int = 0
) -> NDArray[np.uint32]:
    """Words of EVT2: a word of high time whenever that changes, and one for each event."""
    heads = _heads(x, y, t, p)
    times = _time_high(t)
    words = np.stack([times, heads], 1)
    keep = np.stack([_changes(times), np.ones(len(heads), bool)], 1)
    return _with_triggers(words[keep], num_triggers, TRIGGER32).astype("<u4")


def evt21_words(
    x: NDArray[Any],
    y: NDArray[Any],
    t: NDArray[Any],
    p: NDArray[Any],
    order: WordOrder = "little",
    num_triggers: int = 0,
) -> NDArray[np.uint64]:
    """Words of EVT2.1: events of one time, row and polarity in ascending columns share a word."""
    first = _starts_of_vectors(x, y, t, p)
    masks = _masks(x, first)
    columns = np.asarray(x)[first] // _GROUP * _GROUP
    heads = _heads(columns, np.asarray(y)[first], np.asarray(t)[first], np.asarray(p)[first])
    times = _time_high(np.asarray(t)[first])
    shifts = (np.uint64(32), np.uint64(0)) if order == "little" else (np.uint64(0), np.uint64(32))
    words = np.stack([times << shifts[0], heads << shifts[0] | masks << shifts[1]], 1)
    keep = np.stack([_changes(times), np.ones(len(heads), bool)], 1)
    return _with_triggers(words[keep], num_triggers, TRIGGER32 << int(shifts[0])).astype("<u8")


def evt3_words(
    x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any], num_triggers: int = 0, min_vector: int = 3
) -> NDArray[np.uint16]:
    """Words of EVT3: vectors (12, 12 and 8 columns) where at least `min_vector` events fit into one, else single events."""
    first = _starts_of_vectors(x, y, t, p)
    counts = np.diff(np.append(first, len(x)))
    in_vector = np.repeat(counts >= min_vector, counts)
    starts = np.zeros(len(x), bool)
    starts[first] = True
    first = np.flatnonzero(starts | ~in_vector)
    is_vector = in_vector[first]
    xs, ys, ts, ps = (_wide(column)[first] for column in (x, y, t, p))
    masks = _masks(x, first)
    high, low = ts >> np.uint64(12) & np.uint64(0xFFF), ts & np.uint64(0xFFF)
    new_high = _changes(ts >> np.uint64(12))
    new_low = new_high | _changes(low)
    base = xs // np.uint64(_GROUP) * np.uint64(_GROUP)
    sign = ps << np.uint64(11)
    kinds = np.array([0x8000, 0x6000, 0x0000, 0x2000, 0x3000, 0x4000, 0x4000, 0x5000], np.uint64)
    vector = (masks & np.uint64(0xFFF), masks >> np.uint64(12) & np.uint64(0xFFF), masks >> np.uint64(24))
    words = np.stack([high, low, ys, xs | sign, base | sign, *vector], 1) | kinds
    keep = np.stack([new_high, new_low, _changes(ys), ~is_vector, *[is_vector] * 4], 1)
    return _with_triggers(words[keep], num_triggers, TRIGGER16, np.cumsum(keep.sum(1))).astype("<u2")


def _wide(values: NDArray[Any]) -> NDArray[np.uint64]:
    return np.asarray(values).astype(np.int64).astype(np.uint64)


def _heads(x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any]) -> NDArray[np.uint64]:
    time = (_wide(t) & np.uint64(0x3F)) << np.uint64(22)
    return _wide(p) << np.uint64(28) | time | _wide(x) << np.uint64(11) | _wide(y)


def _time_high(t: NDArray[Any]) -> NDArray[np.uint64]:
    return np.uint64(0x80000000) | _wide(t) >> np.uint64(6) & np.uint64(0xFFFFFFF)


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _starts_of_vectors(x: NDArray[Any], y: NDArray[Any], t: NDArray[Any], p: NDArray[Any]) -> NDArray[np.int64]:
    x = np.asarray(x).astype(np.int64)
    starts = _changes(x // _GROUP) | _changes(np.asarray(y)) | _changes(np.asarray(t)) | _changes(np.asarray(p))
    starts[1:] |= x[1:] <= x[:-1]
    return np.flatnonzero(starts)


def _masks(x: NDArray[Any], first: NDArray[np.int64]) -> NDArray[np.uint64]:
    bits = np.uint64(1) << _wide(x) % np.uint64(_GROUP)
    return np.bitwise_or.reduceat(bits, first) if len(first) else bits


def _with_triggers(
    words: NDArray[np.uint64], count: int, trigger: int, places: NDArray[np.int64] | None = None
) -> NDArray[np.uint64]:
    """Put triggers between words, as far as given only at certain places."""
    if count == 0:
        return words
    places = np.arange(len(words) + 1) if places is None else places
    return np.insert(words, places[np.linspace(0, len(places) - 1, count).astype(int)], np.uint64(trigger))
