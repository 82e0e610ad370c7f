"""Videos that tests of reading and writing share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evfi.video.writer import VideoConfig, VideoWriter


def moving_frames(count: int, width: int = 64, height: int = 48, grey: bool = False) -> list[np.ndarray]:
    y, x = np.mgrid[:height, :width]
    waves = [
        [np.sin(x / 9 + index / 4), np.cos(y / 8 + index / 5), np.sin((x + y) / 11 - index / 6)]
        for index in range(count)
    ]
    frames = [np.stack([np.round(128 + 100 * wave) for wave in three], axis=-1).astype(np.uint8) for three in waves]
    return [np.repeat(frame[..., :1], 3, axis=-1) for frame in frames] if grey else frames


def write_video(path: Path, frames: list[np.ndarray], fps: float = 25.0, config: VideoConfig | None = None) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, (width, height), fps, config) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())
