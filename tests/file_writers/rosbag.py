"""Writes bags of ROS 1 and ROS 2 with events and pictures; the containers, and the layout of ROS 2, are made by rosbags."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["ros1", "ros2", "mcap"]
EVENT_PACKET = "event_camera_msgs/msg/EventPacket"
EVENT_ARRAY = "dvs_msgs/msg/EventArray"
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
_DEFINITIONS = {
    "Event": "uint16 x\nuint16 y\ntime ts\nbool polarity\n",
    "EventArray": "std_msgs/Header header\nuint32 height\nuint32 width\nEvent[] events\n",
    "EventPacket": "std_msgs/Header header\nuint32 height\nuint32 width\nuint64 seq\nuint64 time_base\nstring encoding\n"
    "bool is_bigendian\nuint8[] events\n",
}
_RECORD = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])

Message = tuple[str, str, int, bytes]
"""Topic, type, time of receipt in ns, content as ROS 1 serialises it."""


def write_bag(path: Path, kind: Kind, messages: list[Message], compression: str | None = None) -> Path:
    """Write messages in the order given.

    Args:
        path: the file; the folder where `kind` is "ros2" or "mcap".
        kind: ROS 1, ROS 2 with SQLite, ROS 2 with MCAP.
        messages: what to write.
        compression: "bz2" or "lz4" for ROS 1; "message" or "file" for ROS 2, "storage" for MCAP.
    """
    if kind == "ros1":
        return _write_ros1(path, messages, compression)
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    plugin = StoragePlugin.SQLITE3 if kind == "ros2" else StoragePlugin.MCAP
    writer = Writer(path, version=9, storage_plugin=plugin)
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    store = _typestore(is_ros1=False)
    with writer:
        connections: dict[str, Any] = {}
        for topic, kind_of_message, time_ns, data in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind_of_message, typestore=store)
            writer.write(connections[topic], time_ns, bytes(store.ros1_to_cdr(data, kind_of_message)))
    return path


def event_arrays(
    x: Any, y: Any, t: Any, p: Any, size: tuple[int, int], *, topic: str = "/dvs/events", per_message: int = 100
) -> Iterator[Message]:
    """Events (µs, polarity 0/1) as messages `dvs_msgs/EventArray`."""
    t = np.asarray(t, np.int64)
    for first in range(0, max(len(t), 1), per_message):
        part = np.s_[first : first + per_message]
        records = np.zeros(len(t[part]), _RECORD)
        for name, column in (("x", x), ("y", y), ("s", t // 1_000_000), ("ns", t % 1_000_000 * 1000), ("p", p)):
            records[name] = np.asarray(column)[part]
        stamp = int(t[part][0]) * 1000 if len(t) else 0
        about = struct.pack("<III", size[1], size[0], len(records))
        yield topic, EVENT_ARRAY, stamp, header(stamp) + about + records.tobytes()


def event_packets(
    x: Any,
    y: Any,
    t: Any,
    p: Any,
    size: tuple[int, int],
    encoding: str,
    *,
    topic: str = "/event_camera/events",
    per_message: int = 100,
    ros_minus_camera_us: int = 0,
) -> Iterator[Message]:
    """Events as packets in an encoding; times `t` are the camera's, headers are stamped that much later."""
    x, y, t, p = (np.asarray(column, np.int64) for column in (x, y, t, p))
    for number, first in enumerate(range(0, len(t), per_message)):
        part = np.s_[first : first + per_message]
        base = int(t[part][0])
        payload = ENCODERS[encoding](x[part], y[part], t[part], p[part], base)
        stamp = (base + ros_minus_camera_us) * 1000
        yield topic, EVENT_PACKET, stamp, packet(stamp, size, number, base * 1000, encoding, payload)


def packet(stamp_ns: int, size: tuple[int, int], sequence: int, time_base: int, encoding: str, payload: bytes) -> bytes:
    """A message `event_camera_msgs/EventPacket`."""
    about = struct.pack("<IIQQ", size[1], size[0], sequence, time_base)
    return header(stamp_ns) + about + _text(encoding) + b"\0" + struct.pack("<I", len(payload)) + payload


def image(
    pixels: np.ndarray,
    encoding: str,
    stamp_us: int,
    *,
    topic: str = "/dvs/image_raw",
    padding: int = 0,
    is_big: bool = False,
) -> Message:
    """A picture [H, W] or [H, W, C], uint8 or uint16, with some bytes behind each row."""
    height, width = pixels.shape[:2]
    if pixels.dtype.itemsize == 2:
        pixels = pixels.astype(">u2" if is_big else "<u2")
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    about = struct.pack("<II", height, width) + _text(encoding) + struct.pack("<BI", is_big, rows.shape[1])
    return (
        topic,
        IMAGE,
        stamp_us * 1000,
        header(stamp_us * 1000) + about + struct.pack("<I", rows.size) + rows.tobytes(),
    )


def compressed_image(data: bytes, stamp_us: int, *, topic: str = "/camera/image_raw/compressed") -> Message:
    """A PNG or JPEG file as a message."""
    content = header(stamp_us * 1000) + _text("rgb8; png") + struct.pack("<I", len(data)) + data
    return topic, COMPRESSED_IMAGE, stamp_us * 1000, content


def header(stamp_ns: int) -> bytes:
    """A `std_msgs/Header` of ROS 1."""
    return struct.pack("<III", 0, stamp_ns // 10**9, stamp_ns % 10**9) + _text("camera")


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


def _evt3(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, base: int) -> bytes:
    words = np.stack([0x8000 | (t >> 12 & 0xFFF), 0x6000 | (t & 0xFFF), y, 0x2000 | p << 11 | x], 1)
    return words.astype("<u2").tobytes()


def _evt2(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, base: int) -> bytes:
    words = np.stack([8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y], 1)
    return words.astype("<u4").tobytes()


def _mono(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, base: int) -> bytes:
    words = (p << 63).astype(np.uint64) | (y << 48 | x << 32 | (t - base) * 1000).astype(np.uint64)
    return words.astype("<u8").tobytes()


def _libcaer(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, base: int) -> bytes:
    return np.stack([x << 17 | y << 2 | p << 1 | 1, t - base], 1).astype("<u4").tobytes()


def _libcaer_cmp(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, base: int) -> bytes:
    """Events one by one; every third as a vector of one row."""
    words = []
    for i in range(len(x)):
        words += [0x0000 | (t[i] - base) >> 12, 0x1000 | (t[i] - base) & 0xFFF, 0x2000 | x[i]]
        if i % 3:
            words.append(0x3000 | p[i] << 11 | y[i])
        else:
            bit = min(int(y[i]), 5)
            words += [0x4000 | p[i] << 11 | (y[i] - bit), 0x5000 | 1 << bit]
    return np.array(words, "<u2").tobytes()


ENCODERS = {"evt2": _evt2, "evt3": _evt3, "mono": _mono, "libcaer": _libcaer, "libcaer_cmp": _libcaer_cmp}


def _write_ros1(path: Path, messages: list[Message], compression: str | None) -> Path:
    from rosbags.rosbag1 import Writer

    writer = Writer(path)
    if compression:
        writer.set_compression(Writer.CompressionFormat[compression.upper()])
    writer.chunk_threshold = 2**16  # several chunks in small bags
    store = _typestore(is_ros1=True)
    with writer:
        connections: dict[str, Any] = {}
        for topic, kind, time_ns, data in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], time_ns, data)
    return path


def _typestore(*, is_ros1: bool) -> Any:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.ROS2_HUMBLE)
    time = "time" if is_ros1 else "builtin_interfaces/Time"
    for name, definition in _DEFINITIONS.items():
        package = "event_camera_msgs" if name == "EventPacket" else "dvs_msgs"
        store.register(get_types_from_msg(definition.replace("time ts", f"{time} ts"), f"{package}/msg/{name}"))
    return store
