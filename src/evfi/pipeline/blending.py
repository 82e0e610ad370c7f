"""Linear blending between two key frames, for when nothing is known of the motion."""

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
    frames = np.empty((len(times_us), *start_image.shape), np.uint8)
    for position in range(len(times_us)):
        frames[position] = blended_frame(start_image, end_image, times_us, position)
    return frames


def blended_frame(
    start_image: NDArray[np.uint8], end_image: NDArray[np.uint8], times_us: NDArray[np.int64], position: int
) -> NDArray[np.uint8]:
    """One of the frames that `blend_linearly` makes.

    Args:
        start_image: as for `blend_linearly`.
        end_image: as for `blend_linearly`.
        times_us: as for `blend_linearly`.
        position: which one.
    """
    weight = (times_us[position] - times_us[0]) / float(times_us[-1] - times_us[0])  # 0 → 1
    frame: NDArray[np.uint8] = np.rint(start_image * (1 - weight) + end_image * weight).astype(np.uint8)
    return frame
