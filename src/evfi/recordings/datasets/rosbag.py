"""A recording in one ROS bag: frames and events of one rig, as HQF, MVSEC and many laboratories record them.

Convention: a frame's time is the stamp of its header (where that is zero, the time at which the bag received it), on the
clock of the events. Frames are taken from the topic that lies beside the topic of events. The sensor is taken to show the
frame's field of view.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.formats import open_event_file
from evfi.events.formats.bag_parts import BagMessage, Damage, Topic, shown
from evfi.events.formats.bags import Bag, Place, choose_topic, is_bag
from evfi.events.formats.rosbag import event_topic, open_bag_events, refuse_damage
from evfi.events.index import MIN_INDEXED_BYTES, ChunkIndex, load_or_build
from evfi.events.report import ReadReport
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import FrameSourceDefaults, Image, Recording, Times
from evfi.recordings.ros_images import IMAGE_TYPES, ImageMessage, parse_image, to_rgb
from evfi.video.io import is_grey_frame

NAME: Final = "rosbag"
DESCRIPTION: Final = "a ROS bag with pictures and events (.bag, .db3, .mcap, or the folder of a ROS 2 bag)"

USUAL_TOPICS: Final = (
    "/dvs/image_raw",
    "/davis/left/image_raw",
    "/davis/image_raw",
    "/dvs/left/image_raw",
    "/camera/image_raw",
    "/camera/color/image_raw",
    "/cam0/image_raw",
)
_NOT_PICTURES: Final = ("rendering", "depth", "mask", "flow", "disparity", "event")
_READER: Final = "rosbag frames 1"
_NUM_GREY_PROBES: Final = 5
_MAX_ASPECT_DIFFERENCE: Final = 0.02
_MAX_NOTES: Final = 20


def recognises(path: Path) -> bool:
    """Whether the path is a bag with a topic of pictures (or one that is damaged); one without is an event file."""
    if not is_bag(path):
        return False
    try:
        return bool(_picture_topics(Bag(path)))
    except EvfiError:
        return True  # opening it says what is wrong


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open a bag.

    Args:
        path: the bag.
        options: `events` names an event file to read instead of the bag's own events.

    Raises:
        InputError: the bag is damaged or truncated, or holds messages that cannot be read.
        RecordingError: it lacks frames or events.
    """
    bag = Bag(path)
    events = event_topic(bag)[0] if options.events is None else None
    topic, note = _frame_topic(bag, events)
    frames = RosbagFrames(bag, topic, tolerant=options.tolerant)
    how = options.for_events(frames.size, size_is_assumed=True)
    source = open_bag_events(bag, how) if options.events is None else open_event_file(options.events, how)
    warnings = [*([note] if note else []), *frames.notes, *_warn_of_aspect(source.sensor_size, frames.size)]
    mapping = scale_mapping(source.sensor_size, frames.size)
    convention = "frame time: stamp of the header; events: " + source.report.convention
    return Recording(path, NAME, frames, source, mapping, tuple(warnings), convention=convention)


class RosbagFrames(FrameSourceDefaults):
    """The frames of one topic of a bag; all are visited once for their times, then read one by one.

    Args:
        bag: the bag.
        topic: a topic of pictures.
        tolerant: leave out what is damaged, and say so.

    Attributes:
        notes: what the user should know.

    Raises:
        RecordingError: there is no frame.
        InputError: a message is damaged, or frames differ in size.
    """

    def __init__(self, bag: Bag, topic: Topic, *, tolerant: bool):
        self._bag = bag
        self._topic = topic
        index = load_or_build(
            bag.files[0].path,
            f"{_READER} {topic.name} {topic.type} tolerant={tolerant} {bag.fingerprint()}",
            lambda: _build_index(bag, topic, tolerant=tolerant),
            min_bytes=0 if bag.num_bytes() >= MIN_INDEXED_BYTES else 2**62,
        )
        assert index.sensor_size is not None
        self.size: tuple[int, int] = index.sensor_size
        self.times_us: Times = index.bounds_us[:, 0].copy()
        self.notes = index.report.notes
        self._places = index.states

    def __len__(self) -> int:
        return len(self.times_us)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB.

        Raises:
            InputError: it is damaged.
        """
        place = Place(*self._places[index].tolist())
        try:
            message, _ = next(self._bag.messages(self._topic, _pass_over, place))
            return to_rgb(parse_image(message, self._topic))
        except (ValueError, StopIteration) as error:
            reason = str(error) or "it is gone"
            raise InputError(f"{self._bag.path}: frame {index} cannot be read ({reason}); copy the bag again") from None

    @cached_property
    def is_grey(self) -> bool:
        """Whether frames spread over the bag hold no colour."""
        probes = sorted({round(i) for i in np.linspace(0, len(self) - 1, _NUM_GREY_PROBES)})
        return all(is_grey_frame(self.read(i)) for i in probes)


def _pass_over(damage: Damage) -> None:
    """Damage was told when the frames were found."""


def _picture_topics(bag: Bag) -> list[Topic]:
    return [topic for topic in bag.topics if topic.type in IMAGE_TYPES]


def _frame_topic(bag: Bag, events: Topic | None) -> tuple[Topic, str | None]:
    """The topic of frames: the one beside the events, or a usual one."""
    found = _picture_topics(bag)
    if not found:
        raise RecordingError(
            f"{bag.path}: the bag has no image topic ({', '.join(IMAGE_TYPES)}); give pictures or a video, "
            "and the bag as --events"
        )
    likely = [topic for topic in found if not any(word in topic.name.lower() for word in _NOT_PICTURES)] or found
    names = [events.name.rsplit("/", 1)[0] + "/image_raw"] if events else []
    names += USUAL_TOPICS
    usual = [spelling for name in names for spelling in (name, f"{name}/compressed")]
    return choose_topic(likely, tuple(dict.fromkeys(usual)), "frames")


def _warn_of_aspect(sensor_size: tuple[int, int], frame_size: tuple[int, int]) -> Iterator[str]:
    ratio = (sensor_size[0] / sensor_size[1]) / (frame_size[0] / frame_size[1])
    if abs(ratio - 1) > _MAX_ASPECT_DIFFERENCE:
        sensor, frame = (f"{width}×{height}" for width, height in (sensor_size, frame_size))
        yield (
            f"sensor ({sensor}) and frames ({frame}) differ in shape; if they do not show the same field of view, give "
            "the mapping (--sensor-to-frame)"
        )


def _build_index(bag: Bag, topic: Topic, *, tolerant: bool) -> ChunkIndex:
    """Times and places of all frames."""
    scan = _FrameScan(bag, topic, tolerant)
    for path, complaint in bag.complaints():
        scan.on_damage(complaint, path)
    for message, place in bag.messages(topic, scan.on_damage):
        scan.add(message, place)
    return scan.finish()


@dataclass
class _FrameScan:
    """Collects frames, and what is unusual."""

    bag: Bag
    topic: Topic
    tolerant: bool
    notes: list[str] = field(default_factory=list)
    found: list[tuple[int, int, Place]] = field(default_factory=list)  # time of header and of receipt in ns, place
    size: tuple[int, int] | None = None
    is_deep: bool = False

    def on_damage(self, damage: Damage, path: Path | None = None) -> None:
        """Refuse damage, or note it."""
        if not self.tolerant:
            refuse_damage(path or self.bag.path, damage)
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(
                f"frames: damaged at byte {damage.position}: {shown(damage.reason, 300)}; the rest was read"
            )

    def add(self, message: BagMessage, place: Place) -> None:
        """Note a frame."""
        try:
            image = parse_image(message, self.topic)
            self._agree(image)
        except ValueError as error:
            self.on_damage(Damage(message.position, len(message.data), str(error)))
            return
        self.found.append((image.stamp_ns, message.time_ns, place))

    def _agree(self, image: ImageMessage) -> None:
        self.size = self.size or image.size
        self.is_deep = self.is_deep or image.is_deep
        if image.size != self.size:
            raise ValueError(f"frames must have the same size, found {self.size} and {image.size}")

    def finish(self) -> ChunkIndex:
        """The index: one frame per chunk."""
        if not self.found or self.size is None:
            raise RecordingError(
                f"{self.bag.path}: topic '{shown(self.topic.name)}' holds no pictures; name another bag"
            )
        if self.is_deep:
            self.notes.append("frames of 16 bits are scaled to 8 bits; they are dark if the camera does not use all 16")
        has_stamps = any(stamp for stamp, _, _ in self.found)
        if not has_stamps:
            self.notes.append("the frames' headers have no time; the times at which the bag received them are used")
        kept, last = [], -(2**62)
        for stamp, received, place in self.found:
            time = ((stamp if has_stamps else received) + 500) // 1000
            if time > last:
                kept.append((time, place))
                last = time
        if len(kept) < len(self.found):
            self.notes.append(
                f"{len(self.found) - len(kept)} frames were left out: their times are not later than the frame before's"
            )
        times = np.array([time for time, _ in kept], np.int64)
        report = ReadReport(NAME, num_events=0, notes=tuple(self.notes))
        states = np.array([place for _, place in kept], np.int64).reshape(-1, 3)
        bounds = np.stack([times, times], axis=1)
        return ChunkIndex(np.arange(len(kept) + 1), bounds, np.ones(len(kept), np.int64), report, states, self.size)
