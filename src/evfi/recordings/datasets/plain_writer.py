"""Writing a recording in plain layout (see `plain`), whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from evfi.errors import InputError, RecordingError
from evfi.events.stream import EventStream
from evfi.events.writers import WrittenEvents
from evfi.events.writers.npz import write_npz
from evfi.files import folder_written_whole
from evfi.recordings.alignment import Matrix
from evfi.recordings.recording import Image, Times
from evfi.video.picture_writer import PictureWriter

FORMAT_MARK: Final = {"format": "evfi-plain", "version": 1}


def write_plain_recording(
    folder: Path,
    frames: Iterable[Image],
    times_us: ArrayLike,
    events: EventStream | Iterable[EventStream],
    sensor_to_frame: Matrix | None = None,
) -> None:
    """Write frames and events as a recording that `open_recording` reads.

    frames/000000.png …, timestamps.txt (µs), events.npz (x, y uint16; t int64 µs; p int8 ±1) and recording.json. The
    folder appears when all is written.

    Args:
        folder: the folder to make; it must not exist, or be empty.
        frames: uint8 [H, W, 3] RGB each; taken one by one, before the events.
        times_us: one strictly increasing time per frame, whole µs.
        events: one stream, or streams of one sensor in the order of time, taken one by one.
        sensor_to_frame: homography from event to frame coordinates, where the sensor shows another view than the frames.

    Raises:
        OutputError: the folder exists and holds something, or cannot be written.
        InputError: there are more or fewer frames than times, or times do not increase.
        RecordingError: there are no events.
    """
    times: Times = np.asarray(times_us, np.int64)
    if (np.diff(times) <= 0).any():
        raise InputError("frame times must increase strictly")
    with folder_written_whole(folder) as partial:
        _write_frames(partial / "frames", frames, len(times))
        (partial / "timestamps.txt").write_text("".join(f"{time}\n" for time in times), "utf-8")
        sensor_size = _write_events(partial / "events.npz", events)
        declaration: dict[str, Any] = {
            **FORMAT_MARK,
            "timestamps_unit": "us",
            "events_time_unit": "us",
            "sensor_size": list(sensor_size),
        }
        if sensor_to_frame is not None:
            declaration["sensor_to_frame"] = sensor_to_frame.tolist()
        (partial / "recording.json").write_text(json.dumps(declaration, indent=2) + "\n", "utf-8")


def _write_frames(folder: Path, frames: Iterable[Image], num_frames: int) -> None:
    folder.mkdir()
    with PictureWriter(folder) as pictures:
        for frame in frames:
            pictures.write(frame)
    if pictures.count != num_frames:
        raise InputError(f"expected one frame per time, got {pictures.count} frames and {num_frames} times")


def _write_events(path: Path, events: EventStream | Iterable[EventStream]) -> tuple[int, int]:
    """Write the events; return the sensor's size, which recording.json declares."""
    pieces = iter([events] if isinstance(events, EventStream) else events)
    first = next(pieces, None)
    written = WrittenEvents()
    if first is not None:
        size = first.sensor_size
        write_npz(path, None, 0, written.counted(_of_size(size, chain([first], pieces))))
    if first is None or not written.num_events:
        raise RecordingError("there are no events to write: nothing in the scene changed")
    return first.sensor_size


def _of_size(size: tuple[int, int], pieces: Iterable[EventStream]) -> Iterator[EventStream]:
    for piece in pieces:
        if piece.sensor_size != size:
            raise InputError(f"event streams of different sensor sizes cannot be joined: {[size, piece.sensor_size]}")
        yield piece
