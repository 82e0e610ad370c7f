"""Frames with other times than their reader gave them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from evfi.errors import RecordingError
from evfi.recordings.options import FrameTime
from evfi.recordings.recording import FramesAround, FrameSource, Times

_HALVES: Final[dict[FrameTime, int]] = {"start": 0, "middle": 1, "end": 2}
"""How many halves of its exposure a frame's time lies after its start."""


class RetimedFrames(FramesAround):
    """Another source's frames at other times.

    Args:
        frames: the source; it is closed with this one.
        times_us: time of each frame, int64 [N], before the offset.
        offset_us: what is added to all of them, and to the exposures.
    """

    def __init__(self, frames: FrameSource, times_us: Times, offset_us: int = 0):
        super().__init__(frames)
        self._times_us: Times = times_us + offset_us
        self.exposures_us = None if frames.exposures_us is None else frames.exposures_us + offset_us

    @property
    def times_us(self) -> Times:
        """Time of each frame in µs, int64 [N]."""
        return self._times_us


def retimed(path: Path, frames: FrameSource, frame_time: FrameTime | None, offset_us: int) -> FrameSource:
    """Frames at another moment of their exposure, or by an offset later; the same frames where nothing changes.

    Args:
        path: what to call the recording in errors.
        frames: as their reader gave them.
        frame_time: the moment of the exposure that is a frame's time; None keeps the reader's.
        offset_us: what is added to all times.

    Raises:
        RecordingError: the exposure is unknown.
    """
    if frame_time is None:
        return RetimedFrames(frames, frames.times_us, offset_us) if offset_us else frames
    exposures = frames.exposures_us
    if exposures is None:
        raise RecordingError(
            f"{path}: the {frame_time} of the exposure is unknown, because the files hold only one time per frame; "
            "leave out the frame time, or give half the exposure as a time offset"
        )
    halves = _HALVES[frame_time]
    times = exposures[:, 0] + (exposures[:, 1] - exposures[:, 0]) * halves // 2
    return RetimedFrames(frames, times, offset_us)
