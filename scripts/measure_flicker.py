"""Measure how much a video flickers at its key frames, and what the refiner takes away of it.

    evfi simulate VIDEO -o FOLDER --keep-every 1 --height 240 --max-frames 121
    python scripts/measure_flicker.py FOLDER --skip 8
    python scripts/measure_flicker.py RECORDING --skip 2 [--first 10] [--windows 8]

In the video, key frames (untouched) alternate with frames that were made. Windows that follow each other
are made and joined, and each frame is compared with the mean of its two neighbours: at key frames ("key"), and where neither
the frame nor a neighbour is one ("else"), which shows what motion alone does. Levels are of luma, of 255:

- still: mean absolute difference where the neighbours differ by at most 6 levels;
- moving, shift: mean of the difference elsewhere, and mean absolute of it seen through a Gaussian blur of 8 px: what is
  left is brightness, not motion;
- sharpness: mean gradient beside the key frame, of the key frame's own, where it moves;
- PSNR of the inserted frames whose truth was left out (`--skip`), over all and over moving pixels.

Rows: what the model makes; the diffusion model alone; the refiner alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

import evfi
from evfi.evaluation.metrics.regions import moving_pixels
from evfi.pipeline.video_statistics import STILL_LEVELS
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording
from evfi.video.geometry import LUMA

Frames = NDArray[np.uint8]
COARSE_PX: Final = 8.0
ROWS: Final[dict[str, dict[str, bool]]] = {
    "as made": {},
    "without refiner": {"refinement": False},
    "without diffusion": {"diffusion": False},
}
"""The settings that each row changes."""


def tensor(frames: Frames) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).to(torch.float32)


def blurred(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of [..., H, W], borders replicated."""
    offsets = torch.arange(-int(3 * sigma), int(3 * sigma) + 1, dtype=torch.float32)
    kernel = torch.softmax(-offsets.square() / (2 * sigma**2), dim=0)
    reach = len(offsets) // 2
    planes = F.pad(pictures.reshape(-1, 1, *pictures.shape[-2:]), (reach, reach, reach, reach), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes.reshape(pictures.shape)


def gradient(luma: torch.Tensor) -> torch.Tensor:
    """Length of the gradient of [H, W], per pixel."""
    across, down = (F.pad(luma.diff(dim=axis), pad) for axis, pad in ((1, (0, 1)), (0, (0, 0, 0, 1))))
    return torch.hypot(across, down)


def video_of(windows: list[Frames]) -> list[torch.Tensor]:
    """Luma [H, W] of windows that follow each other, key frames once."""
    frames = np.concatenate([windows[0][:1], *(window[1:] for window in windows)])
    return list((tensor(frames) * torch.tensor(LUMA).view(3, 1, 1)).sum(1))


def flicker(video: list[torch.Tensor], period: int) -> dict[str, float]:
    """Means over the video's frames of the figures of the module's docstring."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: torch.Tensor) -> None:
        found.setdefault(name, []).append(float(value))

    for index in range(1, len(video) - 1):
        place = {0: "key", 1: "beside", period - 1: "beside"}.get(index % period, "else")
        before, now, after = video[index - 1 : index + 2]
        still = (before - after).abs() <= STILL_LEVELS
        jump = now - (before + after) / 2
        note(f"still {place}", jump[still].abs().mean())
        if still.all():
            continue
        coarse = blurred(jump, COARSE_PX)[~still]
        note(f"moving {place}", coarse.abs().mean())
        note(f"shift {place}", coarse.mean())
        if place == "key":
            beside = (gradient(before) + gradient(after)) / 2
            note("sharpness", beside[~still].mean() / gradient(now)[~still].mean())
    return {name: mean_of(values) for name, values in found.items()}


def truths(recording: Recording, spec: WindowSpec) -> Iterator[tuple[int, Frames]]:
    """Inserted frames that were left out: their place in the window and what they were."""
    number, gap = len(spec.times_us) - 1, spec.end_frame - spec.start_frame
    for left_out in range(1, gap):
        if left_out * number % gap == 0:
            yield left_out * number // gap, recording.frames.read(spec.start_frame + left_out)


def psnr(recording: Recording, specs: list[WindowSpec], windows: list[Frames]) -> tuple[float, float]:
    """Means over inserted frames with a truth, dB: over all pixels and over moving ones; NaN where there are none."""
    everywhere, moving = [], []
    for spec, frames in zip(specs, windows, strict=True):
        for place, truth in truths(recording, spec):
            error = (frames[place].astype(np.float64) - truth) ** 2
            region = moving_pixels(truth, frames[0], frames[-1])
            everywhere.append(10 * np.log10(255**2 / error.mean()))
            if region.mean() >= 0.001:
                moving.append(10 * np.log10(255**2 / error[region].mean()))
    return mean_of(everywhere), mean_of(moving)


def mean_of(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def cells_of(levels: dict[str, float], decibels: tuple[float, float]) -> Iterator[str]:
    for kind in ("still", "moving", "shift"):
        yield " / ".join(f"{levels.get(f'{kind} {place}', float('nan')):.2f}" for place in ("key", "else"))
    yield f"{levels.get('sharpness', float('nan')):.2f}"
    yield " / ".join(f"{value:.2f}" for value in decibels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--skip", type=int, default=1)
    parser.add_argument("--insert", type=int, default=7)
    parser.add_argument("--first", type=int, default=0, help="window to begin with")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--model", default="evfi-tiny")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    interpolator = evfi.Interpolator.from_pretrained(arguments.model, arguments.device)
    print("| | still key / else | moving key / else | shift key / else | sharpness | PSNR all / moving |")
    print("|---|---|---|---|---|---|")
    with evfi.open_recording(arguments.recording) as recording:
        specs = recording.plan_windows(arguments.insert, skip=arguments.skip)
        specs = specs[arguments.first : arguments.first + arguments.windows]
        if len(specs) < 2:
            parser.error(f"needs two windows that share a key frame, the recording has {len(specs)} from --first on")
        own = interpolator.config
        for name, changes in ROWS.items():
            interpolator.config = replace(own, **changes)
            windows = [interpolator.interpolate_window(recording.load_window(spec)) for spec in specs]
            levels = flicker(video_of(windows), arguments.insert + 1)
            print(f"| {name} | {' | '.join(cells_of(levels, psnr(recording, specs, windows)))} |", flush=True)


if __name__ == "__main__":
    main()
