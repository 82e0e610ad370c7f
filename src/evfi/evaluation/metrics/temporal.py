"""Metrics of the changes from frame to frame, compared with the ground truth.

Both metrics look at differences of neighbouring frames, D_k = I_{k+1} - I_k, in levels of 255. The key frames take part as
neighbours, so a jump between a key frame and the frame beside it counts. An inserted frame's value is the mean over the
interval before and the interval after it.

No optical flow is used: the values do not depend on how well some flow was estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from evfi.evaluation.metrics.base import ALL, Metric, ScoredWindow, Values
from evfi.evaluation.metrics.regions import SMALLEST_SHARE

_STATIC_LEVELS: Final = 8
_ERODE_PX: Final = 2


def flicker(window: ScoredWindow) -> Values:
    """How much more static pixels change from frame to frame than in the ground truth, in levels of 255.

    Per interval, the mean of |D| over static pixels and channels, less that of the truth, and no less than 0.

    Returns:
        For all pixels alone: the other regions are where something moves. NaN where less than 0.1 % is static.
    """
    static = static_pixels(window.truth)
    if np.count_nonzero(static) < SMALLEST_SHARE * static.size:
        return {ALL: np.full(window.num_inserted, np.nan)}
    excess = [
        _mean_within(np.abs(made), static) - _mean_within(np.abs(true), static) for made, true in _changes(window)
    ]
    return {ALL: mean_of_both_sides(np.maximum(excess, 0))}


def temporal_mae(window: ScoredWindow) -> Values:
    """Mean of |D - D of the ground truth|, with D the change from frame to frame, in levels of 255.

    Returns:
        For all pixels and each region; the mean over the region of an inserted frame is taken in both of its intervals.
    """
    masks = {ALL: None, **window.regions}
    values = {name: np.zeros(window.num_inserted) for name in masks}
    for interval, (made, true) in enumerate(_changes(window)):
        wrong = np.abs(made - true)
        for name, mask in masks.items():
            for frame in (interval, interval + 1):
                if 1 <= frame <= window.num_inserted:
                    values[name][frame - 1] += _mean_within(wrong, None if mask is None else mask[frame]) / 2
    return values


def static_pixels(truth: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the ground truth does not change over the whole window.

    A pixel is static if in the 5x5 pixels around it (as far as they are in the frame) no channel's range over the window's
    frames, key frames included, exceeds 8 levels.

    Args:
        truth: uint8 [F, H, W, 3].

    Returns:
        bool [H, W].
    """
    changing = (truth.max(axis=0) - truth.min(axis=0)).max(axis=-1) > _STATIC_LEVELS
    grown = Image.fromarray(changing.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * _ERODE_PX + 1))
    static: NDArray[np.bool_] = np.asarray(grown) == 0
    return static


def mean_of_both_sides(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the F - 1 intervals as values of the F - 2 inserted frames: the mean of the intervals before and after.

    Args:
        values: [F - 1] or [F - 1, ...].
    """
    means: NDArray[np.float64] = (values[:-1] + values[1:]) / 2
    return means


def _changes(window: ScoredWindow) -> Iterator[tuple[NDArray[np.int16], NDArray[np.int16]]]:
    """Per interval, the difference of its two frames as made and as they are in truth: int16 [H, W, 3] each."""
    for stacks in zip(window.frames[:-1], window.frames[1:], window.truth[:-1], window.truth[1:], strict=True):
        made, made_next, true, true_next = (frame.astype(np.int16) for frame in stacks)
        yield made_next - made, true_next - true


def _mean_within(values: NDArray[np.int16], mask: NDArray[np.bool_] | None) -> float:
    """Mean over pixels [H, W, 3] of a mask [H, W] and channels; NaN where it is empty."""
    chosen = values if mask is None else values[mask]
    return int(chosen.sum(dtype=np.int64)) / chosen.size if chosen.size else float("nan")


METRICS: Final = (
    Metric(
        name="flicker",
        title="flicker",
        definition=(
            "mean absolute change between neighbouring frames over static pixels and R, G, B, less that of the ground truth "
            "and no less than "
            "0, in levels of 255, mean of the intervals before and after the frame; static: no channel's range "
            "over the window's true frames exceeds 8 levels in the 5x5 pixels around; NaN if under 0.1 % of pixels are"
        ),
        higher_is_better=False,
        load=lambda device: flicker,
    ),
    Metric(
        name="temporal_mae",
        title="temporal error",
        definition=(
            "mean over pixels and R, G, B of |(I[k+1] - I[k]) - (T[k+1] - T[k])|, I the frames, T the ground truth, in levels "
            "of 255, mean of the intervals before and after the frame"
        ),
        higher_is_better=False,
        load=lambda device: temporal_mae,
    ),
)
"""In the order of tables."""
