"""Compare the interpolated frames, linear blending and the ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evfi.demo.recording import DemoRecording
from evfi.evaluation.metrics import moving_pixels, psnr
from evfi.pipeline.blending import blend_linearly
from evfi.pipeline.models import WindowInterpolator
from evfi.workers.tasks import OnStep

Progress = Callable[[float, int], None]
"""Called with (windows done, counting parts of one, windows in all)."""


@dataclass(frozen=True)
class Scores:
    """Mean PSNR of inserted frames, dB.

    Attributes:
        whole: over all pixels.
        moving: over the pixels where something moved, see `evfi.evaluation.metrics.moving_pixels`.
    """

    whole: float
    moving: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """All frames of a demo recording three times: ground truth, ours, blended.

    Attributes:
        demo: the recording and its true frames.
        insert: frames between two key frames.
        ours: uint8 [N, H, W, 3], key frames included.
        blended: the same by linear blending.
    """

    demo: DemoRecording
    insert: int
    ours: NDArray[np.uint8]
    blended: NDArray[np.uint8]

    @property
    def stride(self) -> int:
        """Steps from one key frame to the next."""
        return self.insert + 1

    def scores(self, frames: NDArray[np.uint8]) -> Scores:
        """Compare all inserted frames of one kind (`ours` or `blended`) with the ground truth."""
        inserted = [index for index in range(len(frames)) if index % self.stride]
        found = [self.frame_scores(frames, index) for index in inserted]
        return Scores(float(np.mean([one.whole for one in found])), float(np.nanmean([one.moving for one in found])))

    def frame_scores(self, frames: NDArray[np.uint8], index: int) -> Scores:
        """Compare one frame with the ground truth."""
        truth, frame = self.demo.truth[index : index + 1], frames[index : index + 1]
        return Scores(float(psnr(frame, truth)[0]), float(psnr(frame, truth, self.moving(index))[0]))

    def moving(self, index: int) -> NDArray[np.bool_]:
        """Where something moved from the key frames around a frame, bool [H, W]."""
        start = index // self.stride * self.stride
        end = min(start + self.stride, len(self.demo.truth) - 1)
        return moving_pixels(*(self.demo.truth[at] for at in (index, start, end)))


def compare(
    demo: DemoRecording, interpolator: WindowInterpolator, insert: int, seed: int, progress: Progress | None = None
) -> Comparison:
    """Interpolate a demo recording, and blend it.

    Args:
        demo: The recording.
        interpolator: Makes the frames of a window.
        insert: Frames between two key frames, as in the truth.
        seed: Of sampling.
        progress: Called with (windows done, windows in all).
    """
    specs = demo.recording.plan_windows(insert=insert)
    ours, blended = [], []
    for done, spec in enumerate(specs):
        window = demo.recording.load_window(spec)
        keep = slice(None, None if done == len(specs) - 1 else -1)
        report = _step_report(progress, done, len(specs))
        ours.append(interpolator.interpolate_window(window, seed=seed, on_step=report)[keep])
        blended.append(blend_linearly(window.start_image, window.end_image, spec.times_us)[keep])
    return Comparison(demo, insert, np.concatenate(ours), np.concatenate(blended))


def _step_report(progress: Progress | None, done: int, total: int) -> OnStep | None:
    """Turn steps within a window into progress over all windows."""
    if progress is None:
        return None
    return lambda step, steps: progress(done + step / steps, total)
