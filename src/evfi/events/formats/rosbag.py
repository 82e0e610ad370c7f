"""Events in bags of ROS 1 and ROS 2, in the messages that `ros_messages` and `ros_decoders` name.

Conventions: times are ROS time (µs since 1970 on a real robot), as those of the images in the bag are. Where events carry
the camera's clock (evt2, evt3, mono), all times are shifted by one offset: the median over the packets of the header's
stamp minus the time of the packet's first event. Headers are stamped when a packet reaches the computer, so events are late by
that delay, some milliseconds. Polarity is 1 for brighter; x runs right, y down.

Opening goes through all messages once and notes where about half a million events at a time begin; a slice reads no more
than the stretches that it touches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.bag_parts import BagMessage, Damage, Topic, shown
from evfi.events.formats.bags import Bag, Place, choose_topic, is_bag
from evfi.events.formats.ros_decoders import CAMERA_CLOCKS, NUM_STATE, EventDecoder
from evfi.events.formats.ros_messages import EVENT_TYPES, EventMessage, parse_event_message
from evfi.events.formats.word_state import Columns
from evfi.events.index import MIN_INDEXED_BYTES, ChunkIndex, load_or_build
from evfi.events.report import ReadReport
from evfi.events.source import ChunkedEvents, EventChunk, EventSource
from evfi.events.stream import EventStream

USUAL_TOPICS: Final = (
    "/dvs/events",
    "/davis/left/events",
    "/davis/events",
    "/dvs/left/events",
    "/event_camera/events",
    "/prophesee/camera/cd_events_buffer",
    "/capture_node/events",
)
_READER: Final = "rosbag 1"
_STRETCH_EVENTS: Final = 2**19
_NUM_CACHED: Final = 4
_MAX_SAMPLES: Final = 100_000
_NUM_PLACE: Final = (
    7  # columns of an index before the decoder's state: place (3), messages, offset, largest x, largest y
)
_NOTED_DRIFT_US: Final = 2000


def is_rosbag(path: Path) -> bool:
    """Whether the path is a bag of ROS 1 (.bag) or ROS 2 (a folder, .db3, .mcap)."""
    return is_bag(path)


def open_rosbag(path: Path, options: EventFileOptions) -> EventSource:
    """Open the events of a bag.

    Raises:
        InputError: the bag is damaged or truncated, or its events are of an encoding that cannot be read.
        RecordingError: it holds no events.
        ConfigError: another unit of time than ROS's own is declared.
    """
    return open_bag_events(Bag(path), options)


def open_bag_events(bag: Bag, options: EventFileOptions) -> EventSource:
    """Open the events of a bag that is open already; see `open_rosbag`."""
    if options.time_unit is not None:
        raise ConfigError(
            f"{bag.path}: ROS messages define the unit of their times; remove the unit '{options.time_unit}'"
        )
    topic, note = event_topic(bag)
    reader = f"{_READER} {topic.name} {topic.type} tolerant={options.tolerant} {bag.fingerprint()}"
    is_large = bag.num_bytes() >= MIN_INDEXED_BYTES
    index = load_or_build(
        bag.files[0].path,
        reader,
        lambda: build_index(bag, topic, note, tolerant=options.tolerant),
        min_bytes=0 if is_large else 2**62,
    )
    return RosbagEvents(bag, topic, index, options)


def event_topic(bag: Bag) -> tuple[Topic, str | None]:
    """The topic of events to read, and a note where there are several.

    Raises:
        RecordingError: there is none.
    """
    found = [topic for topic in bag.topics if topic.type in EVENT_TYPES]
    if not found:
        others = ", ".join(f"{shown(topic.name)} ({shown(topic.type)})" for topic in bag.topics[:8]) or "no topics"
        if not bag.topics and (complaints := bag.complaints()):
            path, damage = complaints[0]
            raise InputError(
                f"{path}: damaged or truncated bag at byte {damage.position} ({damage.reason}), and the rest "
                "names no topic; copy the bag again"
            )
        raise RecordingError(f"{bag.path}: the bag has no event topic ({', '.join(EVENT_TYPES)}); found {others}")
    return choose_topic(found, USUAL_TOPICS, "events")


class RosbagEvents(ChunkedEvents):
    """The events of one topic of a bag, read by stretches.

    Args:
        bag: the bag.
        topic: the topic of events.
        index: where its stretches lie.
        options: what the messages may leave open.

    Raises:
        InputError: the messages do not say the sensor's size, nor do the options; or events contradict it.
    """

    def __init__(self, bag: Bag, topic: Topic, index: ChunkIndex, options: EventFileOptions):
        self._bag = bag
        self._topic = topic
        self._index = index
        self._encoding = index.report.format.split()[-1]
        size = index.sensor_size or options.sensor_size
        if size is None:
            raise InputError(f"{bag.path}: the messages do not declare the sensor size; set it with --sensor-size")
        needed = int(index.states[:, 5].max()) + 1, int(index.states[:, 6].max()) + 1
        if index.sensor_size is None and options.size_is_assumed and (needed[0] > size[0] or needed[1] > size[1]):
            raise InputError(
                f"{bag.path}: events lie outside {size[0]}×{size[1]}, the size of the frames; "
                f"set the sensor size with --sensor-size, at least {needed[0]} {needed[1]}"
            )
        super().__init__(size, index.time_range_us, index.bounds_us, self._load_stretch, _NUM_CACHED, index.report)

    def _load_stretch(self, number: int) -> EventChunk:
        row = self._index.states[number]
        decoder = EventDecoder(self._encoding, row[_NUM_PLACE:])
        start, num_messages, offset_us = Place(*row[:3].tolist()), int(row[3]), int(row[4])
        parts = []
        for message, _ in islice(self._bag.messages(self._topic, _pass_over, start), num_messages):
            try:
                parsed = parse_event_message(message, self._topic)
                _check_agreement(parsed, self._encoding, self._index.sensor_size)
                parts.append(decoder.decode(parsed))
            except ValueError:
                continue  # counted when the index was made
        count = sum(len(part[2]) for part in parts)
        if count != self._index.counts[number]:
            raise InputError(f"{self._bag.path}: the bag has changed since it was opened; open it again")
        x, y, t, p = (np.concatenate([part[i] for part in parts]) for i in range(4))
        return _chunk_of(x, y, t + offset_us, p, self.sensor_size)


def _pass_over(damage: Damage) -> None:
    """Damage was told when the index was made."""


def _check_agreement(message: EventMessage, encoding: str, size: tuple[int, int] | None) -> None:
    """Make sure that a message is of the same encoding and sensor as the first one.

    Raises:
        ValueError: it is not.
    """
    if message.encoding != encoding:
        raise ValueError(f"the encoding changes from '{encoding}' to '{message.encoding}'")
    if min(message.size) > 0 and message.size != size:
        raise ValueError(f"the sensor's size changes from {size} to {message.size}")


def _chunk_of(
    x: NDArray[np.int32], y: NDArray[np.int32], t: NDArray[np.int64], p: NDArray[np.int8], size: tuple[int, int]
) -> EventChunk:
    """Sort events by time and part those outside the sensor from the others."""
    if (t[1:] < t[:-1]).any():
        order = np.argsort(t, kind="stable")
        x, y, t, p = x[order], y[order], t[order], p[order]
    inside = (x < size[0]) & (y < size[1])
    if inside.all():
        return EventChunk(EventStream(x, y, t, p, size), t[:0])
    kept = EventStream(x[inside], y[inside], t[inside], p[inside], size, int(np.count_nonzero(~inside)))
    return EventChunk(kept, t[~inside])


def build_index(bag: Bag, topic: Topic, note: str | None, *, tolerant: bool) -> ChunkIndex:
    """Go through all messages of a topic of events.

    Raises:
        InputError: something is damaged (unless `tolerant`), of an unknown encoding, or contradicts itself.
        RecordingError: there is no event.
    """
    scan = _Scan(bag, topic, tolerant)
    if note:
        scan.notes.append(note)
    for path, complaint in bag.complaints():
        scan.on_damage(complaint, path)
    for message, place in bag.messages(topic, scan.on_damage):
        scan.add(message, place)
    return scan.finish()


@dataclass
class _Stretch:
    """Some consecutive messages; times before the offset."""

    place: Place
    state: NDArray[np.int64]
    num_messages: int = 0
    count: int = 0
    min_t: int = 2**62
    max_t: int = -(2**62)
    max_x: int = -1
    max_y: int = -1


@dataclass
class _Scan:
    """Collects the stretches, and what is unusual."""

    bag: Bag
    topic: Topic
    tolerant: bool
    notes: list[str] = field(default_factory=list)
    stretches: list[_Stretch] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    size: tuple[int, int] | None = None
    encoding: str = ""
    decoder: EventDecoder | None = None
    last_t: int = -(2**62)
    last_sequence: int = -1
    num_unsorted: int = 0
    num_missing: int = 0
    num_lost_bytes: int = 0
    num_restarts: int = 0

    def on_damage(self, damage: Damage, path: Path | None = None) -> None:
        """Refuse damage, or count it."""
        if not self.tolerant:
            refuse_damage(path or self.bag.path, damage)
        self.num_lost_bytes += damage.num_bytes
        if len(self.notes) < 20:
            self.notes.append(f"damaged at byte {damage.position}: {shown(damage.reason, 300)}; the rest was read")

    def add(self, message: BagMessage, place: Place) -> None:
        """Note what a message holds."""
        if not self.stretches or self.stretches[-1].count >= _STRETCH_EVENTS:
            state = self.decoder.state.copy() if self.decoder else np.zeros(NUM_STATE, np.int64)
            self.stretches.append(_Stretch(place, state))
        self.stretches[-1].num_messages += 1
        try:
            parsed = parse_event_message(message, self.topic)
            self._agree(parsed)
            assert self.decoder is not None
            self._count(parsed, self.decoder.decode(parsed))
        except ValueError as error:
            self.on_damage(Damage(message.position, len(message.data), str(error)))

    def _agree(self, message: EventMessage) -> None:
        """Take sensor size and encoding from the first message; all others must agree."""
        if self.decoder is None:
            try:
                self.decoder = EventDecoder(message.encoding)
            except ValueError as error:
                raise InputError(f"{self.bag.path}: {error}") from None
            self.encoding = message.encoding
            self.stretches[-1].state = self.decoder.state.copy()
        if self.size is None and min(message.size) > 0:
            self.size = message.size
        _check_agreement(message, self.encoding, self.size)

    def _count(self, message: EventMessage, columns: Columns) -> None:
        from evfi.events.formats.ros_loops import survey_events

        x, y, t, _ = columns
        if message.sequence >= 0:
            step = message.sequence - self.last_sequence
            self.num_missing += max(step - 1, 0) if self.last_sequence >= 0 else 0
            self.num_restarts += step < 1
            self.last_sequence = message.sequence
        if not len(t):
            return
        stretch = self.stretches[-1]
        min_t, max_t, max_x, max_y, num_unsorted = survey_events(x, y, t, self.last_t)
        stretch.count += len(t)
        stretch.min_t, stretch.max_t = min(stretch.min_t, min_t), max(stretch.max_t, max_t)
        stretch.max_x, stretch.max_y = max(stretch.max_x, max_x), max(stretch.max_y, max_y)
        self.num_unsorted += num_unsorted
        self.last_t = int(t[-1])
        if len(self.offsets) < _MAX_SAMPLES and message.stamp_ns:
            self.offsets.append((message.stamp_ns + 500) // 1000 - int(t[0]))

    def finish(self) -> ChunkIndex:
        """The index of all that was seen."""
        filled = [stretch for stretch in self.stretches if stretch.count]
        if not filled:
            raise RecordingError(f"{self.bag.path}: topic '{shown(self.topic.name)}' holds no event; name another file")
        offset = self._offset_us()
        states = np.array(
            [
                [*s.place, s.num_messages, offset, s.max_x, s.max_y, *s.state.tolist()]  # see `_NUM_PLACE`
                for s in filled
            ],
            np.int64,
        )
        bounds = np.array([[s.min_t + offset, s.max_t + offset] for s in filled], np.int64)
        counts = np.array([s.count for s in filled], np.int64)
        return ChunkIndex(
            np.arange(len(filled) + 1), bounds, counts, self._report(int(counts.sum())), states, self.size
        )

    def _offset_us(self) -> int:
        """What to add to the camera's clock to have ROS time."""
        if self.encoding not in CAMERA_CLOCKS or not self.offsets:
            return 0
        samples = np.array(self.offsets, np.int64)
        offset = int(np.median(samples))
        self.notes.append(
            f"event times are the camera's clock plus {offset} µs, the median of header stamp minus first event "
            f"over {len(samples)} packets"
        )
        tenth = max(len(samples) // 10, 1)
        drift = int(np.median(samples[-tenth:]) - np.median(samples[:tenth]))
        if abs(drift) > _NOTED_DRIFT_US:
            self.notes.append(
                f"the two clocks drift apart by {drift} µs over the recording; use a part of it, or an offset"
            )
        return offset

    def _report(self, num_events: int) -> ReadReport:
        decoder = self.decoder
        assert decoder is not None
        if self.num_missing:
            self.notes.append(
                f"{self.num_missing} event packets are missing: their sequence numbers jump; they were not recorded"
            )
        if self.num_restarts > 1:
            self.notes.append(
                f"the packets' sequence numbers go back {self.num_restarts - 1} times; does the bag hold several recordings?"
            )
        if decoder.num_undated:
            self.notes.append(f"{decoder.num_undated} events before the first time word have no time and were left out")
        clock = "the camera's clock shifted to ROS time by one offset" if self.encoding in CAMERA_CLOCKS else "ROS time"
        return ReadReport(
            f"rosbag {self.topic.type} {self.encoding}",
            f"µs, {clock}; polarity 1 is brighter; y runs down",
            num_events,
            decoder.num_triggers,
            decoder.num_unknown,
            decoder.num_clock_wraps,
            self.num_unsorted,
            self.num_lost_bytes,
            (*self.bag.notes, *self.notes),
        )


def refuse_damage(path: Path, damage: Damage) -> NoReturn:
    """Refuse a damaged bag.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{path}: damaged or truncated bag at byte {damage.position} ({shown(damage.reason, 300)}); copy it again, or read "
        "the undamaged part with --tolerant"
    )
