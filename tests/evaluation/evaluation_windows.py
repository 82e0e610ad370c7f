"""Windows of one inserted frame, for tests of metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evfi.evaluation.metrics.base import ScoredWindow


def window_of(picture: NDArray[np.uint8], truth: NDArray[np.uint8], **regions: NDArray[np.bool_]) -> ScoredWindow:
    """A window that inserts `picture`, uint8 [H, W, 3], where `truth` was; regions bool [H, W]. Key frames are the truth's."""
    masks = {name: np.stack([mask] * 3) for name, mask in regions.items()}
    return ScoredWindow(np.stack([truth, picture, truth]), np.stack([truth] * 3), np.arange(3), masks)
