"""The inputs and outputs of a metric.

A metric gives one number per inserted frame and region. Key frames are given, not made, and are never scored; they are at
hand as the first and the last frame of both stacks, for metrics that look at neighbours in time. A value that is not
defined (an empty region, no events) is NaN, never a made-up number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from evfi.errors import ConfigError
from evfi.events.stream import EventStream

ALL: Final = "all"
"""The region of all pixels."""

Values: TypeAlias = dict[str, NDArray[np.float64]]
"""Per region, one value per inserted frame: float64 [F - 2]."""


@dataclass(frozen=True, eq=False)
class ScoredWindow:
    """One window as one system made it, with the ground truth.

    Attributes:
        frames: what is scored, uint8 [F, H, W, 3] RGB; the first and the last are the key frames.
        truth: the true frames of the same times and size, uint8 [F, H, W, 3].
        times_us: int64 [F], strictly increasing.
        regions: further regions beside all pixels, by name: bool [F, H, W], True where pixels of that frame count.
        events: the window's events on a grid that covers the frames' field of view (its resolution may differ from the
            frames'); None where there are none.
    """

    frames: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    times_us: NDArray[np.int64]
    regions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    events: EventStream | None = None

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ConfigError: shapes do not belong together.
        """
        if self.frames.shape != self.truth.shape or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            raise ConfigError(
                f"frames and truth must have one shape [F, H, W, 3], got {self.frames.shape} and {self.truth.shape}"
            )
        if len(self.frames) < 3 or len(self.times_us) != len(self.frames):
            raise ConfigError(f"expected at least 3 frames and a time for each, got {len(self.frames)} frames and "
                              f"{len(self.times_us)} times")  # fmt: skip
        for name, mask in self.regions.items():
            if mask.shape != self.frames.shape[:3] or name == ALL:
                raise ConfigError(f"region {name!r} must have shape {self.frames.shape[:3]}, got {mask.shape}")

    @property
    def num_inserted(self) -> int:
        """Frames that are scored."""
        return len(self.frames) - 2


Score: TypeAlias = Callable[[ScoredWindow], Values]
"""Scores one window; the regions of its result are those that the metric is defined for, `ALL` at least."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: what it is called on the command line and in results, e.g. ``ssim_y_pyiqa``; lower case, no blanks.
        title: what it is called in tables, short.
        definition: one sentence that leaves nothing open: channels, range, window, padding, and what it equals.
        higher_is_better: which way is up.
        load: makes it ready on a device; heavy libraries and weights are touched here, not before. Raises ModelError or
            ConfigError in one line that says what to install or fetch.
        unit: "dB", "%" or "".
        decimals: as printed.
        version: raised whenever its values change, so that kept scores are not mixed.
        needs_truth: False where the truth is not looked at.
        is_default: whether it is computed if nothing is asked for.
    """

    name: str
    title: str
    definition: str
    higher_is_better: bool
    load: Callable[[torch.device], Score]
    unit: str = ""
    decimals: int = 3
    version: int = 1
    needs_truth: bool = True
    is_default: bool = True


def masked_mean(maps: NDArray[np.floating], mask: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Mean of each map over a region.

    Args:
        maps: [N, H, W].
        mask: bool [N, H, W]; None counts all pixels.

    Returns:
        float64 [N]; NaN where the region is empty.
    """
    if mask is None:
        whole: NDArray[np.float64] = maps.mean(axis=(1, 2), dtype=np.float64)
        return whole
    counts = np.count_nonzero(mask, axis=(1, 2))
    sums = np.where(mask, maps, 0).sum(axis=(1, 2), dtype=np.float64)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means
