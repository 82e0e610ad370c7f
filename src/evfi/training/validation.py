"""How well a model in training interpolates recordings: through the same `Interpolator` that users run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evfi.interpolator import Interpolator
from evfi.models.bundle import ModelBundle
from evfi.recordings.opening import open_recording
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording


def validate_recordings(bundle: ModelBundle, paths: Sequence[Path], skip: int, windows: int) -> dict[str, float]:
    """Leave frames of recordings out, interpolate, and compare with them.

    Args:
        bundle: the model.
        paths: recordings.
        skip: frames left out between two key frames.
        windows: windows per recording, spread evenly.

    Returns:
        `psnr_NAME` per recording: mean PSNR in dB of the frames left out, RGB in [0, 1].

    Raises:
        RecordingError: a recording has too few frames.
    """
    interpolator = Interpolator(bundle)
    figures = {}
    for path in paths:
        with open_recording(path) as recording:
            values = [
                _psnr(frames[index], recording.frames.read(spec.start_frame + index))
                for spec in left_out_windows(recording, skip, windows)
                for frames in [interpolator.interpolate_window(recording.load_window(spec))]
                for index in range(1, len(frames) - 1)
            ]
        figures[f"psnr_{path.stem}"] = float(np.mean(values))
    return figures


def left_out_windows(recording: Recording, skip: int, windows: int) -> list[WindowSpec]:
    """Windows whose output times are those of the frames left out, at most `windows` of them, spread evenly."""
    every = skip + 1
    last = (len(recording.frames) - 1) // every * every
    specs = recording.plan_windows(times_us=recording.frames.times_us[: last + 1], skip=every)
    if len(specs) <= windows:
        return specs
    return [specs[int(index)] for index in np.linspace(0, len(specs) - 1, windows + 2)[1:-1].round()]


def _psnr(picture: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    mean = np.square((picture.astype(np.float64) - truth) / 255).mean()
    return float(-10 * np.log10(max(mean, 1e-10)))
