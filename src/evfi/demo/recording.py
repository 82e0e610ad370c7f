"""The scene as recorded by a camera and an event camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evfi.demo.scene import Scene, to_srgb
from evfi.errors import ConfigError
from evfi.events.simulate import SimulatorConfig, simulate_events
from evfi.events.stream import EventStream
from evfi.recordings.memory import recording_from_memory
from evfi.recordings.recording import Recording

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)  # of linear light, BT.709
_DARK_LIGHT = 0.01
"""Light that is added before taking logarithms, as the sensor's dark current does."""


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo's recording.

    Attributes:
        width: frame width in px.
        height: frame height in px.
        windows: number of gaps between key frames.
        insert: frames to insert into each gap.
        key_interval_us: time between key frames in µs.
        sub_frames: rendered pictures per inserted frame, from which events are simulated.
        seed: seed of the simulated camera's noise and of sampling.
    """

    width: int = 288
    height: int = 216
    windows: int = 2
    insert: int = 7
    key_interval_us: int = 40_000
    sub_frames: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "height", "windows", "insert", "key_interval_us", "sub_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.key_interval_us < (least := (self.insert + 1) * self.sub_frames):
            raise ConfigError(
                f"key_interval_us must be at least {least} for {self.insert} inserted frames, one µs per rendered picture, "
                f"got {self.key_interval_us}"
            )


@dataclass(frozen=True, eq=False)
class DemoRecording:
    """A recording and its ground truth.

    Attributes:
        recording: key frames and events.
        truth: all frames, key frames included, uint8 [windows * (insert + 1) + 1, H, W, 3].
        times_us: their times, int64.
        events: all events.
    """

    recording: Recording
    truth: NDArray[np.uint8]
    times_us: NDArray[np.int64]
    events: EventStream


def record_scene(config: DemoConfig) -> DemoRecording:
    """Render the scene and simulate its events; the same settings give the same recording.

    Args:
        config: What to make.
    """
    scene = Scene(config.width, config.height)
    intervals = config.insert + 1
    steps = config.windows * intervals * config.sub_frames
    times_us = np.arange(steps + 1, dtype=np.int64) * config.key_interval_us // (intervals * config.sub_frames)
    truth, levels = [], []
    for step, time_us in enumerate(times_us):
        light = scene.render(float(time_us) * 1e-6)
        levels.append(np.log(light @ _LUMINANCE + _DARK_LIGHT))
        if step % config.sub_frames == 0:
            truth.append(to_srgb(light))
    batch = simulate_events(
        torch.from_numpy(np.stack(levels)).unsqueeze(0), torch.from_numpy(times_us), SimulatorConfig(), config.seed
    )
    events, frame_times, frames = batch.stream(0), times_us[:: config.sub_frames], np.stack(truth)
    recording = recording_from_memory(frames[::intervals], frame_times[::intervals], events)
    return DemoRecording(recording, frames, frame_times, events)
