"""Writes small files that claim, or unpack to, far more than they hold; each is sound in form."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_BLOCK = bytes(2**20)


def deflated_zeros(head: bytes, num_zeros: int, tail: bytes = b"") -> tuple[bytes, int]:
    """`head`, so many zero bytes and `tail`, deflated; and their checksum."""
    packer, crc = zlib.compressobj(9, zlib.DEFLATED, -15), zlib.crc32(head)
    parts = [packer.compress(head)]
    for start in range(0, num_zeros, len(_BLOCK)):
        block = _BLOCK[: min(len(_BLOCK), num_zeros - start)]
        parts.append(packer.compress(block))
        crc = zlib.crc32(block, crc)
    return b"".join([*parts, packer.compress(tail), packer.flush()]), zlib.crc32(tail, crc)


def npy_header(num: int, dtype: str) -> bytes:
    """What stands in front of the numbers of an .npy member."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": (num,)})
    return file.getvalue()


def write_zeros_npz(path: Path, columns: dict[str, str], num: int, sound: dict[str, np.ndarray] | None = None) -> Path:
    """An .npz whose members, of these names and types, hold so many zeros, deflated; `sound` members are stored."""
    members = []
    for name, dtype in columns.items():
        head = npy_header(num, dtype)
        size = num * np.dtype(dtype).itemsize
        data, crc = deflated_zeros(head, size)
        members.append((f"{name}.npy", zipfile.ZIP_DEFLATED, data, crc, len(head) + size))
    for name, array in (sound or {}).items():
        file = io.BytesIO()
        np.save(file, array)
        content = file.getvalue()
        members.append((f"{name}.npy", zipfile.ZIP_STORED, content, zlib.crc32(content), len(content)))
    return write_zip(path, members)


def write_zip(path: Path, members: Sequence[tuple[str, int, bytes, int, int]]) -> Path:
    """A zip of members (name, method, packed bytes, checksum, size that it promises)."""
    body, directory = bytearray(), bytearray()
    for name, method, data, crc, size in members:
        directory += _central(name, method, len(data), crc, size, len(body))
        body += _LOCAL_HEADER.pack(b"PK\x03\x04", 20, 0, method, 0, 0x21, crc, len(data), size, len(name), 0)
        body += name.encode() + data
    end = _END.pack(b"PK\x05\x06", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(bytes(body + directory + end))
    return path


def write_overlapping_npz(path: Path, names: Sequence[str], num: int, num_random: int = 0) -> Path:
    """An .npz each of whose members holds all that follow: its packed bytes quote the next header and go on behind it.

    Args:
        path: the file.
        names: of the members.
        num: bytes of the last one, which are zeros but for the last `num_random`.
        num_random: how many.
    """
    tail = np.random.default_rng(0).bytes(num_random)
    content = npy_header(num, "|u1") + bytes(num - num_random) + tail
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body, entries, local = packer.compress(content) + packer.flush(), [], b""
    for number, name in enumerate(reversed(names)):
        if number:
            head = npy_header(len(content) + len(local), "|u1") + local
            content = head + content
            body = struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF) + head + body[len(local) :]
        crc, size, full_name = zlib.crc32(content), len(content), f"{name}.npy".encode()
        entries.append((name, len(body), crc, size))
        fields = (b"PK\x03\x04", 20, 0, zipfile.ZIP_DEFLATED, 0, 0x21, crc, len(body), size, len(full_name), 0)
        local = _LOCAL_HEADER.pack(*fields) + full_name
        body = local + body
    directory = b"".join(
        _central(f"{name}.npy", zipfile.ZIP_DEFLATED, packed, crc, size, len(body) - packed - len(name) - 34)
        for name, packed, crc, size in entries
    )
    end = _END.pack(b"PK\x05\x06", 0, 0, len(names), len(names), len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def _central(name: str, method: int, packed: int, crc: int, size: int, offset: int) -> bytes:
    fields = (b"PK\x01\x02", 20, 20, 0, method, 0, 0x21, crc, packed, size, len(name), 0, 0, 0, 0, 0, offset)
    return _CENTRAL_HEADER.pack(*fields) + name.encode()


def png_of_zeros(width: int, height: int) -> bytes:
    """A black PNG of one bit per pixel, a thousand times smaller than its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    rows = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def write_png_video(path: Path, pictures: Sequence[bytes], size: tuple[int, int]) -> Path:
    """A .mov whose frames are these PNG files; its header says `size`, whatever they hold."""
    import av

    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "rgb24"
        for number, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, True
            packet.duration = 1
            container.mux(packet)
    return path


def aedat4_file(
    path: Path,
    packets: Sequence[tuple[int, bytes]],
    *,
    compression: int = 0,
    table: bytes | None = None,
    size: str = "32",
) -> Path:
    """An AEDAT 4 file of these packets (stream, content as it stands there); 0 is a stream of events, 1 one of frames.

    Args:
        path: the file.
        packets: in order.
        compression: 0 none, 1 LZ4, 3 Zstandard.
        table: content of the data table as it stands there; None: the file has none.
        size: both sides of the sensor, as the header's text says them.
    """
    info = (
        f'<node name="info"><attr key="sizeX" type="int">{size}</attr><attr key="sizeY" type="int">{size}</attr></node>'
    )
    streams = "".join(
        f'<node name="{number}"><attr key="typeIdentifier" type="string">{kind}</attr>'
        f'<attr key="originalOutputName" type="string">{name}</attr>{info}</node>'
        for number, (kind, name) in enumerate((("EVTS", "events"), ("FRME", "frames")))
    )
    xml = f'<dv version="2.0"><node name="outInfo">{streams}</node></dv>'.encode()
    body = b"".join(struct.pack("<ii", stream, len(content)) + content for stream, content in packets)
    begin = len(aedat4_header(xml, compression, 0)) + 18
    place = -1 if table is None else begin + len(body)
    header = aedat4_header(xml, compression, place)
    parts = (b"#!AER-DAT4.0\r\n", struct.pack("<I", len(header)), header, body, table or b"")
    path.write_bytes(b"".join(parts))
    return path


def aedat4_header(xml: bytes, compression: int, table_start: int) -> bytes:
    """The FlatBuffers table `IOHeader`: compression, place of the data table, description of the streams."""
    text = struct.pack("<I", len(xml)) + xml + b"\0"
    vtable = struct.pack("<HHHHH", 10, 24, 4, 8, 16)  # lengths of vtable and table, then where its fields lie
    fixed = struct.pack("<iiqIi", 10 + 2, compression, table_start, 8, 0)
    return struct.pack("<I4s", 20, b"IOHE") + vtable + b"\0\0" + fixed + text


def event_packet(num: int, first_us: int = 1) -> bytes:
    """A packet of so many events of time `first_us` at pixel (0, 0), with its length in front, not packed."""
    vector = np.zeros((num, 2), "<i8")
    vector[:, 0] = first_us
    table = struct.pack("<I4sHHHxxiII", 16, b"EVTS", 6, 8, 4, 8, 4, num) + vector.tobytes()
    return struct.pack("<I", len(table)) + table


def mcap_file(path: Path, records: Sequence[bytes], topic_type: str = "event_camera_msgs/msg/EventPacket") -> Path:
    """An MCAP file with a channel 1 of this type and these records, which are not closed by a footer."""
    schema = struct.pack("<H", 1) + _text(topic_type) + _text("ros2msg") + _text("")
    channel = struct.pack("<HH", 1, 1) + _text("/events") + _text("cdr") + _text("")
    described = mcap_record(3, schema) + mcap_record(4, channel)
    path.write_bytes(b"\x89MCAP0\r\n" + described + b"".join(records))
    return path


def mcap_record(kind: int, content: bytes, length: int | None = None) -> bytes:
    """One record; `length` is what it claims."""
    return struct.pack("<BQ", kind, len(content) if length is None else length) + content


def mcap_chunk(data: bytes, compression: str, size: int) -> bytes:
    """A chunk of packed records that claims to unpack to `size` bytes."""
    return mcap_record(
        6, struct.pack("<QQQI", 0, 0, size, 0) + _text(compression) + struct.pack("<Q", len(data)) + data
    )


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


def ros1_file(path: Path, records: Sequence[bytes]) -> Path:
    """A ROS 1 bag of these records that was not closed: it has no index."""
    path.write_bytes(b"#ROSBAG V2.0\n" + ros1_record({"op": b"\x03", "index_pos": bytes(8)}, b"") + b"".join(records))
    return path


def ros1_record(fields: dict[str, bytes], data: bytes, length: int | None = None) -> bytes:
    """One record; `length` is what its data claim to be."""
    header = b"".join(
        struct.pack("<I", len(name) + 1 + len(value)) + name.encode() + b"=" + value for name, value in fields.items()
    )
    return struct.pack("<I", len(header)) + header + struct.pack("<I", len(data) if length is None else length) + data


def ros1_connection(topic_type: str = "dvs_msgs/EventArray") -> bytes:
    """The record that says that connection 0 is a topic of events."""
    about = ros1_fields({"topic": b"/dvs/events", "type": topic_type.encode()})
    return ros1_record({"op": b"\x07", "conn": bytes(4), "topic": b"/dvs/events"}, about)


def ros1_fields(fields: dict[str, bytes]) -> bytes:
    """Named fields as they stand in headers and in the data of connections."""
    return b"".join(
        struct.pack("<I", len(name) + 1 + len(value)) + name.encode() + b"=" + value for name, value in fields.items()
    )


def peak_memory_mb(code: str, *arguments: object) -> tuple[int, str]:
    """Run code in a process of its own: how many MB it took at most beyond what it began with, and its last line.

    The code may use `base()`, which marks where the measurement begins; what it imports before does not count.
    """
    import subprocess
    import sys

    prelude = "\n".join(
        (
            "def peak():",
            "    lines = open('/proc/self/status').read().splitlines()",
            "    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) // 1024",
            "import sys",
            "begun = [0]",
            "def base(): begun[0] = peak()",
        )
    )
    program = f"{prelude}\n{code}\nprint()\nprint(peak() - begun[0])"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return -1, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line]
    return int(lines[-1]), lines[-2] if len(lines) > 1 else ""


def ros1_chunk_of_connection() -> bytes:
    """A chunk that is not packed and says that connection 0 is a topic of events."""
    content = ros1_connection()
    fields = {"op": b"\x05", "compression": b"none", "size": struct.pack("<I", len(content))}
    return ros1_record(fields, content)
