"""Events of an ordinary video: frames in, a stream of events out, in bounded memory.

8-bit sRGB frames are turned into linear luminance (IEC 61966-2-1), a dark level is added (sensor dark current; it also
keeps 8-bit steps of dark pixels from becoming events) and the logarithm taken. Between two frames the log intensity of
a pixel is taken to be linear in time, ESIM's interpolation: events of a pixel are spread evenly between frames, and
one frame's motion is smeared over its interval. So use a video whose motion from frame to frame is about a pixel
or a few; a slow one can be made faster only by real frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evfi.errors import ConfigError
from evfi.events.simulate import Simulator, SimulatorConfig
from evfi.events.stream import EventStream

_LUMINANCE = (0.2126, 0.7152, 0.0722)
_CHUNK_VALUES = 8_000_000


def log_luminance(frame: NDArray[np.uint8], log_eps: float = 0.01) -> Tensor:
    """Natural log of a frame's linear luminance.

    Args:
        frame: sRGB, uint8 [H, W, 3].
        log_eps: Dark level added to the linear luminance in [0, 1].

    Returns:
        float32 [H, W].
    """
    if log_eps <= 0:
        raise ConfigError(f"log_eps must be positive, got {log_eps}; try 0.01")
    code = np.arange(256) / 255
    linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    tables = (np.array(_LUMINANCE)[:, None] * linear).astype(np.float32)
    luminance = tables[0][frame[..., 0]] + tables[1][frame[..., 1]] + tables[2][frame[..., 2]]
    return torch.from_numpy(np.log(luminance + np.float32(log_eps)))


def simulate_video(
    frames: Iterable[NDArray[np.uint8]],
    times_us: Iterable[int],
    config: SimulatorConfig | None = None,
    *,
    seed: int = 0,
    log_eps: float = 0.01,
    device: torch.device | str = "cpu",
) -> Iterator[EventStream]:
    """Simulate an event camera that watched a video.

    Args:
        frames: Frames in order, uint8 [H, W, 3]; read one by one.
        times_us: Their strictly increasing times in µs.
        config: The camera.
        seed: Same seed, same events.
        log_eps: Dark level added to the linear luminance in [0, 1].
        device: Where the work is done.

    Yields:
        The events chunk by chunk in order of time; their concatenation does not depend on the chunks' length.

    Raises:
        InputError: if times do not increase, or frames differ in size.
    """
    simulator: Simulator | None = None
    for levels, times in _chunks(frames, times_us, log_eps):
        if simulator is None:
            height, width = levels.shape[1:]
            simulator = Simulator(config or SimulatorConfig(), seed, (width, height), device=device)
        yield simulator.push(levels.unsqueeze(0), times).stream(0)


def _chunks(
    frames: Iterable[NDArray[np.uint8]], times_us: Iterable[int], log_eps: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Collect frames into chunks of bounded size: log luminance [T, H, W] and times [T]."""
    levels: list[Tensor] = []
    times: list[int] = []
    for frame, time_us in zip(frames, times_us, strict=True):
        level = log_luminance(frame, log_eps)
        if levels and level.shape != levels[0].shape:
            yield torch.stack(levels), torch.tensor(times)
            levels, times = [], []
        levels.append(level)
        times.append(int(time_us))
        if len(levels) * level.numel() >= _CHUNK_VALUES:
            yield torch.stack(levels), torch.tensor(times)
            levels, times = [], []
    if levels:
        yield torch.stack(levels), torch.tensor(times)
