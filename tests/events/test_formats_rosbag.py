"""Events in bags of ROS 1 and ROS 2."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import find_event_format, open_event_file
from evfi.events.formats.bag_mcap import McapFile
from evfi.events.formats.bags import Bag
from evfi.events.source import EventSource
from evfi.events.stream import EventStream
from file_writers.rosbag import EVENT_PACKET, event_arrays, event_packets, header, packet, write_bag

SIZE = (64, 48)
START_US = 1_600_000_000_000_000
TOLERANT = EventFileOptions(tolerant=True)
KINDS = [
    ("ros1", None),
    ("ros1", "bz2"),
    ("ros1", "lz4"),
    ("ros2", None),
    ("ros2", "message"),
    ("mcap", None),
    ("mcap", "message"),
    ("mcap", "storage"),
]


def events(count: int = 2000, start: int = START_US) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    t = start + np.sort(rng.integers(0, 900_000, count))
    return rng.integers(0, SIZE[0], count), rng.integers(0, SIZE[1], count), t, rng.integers(0, 2, count)


def all_events(source: EventSource) -> EventStream:
    return EventStream.concatenate(list(source.pieces()))


def assert_same(found: EventStream, x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> None:
    np.testing.assert_array_equal(found.t, t)
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.y, y)
    np.testing.assert_array_equal(found.p, 2 * p.astype(int) - 1)
    assert (found.x.dtype, found.y.dtype, found.t.dtype, found.p.dtype) == (np.int32, np.int32, np.int64, np.int8)


@pytest.mark.parametrize(("kind", "compression"), KINDS)
def test_arrays_come_back_from_every_container(tmp_path: Path, kind: str, compression: str | None) -> None:
    columns = events()
    path = write_bag(tmp_path / "bag", kind, list(event_arrays(*columns, SIZE)), compression)
    assert find_event_format(path).name == "rosbag"
    source = open_event_file(path)
    assert source.sensor_size == SIZE
    assert source.time_range_us == (columns[2][0], columns[2][-1])
    assert source.report.num_events == 2000
    assert source.report.warnings() == ()
    assert_same(all_events(source), *columns)
    inside = (columns[2] >= START_US + 300_000) & (columns[2] < START_US + 310_000)
    assert_same(source.slice(START_US + 300_000, START_US + 310_000), *(column[inside] for column in columns))


@pytest.mark.parametrize("suffix", [".db3", ".mcap"])
def test_a_file_of_a_ros2_bag_opens_alone(tmp_path: Path, suffix: str) -> None:
    columns = events()
    folder = write_bag(tmp_path / "bag", "ros2" if suffix == ".db3" else "mcap", list(event_arrays(*columns, SIZE)))
    assert_same(all_events(open_event_file(folder / f"bag{suffix}")), *columns)
    (folder / "metadata.yaml").unlink()
    source = open_event_file(folder)
    assert_same(all_events(source), *columns)
    assert "metadata.yaml" in source.report.warnings()[0]


@pytest.mark.parametrize("kind", ["ros1", "ros2", "mcap"])
@pytest.mark.parametrize("encoding", ["evt2", "evt3", "mono", "libcaer", "libcaer_cmp"])
def test_packets_come_back_in_every_encoding(tmp_path: Path, kind: str, encoding: str) -> None:
    is_camera_clock = encoding in ("evt2", "evt3", "mono")
    offset = START_US if is_camera_clock else 0
    x, y, t, p = events(start=5000 if is_camera_clock else START_US)
    messages = list(event_packets(x, y, t, p, SIZE, encoding, ros_minus_camera_us=offset))
    source = open_event_file(write_bag(tmp_path / "bag", kind, messages))
    assert encoding in source.report.format
    assert any("camera's clock" in note for note in source.report.notes) == is_camera_clock
    assert_same(all_events(source), x, y, t + offset, p)


def test_arrays_are_laid_out_as_rosbags_does(tmp_path: Path) -> None:
    """The writer's own bytes against the library's serialisation, both in ROS 1 and CDR."""
    from file_writers.rosbag import _typestore

    x, y, t, p = events(3)
    ours = next(event_arrays(x, y, t, p, SIZE))[3]
    store = _typestore(is_ros1=True)
    array = store.deserialize_ros1(ours, "dvs_msgs/msg/EventArray")
    assert [(e.x, e.y, e.ts.sec * 10**6 + e.ts.nanosec // 1000, int(e.polarity)) for e in array.events] == list(
        zip(x.tolist(), y.tolist(), t.tolist(), p.tolist(), strict=True)
    )
    assert bytes(store.serialize_ros1(array, "dvs_msgs/msg/EventArray")) == ours


def test_times_are_rounded_to_microseconds(tmp_path: Path) -> None:
    records = b"".join(struct.pack("<HHIIB", 1, 2, 5, ns, 1) for ns in (1499, 1500, 999_999_600))
    data = header(0) + struct.pack("<III", 48, 64, 3) + records
    path = write_bag(tmp_path / "a.bag", "ros1", [("/dvs/events", "dvs_msgs/msg/EventArray", 0, data)])
    assert all_events(open_event_file(path)).t.tolist() == [5_000_001, 5_000_002, 6_000_000]


def test_the_evt3_clock_goes_on_over_its_wrap_and_over_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evfi.events.formats.rosbag._STRETCH_EVENTS", 150)
    t = np.arange(2000) * 20_000 + 7  # 40 s: two wraps of 24 bits
    x, y, _, p = events()
    messages = list(event_packets(x, y, t, p, SIZE, "evt3", ros_minus_camera_us=START_US))
    source = open_event_file(write_bag(tmp_path / "a.bag", "ros1", messages))
    assert source.report.num_clock_wraps == 2
    assert_same(all_events(source), x, y, t + START_US, p)
    late = t >= 39_000_000
    assert_same(
        source.slice(START_US + 39_000_000, START_US + 50_000_000), x[late], y[late], t[late] + START_US, p[late]
    )


def test_unsorted_events_are_sorted_and_those_outside_dropped(tmp_path: Path) -> None:
    x, y, t, p = events(1000)
    order = np.r_[500:1000, 0:500]
    path = write_bag(tmp_path / "a.bag", "ros1", list(event_arrays(x[order], y[order], t[order], p[order], (50, 48))))
    source = open_event_file(path)
    assert source.report.num_unsorted == 1
    inside = x < 50
    pieces = list(source.pieces())
    assert_same(EventStream.concatenate(pieces), x[inside], y[inside], t[inside], p[inside])
    assert sum(piece.num_dropped for piece in pieces) == np.count_nonzero(~inside)


def test_a_missing_sensor_size_is_asked_for(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "a.bag", "ros1", list(event_arrays(*events(), (0, 0))))
    with pytest.raises(InputError, match="sensor size"):
        open_event_file(path)
    assert open_event_file(path, EventFileOptions(sensor_size=SIZE)).sensor_size == SIZE
    with pytest.raises(InputError, match="outside 20×20"):
        open_event_file(path, EventFileOptions(sensor_size=(20, 20), size_is_assumed=True))


def test_files_of_a_split_bag_follow_one_another(tmp_path: Path) -> None:
    """The decoder's state goes on from file to file; ids of rows begin anew in each."""
    x, y, t, p = events(start=0)
    t = t * 40  # 36 s: the clock wraps twice
    messages = list(event_packets(x, y, t, p, SIZE, "evt3", per_message=70, ros_minus_camera_us=START_US))
    folder = write_bag(tmp_path / "bag", "ros2", messages[:11])
    other = write_bag(tmp_path / "bag2", "ros2", messages[11:])
    (other / "bag2.db3").rename(folder / "bag2.db3")
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("  - bag.db3", "  - bag.db3\n  - bag2.db3"))
    source = open_event_file(folder)
    assert_same(all_events(source), x, y, t + START_US, p)
    assert source.report.num_clock_wraps == 2


def test_the_usual_topic_is_taken_and_others_are_named(tmp_path: Path) -> None:
    columns = events()
    right = list(event_arrays(*events(500), SIZE, topic="/davis/right/events"))
    left = list(event_arrays(*columns, SIZE, topic="/davis/left/events"))
    source = open_event_file(write_bag(tmp_path / "a.bag", "ros1", right + left))
    assert_same(all_events(source), *columns)
    assert "'/davis/right/events'" in source.report.warnings()[0]


def test_missing_packets_are_counted(tmp_path: Path) -> None:
    messages = list(event_packets(*events(), SIZE, "mono"))
    del messages[5:8]
    source = open_event_file(write_bag(tmp_path / "a.bag", "ros1", messages))
    assert any(note.startswith("3 event packets are missing") for note in source.report.notes)


@pytest.mark.parametrize("encoding", ["trigger", "evt4", "\n\x00'"])
def test_other_encodings_are_refused_by_name(tmp_path: Path, encoding: str) -> None:
    data = packet(10**9, SIZE, 0, 0, encoding, b"\0" * 16)
    path = write_bag(tmp_path / "a.bag", "ros1", [("/e", EVENT_PACKET, 0, data)])
    with pytest.raises(InputError, match=r"in encoding .* cannot be read .*'evt3'.* republish") as caught:
        open_event_file(path)
    assert str(caught.value).isprintable()


def test_a_bag_without_events_says_what_it_has(tmp_path: Path) -> None:
    text = struct.pack("<I", 2) + b"hi"
    path = write_bag(tmp_path / "a.bag", "ros1", [("/chatter", "std_msgs/msg/String", 0, text)])
    with pytest.raises(RecordingError, match=r"/chatter \(std_msgs/String\)"):
        open_event_file(path)
    empty = write_bag(tmp_path / "b.bag", "ros1", list(event_arrays([], [], [], [], SIZE)))
    with pytest.raises(RecordingError, match="holds no event"):
        open_event_file(empty)
    with pytest.raises(ConfigError, match="remove the unit 'ns'"):
        open_event_file(empty, EventFileOptions(time_unit="ns"))


@pytest.mark.parametrize(("kind", "compression"), [*KINDS[:3], ("mcap", None), ("mcap", "storage")])
def test_a_cut_bag_is_refused_and_read_as_far_as_it_goes_when_asked(
    tmp_path: Path, kind: str, compression: str | None
) -> None:
    columns = events(20_000)
    path = write_bag(tmp_path / "bag", kind, list(event_arrays(*columns, SIZE)), compression)
    file = path if kind == "ros1" else path / "bag.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match=r"truncated.* --tolerant"):
        open_event_file(path)
    if kind == "mcap" and compression == "storage":  # one chunk, whose beginning is kept
        assert 0 < len(all_events(open_event_file(path, TOLERANT))) < 20_000
        return
    source = open_event_file(path, TOLERANT)
    found = all_events(source)
    assert 5_000 < len(found) < 15_000
    assert_same(found, *(column[: len(found)] for column in columns))
    assert source.report.num_lost_bytes > 0
    assert any("damaged at byte" in note for note in source.report.notes)


def test_a_bag_that_was_not_closed_is_refused_naming_reindex(tmp_path: Path) -> None:
    columns = events()
    path = write_bag(tmp_path / "a.bag", "ros1", list(event_arrays(*columns, SIZE)))
    content = bytearray(path.read_bytes())
    (index,) = struct.unpack_from("<Q", content, content.index(b"index_pos=") + 10)
    struct.pack_into("<Q", content, content.index(b"index_pos=") + 10, 0)
    path.write_bytes(content[:index])
    with pytest.raises(InputError, match="rosbag reindex"):
        open_event_file(path)
    assert_same(all_events(open_event_file(path, TOLERANT)), *columns)


def test_a_damaged_chunk_is_left_out_when_asked(tmp_path: Path) -> None:
    columns = events(20_000)
    path = write_bag(tmp_path / "a.bag", "ros1", list(event_arrays(*columns, SIZE)), "bz2")
    content = bytearray(path.read_bytes())
    second = content.index(b"BZh9", content.index(b"BZh9") + 4)
    content[second + 1000 : second + 1010] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a block (cannot be unpacked|unpacks to more)"):
        open_event_file(path)
    source = open_event_file(path, TOLERANT)
    found = all_events(source)
    assert 10_000 < len(found) < 20_000
    assert np.isin(found.t, columns[2]).all()
    assert source.report.num_lost_bytes > 0


def test_a_message_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    good = list(event_arrays(*events(200), SIZE))
    topic, kind, time, data = good[1]
    huge = data.replace(struct.pack("<III", 48, 64, 100), struct.pack("<III", 48, 64, 2**31))
    path = write_bag(tmp_path / "a.bag", "ros1", [good[0], (topic, kind, time, huge)])
    with pytest.raises(InputError, match="declares 2147483648 events"):
        open_event_file(path)
    source = open_event_file(path, TOLERANT)
    assert len(all_events(source)) == 100
    assert source.report.num_lost_bytes == len(data)


def test_a_block_is_not_unpacked_beyond_its_bound() -> None:
    import bz2

    from evfi.events.formats.bag_parts import unpack

    bomb = bz2.compress(bytes(50_000_000))
    with pytest.raises(ValueError, match="more than the 1000 bytes"):
        unpack(bomb, "bz2", 1000)
    with pytest.raises(ValueError, match="larger than"):
        unpack(bomb, "bz2", 2**32 - 1)
    with pytest.raises(ValueError, match="'rar' is not supported"):
        unpack(bomb, "rar", 1000)


@pytest.mark.parametrize("name", ["../other.db3", "/etc/passwd", "a/b/c.db3", "..", "link.db3", "x\\y.db3"])
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = write_bag(tmp_path / "bag", "ros2", list(event_arrays(*events(), SIZE)))
    (tmp_path / "other.db3").write_bytes((folder / "bag.db3").read_bytes())
    (folder / "link.db3").symlink_to(tmp_path / "other.db3")
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("bag.db3", name))
    with pytest.raises(InputError, match="folder"):
        open_event_file(folder)


def test_bad_metadata_are_refused(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag", "ros2", list(event_arrays(*events(), SIZE)))
    metadata = folder / "metadata.yaml"
    whole = metadata.read_text()
    for text, problem in (
        ("rosbag2_bagfile_information: [", "expected metadata of a ROS 2 bag in YAML"),
        ("rosbag2_bagfile_information: " + "[" * 50_000, "nested more than 64 deep"),
        ("rosbag2_bagfile_information: 3", "expected settings under"),
        ("[rosbag2_bagfile_information]", "expected settings under"),
        ("rosbag2_bagfile_information: {a: !!python/object/apply:os.getcwd []}", "does not name a plain type"),
        ("rosbag2_bagfile_information: {relative_file_paths: 1:23:45}", "relative_file_paths"),
        ("rosbag2_bagfile_information: {relative_file_paths: []}", "relative_file_paths"),
        (whole.replace("- bag.db3", "- gone.db3"), "missing"),
    ):
        metadata.write_text(text)
        with pytest.raises(InputError, match=problem) as caught:
            open_event_file(folder)
        assert str(caught.value).isprintable()


def test_files_compressed_as_a_whole_are_refused_with_a_remedy(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag", "ros2", list(event_arrays(*events(), SIZE)), "file")
    with pytest.raises(InputError, match="compressed as a whole"):
        open_event_file(folder)


def test_a_database_of_views_is_refused(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag", "ros2", list(event_arrays(*events(), SIZE)))
    with sqlite3.connect(folder / "bag.db3") as database:
        database.execute("ALTER TABLE messages RENAME TO other")
        database.execute("CREATE VIEW messages AS SELECT * FROM other")
    with pytest.raises(InputError, match="no plain table"):
        open_event_file(folder / "bag.db3")


def test_reading_changes_no_file(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "bag", "ros2", list(event_arrays(*events(), SIZE)))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    all_events(open_event_file(folder))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("kind", "compression"), [("ros1", None), ("ros1", "lz4"), ("ros2", None), ("mcap", "storage")]
)
def test_damaged_bags_are_refused_or_read(tmp_path: Path, kind: str, compression: str | None) -> None:
    path = write_bag(tmp_path / "bag", kind, list(event_arrays(*events(300), SIZE)), compression)
    file = next(found for found in [path, *path.glob("bag.*")] if found.is_file())
    content = file.read_bytes()
    rng = np.random.default_rng(7)
    for number in range(60):
        damaged = bytearray(content)
        if number % 3 == 0:
            damaged = damaged[: int(rng.integers(1, len(content)))]
        for _ in range(int(rng.integers(1, 20))):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        file.write_bytes(damaged)
        for options in (EventFileOptions(), TOLERANT):
            try:
                found = all_events(open_event_file(file, options))
            except (InputError, RecordingError) as error:
                assert str(error).isprintable()
            else:
                assert len(found) <= 300 and (np.diff(found.t) >= 0).all()


def test_a_large_bag_keeps_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("evfi.events.formats.rosbag.MIN_INDEXED_BYTES", 1000)
    columns = events()
    path = write_bag(tmp_path / "a.bag", "ros1", list(event_arrays(*columns, SIZE)))
    assert_same(all_events(open_event_file(path)), *columns)
    monkeypatch.setattr("evfi.events.formats.rosbag.build_index", None)
    source = open_event_file(path)
    assert_same(all_events(source), *columns)
    assert source.report.num_events == 2000


def test_real_packets_agree_with_an_independent_decoder(shared_dir: Path, tmp_path: Path) -> None:
    expelliarmus = pytest.importorskip("expelliarmus")
    from evfi.events.formats.bags import Bag
    from evfi.events.formats.ros_messages import parse_event_message

    recordings = shared_dir / "data" / "recordings"
    source = open_event_file(recordings / "event_camera_codecs_evt3.bag")
    bag = Bag(recordings / "event_camera_codecs_evt3.bag")
    payload = b"".join(
        bytes(parse_event_message(message, bag.topics[0]).payload)
        for message, _ in bag.messages(bag.topics[0], lambda damage: pytest.fail(damage.reason))
    )
    words = np.frombuffer(payload, "<u2")
    raw = tmp_path / "payload.raw"
    is_trigger = words >> 12 == 10  # which the other decoder does not know
    header_lines = b"% evt 3.0\n% format EVT3;height=480;width=640\n% end\n"
    raw.write_bytes(header_lines + words[~is_trigger].tobytes())
    theirs = expelliarmus.Wizard("evt3").read(raw)
    found = all_events(source)
    assert len(found) == len(theirs) == 343_474
    np.testing.assert_array_equal(found.x, theirs["x"])
    np.testing.assert_array_equal(found.y, theirs["y"])
    np.testing.assert_array_equal(found.p, theirs["p"].astype(int) * 2 - 1)
    late = found.t - found.t[0] - (theirs["t"] - theirs["t"][0])  # the other one takes repeated high times for steps
    assert (late % 4096 == 0).all()
    assert abs(found.t[-1] - found.t[0] - 2_076_073) < 10_000  # how long the bag lasts
    assert source.report.num_triggers == np.count_nonzero(is_trigger)
    twin = all_events(open_event_file(recordings / "ros2_evt3"))
    assert_same(found, twin.x, twin.y, twin.t, (twin.p + 1) // 2)


def test_the_real_libcaer_recording_lies_within_its_headers(shared_dir: Path) -> None:
    source = open_event_file(shared_dir / "data" / "recordings" / "event_camera_codecs.mcap")
    assert source.sensor_size == (346, 260)
    assert source.report.num_events == 571_266
    assert source.report.num_unsorted == source.report.num_unknown == 0
    assert sum(piece.num_dropped for piece in source.pieces()) == 0


def test_a_bag_cut_before_its_first_topic_is_called_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, 100_000) + bytes(300))
    for options in (EventFileOptions(), EventFileOptions(tolerant=True)):
        with pytest.raises(InputError, match=r"truncated: it has no footer.* names no topic; copy the bag again"):
            open_event_file(path, options)


def test_packets_in_an_encoding_that_is_named_as_whole_records_are(tmp_path: Path) -> None:
    data = packet(10**9, SIZE, 0, 0, "records", bytes(26))
    path = write_bag(tmp_path / "a.bag", "ros1", [("/e", EVENT_PACKET, 0, data)])
    with pytest.raises(InputError, match="packets in encoding 'records' cannot be read"):
        open_event_file(path)


@pytest.mark.parametrize("is_link", [False, True])
def test_bag_that_names_a_file_twice(tmp_path: Path, is_link: bool) -> None:
    path = write_bag(tmp_path / "bag", "mcap", list(event_arrays(*events(), SIZE)))
    metadata = path / "metadata.yaml"
    if is_link:
        (path / "b.mcap").symlink_to("bag.mcap")
    more = "b.mcap" if is_link else "bag.mcap"
    metadata.write_text(metadata.read_text().replace("- bag.mcap", f"- bag.mcap\n  - {more}", 1))
    with pytest.raises(InputError, match=f"expected each file of the bag once, found {more} twice"):
        open_event_file(path)


def test_one_file_of_a_bag_keeps_a_chunk_in_memory(tmp_path: Path) -> None:
    for number in range(3):
        made = write_bag(tmp_path / f"{number}", "mcap", list(event_arrays(*events(), SIZE)), "storage")
        (tmp_path / "bag").mkdir(exist_ok=True)
        content = (made / f"{number}.mcap").read_bytes()
        (tmp_path / "bag" / f"{number}.mcap").write_bytes(content if number else content[:-100])
    bag = Bag(tmp_path / "bag")
    assert len(list(bag.messages(bag.topics[0], lambda damage: None))) > 3
    kept = [file._kept[1] for file in bag.files if isinstance(file, McapFile)]
    assert [len(block) > 0 for block in kept] == [False, False, True]
