"""Baselines without a network: holding the key frame, and linear blending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evfi.evaluation.ground_truth import scored_size_frame
from evfi.evaluation.results import SystemInfo
from evfi.evaluation.systems import SizeRule, SystemRequest, WindowTask
from evfi.fingerprints import fingerprint_of
from evfi.pipeline.blending import blend_linearly
from evfi.video.geometry import Frame

_Fill: TypeAlias = Callable[[Frame, Frame, NDArray[np.int64]], NDArray[np.uint8]]


class Blend:
    """A baseline that fills a window from its two key frames at the scored size.

    "hold" repeats the key frame before, as a plain video player shows it; "linear" mixes both by time.
    """

    def __init__(self, request: SystemRequest, size: SizeRule) -> None:
        """Take a name.

        Args:
            request: its source is a key of `BLENDS`.
            size: at which size frames are scored; key frames are brought to it first.
        """
        self.notes: list[str] = []
        self._size = size
        self._fill = BLENDS[request.source]
        settings = {"baseline": request.source}
        self.info = SystemInfo(request.name, "baseline", settings, fingerprint_of(settings))

    def make(self, task: WindowTask) -> NDArray[np.uint8]:
        """All frames of a window, uint8 [F, H, W, 3]; the first and last are the key frames."""
        window = task.window
        keys = [scored_size_frame(key, self._size) for key in (window.start_image, window.end_image)]
        return self._fill(keys[0], keys[1], window.spec.times_us)


def hold_key_frame(start_image: Frame, end_image: Frame, times_us: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Show the key frame before until the next is there.

    Args:
        start_image: uint8 [H, W, 3].
        end_image: uint8 [H, W, 3], shown at the last time only.
        times_us: int64 [F].

    Returns:
        uint8 [F, H, W, 3].
    """
    return np.stack([start_image] * (len(times_us) - 1) + [end_image])


BLENDS: Final[dict[str, _Fill]] = {"hold": hold_key_frame, "linear": blend_linearly}
"""What fills a window, by name."""
