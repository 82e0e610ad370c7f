"""Event files written by `evfi`: exact round trips, other libraries' reading of them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evfi.errors import ConfigError, EvfiError, InputError, RecordingError
from evfi.events.formats import EVENT_FORMATS, open_event_file
from evfi.events.source import MemoryEvents
from evfi.events.stream import EventStream
from evfi.events.writers import EVENT_WRITERS, WritableFrame, write_events

READABLE = {event_format.name for event_format in EVENT_FORMATS}
SUFFIXES = [
    suffix
    for writer in EVENT_WRITERS
    for suffix in writer.suffixes
    if writer.name in READABLE or (writer.name == "hdf5" and any("hdf5" in name for name in READABLE))
]


def make_stream(num: int, seed: int = 0, size: tuple[int, int] = (33, 21), start_us: int = 1_000) -> EventStream:
    rng = np.random.default_rng(seed)
    t = start_us + np.sort(rng.integers(0, 50_000, num))
    x, y = rng.integers(0, size[0], num), rng.integers(0, size[1], num)
    return EventStream.from_arrays(x, y, t, rng.choice([-1, 1], num), size)


def read_all(path: Path) -> EventStream:
    source = open_event_file(path)
    return EventStream.concatenate([EventStream.empty(source.sensor_size), *source.pieces()])


def assert_same(found: EventStream, expected: EventStream) -> None:
    assert found.sensor_size == expected.sensor_size
    assert found.num_dropped == 0
    for name in "xytp":
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    stream = make_stream(20_000)
    written = write_events(tmp_path / f"a{suffix}", stream)
    assert (written.num_events, written.time_range_us) == (20_000, (stream.t[0], stream.t[-1]))
    assert_same(read_all(tmp_path / f"a{suffix}"), stream)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_every_pair_of_formats(tmp_path: Path) -> None:
    stream = make_stream(500)
    for first in SUFFIXES:
        write_events(tmp_path / f"first{first}", stream)
        for second in SUFFIXES:
            write_events(tmp_path / f"second{second}", open_event_file(tmp_path / f"first{first}"))
            assert_same(read_all(tmp_path / f"second{second}"), stream)


TIMES = st.lists(st.integers(-(10**15), 9 * 10**15), min_size=1, max_size=40).map(sorted)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=TIMES, width=st.integers(1, 2000), height=st.integers(1, 2000), seed=st.integers(0, 2**32 - 1))
def test_any_events_come_back(
    tmp_path: Path, suffix: str, times: list[int], width: int, height: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    num = len(times)
    x, y, p = rng.integers(0, width, num), rng.integers(0, height, num), rng.choice([-1, 1], num)
    stream = EventStream.from_arrays(x, y, np.array(times), p, (width, height))
    write_events(tmp_path / f"a{suffix}", stream)
    assert_same(read_all(tmp_path / f"a{suffix}"), stream)


def test_two_events_hours_apart_come_back(tmp_path: Path) -> None:
    """The file's index by milliseconds then unpacks to far more than the file holds; it is only probed."""
    stream = EventStream.from_arrays([1, 2], [3, 4], [0, 8_388_603_000], [1, -1], (8, 8))
    write_events(tmp_path / "a.h5", stream)
    assert_same(read_all(tmp_path / "a.h5"), stream)


def test_dv_processing_reads_our_aedat4(tmp_path: Path) -> None:
    dv = pytest.importorskip("dv_processing")
    stream = make_stream(20_000, start_us=1_600_000_000_000_000)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (21, 33, 3), np.uint8), rng.integers(0, 255, (21, 33), np.uint8)]
    times = [(int(stream.t[0]), int(stream.t[0]) + 300), (int(stream.t[-1]) + 5, int(stream.t[-1]) + 9)]
    frames = [WritableFrame(*exposure, image) for exposure, image in zip(times, images, strict=True)]
    path = tmp_path / "a.aedat4"
    write_events(path, stream, frames=frames, frame_size=(33, 21))
    reader = dv.io.MonoCameraRecording(str(path))
    assert reader.getEventResolution() == (33, 21)
    assert reader.getFrameResolution() == (33, 21)
    start, end = reader.getTimeRange()
    store = reader.getEventsTimeRange(start, end + 1)
    assert np.array_equal(store.timestamps(), stream.t)
    assert np.array_equal(store.coordinates(), np.stack([stream.x, stream.y], 1))
    assert np.array_equal(store.polarities(), stream.p > 0)
    middle = int(stream.t[10_000])
    part = reader.getEventsTimeRange(middle, middle + 1000)  # finds its place by the table of packets
    assert np.array_equal(part.timestamps(), stream.slice(middle, middle + 1000).t)
    found = [reader.getNextFrame() for _ in range(2)]
    assert [frame.exposure.total_seconds() for frame in found] == [300e-6, 4e-6]
    assert [frame.timestamp for frame in found] == [start for start, _ in times]
    assert np.array_equal(found[0].image, images[0][..., ::-1])
    assert np.array_equal(found[1].image, images[1])


def test_h5py_alone_reads_our_hdf5(tmp_path: Path) -> None:
    import h5py

    stream = make_stream(3000, start_us=7_000_123)
    write_events(tmp_path / "a.h5", stream)
    with h5py.File(tmp_path / "a.h5") as file:
        times = file["events/t"][:]
        assert np.array_equal(times + file["t_offset"][()], stream.t)
        assert np.array_equal(file["events/x"][:], stream.x)
        assert np.array_equal(file["events/p"][:], stream.p > 0)
        index = file["ms_to_idx"][:]
        assert len(index) == times[-1] // 1000 + 1
        assert all(index[ms] == np.searchsorted(times, 1000 * ms) for ms in range(len(index)))


def test_hdf5_index_of_many_pieces(tmp_path: Path) -> None:
    import h5py

    stream = make_stream(3000)
    pieces = [stream.slice(start, start + 777) for start in range(0, 60_000, 777)]
    write_events(tmp_path / "a.h5", MemoryEvents(stream), pieces=pieces)
    write_events(tmp_path / "b.h5", stream)
    with h5py.File(tmp_path / "a.h5") as one, h5py.File(tmp_path / "b.h5") as other:
        for name in ("events/x", "events/t", "ms_to_idx"):
            assert np.array_equal(one[name][:], other[name][:])


HDF5_WITHIN = """
import resource, sys
import numpy as np
from pathlib import Path
from evfi.errors import OutputError
from evfi.events.stream import EventStream
from evfi.events.writers import write_events
number = 200_000
x, y = np.random.default_rng(0).integers(0, 20, (2, number))
stream = EventStream.from_arrays(x, y, np.arange(number), np.where(x > y, 1, -1), (33, 21))
for limit in (600, 5_000, 50_000, 200_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_events(Path(sys.argv[1]) / "e.h5", stream)
    except OutputError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_hdf5_on_a_disk_without_room(tmp_path: Path) -> None:
    """The library that writes HDF5 crashes when the process ends after it could not close a file."""
    command = [sys.executable, "-c", HDF5_WITHIN, str(tmp_path)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [f"cannot write {tmp_path / 'e.h5'}: File too large"] * 4
    assert not any(tmp_path.iterdir())


def test_hdf5_is_the_same_each_time(tmp_path: Path) -> None:
    for name in "ab":
        write_events(tmp_path / f"{name}.h5", make_stream(100_000))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    stream = make_stream(10)
    late = EventStream(stream.x, stream.y, stream.t + 10**17, stream.p, stream.sensor_size)
    large = EventStream(stream.x, stream.y, stream.t, stream.p, (40_000, 2))
    cases: list[tuple[str, EventStream, dict[str, object], type[EvfiError], str]] = [
        ("a.xyz", stream, {}, ConfigError, "does not name a format"),
        ("a.npz", stream, {"format": "xyz"}, ConfigError, "unknown format 'xyz'"),
        ("a.npz", stream, {"frames": []}, ConfigError, "cannot hold frames"),
        ("a.npz", stream, {"pieces": []}, RecordingError, "no events to write"),
        ("a.aedat4", stream, {"pieces": []}, RecordingError, "no events to write"),
        ("a.h5", stream, {"pieces": []}, RecordingError, "no events to write"),
        ("a.txt", stream, {"pieces": [stream, stream]}, InputError, "must follow in time"),
        ("a.npz", late, {}, InputError, "read back as nanoseconds"),
        ("a.csv", late, {}, InputError, "not be read back exactly"),
        ("a.aedat4", large, {}, InputError, "at most 32768 px"),
    ]
    for name, events, arguments, error, message in cases:
        with pytest.raises(error, match=message):
            write_events(tmp_path / name, events, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
