"""How unusual windows are treated, and the frames that no model makes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.pipeline.blending import blend_linearly, blended_frame
from evfi.pipeline.job_config import OnGap
from evfi.pipeline.job_facts import Treatment
from evfi.pipeline.window_checks import SOUND
from evfi.recordings.recording import Window

_BY_ITSELF: Final[dict[str, Treatment]] = {
    "gap": "blend",
    "no-events": "blend",
    "cut": "hold",
    "exposure": "interpolate",
    "few-events": "blend",
}
"""Where the user chose nothing: a cut stays one, other gaps are bridged softly, and a change of exposure hides no motion."""


def treatment_of(kind: str, num_events: int, on_gap: OnGap | None) -> Treatment | None:
    """How a window's frames are made; None where the user wants to stop instead.

    Args:
        kind: what is unusual about the window, a `FindingKind`.
        num_events: events between its key frames; without any, nothing can be interpolated.
        on_gap: what the user chose for windows that are doubtful.
    """
    wanted = _BY_ITSELF.get(kind, "interpolate")
    if on_gap is not None and kind not in SOUND:
        if on_gap == "fail":
            return None
        wanted = on_gap
    return "blend" if wanted == "interpolate" and num_events == 0 else wanted


def frames_without_model(window: Window, treatment: Treatment) -> NDArray[np.uint8]:
    """The frames of a window that is held or blended, uint8 [F, H, W, 3] with both key frames.

    Args:
        window: the window.
        treatment: "hold" or "blend".
    """
    if treatment == "blend":
        return blend_linearly(window.start_image, window.end_image, window.spec.times_us)
    held = [window.start_image] * (len(window.spec.times_us) - 1)
    return np.stack([*held, window.end_image])


def frame_without_model(
    start: NDArray[np.uint8], end: NDArray[np.uint8], times_us: NDArray[np.int64], position: int, treatment: str
) -> NDArray[np.uint8]:
    """One frame of a window that is held or blended.

    Args:
        start: the first key frame, uint8 [H, W, 3].
        end: the last one.
        times_us: of all its frames, int64 [F].
        position: which one, 0 is `start`.
        treatment: "hold" or "blend".
    """
    if treatment == "blend":
        return blended_frame(start, end, times_us, position)
    return end if position == len(times_us) - 1 else start
