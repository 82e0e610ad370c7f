"""Small windows for systems to fill."""

from __future__ import annotations

import numpy as np

from evfi.evaluation.systems import WindowTask
from evfi.events.stream import EventStream
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Window

WIDTH, HEIGHT = 50, 35
FLOORED = (32, 48)
"""Height and width of the floored frames."""


def window_task(
    *,
    start: int = 4,
    inserted: int = 3,
    skip: int | None = None,
    events: int = 500,
    index: int = 1,
    name: str = "street",
) -> WindowTask:
    """A window of random pictures and events whose frames are 10 ms apart.

    Args:
        start: number of its first frame.
        inserted: frames between.
        skip: as it is told; as many as inserted by default.
        events: how many.
        index: number of the window.
        name: of the sequence.
    """
    generator = np.random.default_rng(start)
    keys = generator.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    times = (start + np.arange(inserted + 2)) * 10_000
    stream = EventStream.from_arrays(
        generator.integers(0, WIDTH, events),
        generator.integers(0, HEIGHT, events),
        np.sort(generator.integers(times[0], times[-1], events)),
        generator.choice([-1, 1], events),
        (WIDTH, HEIGHT),
    )
    spec = WindowSpec(index, start, start + inserted + 1, times)
    return WindowTask(name, inserted if skip is None else skip, Window(spec, keys[0], keys[1], stream))
