"""AEDAT 4 event files: content, slices, and every way in which they can be broken."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from evfi.errors import ConfigError, EvfiError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import open_event_file
from evfi.events.formats.aedat4 import Aedat4Events, open_aedat4
from evfi.events.formats.aedat4_container import Aedat4File
from evfi.events.formats.flatbuffers import table_numbers
from evfi.events.stream import EventStream
from file_writers import hostile
from file_writers.aedat4 import SIZE, START_US, random_events, write_aedat4

OPTIONS = EventFileOptions()


@pytest.fixture(scope="module", params=["LZ4", "ZSTD", "NONE"])
def whole_file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> bytes:
    path = tmp_path_factory.mktemp("aedat4") / "events.aedat4"
    return write_aedat4(path, events=random_events(2000, 50_000), compression=request.param).read_bytes()


@pytest.mark.parametrize("compression", ["LZ4", "LZ4_HIGH", "ZSTD", "NONE"])
def test_events_come_back(tmp_path: Path, compression: str) -> None:
    written = random_events(1000, 50_000)
    source = open_event_file(write_aedat4(tmp_path / "a.aedat4", events=written, compression=compression))
    assert source.sensor_size == SIZE
    assert source.time_range_us == (written[0, 0], written[-1, 0])
    stream = source.slice(START_US, START_US + 50_000)
    assert np.array_equal(np.stack([stream.t, stream.x, stream.y, (stream.p + 1) // 2], 1), written)


def test_slices_are_half_open_and_partition(tmp_path: Path) -> None:
    written = random_events(1000, 5_000)
    source = open_aedat4(write_aedat4(tmp_path / "a.aedat4", events=written), OPTIONS)
    edges = [START_US, int(written[100, 0]), int(written[600, 0]), START_US + 5_000]
    parts = {(a, b): source.slice(a, b) for a, b in pairwise(edges)}
    assert sum(len(part) for part in parts.values()) == 1000
    assert all(((part.t >= a) & (part.t < b)).all() for (a, b), part in parts.items())
    assert len(source.slice(START_US + 100, START_US)) == 0
    assert len(source.slice(0, 10)) == 0


def test_every_truncation_is_refused(tmp_path: Path, whole_file: bytes) -> None:
    path = tmp_path / "cut.aedat4"
    for cut in [1, 13, 14, 17, 40, 500, *range(1000, len(whole_file) - 20, 997), len(whole_file) - 30]:
        path.write_bytes(whole_file[:cut])
        with pytest.raises(InputError, match="damaged or truncated AEDAT4 file"):
            open_aedat4(path, OPTIONS)


def test_damage_is_refused_or_harmless_but_never_hangs(tmp_path: Path, whole_file: bytes) -> None:
    path = tmp_path / "damaged.aedat4"
    rng = np.random.default_rng(0)
    num_refused = 0
    for position in rng.integers(0, len(whole_file) - 8, 300):
        data = bytearray(whole_file)
        data[position : position + 8] = rng.bytes(8)
        path.write_bytes(data)
        try:
            source = open_aedat4(path, OPTIONS)
            source.slice(START_US, START_US + 100_000)
        except EvfiError as error:
            num_refused += 1
            assert "\n" not in str(error)
            assert str(path) in str(error)
    assert num_refused > 30


def test_wrong_packet_length(tmp_path: Path, whole_file: bytes) -> None:
    (header_length,) = struct.unpack_from("<I", whole_file, 14)
    data = bytearray(whole_file)
    struct.pack_into("<i", data, 18 + header_length + 4, 2**30)
    path = tmp_path / "long.aedat4"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"packet at byte {18 + header_length} is cut off"):
        Aedat4File(path)


def test_without_events(tmp_path: Path) -> None:
    frames = np.zeros((2, 24, 32), np.uint8)
    with pytest.raises(RecordingError, match="no event stream"):
        open_aedat4(write_aedat4(tmp_path / "f.aedat4", frames=frames), OPTIONS)
    with pytest.raises(RecordingError, match="event stream is empty"):
        open_aedat4(write_aedat4(tmp_path / "e.aedat4", frames=frames, events=random_events(0, 10)), OPTIONS)


def test_other_unit_is_refused(tmp_path: Path) -> None:
    path = write_aedat4(tmp_path / "a.aedat4", events=random_events(10, 100))
    with pytest.raises(ConfigError, match="always µs"):
        open_event_file(path, EventFileOptions(time_unit="s"))


def test_closed_file(tmp_path: Path) -> None:
    source = open_aedat4(write_aedat4(tmp_path / "a.aedat4", events=random_events(10, 100)), OPTIONS)
    source.close()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="was closed"):
        source.slice(START_US, START_US + 100)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such event file"):
        open_event_file(tmp_path / "none.aedat4")


def events_of(path: Path, *, tolerant: bool = False, min_indexed_bytes: int = 2**26) -> tuple[np.ndarray, Aedat4Events]:
    source = Aedat4Events(Aedat4File(path, tolerant=tolerant), min_indexed_bytes=min_indexed_bytes)
    stream = EventStream.concatenate([EventStream.empty(source.sensor_size), *source.pieces()])
    return np.stack([stream.t, stream.x, stream.y, (stream.p + 1) // 2], 1), source


def packets_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    file = Aedat4File(path)
    packets = file.packets(file.streams[0])
    file.close()
    return packets.starts, packets.lengths


def test_table_is_used(tmp_path: Path) -> None:
    written = random_events(5000, 50_000)
    path = write_aedat4(tmp_path / "a.aedat4", events=written)
    found, source = events_of(path, min_indexed_bytes=0)  # as in a large file
    assert np.array_equal(found, written)
    assert source.report.num_events == 5000
    assert source.report.format == "aedat4 lz4"


def test_other_packets_than_the_table_says(tmp_path: Path) -> None:
    first, second = random_events(50, 1000, seed=1), random_events(50, 1000, seed=1) + np.array([500, 0, 0, 0])
    one = write_aedat4(tmp_path / "a.aedat4", events=first, compression="NONE").read_bytes()
    path = write_aedat4(tmp_path / "b.aedat4", events=second, compression="NONE")
    (start,), (length,) = packets_of(path)
    data = bytearray(path.read_bytes())
    data[start : start + length] = one[start : start + length]
    path.write_bytes(data)
    with pytest.raises(InputError, match="does not match the file's data table"):
        events_of(path, min_indexed_bytes=0)
    assert np.array_equal(events_of(path)[0], first)  # small files are decoded at opening, and do not need the table
    assert np.array_equal(events_of(path, tolerant=True)[0], first)


def test_truncated_file_is_read_up_to_the_cut(tmp_path: Path, whole_file: bytes) -> None:
    path = tmp_path / "cut.aedat4"
    path.write_bytes(whole_file)
    whole, _ = events_of(path)
    starts, lengths = packets_of(path)
    for cut in (int(starts[3] + 5), int(starts[7] + lengths[7]), len(whole_file) - 30):
        path.write_bytes(whole_file[:cut])
        with pytest.raises(InputError, match="--tolerant"):
            open_aedat4(path, OPTIONS)
        found, source = events_of(path, tolerant=True)
        num_whole = int(np.count_nonzero(starts + lengths <= cut))
        assert len(found) == 100 * num_whole
        assert np.array_equal(found, whole[: len(found)])
        assert (source.report.num_lost_bytes > 0) == (cut != starts[7] + lengths[7])
    path.write_bytes(whole_file[: starts[0] + 3])
    with pytest.raises(RecordingError, match=r"no event packet can be read, \d+ bytes are lost"):
        events_of(path, tolerant=True)


@pytest.mark.parametrize("has_table", [True, False])
def test_damaged_packet_is_left_out(tmp_path: Path, whole_file: bytes, has_table: bool) -> None:
    path = tmp_path / "damaged.aedat4"
    path.write_bytes(whole_file)
    whole, _ = events_of(path)
    starts, lengths = packets_of(path)
    data = bytearray(whole_file)
    data[starts[4] : starts[4] + 24] = bytes(24)
    struct.pack_into("<i", data, int(starts[9]) - 4, 2**30)  # a packet's header, too
    path.write_bytes(data if has_table else data[:-30])
    with pytest.raises(InputError, match="--tolerant"):
        open_aedat4(path, OPTIONS)
    found, source = events_of(path, tolerant=True)
    report = source.report
    kept = np.ones(2000, bool)
    kept[400:500] = False
    kept[900:1000] = has_table  # the table says where it is, in spite of its header
    assert np.array_equal(found, whole[kept])
    assert report.num_events == len(found)
    assert report.num_lost_bytes >= lengths[4] + (0 if has_table else lengths[9])
    assert any("1 damaged packets" in note for note in report.notes)


@pytest.mark.parametrize("min_indexed_bytes", [0, 2**26])
def test_events_out_of_order_are_sorted_and_counted(tmp_path: Path, min_indexed_bytes: int) -> None:
    written = random_events(300, 5000)
    path = write_aedat4(tmp_path / "a.aedat4", events=written, compression="NONE")
    data = bytearray(path.read_bytes())
    starts, lengths = packets_of(path)
    records = int(starts[1] + lengths[1]) - 16 * 100
    a, b = (slice(records + 16 * i, records + 16 * (i + 1)) for i in (10, 30))
    data[a], data[b] = data[b], data[a]
    path.write_bytes(data)
    found, source = events_of(path, min_indexed_bytes=min_indexed_bytes)
    assert np.array_equal(found[:, 0], written[:, 0])
    assert source.report.num_unsorted == 2


def test_events_outside_the_sensor_are_dropped_and_counted(tmp_path: Path) -> None:
    written = random_events(300, 5000)
    path = write_aedat4(tmp_path / "a.aedat4", events=written, compression="NONE")
    data = bytearray(path.read_bytes())
    starts, lengths = packets_of(path)
    struct.pack_into("<h", data, int(starts[1] + lengths[1]) - 16 * 50 + 8, SIZE[0])
    struct.pack_into("<h", data, int(starts[1] + lengths[1]) - 16 * 40 + 10, -1)
    path.write_bytes(data)
    source = open_aedat4(path, OPTIONS)
    stream = source.slice(0, 2**60)
    assert (len(stream), stream.num_dropped) == (298, 2)
    assert sum(piece.num_dropped for piece in source.pieces()) == 2


def test_table_that_claims_too_much(tmp_path: Path) -> None:
    buffer = memoryview(bytes(64))
    with pytest.raises(struct.error, match="leaves the buffer"):
        table_numbers(buffer, 28, 2**32 - 1, (0, 1))  # before memory is taken for it


@pytest.mark.parametrize(("compression", "mark"), [(0, b""), (1, b"\x04\x22\x4d\x18"), (3, b"\x28\xb5\x2f\xfd")])
def test_looking_for_packets_behind_much_damage_reads_the_file_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int, mark: bytes
) -> None:
    """Packets of nothing, with bytes behind each that are none: the next one is looked for 5000 times."""
    packet = struct.pack("<ii", 0, 8) + mark + b"abcd" if mark else struct.pack("<ii", 0, 12) + b"\xff" * 8 + b"EVTS"
    path = hostile.aedat4_file(tmp_path / "a.aedat4", [], compression=compression)
    path.write_bytes(path.read_bytes() + (packet + b"\xff" * 8) * 5000)
    num_read = 0
    read = Aedat4File.read

    def counted(file: Aedat4File, start: int, length: int) -> bytes:
        nonlocal num_read
        content = read(file, start, length)
        num_read += len(content)
        return content

    monkeypatch.setattr(Aedat4File, "read", counted)
    file = Aedat4File(path, tolerant=True)
    stream = file.stream("EVTS", "events")
    assert stream is not None
    assert len(file.packets(stream)) == 5000
    assert num_read < 5000 * 6000
    file.close()


def test_table_with_the_least_time_of_64_bits(tmp_path: Path) -> None:
    written = random_events(100, 50_000)
    path = write_aedat4(tmp_path / "a.aedat4", events=written, compression="NONE")
    content, first = path.read_bytes(), struct.pack("<q", written[0, 0])
    at = content.rindex(first)
    path.write_bytes(content[:at] + struct.pack("<q", -(2**63)) + content[at + 8 :])
    with pytest.raises(InputError, match="its data table holds impossible times"):
        Aedat4Events(Aedat4File(path), min_indexed_bytes=1)
