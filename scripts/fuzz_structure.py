"""Feed containers that are sound but for a few fields to the readers of AEDAT4, MCAP and ROS 1 bags.

    python scripts/fuzz_structure.py --cases 30000

`fuzz_formats.py` flips bits, which checksums and outer headers mostly catch. Here whole files are written field by field,
and one to three fields (now and then eight) get a value that is meant to do harm: offsets that point at themselves,
backwards, into a cycle or nowhere, lengths and counts that do not fit, chunks that overlap, hold each other, or promise far
more than they hold, numbers given twice, impossible sizes, strides, encodings and times, text that is none. Everything
around them fits: the lengths of what holds them, compression, and checksums unless these are what is wrong. Files are read
as by `fuzz_formats.py`; `fuzzing` says what must not happen.

A case is named by its container and number; `--only CONTAINER --first N --cases 1` repeats it, `--keep FOLDER` keeps it.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

import fuzzing
from file_writers.rosbag import ENCODERS
from file_writers.samples import SIZE, sample_events
from mischief import Mischief, packed, u16, u32, u64

HOLE_BYTES: Final = 2**26
"""A packet of nothing that makes an AEDAT4 file one whose own table is trusted; it takes no room on the disk."""
RUINS: Final = tuple(
    (u32(0) + u32(length) + inside + mark + b"\xff" * 8) * 5000
    for length, inside, mark in (
        (8, b"", b"\x04\x22\x4d\x18abcd"),
        (8, b"", b"\x28\xb5\x2f\xfdabcd"),
        (12, b"\xff" * 8, b"EVTS"),
    )
)
"""Packets that hold nothing, each with bytes behind it that are no packet: tolerant readers look for the next one."""
ZEROS: Final = bytes(2**24)
EMPTY_RECORDS: Final = (b"\1" + bytes(8)) * 2**18
VECTORS: Final = b"\xff\x4f" * 2**20
"""Words of EVT3, each of which stands for twelve events."""
PER_MESSAGE: Final = 60
ZIPPED_4_MIB, ZIPPED_16_MIB = zlib.compress(bytes(2**22)), zlib.compress(bytes(2**24))

# AEDAT4

Field = tuple[Any, ...]
"""A scalar ("q", number), a vector ("vector", content, items) or ("tables", fields of each)."""

WIDTHS: Final = {"vector": 4, "tables": 4, "q": 8, "i": 4, "h": 2, "b": 1}


def flat_table(m: Mischief, fields: dict[int, Field]) -> tuple[bytes, int]:
    """A vtable, its table and what that points to; and where the table begins."""
    num = max(fields) + 1
    at = -(-(4 + 2 * num) // 8) * 8
    places, size = {}, 4
    for index, (code, *_) in fields.items():
        size += -size % WIDTHS[code]
        places[index], size = size, size + WIDTHS[code]
    size += -size % 8
    table, behind = bytearray(size), bytearray()
    table[:4] = u32(m.offset(at, (at - 8, at - size)))
    for index, (code, *value) in fields.items():
        place, width = places[index], WIDTHS[code]
        content = value[0]
        if code in ("vector", "tables"):
            child = u32(m.count(value[1])) + content if code == "vector" else flat_tables(m, content)
            content = m.offset(size + len(behind) - place, (-place, size - place))
            behind += child + bytes(-len(child) % 8)
        table[place : place + width] = (content % (1 << 8 * width)).to_bytes(width, "little")
    lengths = u16(m.count(4 + 2 * num, 16)) + u16(m.count(size, 16))
    vtable = lengths + b"".join(u16(m.offset(places.get(index, 0), (2, size), 16)) for index in range(num))
    return vtable.ljust(at, b"\0") + table + behind, at


def flat_tables(m: Mischief, tables: list[dict[int, Field]]) -> bytes:
    """A vector of tables."""
    offsets, behind = bytearray(), bytearray(-(4 + 4 * len(tables)) % 8)
    for number, fields in enumerate(tables):
        content, at = flat_table(m, fields)
        offsets += u32(m.offset(4 * (len(tables) - number) + len(behind) + at, (-4 * number, 4)))
        behind += content
    return u32(m.count(len(tables))) + offsets + behind


def flat_root(m: Mischief, identifier: bytes, fields: dict[int, Field], *, has_length: bool = True) -> bytes:
    """A buffer of FlatBuffers, with its length in front where packets have it."""
    content, at = flat_table(m, fields)
    whole = u32(m.offset(8 + at, (8, len(content)))) + m.pick(identifier, b"EVTS", b"FRME", b"FTAB", bytes(4)) + content
    return (u32(m.count(len(whole))) if has_length else b"") + whole


def aedat4(m: Mischief, variant: int) -> list[bytes | int]:
    """The parts of an AEDAT4 file with events and frames; a number stands for so many bytes of nothing."""
    compression, is_large = variant % 5, variant // 5 % 4 == 0
    how = ("none", "lz4", "lz4", "zstd", "zstd")[compression]
    size = tuple(
        m.pick("64" if axis == "X" else "48", "-1", "0", "1", "32767", "9" * 30, "", "٣", "1e2") for axis in "XY"
    )
    streams = m.items([("EVTS", "events"), ("FRME", "frames"), ("IMUS", "imu")])
    xml = "".join(
        f'<node name="{m.pick(number, 0, -1, 2**40, 10**30, "x")}"><attr key="typeIdentifier">{m.pick(kind, "FRME")}'
        f'</attr><attr key="originalOutputName">{m.pick(name, "events", "&#8238;&#133;", "", "n" * 9999)}</attr>'
        f'<node name="info"><attr key="sizeX">{size[0]}</attr><attr key="sizeY">{size[1]}</attr></node></node>'
        for number, (kind, name) in enumerate(streams)
    )
    xml = m.pick("", "<a>" * 50_000) + f'<dv version="2.0"><node name="outInfo">{xml}</node></dv>'
    contents = m.items([*event_packets(m), *frame_packets(m)])
    body: list[bytes | int] = []
    rows, place = [], 0
    begin = 18 + len(aedat4_header(Mischief(np.random.default_rng()), xml, compression, 0))
    for stream, num, first, last, content in contents:
        inner = packed(m, content, how)
        place += 8
        row = {
            0: ("q", m.offset(begin + place, (0, begin), 64)),
            1: ("q", m.number(stream, 32) | m.count(len(inner)) << 32),
        }
        times = {3: ("q", m.number(first)), 4: ("q", m.number(last))}
        rows.append({**row, 2: ("q", m.count(num, 64)), **times})
        body += [u32(m.number(stream, 32)) + u32(m.count(len(inner))) + inner]
        body += [ruins := m.pick(b"", *RUINS)]
        place += len(inner) + len(ruins)
    if is_large:
        body += [u32(2) + u32(HOLE_BYTES), HOLE_BYTES]
        rows.append(
            {0: ("q", begin + place + 8), 1: ("q", 2 | HOLE_BYTES << 32), 2: ("q", 0), 3: ("q", 0), 4: ("q", 0)}
        )
        place += 8 + HOLE_BYTES
    header = aedat4_header(
        m, xml, compression, m.offset(begin + place, (0, 14, begin, begin + 8, begin + place + 1), 64)
    )
    table = packed(m, flat_root(m, b"FTAB", {0: ("tables", m.items(rows))}), how)
    return [b"#!AER-DAT4.0\r\n" + u32(m.count(len(header))) + header, *body, table]


def aedat4_header(m: Mischief, xml: str, compression: int, place: int) -> bytes:
    fields = {
        0: ("i", m.number(compression, 32)),
        1: ("q", place),
        2: ("vector", xml.encode() + b"\0", len(xml.encode())),
    }
    return flat_root(m, b"IOHE", fields, has_length=False)


def event_packets(m: Mischief) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Stream, number of elements, first and last time, and content of packets of events."""
    x, y, t, p = sample_events()
    records = np.zeros(len(t), np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "<i4")]))
    records["t"], records["x"], records["y"], records["p"] = t, x, y, p
    for part in np.array_split(records, 4):
        name, value = m.pick(
            ("t", part["t"][5]), ("t", 2**62), ("t", -(2**63)), ("x", -1), ("y", 32767), ("p", 2), ("t", 0)
        )
        part[name][5] = value
        content = flat_root(m, b"EVTS", {0: ("vector", part.tobytes(), len(part))})
        yield 0, len(part), int(part["t"][0]), int(part["t"][-1]), content


def frame_packets(m: Mischief) -> Iterator[tuple[int, int, int, int, bytes]]:
    for number in range(3):
        start = 1000 + 20_000 * number
        times = {index: ("q", m.number(start + 100 * index)) for index in (0, 1, 2, 3, 4)}
        code, channels = m.pick((0, 1), (16, 1), (24, 1), (7, 1))[0], 1
        shape = {5: ("b", code), 6: ("h", m.count(SIZE[0], 16)), 7: ("h", m.count(SIZE[1], 16))}
        pixels = bytes([60 * number]) * (SIZE[0] * SIZE[1] * channels)
        fields = {**times, **shape, 10: ("vector", pixels, len(pixels)), 11: ("q", m.number(100))}
        yield 1, 1, start, start, flat_root(m, b"FRME", fields)


# Messages of ROS


class Serial:
    """Serialises a message, as ROS 1 or as ROS 2 does."""

    def __init__(self, m: Mischief, *, is_cdr: bool):
        self._m = m
        self._is_cdr = is_cdr
        self._head = m.pick(b"\0\1\0\0", b"\0\0\0\0", b"\0\3\0\0", b"\0\7\0\0", b"\1\1\0\0", b"") if is_cdr else b""
        self._data = bytearray()

    def add(self, code: str, *values: int) -> Serial:
        for value in values:
            width = struct.calcsize(f"<{code}")
            self._data += bytes(-len(self._data) % width if self._is_cdr else 0)
            self._data += struct.pack(f"<{code}", value)
        return self

    def content(self, data: bytes, num: int | None = None) -> Serial:
        self.add("I", self._m.count(len(data) if num is None else num))
        self._data += data
        return self

    def header(self, time_ns: int) -> Serial:
        if not self._is_cdr:
            self.add("I", 0)
        self.add("I", self._m.number(time_ns // 10**9, 32), self._m.number(time_ns % 10**9, 32))
        return self.content(self._m.text("camera"))

    def done(self) -> bytes:
        return self._head + bytes(self._data)


def messages(m: Mischief, *, is_cdr: bool, encoding: str) -> list[tuple[int, int, bytes]]:
    """Connection (0 events, 1 pictures, 2 packed pictures), time in ns, and content of messages."""
    found = []
    x, y, t, p = (column.astype(np.int64) for column in sample_events())
    for number, first in enumerate(range(0, len(t), PER_MESSAGE)):
        part = np.s_[first : first + PER_MESSAGE]
        columns = x[part], y[part], t[part], p[part]
        time_ns = int(t[first]) * 1000
        about = Serial(m, is_cdr=is_cdr).header(time_ns).add("I", m.count(SIZE[1]), m.count(SIZE[0]))
        if encoding == "records":
            events = list(zip(*(column.tolist() for column in columns), strict=True))
            events[3] = m.pick(events[3], (65535, 65535, 0, 1), (0, 0, 2**32 * 10**6 - 1, 0), (0, 0, 0, 255))
            about.add("I", m.count(len(events)))
            for column, row, time, sign in events:
                about.add("H", column, row).add("I", time // 10**6, time % 10**6 * 1000).add("B", sign)
        else:
            base = int(t[first])
            payload = ENCODERS[encoding](*columns, base)
            swapped = b"".join(payload[at : at + 2][::-1] for at in range(0, len(payload), 2))
            payload = m.pick(
                payload,
                payload[:-1],
                swapped,
                payload[:40],
                VECTORS[:8192],
                b"\xff" * 4096,
                b"",
                VECTORS,
            )
            about.add("Q", m.number(number), m.number(base * 1000))
            about.content(m.text(encoding)).add("B", m.number(0, 8)).content(payload)
        found.append((0, time_ns, about.done()))
    for number in range(3):
        time_ns = (1000 + 20_000 * number) * 1000
        found.append((1, time_ns, picture(m, time_ns, is_cdr=is_cdr)))
        data = m.pick(png(m), jpeg(m))
        packed_picture = Serial(m, is_cdr=is_cdr).header(time_ns).content(m.text("png")).content(data)
        found.append((2, time_ns, packed_picture.done()))
    return list(m.items(found))


def picture(m: Mischief, time_ns: int, *, is_cdr: bool) -> bytes:
    about = Serial(m, is_cdr=is_cdr).header(time_ns).add("I", m.count(SIZE[1]), m.count(SIZE[0]))
    about.content(m.text("mono8")).add("B", m.number(0, 8)).add("I", m.count(SIZE[0]))
    return about.content(bytes(SIZE[0] * SIZE[1])).done()


def png(m: Mischief) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", m.checksum(zlib.crc32(kind + content)))
        return struct.pack(">I", m.count(len(content))) + kind + content + crc

    sides = struct.pack(">II", m.count(SIZE[0]), m.count(SIZE[1]))
    header = chunk(b"IHDR", sides + bytes([m.number(8, 8), m.number(0, 8), 0, 0, m.number(0, 8)]))
    pixels = zlib.compress(bytes(SIZE[1] * (SIZE[0] + 1)))
    chunks = [chunk(b"IDAT", m.pick(pixels, ZIPPED_16_MIB, pixels[:9])), chunk(b"IEND", b"")]
    extra = {
        "": b"",
        "text": chunk(b"zTXt", b"a\0\0" + ZIPPED_4_MIB),
        "international": chunk(b"iTXt", b"a\0\1\0\0\0" + ZIPPED_4_MIB),
        "profile": chunk(b"iCCP", b"a\0\0" + ZIPPED_4_MIB),
        "animation": chunk(b"acTL", u32(2**31 - 1) * 2) + chunk(b"fcTL", b"\xff" * 26),
        "short": chunk(b"pHYs", b"\0") + chunk(b"tRNS", b"") + chunk(b"gAMA", b"\0"),
        "palette": chunk(b"PLTE", b"\0"),
        "exif": chunk(b"eXIf", b"MM\0\x2a\0\0\0\x08\xff\xff"),
    }
    return b"\x89PNG\r\n\x1a\n" + header + extra[m.pick("", *list(extra)[1:])] + b"".join(m.items(chunks))


def jpeg(m: Mischief) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.zeros(SIZE[::-1], np.uint8)).save(file, "JPEG")
    whole = file.getvalue()
    kinds = (
        b"\xff\xe2" + b"\0\x60MPF\0" + b"MM\0\x2a\0\0\0\x08\xff\xff" + bytes(80),
        b"\xff\xe1\0\x12Exif\0\0MM\0\x2a\0\0\0\x08",
    )
    more = m.pick(
        b"", *kinds, b"\xff\xee\0\x03A", b"\xff\xdb\0\x02", b"\xff\xed\0\x10Photoshop 3.0\0", b"\xff\xc0\0\x04\0\0"
    )
    return whole[:2] + more + m.pick(whole[2:], whole[2:300], whole[2:] * 2)


# MCAP


def mcap_text(m: Mischief, text: str) -> bytes:
    content = m.text(text)
    return u32(m.count(len(content))) + content


def mcap_record(m: Mischief, kind: int, content: bytes) -> bytes:
    return bytes([m.number(kind, 8)]) + u64(m.count(len(content), 64)) + content


def mcap_descriptions(m: Mischief, encoding: str) -> list[bytes]:
    packet = "dvs_msgs/msg/EventArray" if encoding == "records" else "event_camera_msgs/msg/EventPacket"
    kinds = (packet, "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
    topics = ("/dvs/events", "/dvs/image_raw", "/dvs/image_raw/compressed")
    found = []
    for number, (kind, topic) in enumerate(zip(kinds, topics, strict=True)):
        schema = u16(m.number(number + 1, 16)) + mcap_text(m, kind) + mcap_text(m, "ros2msg") + u32(m.count(0))
        channel = u16(m.number(number, 16)) + u16(m.number(number + 1, 16)) + mcap_text(m, topic) + mcap_text(m, "cdr")
        found += [mcap_record(m, 3, schema), mcap_record(m, 4, channel + u32(m.count(0)))]
    return list(m.items(found))


def mcap_chunk(m: Mischief, records: bytes, how: str) -> bytes:
    records += m.pick(b"", ZEROS, EMPTY_RECORDS, records)
    inner = packed(m, records, how)
    times = u64(m.number(10**6)) + u64(m.number(6 * 10**7))
    about = times + u64(m.count(len(records), 64)) + u32(m.checksum(zlib.crc32(records))) + mcap_text(m, how)
    return mcap_record(m, 6, about + u64(m.count(len(inner), 64)) + inner)


def mcap(m: Mischief, variant: int) -> list[bytes | int]:
    """The parts of an MCAP file."""
    how = ("", "lz4", "zstd")[variant % 3]
    encoding = ("records", *ENCODERS)[variant // 3 % (1 + len(ENCODERS))]
    has_summary, is_chunked = variant % 4 > 0, variant % 5 > 0
    described = b"".join(mcap_descriptions(m, encoding))
    bare = [
        mcap_record(m, 5, struct.pack("<HIQQ", m.number(channel, 16), number % 2**32, m.number(time), time) + content)
        for number, (channel, time, content) in enumerate(messages(m, is_cdr=True, encoding=encoding))
    ]
    body = bytearray(b"\x89MCAP0\r\n" + mcap_record(m, 1, mcap_text(m, "ros2") + mcap_text(m, "")))
    chunks: list[tuple[int, int]] = []
    blocks = [described + b"".join(bare[at : at + 4]) for at in range(0, len(bare), 4)]
    nested = m.pick(False, True)
    for number, records in enumerate(m.items(blocks)):
        inner = mcap_chunk(m, records, how) if nested else records
        made = mcap_chunk(m, inner, how) if is_chunked else records
        chunks.append((len(body), len(made)))
        body += made
        index = u16(m.number(0, 16)) + u32(m.count(16)) + u64(m.number(10**6)) + u64(m.offset(0, (len(body),), 64))
        body += mcap_record(m, 7, index) if number % 2 else b""
    body += mcap_record(m, 9, u64(0) * 2 + mcap_text(m, "a") + mcap_text(m, "b") + u64(m.count(0, 64)) + u32(0))
    body += mcap_record(m, 15, u32(m.checksum(0)))
    start = len(body)
    summary = b"".join(mcap_descriptions(m, encoding)) if has_summary else b""
    for at, length in m.items(chunks):
        place = u64(m.offset(at, (0, 8, start), 64)) + u64(m.count(length, 64)) + u32(m.count(0)) + u64(0)
        summary += mcap_record(m, 8, u64(10**6) * 2 + place + mcap_text(m, how) + u64(1) * 2)
    offsets = mcap_record(m, 14, bytes([3]) + u64(m.offset(start, (0, 8), 64)) + u64(m.count(len(summary), 64)))
    marks = (8, start - 1, start + 1, chunks[0][0] if chunks else 0, len(body) + len(summary) + len(offsets), 2**63)
    place = m.offset(start if has_summary else 0, marks, 64)
    footer = u64(place) + u64(m.offset(start + len(summary), marks, 64)) + u32(m.checksum(0))
    end = mcap_record(m, 2, footer) + m.pick(b"\x89MCAP0\r\n", b"")
    return [bytes(body + summary + offsets + end)]


# ROS 1


def ros1_fields(m: Mischief, fields: dict[str, bytes]) -> bytes:
    parts = list(fields.items())
    return b"".join(
        u32(m.count(len(name) + 1 + len(value))) + name.encode() + m.pick(b"=", b"", b"==") + value
        for name, value in m.items(parts)
    )


def ros1_record(m: Mischief, kind: int, fields: dict[str, bytes], data: bytes = b"") -> bytes:
    header = ros1_fields(m, {"op": bytes([m.number(kind, 8)]), **fields})
    return u32(m.count(len(header))) + header + u32(m.count(len(data))) + data


def ros1_connections(m: Mischief, encoding: str) -> list[bytes]:
    packet = "dvs_msgs/EventArray" if encoding == "records" else "event_camera_msgs/EventPacket"
    about = ((packet, "/dvs/events"), ("sensor_msgs/Image", "/dvs/image_raw"))
    about += (("sensor_msgs/CompressedImage", "/dvs/image_raw/compressed"),)
    found = []
    for number, (kind, topic) in enumerate(about):
        data = ros1_fields(m, {"topic": m.text(topic), "type": m.text(kind), "md5sum": b"*"})
        found.append(ros1_record(m, 7, {"conn": u32(m.number(number, 32)), "topic": m.text(topic)}, data))
    return list(m.items(found))


def ros1_chunk(m: Mischief, content: bytes, how: str) -> bytes:
    content += m.pick(b"", ZEROS, content)
    fields = {"compression": m.text(how), "size": u32(m.count(len(content)))}
    return ros1_record(m, 5, fields, packed(m, content, how))


def ros1(m: Mischief, variant: int) -> list[bytes | int]:
    """The parts of a ROS 1 bag."""
    how = ("none", "bz2", "lz4")[variant % 3]
    encoding = ("records", *ENCODERS)[variant // 3 % (1 + len(ENCODERS))]
    described = b"".join(ros1_connections(m, encoding))
    bare = [
        ros1_record(
            m, 2, {"conn": u32(m.number(channel, 32)), "time": u32(m.number(time // 10**9, 32)) + u32(0)}, content
        )
        for channel, time, content in messages(m, is_cdr=False, encoding=encoding)
    ]
    begin = 13 + 4096
    body = bytearray()
    chunks = []
    nested = m.pick(False, True)
    for content in m.items([described + b"".join(bare[at : at + 4]) for at in range(0, len(bare), 4)]):
        chunks.append(begin + len(body))
        body += ros1_chunk(m, ros1_chunk(m, content, how) if nested else content, how)
        body += ros1_record(m, 4, {"ver": u32(1), "conn": u32(m.number(0, 32)), "count": u32(m.count(1))}, bytes(12))
    index = begin + len(body)
    body += b"".join(ros1_connections(m, encoding))
    for at in m.items(chunks):
        place = {"chunk_pos": u64(m.offset(at, (0, 13, index), 64)), "count": u32(m.count(3))}
        body += ros1_record(m, 6, {"ver": u32(1), **place, "start_time": bytes(8), "end_time": bytes(8)}, bytes(24))
    marks = (0, 13, begin, begin + 1, chunks[-1] if chunks else 0, index + 1, begin + len(body))
    place = m.offset(index if variant % 4 else 0, marks, 64)
    fields = {"index_pos": u64(place), "conn_count": u32(m.count(3)), "chunk_count": u32(m.count(len(chunks)))}
    header = ros1_record(m, 3, fields)
    padding = bytes(4096 - len(header)) if len(header) < 4096 else b""
    header = header[:-4] + u32(m.count(len(padding))) + padding
    return [m.pick(b"#ROSBAG V2.0\n", b"#ROSBAG V1.2\n", b"#ROSBAG V\xff\xff\n") + header + bytes(body)]


CONTAINERS: Final[dict[str, tuple[Callable[[Mischief, int], list[bytes | int]], str]]] = {
    "aedat4": (aedat4, ".aedat4"),
    "mcap": (mcap, ".mcap"),
    "ros1": (ros1, ".bag"),
}
NUM_VARIANTS: Final = 60


class Crafter:
    """Writes the files of a container."""

    def __init__(self, name: str, shared: Path, folder: Path):
        self._name = name
        self._folder = folder
        self._craft, self._suffix = CONTAINERS[name]

    def sound(self) -> Iterator[fuzzing.Written]:
        """A file of each variant in which nothing is wrong."""
        for variant in range(NUM_VARIANTS):
            yield self._written(f"sound-{variant}", self._craft(Mischief(np.random.default_rng(0)), variant))

    def write(self, number: int) -> fuzzing.Written:
        """A file with one to three, or up to eight, harmful values, from places in this script that take equal shares."""
        rng = np.random.default_rng([number, *self._name.encode()])
        variant = int(rng.integers(NUM_VARIANTS))
        sound = Mischief(rng)
        self._craft(sound, variant)
        by_place = defaultdict(list)
        for value, place in enumerate(sound.places):
            by_place[place].append(value)
        places = list(by_place.values())
        num = int(rng.integers(1, 9 if rng.integers(16) == 0 else 4))
        lists = [places[int(i)] for i in rng.integers(len(places), size=num)]
        chosen = frozenset(values[int(rng.integers(len(values)))] for values in lists)
        return self._written(f"case-{number % 4}", self._craft(Mischief(rng, chosen), variant))

    def _written(self, name: str, parts: list[bytes | int]) -> fuzzing.Written:
        path = self._folder / f"{name}{self._suffix}"
        with path.open("wb") as file:
            for part in parts:
                if isinstance(part, int):
                    file.seek(part, 1)
                else:
                    file.write(part)
        return fuzzing.Written(path, has_frames=True)


def prepare(name: str, folder: Path) -> None:
    """Nothing is shared."""


if __name__ == "__main__":
    names = sorted(CONTAINERS)
    sys.exit(fuzzing.run(fuzzing.arguments_of(__doc__, names), names, Crafter, prepare))
