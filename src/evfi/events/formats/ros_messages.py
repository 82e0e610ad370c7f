"""Messages of event cameras as ROS 1 and ROS 2 serialise them; they are taken apart here because libraries that make
an object of each event are a hundred times slower.

- `dvs_msgs/EventArray`, `prophesee_event_msgs/EventArray`, `dv_ros_msgs/EventArray`: header, height, width, and events
  of x, y (uint16), seconds, nanoseconds (32 bit) and polarity (one byte). ROS 1 packs them in 13 bytes; ROS 2 (CDR)
  aligns every number to its size, so that seconds lie 16 bytes apart, and x and y directly before them.
- `event_camera_msgs/EventPacket` and its older name `event_array_msgs/EventArray`: header, height, width, sequence
  number, time base in ns, name of the encoding, byte order, and bytes in that encoding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

from evfi.events.formats.bag_parts import MAX_NAME_BYTES, BagMessage, Topic, shown

RECORDS: Final = "records"
ARRAY_TYPES: Final = ("dvs_msgs/EventArray", "prophesee_event_msgs/EventArray", "dv_ros_msgs/EventArray")
PACKET_TYPES: Final = ("event_camera_msgs/EventPacket", "event_array_msgs/EventArray")
EVENT_TYPES: Final = (*ARRAY_TYPES, *PACKET_TYPES)
_RECORD_BYTES: Final = 13
_CDR_RECORD_BYTES: Final = 16
_MAX_SIDE: Final = 65536


class Fields:
    """Reads the fields of a message one after another.

    Args:
        data: the serialised message.
        is_cdr: whether it is serialised as ROS 2 does.

    Raises:
        ValueError: it ends too early, or is of an unknown serialisation.
    """

    def __init__(self, data: memoryview, *, is_cdr: bool):
        self.is_cdr = is_cdr
        self.is_big = False
        if is_cdr:
            if len(data) < 4 or data[0] != 0 or data[1] > 3:
                raise ValueError("the message is not serialised in CDR")
            self.is_big = data[1] % 2 == 0
            data = data[4:]
        self._data = data
        self._order: Literal["<", ">"] = ">" if self.is_big else "<"
        self._position = 0

    def number(self, code: str) -> int:
        """The next number; `code` as in module struct."""
        size = struct.calcsize(code)
        if self.is_cdr:
            self._position += -self._position % size
        if self._position + size > len(self._data):
            raise ValueError(f"the message ends too early, after {len(self._data)} bytes")
        (value,) = struct.unpack_from(self._order + code, self._data, self._position)
        self._position += size
        return int(value)

    def text(self) -> str:
        """The next string, which is a name."""
        length = self.number("I")
        if length > MAX_NAME_BYTES:
            raise ValueError(f"a name of {length} bytes is longer than the {MAX_NAME_BYTES} that can be read")
        return bytes(self._take(length)).rstrip(b"\0").decode("utf-8", "replace")

    def content(self) -> memoryview:
        """The next array of bytes."""
        return self._take(self.number("I"))

    def rest(self) -> memoryview:
        """All that follows."""
        return self._data[self._position :]

    def stamp_ns(self) -> int:
        """The header: its stamp in ns; sequence number and frame are passed over."""
        if not self.is_cdr:
            self.number("I")
        seconds = self.number("i" if self.is_cdr else "I")
        stamp = seconds * 10**9 + self.number("I")
        self._take(self.number("I"))
        return stamp

    def _take(self, length: int) -> memoryview:
        end = self._position + length
        if end > len(self._data):
            raise ValueError(f"the message declares {length} more bytes than it has")
        part = self._data[self._position : end]
        self._position = end
        return part


@dataclass(frozen=True, slots=True)
class EventMessage:
    """A message of events that are not decoded yet.

    Attributes:
        stamp_ns: time of the header in ns.
        size: (width, height) of the sensor; zeros where the message does not say it.
        encoding: `RECORDS`, or the encoding of a packet.
        payload: the bytes that hold events.
        count: number of records; 0 for packets.
        is_cdr: whether records are laid out as in ROS 2.
        is_big: whether records are big-endian.
        sequence: number of the packet, -1 where there is none.
        time_base_ns: what the encoding takes times from.
    """

    stamp_ns: int
    size: tuple[int, int]
    encoding: str
    payload: memoryview
    count: int = 0
    is_cdr: bool = False
    is_big: bool = False
    sequence: int = -1
    time_base_ns: int = 0


def parse_event_message(message: BagMessage, topic: Topic) -> EventMessage:
    """Take a message of events apart; the lengths that it states are checked.

    Raises:
        ValueError: it is damaged.
    """
    fields = Fields(message.data, is_cdr=topic.is_cdr)
    stamp = fields.stamp_ns()
    height, width = fields.number("I"), fields.number("I")
    if max(height, width) > _MAX_SIDE:
        raise ValueError(f"a sensor of {width}×{height} pixels is impossible")
    if topic.type in ARRAY_TYPES:
        return _records(fields, stamp, (width, height))
    sequence, time_base = fields.number("Q"), fields.number("Q")
    encoding = shown(fields.text())
    if encoding == RECORDS:  # no packet's encoding, but what whole records are called here
        raise ValueError(f"packets in encoding '{encoding}' cannot be read")
    is_big = bool(fields.number("B"))
    payload = fields.content()
    if is_big and len(payload):
        raise ValueError("packets from big-endian machines are not supported; record on another machine")
    return EventMessage(stamp, (width, height), encoding, payload, sequence=sequence, time_base_ns=time_base)


def _records(fields: Fields, stamp_ns: int, size: tuple[int, int]) -> EventMessage:
    count = fields.number("I")
    payload = fields.rest()
    stride = _CDR_RECORD_BYTES if fields.is_cdr else _RECORD_BYTES
    if count and len(payload) < (count - 1) * stride + _RECORD_BYTES:
        raise ValueError(f"the message declares {count} events, but holds only {len(payload)} bytes of them")
    return EventMessage(stamp_ns, size, RECORDS, payload, count, fields.is_cdr, fields.is_big)
