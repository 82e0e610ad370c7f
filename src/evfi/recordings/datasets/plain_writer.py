"""Writing a recording in plain layout (see `plain`), whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from evfi.errors import InputError, RecordingError
from evfi.events.stream import EventStream
from evfi.files import folder_written_whole
from evfi.recordings.recording import Image, Times
from evfi.video.io import write_png

FORMAT_MARK: Final = {"format": "evfi-plain", "version": 1}
_MAX_SIDE: Final = 2**16  # coordinates are written as 16 bits


def write_plain_recording(
    folder: Path,
    frames: Iterable[Image],
    times_us: ArrayLike,
    events: EventStream | Iterable[EventStream],
) -> None:
    """Write frames and events as a recording that `open_recording` reads.

    frames/000000.png …, timestamps.txt (µs), events.npz (x, y uint16; t int64 µs; p int8 ±1) and recording.json. The
    folder appears when all is written.

    Args:
        folder: the folder to make; it must not exist, or be empty.
        frames: uint8 [H, W, 3] RGB each; taken one by one, before the events.
        times_us: one strictly increasing time per frame, whole µs.
        events: one stream, or streams of one sensor in the order of time.

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
        stream = _joined(events)
        _write_events(partial / "events.npz", stream)
        declaration = {
            **FORMAT_MARK,
            "timestamps_unit": "us",
            "events_time_unit": "us",
            "sensor_size": list(stream.sensor_size),
        }
        (partial / "recording.json").write_text(json.dumps(declaration, indent=2) + "\n", "utf-8")


def _write_frames(folder: Path, frames: Iterable[Image], num_frames: int) -> None:
    folder.mkdir()
    count = 0
    for frame in frames:
        write_png(folder / f"{count:06d}.png", frame)
        count += 1
    if count != num_frames:
        raise InputError(f"expected one frame per time, got {count} frames and {num_frames} times")


def _joined(events: EventStream | Iterable[EventStream]) -> EventStream:
    parts = [events] if isinstance(events, EventStream) else list(events)
    if sum(len(part) for part in parts) == 0:
        raise RecordingError("there are no events to write: nothing in the scene changed")
    stream = EventStream.concatenate(parts)
    if max(stream.sensor_size) > _MAX_SIDE:
        raise InputError(f"a sensor side must be at most {_MAX_SIDE} px, got {stream.sensor_size}")
    return stream


def _write_events(path: Path, stream: EventStream) -> None:
    np.savez(path, x=stream.x.astype(np.uint16), y=stream.y.astype(np.uint16), t=stream.t, p=stream.p)
