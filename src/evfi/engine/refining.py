"""How many frames are refined at once, and in how many bands, so that they fit into memory.

The finest levels need most memory and are computed in horizontal bands where a frame is large, with the same results. On a GPU
several small frames go into one call, which costs as many launches as one; on a CPU each thread has a frame of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch

_WHOLE_BYTES: Final = {2: 520, 4: 600}
_BANDED_BYTES: Final = {2: 200, 4: 500}
"""Bytes per pixel of a frame that a call takes at most, by bytes per number: in any case, and in all bands together; measured
by scripts/measure_refiner.py and rounded up."""

_BAND_BYTES: Final = 192 * 2**20
_MOST_BYTES: Final = 5 * 2**30
_LARGE_BYTES: Final = 2**30  # a frame that takes more goes alone
_MOST_FRAMES: Final = 8
_MAX_BANDS: Final = 64


@dataclass(frozen=True)
class RefiningPlan:
    """How one window's frames are refined.

    Attributes:
        frames_at_once: frames per network call.
        bands: horizontal bands per frame.
    """

    frames_at_once: int
    bands: int

    def difference(self, other: object) -> str:
        """What another plan does differently, in a few words."""
        assert isinstance(other, RefiningPlan)
        return f"refining {other.frames_at_once} frames at once in {other.bands} bands"

    def lowered(self) -> RefiningPlan | None:
        """The next plan, which needs less memory; None when nothing is left."""
        if self.frames_at_once > 1:
            return RefiningPlan(self.frames_at_once // 2, self.bands)
        return RefiningPlan(1, self.bands * 2) if self.bands < _MAX_BANDS else None


def refining_plan(height: int, width: int, dtype: torch.dtype, budget: int | None) -> RefiningPlan:
    """A plan for frames of a size.

    Args:
        height: of the frames in px.
        width: likewise.
        dtype: that the network runs in.
        budget: bytes of GPU memory that may be taken; None on a CPU, where frames go one by one.
    """
    pixels = height * width
    whole, banded = (table[dtype.itemsize] * pixels for table in (_WHOLE_BYTES, _BANDED_BYTES))
    alone = RefiningPlan(1, min(max(1, math.ceil(banded / _BAND_BYTES)), _MAX_BANDS))
    if budget is None or whole + banded > _LARGE_BYTES:
        return alone
    frames = min(budget, _MOST_BYTES) // (whole + banded)
    return RefiningPlan(min(frames, _MOST_FRAMES), 1) if frames > 1 else alone
