"""Small recordings as folders: a bright square that moves, and its events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evfi.events.stream import EventStream
from evfi.recordings.datasets.plain_writer import write_plain_recording

WIDTH, HEIGHT = 48, 40
STEP_US = 20_000


def moving_square(number: int = 9) -> NDArray[np.uint8]:
    """Frames uint8 [N, H, W, 3] of a square that moves by two pixels from frame to frame."""
    ground = np.linspace(60, 120, WIDTH).astype(np.uint8)
    frames = np.broadcast_to(ground[None, None, :, None], (number, HEIGHT, WIDTH, 3)).copy()
    for index in range(number):
        left = 4 + 2 * index
        frames[index, 12:24, left : left + 10] = (230, 200, 40)
    return frames


def write_recording(folder: Path, number: int = 9, seed: int = 0) -> Path:
    """Write frames and events, both polarities in every interval, as a recording in plain layout."""
    times = 1_000_000 + STEP_US * np.arange(number)
    generator = np.random.default_rng(seed)
    count = 40 * (number - 1)
    t = np.sort(generator.integers(times[0], times[-1], count))
    events = EventStream.from_arrays(
        generator.integers(0, WIDTH, count),
        generator.integers(0, HEIGHT, count),
        t,
        np.where(np.arange(count) % 2, 1, -1),
        (WIDTH, HEIGHT),
    )
    write_plain_recording(folder, moving_square(number), times, events)
    return folder
