"""How well a model in training interpolates recordings: through the same `Interpolator` that users run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evfi.errors import RecordingError
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
                _left_out_psnr(interpolator, recording, spec) for spec in left_out_windows(recording, skip, windows)
            ]
        figures[f"psnr_{path.stem}"] = float(torch.cat(values).mean())
    return figures


def check_recordings(paths: Sequence[Path], skip: int) -> None:
    """Make sure, before any training, that `validate_recordings` will find what it needs.

    Raises:
        InputError: a recording cannot be read.
        RecordingError: a recording has too few frames.
    """
    for path in paths:
        with open_recording(path) as recording:
            try:
                left_out_windows(recording, skip, 1)
            except RecordingError as error:
                raise RecordingError(f"{path} cannot validate with --validation-skip {skip}: {error}") from error


def _left_out_psnr(interpolator: Interpolator, recording: Recording, spec: WindowSpec) -> Tensor:
    """PSNR of each frame that was left out of one window."""
    frames = interpolator.interpolate_window(recording.load_window(spec))[1:-1]
    truth = np.stack([recording.frames.read(spec.start_frame + index) for index in range(1, len(frames) + 1)])
    return psnr(_from_bytes(frames), _from_bytes(truth))


def left_out_windows(recording: Recording, skip: int, windows: int) -> list[WindowSpec]:
    """Windows whose output times are those of the frames left out, at most `windows` of them, spread evenly."""
    every = skip + 1
    last = (len(recording.frames) - 1) // every * every
    specs = recording.plan_windows(times_us=recording.frames.times_us[: last + 1], skip=every)
    if len(specs) <= windows:
        return specs
    return [specs[int(index)] for index in np.linspace(0, len(specs) - 1, windows + 2)[1:-1].round()]


def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """PSNR [N] in dB of pictures [N, ...] in [-1, 1]; 100 for equal ones."""
    return -10 * torch.log10(((pictures - truth) / 2).square().flatten(1).mean(1).clamp(min=1e-10))


def _from_bytes(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures 0 to 255 as float64 in [-1, 1]."""
    return torch.from_numpy(pictures.astype(np.float64)) / 127.5 - 1
