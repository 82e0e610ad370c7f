"""Small recordings and a stand-in for the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evfi.events.stream import EventStream
from evfi.pipeline.blending import blend_linearly
from evfi.recordings.memory import recording_from_memory
from evfi.recordings.recording import Recording, Window
from evfi.workers.tasks import OnStep

WIDTH, HEIGHT = 34, 22
STEP_US = 40_000


class Blender:
    """Stands in for the model: blends, and remembers which windows it was given."""

    def __init__(self, fail_at: int | None = None, error: type[Exception] = RuntimeError) -> None:
        self.seen: list[tuple[int, int]] = []
        self.fail_at, self.error = fail_at, error

    def prepare(self, window: Window) -> object:
        return None

    def interpolate_window(
        self, window: Window, *, seed: int, on_step: OnStep | None, prepared: object = None
    ) -> NDArray[np.uint8]:
        if window.spec.index == self.fail_at:
            raise self.error("stand-in failed")
        self.seen.append((window.spec.index, seed))
        if on_step is not None:
            on_step(1, 2)
            on_step(2, 2)
        return blend_linearly(window.start_image, window.end_image, window.spec.times_us)


def key_frames(number: int = 4, *, grey: bool = False) -> NDArray[np.uint8]:
    frames = np.random.default_rng(0).integers(0, 256, (number, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return np.repeat(frames[..., :1], 3, axis=-1) if grey else frames


def memory_recording(number: int = 4, *, event_span: tuple[int, int] | None = None, grey: bool = False) -> Recording:
    """Key frames at 25 Hz from 1 s on; events everywhere, or in a span of µs after the first key frame."""
    times = 1_000_000 + STEP_US * np.arange(number)
    generator = np.random.default_rng(1)
    start, end = event_span or (0, STEP_US * (number - 1))
    count = 500
    events = EventStream.from_arrays(
        generator.integers(0, WIDTH, count),
        generator.integers(0, HEIGHT, count),
        1_000_000 + generator.integers(start, end, count),
        generator.choice([-1, 1], count),
        (WIDTH, HEIGHT),
    )
    return recording_from_memory(key_frames(number, grey=grey), times, events, is_grey=grey)
