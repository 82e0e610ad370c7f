"""Linear blending: what can be shown between two key frames where nothing is known of the motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def blend_linearly(
    start_image: NDArray[np.uint8], end_image: NDArray[np.uint8], times_us: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Mix two key frames by time.

    Args:
        start_image: uint8 [H, W, 3], shown at the first time.
        end_image: uint8 [H, W, 3], shown at the last time.
        times_us: int64 [F], strictly increasing.

    Returns:
        uint8 [F, H, W, 3]; the first and the last are the key frames themselves.
    """
    weights = (times_us - times_us[0]) / float(times_us[-1] - times_us[0])  # [F], 0 → 1
    mixed = [start_image * (1 - weight) + end_image * weight for weight in weights]
    frames: NDArray[np.uint8] = np.rint(np.stack(mixed)).astype(np.uint8)
    return frames
