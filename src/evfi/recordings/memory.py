"""Recordings whose frames and events are already in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.source import MemoryEvents
from evfi.events.stream import EventStream
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.recording import FrameSourceDefaults, Image, Recording, Times


class MemoryFrames(FrameSourceDefaults):
    """A sequence of frames in memory.

    Args:
        frames: uint8 [H, W, 3] RGB each, all of one size.
        times_us: time of each frame in whole µs.
        is_grey: whether the frames come from a monochrome camera.
    """

    def __init__(self, frames: Sequence[Image] | NDArray[np.uint8], times_us: ArrayLike, *, is_grey: bool = False):
        shapes = {np.shape(frame) for frame in frames}
        if len(shapes) > 1 or any(len(shape) != 3 or shape[2] != 3 for shape in shapes):
            raise InputError(f"frames must all have the same shape [H, W, 3], got {sorted(shapes)}")
        if any(frame.dtype != np.uint8 for frame in frames):
            raise InputError("frames must be uint8")
        self._frames = frames
        self.times_us: Times = np.asarray(times_us, np.int64)
        height, width = next(iter(shapes))[:2] if shapes else (0, 0)
        self.size = (int(width), int(height))
        self.is_grey = is_grey

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3]."""
        return np.asarray(self._frames[index])


def recording_from_memory(
    frames: Sequence[Image] | NDArray[np.uint8], times_us: ArrayLike, events: EventStream, *, is_grey: bool = False
) -> Recording:
    """A recording of frames and events in memory; the sensor covers the frame's field of view."""
    source = MemoryFrames(frames, times_us, is_grey=is_grey)
    if len(source) == 0:
        raise RecordingError("expected at least two frames, found 0; there is nothing to interpolate")
    mapping = scale_mapping(events.sensor_size, source.size)
    return Recording(Path("<memory>"), "memory", source, MemoryEvents(events), mapping).checked_overlap()
