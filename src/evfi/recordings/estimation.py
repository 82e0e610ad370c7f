"""By how much the clocks and the pixels of a recording's frames and events are apart, estimated from the recording itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evfi.recordings.recording import Recording


@dataclass(frozen=True, eq=False)
class AlignmentEstimate:
    """How frames and events lie on each other, as far as the recording tells.

    Attributes:
        time_offset_us: what to add to every frame's time so that it names the same moment on the events' clock.
        time_offset_error_us: its standard error, from how far the windows disagree.
        shift_px: (dx, dy) in frame pixels: what to add to an event's place in the frame so that it lies on what caused it.
        shift_error_px: standard errors of both.
        correlation: of the events' polarity sums with the frames' log differences, at the estimate; -1 to 1.
        confidence: 0 to 1; see `is_reliable`.
        curve_offsets_us: time offsets that were tried, float64 [N], increasing.
        curve_correlations: the correlation at each of them, at the estimated shift, float64 [N].
        num_windows: pairs of frames that the estimate rests on.
        is_reliable: whether the estimate should be used.
        note: in plain words, one line: how good the estimate is, or why there is none.
    """

    time_offset_us: int
    time_offset_error_us: float
    shift_px: tuple[float, float]
    shift_error_px: tuple[float, float]
    correlation: float
    confidence: float
    curve_offsets_us: NDArray[np.float64]
    curve_correlations: NDArray[np.float64]
    num_windows: int
    is_reliable: bool
    note: str


def estimate_alignment(
    recording: Recording, *, offset: bool = True, shift: bool = True, max_offset_us: int = 40_000
) -> AlignmentEstimate:
    """Estimate the time offset and the spatial shift between a recording's frames and its events.

    Args:
        recording: as opened; estimates are relative to its frame times and its mapping.
        offset: estimate the time offset; otherwise it is taken as 0.
        shift: estimate the spatial shift; otherwise it is taken as 0.
        max_offset_us: largest offset to try, in either direction.
    """
    raise NotImplementedError
