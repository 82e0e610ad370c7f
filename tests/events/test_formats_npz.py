"""NPZ event files: names, units, conventions, and damage."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions, TimeUnit
from evfi.events.formats import open_event_file
from evfi.events.formats.columns import to_microseconds
from evfi.events.formats.npz import open_npz, read_arrays
from evfi.events.stream import EventStream

SIZE = EventFileOptions(sensor_size=(10, 8))


def write(path: Path, **columns: object) -> Path:
    base = {"x": [1, 2, 3], "y": [0, 1, 2], "t": [5, 6, 7], "p": [0, 1, 0]}
    np.savez(path, **{**base, **columns})  # type: ignore[arg-type]
    return path


def test_columns_come_back(tmp_path: Path) -> None:
    source = open_event_file(write(tmp_path / "e.npz"), SIZE)
    stream = source.slice(0, 100)
    assert (stream.x.tolist(), stream.y.tolist(), stream.t.tolist(), stream.p.tolist()) == (
        [1, 2, 3],
        [0, 1, 2],
        [5, 6, 7],
        [-1, 1, -1],
    )
    assert source.time_range_us == (5, 7)


def test_other_names_signed_polarity_and_own_sensor_size(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "e.npz", x=[1], y=[2], timestamp=[9], polarity=np.array([-1], np.int8), width=20, height=30
    )
    source = open_event_file(tmp_path / "e.npz", SIZE)
    assert source.sensor_size == (20, 30)
    assert source.slice(0, 10).p.tolist() == [-1]


def test_boolean_polarity(tmp_path: Path) -> None:
    source = open_event_file(write(tmp_path / "e.npz", p=np.array([True, False, True])), SIZE)
    assert source.slice(0, 100).p.tolist() == [1, -1, 1]


def test_outside_is_counted_per_slice_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz", x=np.array([1, 65534, 10], np.uint16))
    source = open_event_file(path, SIZE)
    assert source.slice(0, 7).num_dropped == 1
    assert source.slice(0, 8).num_dropped == 2
    with pytest.raises(InputError, match=r'2 of 3 events lie outside 10×8.*declare the sensor: "sensor_size"'):
        open_event_file(path, EventFileOptions(sensor_size=(10, 8), size_is_assumed=True))


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        (np.array([1.0000014, 2.5]), "s", [1000001, 2500000]),
        (np.array([1.0000016]), "s", [1000002]),
        (np.array([3, 4]), "ms", [3000, 4000]),
        (np.array([1499, 1500, 1_600_000_000_000_000_501], np.int64), "ns", [1, 2, 1_600_000_000_000_001]),
        (np.array([1499.0, 1501.0]), "ns", [1, 2]),
        (np.array([-1501, -1500, -1499], np.int64), "ns", [-2, -1, -1]),
        (np.array([-(2**63), 2**63 - 1]), "ns", [-9223372036854776, 9223372036854776]),
        (np.array([2**64 - 1], np.uint64), "ns", [18446744073709552]),
        (np.array([7.0, 8.0]), "us", [7, 8]),
    ],
)
def test_units_are_rounded_to_microseconds(values: np.ndarray, unit: TimeUnit, expected: list[int]) -> None:
    assert to_microseconds(values, unit, "file").tolist() == expected


def test_bad_times() -> None:
    for values, unit, message in (
        (np.array([0.0038]), "us", r"whole microseconds, got 0\.0038; if they are seconds"),
        (np.array([np.nan]), "s", "finite"),
        (np.array([1e30]), "s", "too large"),
        (np.array([2**62]), "us", "too large"),
        (np.array(["a"]), "us", "numbers"),
    ):
        with pytest.raises(InputError, match=message):
            to_microseconds(values, unit, "file")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"p": [0, 1, 2]}, "polarities must be 0 and 1, or -1 and 1; found 0, 1, 2"),
        ({"p": [0, 1, -1]}, "polarities must be"),
        ({"x": [1, 2]}, "equal lengths, got x: 2, y: 3"),
        ({"x": [0.5, 1, 2]}, "whole pixels"),
        ({"t": [0.1, np.nan, 0.3]}, "times must be finite"),
        ({"timestamp": [1, 2, 3]}, "two columns for t"),
        ({"x": [[1, 2, 3]]}, "no column for x"),
        ({"x": np.array(["a", "b", "c"])}, "expected numbers"),
        ({"sensor_size": [0, 3]}, "two positive integers"),
    ],
)
def test_refusals_name_the_file(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_event_file(write(tmp_path / "e.npz", **columns), SIZE)
    assert str(tmp_path / "e.npz") in str(caught.value)


def test_unknown_sensor_size_and_no_events(tmp_path: Path) -> None:
    source = open_event_file(write(tmp_path / "e.npz"))
    assert source.sensor_size == (4, 3)
    assert "does not declare its sensor size; 4×3 just holds all events" in source.report.notes[0]
    with pytest.raises(RecordingError, match="holds no events"):
        open_event_file(write(tmp_path / "e.npz", x=[], y=[], t=[], p=[]), SIZE)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("was unpickled",))

    pickle.dumps(Bomb())
    path = tmp_path / "e.npz"
    np.savez(path, x=np.array([Bomb()], object), y=[1], t=[1], p=[1], allow_pickle=True)
    with pytest.raises(InputError, match="expected numbers"):
        open_event_file(path, SIZE)


def test_promised_sizes_are_checked_first(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header + b"\0" * 80)
    with pytest.raises(InputError, match=r"declares 8000000000000 bytes but holds 80"):
        read_arrays(path)


def test_fractions_are_seconds(tmp_path: Path) -> None:
    source = open_event_file(write(tmp_path / "e.npz", t=[0.1, 0.2, 0.3000004]), SIZE)
    assert source.time_range_us == (100_000, 300_000)


EVENTS = np.array([[5, 1, 0, 0], [6, 2, 3, 1], [6, 3, 2, 0], [9, 0, 7, 1]])  # t, x, y, p


def records() -> np.ndarray:
    rows = np.zeros(4, [("x", "<u2"), ("y", "<u2"), ("timestamp", "<i8"), ("polarity", "?")])
    rows["timestamp"], rows["x"], rows["y"], rows["polarity"] = EVENTS.T
    return rows


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        EVENTS,
        EVENTS[:, [1, 2, 0, 3]],
        np.asfortranarray(EVENTS.astype(np.float64)),
        records(),
    ],
    ids=["txyp", "xytp", "fortran", "records"],
)
def test_one_array(tmp_path: Path, array: np.ndarray, save: object) -> None:
    save(tmp_path / "e.npz", events=array)  # type: ignore[operator]
    stream = open_event_file(tmp_path / "e.npz", SIZE).slice(0, 100)
    assert np.array_equal(np.stack([stream.t, stream.x, stream.y, stream.p > 0], 1), EVENTS)


def test_rows_in_an_unknown_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", events=EVENTS[:, [3, 1, 2, 0]])
    with pytest.raises(InputError, match="must be t, x, y, p or x, y, t, p with increasing times; neither fits"):
        open_event_file(tmp_path / "e.npz", SIZE)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_in_stretches(tmp_path: Path, save: object) -> None:
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 500, 1000))
    t[100:200] = rng.permutation(t[100:200])
    x, y, p = rng.integers(0, 12, 1000), rng.integers(0, 8, 1000), rng.integers(0, 2, 1000)
    save(tmp_path / "e.npz", x=x, y=y, t=t, p=p)  # type: ignore[operator]
    source = open_npz(tmp_path / "e.npz", SIZE, chunk_events=64)
    whole = EventStream.from_arrays(x, y, t, p, (10, 8), polarity="binary", on_outside="drop")
    joined = EventStream.concatenate(source.pieces())
    for name in "xytp":
        assert np.array_equal(getattr(joined, name), getattr(whole, name))
    part, expected = source.slice(50, 130), whole.slice(50, 130)
    assert np.array_equal(part.x, expected.x)
    assert part.num_dropped == np.count_nonzero((x >= 10) & (t >= 50) & (t < 130))
    assert source.report.num_events == 1000
    assert source.report.num_unsorted == np.count_nonzero(np.diff(t) < 0)


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz")
    content = bytearray(path.read_bytes())
    content[content.index(b"x.npy") + 5 + 20 + 128] ^= 1  # within the first array's values
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged or truncated \.npz \((the checksum of x\.npy|Bad CRC)"):
        open_event_file(path, SIZE)


def test_headers_that_cannot_be_parsed(tmp_path: Path) -> None:
    header = b"{'descr': '<i8', 'fortran_order': (False, 'shape': (3,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header + b"\0" * 24)
    for read in (read_arrays, lambda path: open_event_file(path, SIZE)):
        with pytest.raises(InputError, match=r"damaged or truncated \.npz"):
            read(tmp_path / "e.npz")


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path / "e.npz")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", archive.read("y.npy"))
    with pytest.raises(InputError, match="two members have the same name"):
        open_event_file(path, SIZE)


def test_archive_made_to_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    zeros = np.zeros(80_000_000, np.uint8)
    np.savez_compressed(path, x=zeros, y=zeros, t=zeros, p=zeros)
    with pytest.raises(InputError, match=r"unpack to at most 64\.0 MiB, found 305\.2 MiB"):
        open_event_file(path, SIZE)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_give_one_line_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez_compressed(path, x=np.arange(9), y=np.arange(9) % 8, t=np.arange(9), p=np.arange(9) % 2)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:position]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        open_event_file(path, SIZE).slice(0, 10)
    except EvfiError as error:
        assert "\n" not in str(error)
