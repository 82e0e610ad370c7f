"""Small fixed pairs of pictures for golden metric values: (picture, truth), uint8 [H, W, 3]. Names never change meaning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def golden_pairs() -> dict[str, Pair]:
    """All pairs by name; each is at least 64 px in both directions, so that networks take it."""
    scene = _scene(72, 88)
    return {
        "noise": (_noise(0, 64, 64), _noise(1, 64, 64)),
        "noisy_scene": (_noisy(scene, 2), scene),
        "shifted_scene": (_scene(72, 88, shift=3), scene),
        "odd_size": (_scene(67, 101, shift=1), _scene(67, 101)),
        "inverted_gradient": (255 - _gradient(64, 80), _gradient(64, 80)),
        "brighter_gradient": (np.minimum(_gradient(64, 80), 245) + np.uint8(10), _gradient(64, 80)),
        "one_pixel": (_with_one_pixel(scene), scene),
        "black_and_white": (np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)),
    }


def _noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _noisy(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    noise = _noise(seed, *picture.shape[:2]).astype(np.int16) // 8 - 16
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _gradient(height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 255 // (height - 1), columns * 255 // (width - 1), (rows + columns) * 255 // (height + width)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def _scene(height: int, width: int, shift: int = 0) -> NDArray[np.uint8]:
    """Coloured tiles on a gradient, with a texture of whole numbers, moved right by `shift` px."""
    rows, columns = np.mgrid[:height, :width]
    columns = columns - shift
    picture = _gradient(height, width).astype(np.int64) // 2 + 40
    picture[(rows // 9 + columns // 13) % 3 == 0] = (200, 90, 30)
    picture[..., 1] += (columns * columns + 3 * rows) % 31
    picture[20:45, 15 + shift : 40 + shift] = (20, 60, 220)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _with_one_pixel(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    changed = picture.copy()
    changed[30, 50] = 255 - changed[30, 50]
    return changed
