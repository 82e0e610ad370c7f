"""Bags that claim, or unpack to, far more than they hold are refused before memory is taken for it."""

from __future__ import annotations

import bz2
import struct
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from evfi import limits
from evfi.errors import EvfiError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import open_event_file
from evfi.events.formats.bag_parts import shown, unpack_message
from evfi.events.formats.bag_parts import unpack as unpack_block
from evfi.events.formats.bag_ros1 import Ros1File
from evfi.events.formats.bags import Bag
from evfi.events.formats.ros_decoders import EventDecoder
from evfi.events.formats.ros_messages import EventMessage, Fields
from file_writers import hostile
from file_writers.rosbag import EVENT_PACKET, packet, write_bag


class TestBags:
    @pytest.mark.parametrize("compression", ["zstd", "bz2", "lz4"])
    def test_chunks(self, compression: str) -> None:
        import lz4.frame

        data = {"zstd": zstandard.compress, "bz2": bz2.compress, "lz4": lz4.frame.compress}[compression](bytes(2**20))
        with pytest.raises(ValueError, match=r"may unpack to at most 64\.0 MiB, found 128\.0 MiB"):
            unpack_block(data, compression, 2**27)

    def test_messages_that_are_compressed_one_by_one(self) -> None:
        with pytest.raises(ValueError, match="unpacks to more than the"):
            unpack_message(zstandard.compress(bytes(2**26 + 1)), "zstd")

    def test_mcap(self, tmp_path: Path) -> None:
        chunk = hostile.mcap_chunk(zstandard.compress(bytes(100)), "zstd", 2**27)
        path = hostile.mcap_file(tmp_path / "e.mcap", [chunk])
        self.check(path, "may unpack to at most")

    def test_ros1(self, tmp_path: Path) -> None:
        fields = {"op": b"\x05", "compression": b"bz2", "size": struct.pack("<I", 2**27)}
        chunk = hostile.ros1_record(fields, bz2.compress(bytes(100)))
        path = hostile.ros1_file(tmp_path / "e.bag", [hostile.ros1_chunk_of_connection(), chunk])
        self.check(path, "may unpack to at most")

    def check(self, path: Path, reason: str) -> None:
        with pytest.raises(EvfiError, match="truncated"):
            open_event_file(path)
        with pytest.raises(EvfiError):
            open_event_file(path, EventFileOptions((32, 32), tolerant=True))
        bag, told = Bag(path), []
        assert list(bag.messages(bag.topics[0], told.append)) == []
        assert reason in told[-1].reason

    @pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1])
    @pytest.mark.parametrize("kind", [3, 4, 5, 6, 7, 200])
    def test_mcap_records_of_any_length(self, kind: int, length: int, tmp_path: Path) -> None:
        path = hostile.mcap_file(tmp_path / "e.mcap", [hostile.mcap_record(kind, bytes(64), length)])
        with pytest.raises(EvfiError):
            open_event_file(path, EventFileOptions((32, 32), tolerant=True))

    def test_mcap_of_zeros_ends_at_once(self, tmp_path: Path) -> None:
        path = hostile.mcap_file(tmp_path / "e.mcap", [hostile.mcap_chunk(bytes(2**24), "", 2**24)])
        with pytest.raises(RecordingError, match="holds no event"):
            open_event_file(path, EventFileOptions((32, 32), tolerant=True))

    @pytest.mark.parametrize("length", [2**31, 2**32 - 1])
    def test_ros1_records_of_any_length(self, length: int, tmp_path: Path) -> None:
        record = hostile.ros1_record({"op": b"\x02", "conn": bytes(4), "time": bytes(8)}, bytes(64), length)
        path = hostile.ros1_file(tmp_path / "e.bag", [hostile.ros1_chunk_of_connection(), record])
        with pytest.raises(EvfiError):
            open_event_file(path, EventFileOptions((32, 32), tolerant=True))

    def test_words_that_stand_for_many_events(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A word of EVT3 is up to twelve events: memory is taken for a bounded number."""
        monkeypatch.setattr("evfi.events.formats.ros_decoders._MAX_EVENTS", 1000)
        words = struct.pack("<4H", 0x8001, 0x6001, 0x0001, 0x3001) + struct.pack("<H", 0x4FFF) * 100
        message = EventMessage(0, (1280, 720), "evt3", memoryview(words))
        with pytest.raises(ValueError, match="a message of 1200 events is longer than the 1000"):
            EventDecoder("evt3").decode(message)

    def test_few_words_that_stand_for_many_events(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message of as many events, but one for each word, is read."""
        monkeypatch.setattr("evfi.events.formats.ros_decoders._MAX_VECTOR_EVENTS", 1000)
        head = struct.pack("<4H", 0x8001, 0x6001, 0x0001, 0x3001)
        vectors, single = (head + struct.pack("<H", word) * num for word, num in ((0x4FFF, 100), (0x2001, 1200)))
        with pytest.raises(ValueError, match="a message of 1200 events is longer than the 1000"):
            EventDecoder("evt3").decode(EventMessage(0, (1280, 720), "evt3", memoryview(vectors)))
        assert len(EventDecoder("evt3").decode(EventMessage(0, (1280, 720), "evt3", memoryview(single)))[2]) == 1200

    @pytest.mark.parametrize("kind", ["ros1", "mcap"])
    def test_chunks_together(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each chunk alone may unpack to what it does; all of them to no more than a file of their size may."""
        monkeypatch.setattr(limits, "FREE_BYTES", 2**20)
        if kind == "mcap":
            records = hostile.mcap_record(200, bytes(2**19))
            chunk = hostile.mcap_chunk(zstandard.compress(records), "zstd", len(records))
            path = hostile.mcap_file(tmp_path / "e.mcap", [chunk] * 3)
        else:
            records = hostile.ros1_record({"op": b"\x09"}, bytes(2**19))
            fields = {"op": b"\x05", "compression": b"bz2", "size": struct.pack("<I", len(records))}
            chunk = hostile.ros1_record(fields, bz2.compress(records))
            path = hostile.ros1_file(tmp_path / "e.bag", [hostile.ros1_chunk_of_connection(), *[chunk] * 3])
        self.check(path, "may unpack to at most 1.0 MiB, found more")

    def test_messages_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "FREE_BYTES", 2**23)
        data = packet(10**9, (32, 32), 0, 0, "mono", bytes(2**22))
        bag, told = Bag(write_bag(tmp_path / "bag", "ros2", [("/e", EVENT_PACKET, 0, data)] * 3, "message")), []
        assert len(list(bag.messages(bag.topics[0], told.append))) == 1
        assert "may unpack to at most 8.0 MiB, found more" in told[0].reason

    def test_names_of_any_length(self, tmp_path: Path) -> None:
        """Names of topics, types and encodings are of bounded length, wherever they stand; no message quotes them whole."""
        name = "a" * 5000
        for path in (
            hostile.mcap_file(tmp_path / "e.mcap", [], topic_type=name),
            hostile.ros1_file(tmp_path / "e.bag", [hostile.ros1_connection(name)]),
        ):
            with pytest.raises(EvfiError, match="no topic") as caught:
                open_event_file(path, EventFileOptions((32, 32), tolerant=True))
            assert len(str(caught.value)) < 1000
        with pytest.raises(ValueError, match="a name of 5000 bytes is longer than the 4096"):
            Fields(memoryview(struct.pack("<I", 5000) + bytes(5000)), is_cdr=False).text()
        tracemalloc.start()
        assert shown("ab " * 2**20) == ("ab " * 27)[:80]
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()

    def test_topics_of_any_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        about = hostile.ros1_fields({"type": b"a"})
        connections = b"".join(
            hostile.ros1_record({"op": b"\x07", "conn": struct.pack("<I", number), "topic": b"/t"}, about)
            for number in range(9)
        )
        fields = {"op": b"\x05", "compression": b"none", "size": struct.pack("<I", len(connections))}
        path = hostile.ros1_file(tmp_path / "e.bag", [hostile.ros1_record(fields, connections)])
        monkeypatch.setattr("evfi.events.formats.bag_ros1.MAX_TOPICS", 5)
        assert len(Ros1File(path).connections) == 5

    def test_ros1_zeros_are_no_records(self, tmp_path: Path) -> None:
        """A chunk of zeros, of which a few bytes unpack to millions, ends at once, and is told."""
        zeros = {"op": b"\x05", "compression": b"bz2", "size": struct.pack("<I", 2**22)}
        chunks = [hostile.ros1_chunk_of_connection(), hostile.ros1_record(zeros, bz2.compress(bytes(2**22)))]
        self.check(hostile.ros1_file(tmp_path / "e.bag", chunks), "a chunk holds a broken record")
