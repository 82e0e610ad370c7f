"""Writing event files: streamed from pieces in order of time, whole or not at all.

Each writer takes pieces one by one, so that memory stays bounded. What is written comes back the same, in the same order,
from the reader of that format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.source import EventSource, MemoryEvents
from evfi.events.stream import EventStream
from evfi.events.writers.aedat4 import WritableFrame, write_aedat4
from evfi.events.writers.hdf5 import write_hdf5
from evfi.events.writers.npz import write_npz
from evfi.events.writers.text import write_text
from evfi.files import written_whole

__all__ = ["EVENT_WRITERS", "EventWriter", "WritableFrame", "WrittenEvents", "find_writer", "write_events"]


@dataclass(frozen=True)
class EventWriter:
    """One format that event files can be written in.

    Attributes:
        name: what the user calls it.
        suffixes: how names of such files end; the first is the usual one.
        write: writes pieces of one sensor to a path: the path, the sensor's size, a time that none precedes, the pieces.
        max_side: largest sensor side in px that it can hold.
    """

    name: str
    suffixes: tuple[str, ...]
    write: Callable[[Path, tuple[int, int], int, Iterator[EventStream]], None]
    max_side: int


EVENT_WRITERS: Final = (
    EventWriter("aedat4", (".aedat4",), write_aedat4, 2**15),
    EventWriter("hdf5", (".h5", ".hdf5"), write_hdf5, 2**16),
    EventWriter("npz", (".npz",), write_npz, 2**16),
    EventWriter("text", (".txt", ".csv"), write_text, 2**30),
)


@dataclass
class WrittenEvents:
    """What went into a file.

    Attributes:
        num_events: how many events.
        num_dropped: how many the reader had to leave out.
        time_range_us: times of the first and of the last event; None before there is one.
    """

    num_events: int = 0
    num_dropped: int = 0
    time_range_us: tuple[int, int] | None = field(default=None)

    def counted(self, pieces: Iterable[EventStream]) -> Iterator[EventStream]:
        """The pieces that hold events, counted as they pass.

        Raises:
            InputError: a piece begins before the one before it ends.
        """
        for piece in pieces:
            self.num_dropped += piece.num_dropped
            if not len(piece):
                continue
            first, last = int(piece.t[0]), int(piece.t[-1])
            if self.time_range_us is not None and first < self.time_range_us[1]:
                raise InputError(
                    f"pieces of events must follow in time, but {first} µs comes after {self.time_range_us}"
                )
            self.time_range_us = (first if self.time_range_us is None else self.time_range_us[0], last)
            self.num_events += len(piece)
            yield piece


def write_events(
    path: str | Path,
    events: EventSource | EventStream,
    format: str | None = None,  # noqa: A002
    *,
    pieces: Iterable[EventStream] | None = None,
    frames: Iterable[WritableFrame] | None = None,
    frame_size: tuple[int, int] | None = None,
) -> WrittenEvents:
    """Write an event file.

    Args:
        path: the file; it is replaced where it exists.
        events: where they come from.
        format: "aedat4", "hdf5", "npz" or "text"; by default detected from the path's suffix.
        pieces: what to write in place of all of the source's pieces, in order of time.
        frames: frames in order of time, for AEDAT4 only.
        frame_size: their (width, height).

    Raises:
        ConfigError: the format is unknown, or cannot hold frames.
        OutputError: the file cannot be written.
        InputError: the events do not fit the format, or reading them fails.
        RecordingError: there are none.
    """
    path = Path(path)
    writer = find_writer(path, format)
    source = MemoryEvents(events) if isinstance(events, EventStream) else events
    if max(source.sensor_size) > writer.max_side:
        raise InputError(
            f"a sensor side must be at most {writer.max_side} px in {writer.name}, got {source.sensor_size}"
        )
    if frames is not None and writer.name != "aedat4":
        raise ConfigError(f"{writer.name} files cannot hold frames; leave them out, or write AEDAT4")
    written = WrittenEvents()
    counted = written.counted(source.pieces() if pieces is None else pieces)
    with written_whole(path) as partial:
        if frames is not None:
            write_aedat4(partial, source.sensor_size, source.time_range_us[0], counted, frames, frame_size)
        else:
            writer.write(partial, source.sensor_size, source.time_range_us[0], counted)
        if not written.num_events:
            raise RecordingError(f"there are no events to write to {path}")
    return written


def find_writer(path: Path, format: str | None = None) -> EventWriter:  # noqa: A002
    """The writer of this name, or of this path's suffix.

    Raises:
        ConfigError: there is none.
    """
    if format is not None:
        found = [writer for writer in EVENT_WRITERS if writer.name == format]
        problem = f"unknown format '{format}'"
    else:
        found = [writer for writer in EVENT_WRITERS if path.suffix.lower() in writer.suffixes]
        problem = f"{path}: its suffix does not name a format"
    if not found:
        known = ", ".join(f"{writer.name} ({', '.join(writer.suffixes)})" for writer in EVENT_WRITERS)
        raise ConfigError(f"{problem}; events can be written as {known}")
    return found[0]
