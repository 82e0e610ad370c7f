"""Prophesee files read by this package and by independent libraries, and files that such a library wrote.

Where they disagree, the vendor's documentation and its open decoder decide: a high time is taken at face value and sets
the low time to 0, and a low time is taken at face value, too. Cameras send single low times too early (0x32B before
0x320); expelliarmus takes such a step back for an overflow (4096 µs too late from there on), faery holds the larger time
for a while (up to 11 µs too late). evlib reads EVT2.1 always as little-endian words, so recordings of IMX636 are garbage
there; no library at hand reads their word order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import open_event_file
from evfi.events.stream import EventStream
from file_writers.prophesee import write_dat, write_raw

Events = tuple[NDArray[Any], ...]


def edges(count: int, start_us: int = 5000, step_us: int = 3) -> Events:
    """Edges of 1 to 8 pixels on a sensor of 1280×720."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, count)
    t = start_us + np.cumsum(rng.integers(0, step_us, count))
    columns = rng.integers(0, 1272, count), rng.integers(0, 720, count), t, rng.integers(0, 2, count)
    x, y, t, p = (np.repeat(column, lengths) for column in columns)
    return x + np.concatenate([np.arange(length) for length in lengths]), y, t, p


def read(path: Path) -> Events:
    source = open_event_file(path)
    stream = source.slice(source.time_range_us[0], source.time_range_us[1] + 1)
    return stream.x, stream.y, stream.t, (stream.p + 1) // 2


def read_expelliarmus(path: Path, encoding: str) -> Events:
    expelliarmus = pytest.importorskip("expelliarmus")
    events = expelliarmus.Wizard(encoding=encoding).read(str(path))
    return tuple(events[name] for name in "xytp")


def read_evt3(path: Path) -> Events:
    events = pytest.importorskip("evt3").decode_file(str(path))
    return events.x, events.y, events.t, events.p


def read_faery(path: Path) -> Events:
    faery = pytest.importorskip("faery")
    events = np.concatenate(list(faery.events_stream_from_file(path)))
    return events["x"], events["y"], events["t"].astype(np.int64), events["on"]


def read_evlib(path: Path) -> Events:
    table = pytest.importorskip("evlib").load_events(str(path)).collect()
    times = table["t"].dt.total_microseconds().to_numpy()
    polarity = table["polarity"].to_numpy() > 0
    return table["x"].to_numpy(), table["y"].to_numpy(), times, polarity


def assert_same(found: Events, expected: Events) -> None:
    for a, b in zip(found, expected, strict=True):
        assert np.array_equal(np.asarray(a).astype(np.int64), np.asarray(b).astype(np.int64))


def test_evt2(tmp_path: Path) -> None:
    events = edges(3000)
    path = write_raw(tmp_path / "a.raw", "EVT2", *events, num_triggers=3)
    for found in (read(path), read_expelliarmus(path, "evt2"), read_faery(path), read_evlib(path)):
        assert_same(found, events)


@pytest.mark.parametrize(("start_us", "step_us"), [(5000, 3), (2**24 - 30_000, 50)])
def test_evt3(tmp_path: Path, start_us: int, step_us: int) -> None:
    events = edges(3000, start_us, step_us)
    path = write_raw(tmp_path / "a.raw", "EVT3", *events, num_triggers=3)
    for found in (read(path), read_evt3(path), read_evlib(path)):
        assert_same(found, events)


def test_evt3_without_triggers_or_gaps(tmp_path: Path) -> None:
    events = edges(900)
    path = write_raw(tmp_path / "a.raw", "EVT3", *events)
    for found in (read(path), read_expelliarmus(path, "evt3"), read_faery(path)):
        assert_same(found, events)


def test_evt21(tmp_path: Path) -> None:
    events = edges(3000)
    path = write_raw(tmp_path / "a.raw", "EVT21", *events)
    assert_same(read(path), read_evlib(path))
    assert_same(read(write_raw(tmp_path / "b.raw", "EVT21", *events, order="legacy")), read_evlib(path))


def test_dat(tmp_path: Path) -> None:
    events = edges(3000)
    path = write_dat(tmp_path / "a.dat", *events)
    for found in (read(path), read_expelliarmus(path, "dat"), read_faery(path)):
        assert_same(found, events)


@pytest.mark.parametrize("encoding", ["evt2", "evt3", "dat"])
def test_files_that_expelliarmus_wrote(tmp_path: Path, encoding: str) -> None:
    expelliarmus = pytest.importorskip("expelliarmus")
    events = edges(900)
    records = np.zeros(len(events[0]), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    for name, column in zip("xytp", events, strict=True):
        records[name] = column
    path = tmp_path / ("a.dat" if encoding == "dat" else "a.raw")
    expelliarmus.Wizard(encoding=encoding).save(fpath=str(path), arr=records)
    if encoding == "evt2":  # its header claims a camera of 640×480
        with pytest.raises(InputError, match="lie outside 640×480, the size of the camera that the header"):
            open_event_file(path)
    source = open_event_file(path, EventFileOptions(sensor_size=(1280, 720)))
    joined = EventStream.concatenate(source.pieces())
    assert_same((joined.x, joined.y, joined.t, joined.p > 0), events)


def test_real_recordings(shared_dir: Path) -> None:
    path = shared_dir / "data" / "recordings" / "evt2_sample.raw"
    for found in (read_expelliarmus(path, "evt2"), read_evlib(path)):
        assert_same(read(path), found)
    source = open_event_file(path)
    assert source.sensor_size == (640, 480) and source.report.num_events == 539_481
    path = shared_dir / "data" / "recordings" / "evt3_sample.raw"
    for found in (read_evt3(path), read_evlib(path)):
        assert_same(read(path), found)
    source = open_event_file(path)
    assert source.sensor_size == (1280, 720) and source.report.num_events == 219_596
