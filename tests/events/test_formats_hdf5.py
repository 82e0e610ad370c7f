"""Tests of the readers of HDF5 event files."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from evfi.errors import ConfigError, EvfiError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import find_event_format, open_event_file
from evfi.events.formats.hdf5 import is_hdf5, open_hdf5
from evfi.events.formats.hdf5.container import Hdf5File
from evfi.events.source import EventSource
from evfi.events.stream import EventStream
from file_writers.hdf5 import (
    CD_DTYPE,
    encode_ecf,
    write_dsec_hdf5,
    write_event_utils_hdf5,
    write_mvsec_hdf5,
    write_prophesee_hdf5,
    write_v2e_hdf5,
)

SIZE = (64, 48)
Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def events() -> Columns:
    """x, y, t, p (0/1) with runs of equal times, rows and polarities, and steps of all sizes."""
    rng = np.random.default_rng(3)
    n = 3000
    steps = rng.choice([0, 0, 0, 1, 14, 15, 16, 300, 70000], n)
    y = np.repeat(rng.integers(0, SIZE[1], n), rng.integers(1, 40, n))[:n]
    x = (np.arange(n) + rng.integers(0, 2, n)) % SIZE[0]
    return x, y, 5000 + np.cumsum(steps), np.repeat(rng.integers(0, 2, n), rng.integers(1, 200, n))[:n]


def prophesee(mode: str | None, **create: object) -> Callable[[Path, Columns], Path]:
    return lambda path, events: write_prophesee_hdf5(path, *events, mode=mode, chunk=700, **create)


WRITERS: dict[str, Callable[[Path, Columns], Path]] = {
    "prophesee ecf": prophesee("mixed"),
    "prophesee plain": prophesee(None),
    "prophesee compressed": prophesee(None, chunks=(500,), compression="gzip"),
    "dsec": lambda path, events: write_dsec_hdf5(path, *events, offset=4000),
    "event_utils": lambda path, events: write_event_utils_hdf5(path, *events),
    "v2e": lambda path, events: write_v2e_hdf5(path, *events, frames=np.zeros((1, SIZE[1], SIZE[0]), np.uint8)),
    "mvsec": lambda path, events: write_mvsec_hdf5(
        path, *events, images=np.zeros((2, SIZE[1], SIZE[0]), np.uint8), image_times_us=np.array([0, 1])
    ),
}


def assert_same(stream: EventStream, events: Columns) -> None:
    x, y, t, p = events
    for found, expected in zip(
        (stream.x, stream.y, stream.t, stream.p), (x, y, t, np.where(p > 0, 1, -1)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert (stream.x.dtype, stream.y.dtype, stream.t.dtype, stream.p.dtype) == (np.int32, np.int32, np.int64, np.int8)


def whole(source: EventSource) -> EventStream:
    return EventStream.concatenate(source.pieces())


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_gives_the_same_events(name: str, events: Columns, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / "a.h5", events)
    assert find_event_format(path).name == "hdf5"
    source = open_hdf5(path, EventFileOptions(SIZE), chunk_events=512)
    assert source.report.format == f"hdf5 {name}"
    assert source.report.convention and source.report.num_events == len(events[2])
    assert source.report.num_unsorted == 0 and source.report.warnings() == ()
    assert source.time_range_us == (events[2][0], events[2][-1])
    assert_same(whole(source), events)
    for start, end in ((0, 2**40), (400_000, 900_000), (5000, 5001), (100, 100)):
        part = (events[2] >= start) & (events[2] < end)
        assert_same(source.slice(start, end), tuple(column[part] for column in events))


@pytest.mark.parametrize("mode", ["runs", "pairs", "triples"])
def test_ecf_of_long_runs_and_large_steps(mode: str, tmp_path: Path) -> None:
    n = 5000
    t = np.repeat([10, 10 + 2**33, 11 + 2**33], [n - 2, 1, 1])
    events = np.full(n, 2047), np.r_[np.zeros(n - 1, int), 2047], t, np.r_[np.ones(n - 3, int), [0, 1, 0]]
    path = write_prophesee_hdf5(tmp_path / "a.h5", *events, (2048, 2048), mode=mode)
    assert_same(whole(open_event_file(path)), events)


ECF_BY_HAND = {
    "triples": ("06000000 0400000000000000 01 00022000 00000000 00000000", [1], [2], [4], [0]),
    "pairs": ("09000000 1027000000000000 02 e202 1500 0001 0000", [0, 10], [23, 23], [10000, 10000], [1, 1]),
    "runs": (
        "0c000000 0700000000000000 02 f0 f2 01 4200 6100 b000 6000 82 01",
        [5, 6, 3],
        [2, 2, 3],
        [7, 7, 39],
        [1, 1, 0],
    ),
}
"""Chunks worked out by hand from the codec's definition: mode -> bytes, x, y, t, p."""


@pytest.mark.parametrize("mode", ECF_BY_HAND)
def test_ecf_chunk_by_hand(mode: str) -> None:
    from evfi.events.formats.hdf5.ecf import decode_events, num_events

    written, *expected = ECF_BY_HAND[mode]
    chunk = np.frombuffer(bytes.fromhex(written), np.uint8)
    n = num_events(chunk)
    columns = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int64), np.zeros(n, np.int8)
    assert decode_events(chunk, *columns) == len(chunk)
    assert [column.tolist() for column in columns] == expected


_I = np.arange(40)
ECF_OF_REFERENCE = {
    "triples": (
        (
            "a200000000000000000200000171f1f301f5f801f3f0f101fbfaf101fdf7f201f9f7f301fff9f401fffef501f9f6f701"
            "fdf0f901fbfdfa01f3fdfc01f5fffe01f1f4f1f101f7fbf3f101f7f5f6f101f1f2f9f101f5f1fcf101f3f3fff101fbf7"
            "f2f201fdfef5f201f9f8f9f201fff4fdf201fff3f1f301f9f5f5f301fdf9f9f301fbf0fef301f3faf2f401f5f6f7f401"
            "f1f5fcf401f7f6f1f501f7faf6f501f1f1fcf501f5faf1f601f3f6f7f601fbf4fdf601fdf5f3f701f9f9f9f7011e0000"
            "003da4d7185b711d0496794809b4e21522d2b9260d0ff186122d21542b4af802178668c51ba5699207c3360c20fee103"
            "251ca8d0103a7515297759420195e6191ab2b31e05eed0800a0d2557232bf2270f6649c9138463962ca2300418dfc107"
            "1dfda1d4081a790d215638462675e0131293b7162a"
        ),
        (_I * 911 % 1280, _I * 397 % 720, 2**41 + _I**3 * 7, _I * _I // 3 % 2),
    ),
    "pairs": (
        (
            "a10000000000000000020000043434343434343434341f002300e5590e003c715a418687b459d3291f6f2d404b189756"
            "a428c2960e3e1c0f3a8587259597b3631f0d0d7e2b5286948466a2300e7cfc4d1b19976375359307"
        ),
        (_I * 911 % 1280, _I // 35 * 719, 2**41 + _I // 4 * 3, _I // 7 % 2),
    ),
    "runs": (
        ("a000000000000000000200000f1400f0faf6f8f10f14001f00230085571e00de009e015e021e03de039e045e0d2484"),
        (_I // 35 * 64 + _I + _I // 5, _I // 35 * 700, 2**41 + _I // 20 * 100_000, _I // 36),
    ),
}
"""Chunks of our own events as Prophesee's own encoder codes them: bytes, then x, y, t, p."""


@pytest.mark.parametrize("mode", ECF_OF_REFERENCE)
def test_ecf_chunk_of_the_reference_encoder(mode: str) -> None:
    from evfi.events.formats.hdf5.ecf import decode_events, num_events

    written, expected = ECF_OF_REFERENCE[mode]
    chunk = np.frombuffer(bytes.fromhex(written), np.uint8)
    n = num_events(chunk)
    columns = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int64), np.zeros(n, np.int8)
    assert decode_events(chunk, *columns) == len(chunk)
    for column, wanted in zip(columns, expected, strict=True):
        np.testing.assert_array_equal(column, wanted)
    assert encode_ecf(*expected, mode) == chunk.tobytes()


def test_ecf_of_any_bytes_ends(events: Columns) -> None:
    from evfi.events.formats.hdf5.ecf import decode_events, num_events

    rng = np.random.default_rng(0)
    for mode in ("runs", "pairs", "triples"):
        sound = np.frombuffer(encode_ecf(*(column[:200] for column in events), mode), np.uint8)
        for _ in range(300):
            data = sound[: rng.integers(len(sound) + 1)].copy()
            if len(data):
                data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
            n = min(num_events(data), 300)
            if n > 0:
                columns = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.int64), np.zeros(n, np.int8)
                assert -1 <= decode_events(data, *columns) <= len(data)


def test_triggers_are_counted_and_geometry_is_read(events: Columns, tmp_path: Path) -> None:
    path = write_prophesee_hdf5(tmp_path / "a.h5", *events, (1280, 720), num_triggers=7)
    source = open_event_file(path)
    assert source.report.num_triggers == 7
    assert source.sensor_size == (1280, 720)


def test_unknown_size_is_taken_from_the_content_and_said(events: Columns, tmp_path: Path) -> None:
    source = open_event_file(write_v2e_hdf5(tmp_path / "a.h5", *events))
    assert source.sensor_size == (events[0].max() + 1, events[1].max() + 1)
    assert "does not declare its sensor size" in source.report.notes[0]


@pytest.mark.parametrize("names", ["x y t p", "xs ys timestamps polarities"])
@pytest.mark.parametrize("group", ["", "events/"])
@pytest.mark.parametrize("unit", [1, 1e-6])
def test_columns_by_other_names(names: str, group: str, unit: float, events: Columns, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in zip(names.split(), events, strict=True):
            file[group + name] = column * unit if name.startswith("t") and unit != 1 else column
        file["unrelated"] = np.zeros((3, 3))
    assert_same(whole(open_event_file(tmp_path / "a.h5", EventFileOptions(SIZE))), events)


def test_records_at_the_root(events: Columns, tmp_path: Path) -> None:
    rows = np.zeros(len(events[2]), CD_DTYPE)
    for name, column in zip("xytp", events, strict=True):
        rows[name] = column
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["events"] = rows
    assert_same(whole(open_event_file(tmp_path / "a.h5", EventFileOptions(SIZE))), events)


def test_unsorted_events_are_sorted_and_counted(events: Columns, tmp_path: Path) -> None:
    x, y, t, p = (column.copy() for column in events)
    t[1000:1010] -= 500_000
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in zip("xytp", (x, y, t, p), strict=True):
            file[name] = column
    source = open_hdf5(tmp_path / "a.h5", EventFileOptions(SIZE), chunk_events=256)
    assert source.report.num_unsorted == np.count_nonzero(np.diff(t) < 0) > 0
    order = np.argsort(t, kind="stable")
    np.testing.assert_array_equal(whole(source).t, t[order])


def test_events_outside_are_dropped_and_counted(events: Columns, tmp_path: Path) -> None:
    path = write_prophesee_hdf5(tmp_path / "a.h5", *events, (40, 48))
    assert whole(open_event_file(path)).num_dropped == np.count_nonzero(events[0] >= 40)
    path = write_v2e_hdf5(tmp_path / "b.h5", *events)
    with pytest.raises(InputError, match="lie outside 40×48"):
        open_event_file(path, EventFileOptions((40, 48), size_is_assumed=True))


def test_an_index_of_milliseconds_that_is_wrong_is_said(events: Columns, tmp_path: Path) -> None:
    path = write_dsec_hdf5(tmp_path / "a.h5", *events)
    with h5py.File(path, "a") as file:
        file["ms_to_idx"][...] = 7
    assert "ms_to_idx contradicts" in open_event_file(path).report.notes[0]


def columns_file(path: Path, **columns: object) -> None:
    """A file of ten events at the root, where some columns are given."""
    with h5py.File(path, "w") as file:
        for name in "xytp":
            file[name] = columns.get(name, np.arange(10) % 2)


def test_damage_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    cases: dict[str, Callable[[], object]] = {
        "must have equal lengths": lambda: columns_file(path, x=np.arange(9)),
        "times must be finite": lambda: columns_file(path, t=np.array([*range(9), np.nan])),
        "must be a column of numbers": lambda: columns_file(path, x=np.zeros((10, 2))),
        "must hold numbers": lambda: columns_file(path, x=np.array(["a"] * 10, object)),
        "polarities must be": lambda: columns_file(path, p=np.arange(10)),
        "expected events as CD/events": lambda: h5py.File(path, "w").close(),
    }
    for message, write in cases.items():
        write()
        with pytest.raises(InputError, match=message) as caught:
            open_event_file(path, EventFileOptions(SIZE))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("block", "size"), [(0, 0), (1, 2**64 - 16)])
def test_a_damaged_heap_of_strings_does_not_hang(block: int, size: int, events: Columns, tmp_path: Path) -> None:
    path = write_prophesee_hdf5(tmp_path / "a.h5", *events, SIZE)
    data = bytearray(path.read_bytes())
    place = data.index(b"GCOL") + 16
    data[place : place + 16] = struct.pack("<HHIQ", block, 0, 0, size)
    path.write_bytes(data)
    script = f"""
from pathlib import Path
from evfi.events.formats.hdf5.container import Hdf5File
print(Hdf5File(Path({str(path)!r})).attribute("geometry"))
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_strings_of_variable_length_are_read_where_heaps_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for number in range(500):
            file.attrs[f"text{number}"] = f"{number} " + "long " * (number % 90)
        file.attrs["geometry"] = "7x9"
    file = Hdf5File(path)
    assert file.attribute("geometry") == "7x9"
    assert file.attribute("text499").split() == ["499"] + ["long"] * 49
    file.close()


def test_names_in_messages_are_printable(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a\x04b"] = np.zeros(3)
    with pytest.raises(InputError, match="found a\\\\x04b float64"):
        open_event_file(tmp_path / "a.h5")


def test_a_truncated_file_is_refused(events: Columns, tmp_path: Path) -> None:
    path = write_dsec_hdf5(tmp_path / "a.h5", *events)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        open_event_file(path)


def test_missing_dataset_is_named_with_what_is_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["events/x"] = np.zeros(3, int)
        file["other"] = np.zeros(3)
    with pytest.raises(InputError, match=r"no column for y"):
        open_event_file(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(InputError, match=r"found other float64 \[3\]"):
        open_event_file(tmp_path / "a.h5")


def test_nothing_outside_the_file_is_read(events: Columns, tmp_path: Path) -> None:
    secret = write_dsec_hdf5(tmp_path / "secret.h5", *events)
    paths = [tmp_path / f"{number}.h5" for number in range(4)]
    with h5py.File(paths[0], "w") as file:
        file["events"] = h5py.ExternalLink(secret.name, "/events")
    with h5py.File(paths[1], "w") as file:
        file["events/x"] = h5py.SoftLink("/other")
        for name in "ytp":
            file[f"events/{name}"] = np.zeros(3, int)
    with h5py.File(paths[2], "w") as file:
        for name in "xytp":
            layout = h5py.VirtualLayout((10,), "u2")
            layout[:] = h5py.VirtualSource(str(secret), f"events/{name}", (len(events[0]),), "u2")[:10]
            file.create_virtual_dataset(f"events/{name}", layout)
    with h5py.File(paths[3], "w") as file:
        for name in "xytp":
            file.create_dataset(f"events/{name}", (10,), "u1", external=[(str(secret), 0, 10)])
    for path, message in zip(paths, ("link to another", "link to another", "other files", "other files"), strict=True):
        with pytest.raises(InputError, match=message):
            open_event_file(path, EventFileOptions(SIZE))


def test_claims_beyond_what_is_stored_are_refused(tmp_path: Path) -> None:
    for number, chunks in enumerate([(1024,), (2**20,), None]):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            for name in "xytp":
                if chunks is None:
                    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
                    h5py.h5d.create(
                        file.id, name.encode(), h5py.h5t.STD_I64LE, h5py.h5s.create_simple((10**12,)), plist
                    )
                else:
                    file.create_dataset(name, (10**12,), "i8", chunks=chunks)
        with pytest.raises(InputError, match="does not hold as many"):
            open_event_file(tmp_path / f"{number}.h5", EventFileOptions(SIZE))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for name in "xytp":
            file.create_dataset(name, (2**28,), "i8", chunks=(2**28,), compression="gzip")
            file[name].id.write_direct_chunk((0,), b"x" * 100)
    with pytest.raises(InputError, match="chunks of 2147483648 bytes"):
        open_event_file(tmp_path / "c.h5", EventFileOptions(SIZE))


def test_an_unknown_filter_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(40000, h5py.h5z.FLAG_OPTIONAL, ())
        dataset = h5py.h5d.create(file.id, b"x", h5py.h5t.STD_I64LE, h5py.h5s.create_simple((10,)), plist)
        dataset.write_direct_chunk((0,), b"\0" * 80)
        for name in "ytp":
            file[name] = np.zeros(10, int)
    with pytest.raises(InputError, match="number 40000"):
        open_event_file(tmp_path / "a.h5", EventFileOptions(SIZE))


def test_a_damaged_chunk_is_refused_or_counted(events: Columns, tmp_path: Path) -> None:
    path = write_prophesee_hdf5(tmp_path / "a.h5", *events, SIZE, chunk=500)
    with h5py.File(path) as file:
        info = file["CD/events"].id.get_chunk_info_by_coord((1000,))
    data = bytearray(path.read_bytes())
    data[info.byte_offset : info.byte_offset + 4] = b"\xff\xff\x00\x00"
    path.write_bytes(data)
    with pytest.raises(InputError, match="chunk of event 1000 is damaged"):
        open_event_file(path)
    source = open_event_file(path, EventFileOptions(tolerant=True))
    assert source.report.num_lost_bytes == 500 * CD_DTYPE.itemsize
    kept = np.r_[0:1000, 1500:3000]
    assert_same(whole(source), tuple(column[kept] for column in events))


def test_files_without_events_and_wrong_units_are_refused(events: Columns, tmp_path: Path) -> None:
    path = write_prophesee_hdf5(tmp_path / "a.h5", *(column[:0] for column in events), mode=None)
    with pytest.raises(RecordingError, match="holds no events"):
        open_event_file(path)
    path = write_dsec_hdf5(tmp_path / "b.h5", *events)
    with pytest.raises(ConfigError, match="remove that"):
        open_event_file(path, EventFileOptions(time_unit="ns"))


def test_shorter_columns_are_read_with_tolerant(tmp_path: Path) -> None:
    columns_file(tmp_path / "a.h5", x=np.arange(9), t=np.arange(10))
    source = open_event_file(tmp_path / "a.h5", EventFileOptions(SIZE, tolerant=True))
    assert len(whole(source)) == 9 and "differ in length" in source.report.notes[0]


def test_random_damage_ends_in_events_or_one_line(events: Columns, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for writer in ("prophesee ecf", "dsec", "event_utils"):
        sound = WRITERS[writer](tmp_path / "sound.h5", tuple(column[:400] for column in events)).read_bytes()
        for number in range(40):
            data = np.frombuffer(sound, np.uint8).copy()
            places = rng.integers(0, len(data) if number % 2 else 3000, 4)
            data[places] = rng.integers(0, 256, 4)
            (tmp_path / "a.h5").write_bytes(data.tobytes())
            for tolerant in (False, True):
                try:
                    source = open_event_file(tmp_path / "a.h5", EventFileOptions(SIZE, tolerant=tolerant))
                    whole(source)
                    source.close()
                except EvfiError as error:
                    assert "\n" not in str(error)


def test_other_files_are_not_claimed(tmp_path: Path) -> None:
    for content in (b"", b"\x89HDF", b"x" * 5000):
        (tmp_path / "a").write_bytes(content)
        assert not is_hdf5(tmp_path / "a")
