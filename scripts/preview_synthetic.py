"""Write a contact sheet of synthetic training windows: per scene a row of output frames, and the events before each.

python scripts/preview_synthetic.py PICTURES sheet.png --seed 0
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from evfi.events.stacks import StackConfig
from evfi.training.synthetic import TrainingWindows, WindowConfig, make_batch
from evfi.training.textures import load_textures


def event_pictures(windows: TrainingWindows) -> Tensor:
    """Events of each output interval over a dimmed frame: red ON, blue OFF; [B, F, 3, H, W] in [0, 1]."""
    events, times = windows.events, windows.times_us
    batch, num_frames, _, height, width = windows.frames.shape
    interval = ((events.t[:, None] >= times[events.b]).sum(1)).clamp(max=num_frames - 1)
    counts = torch.zeros(2, batch, num_frames, height, width)
    index = ((events.p < 0).long(), events.b, interval, events.y, events.x)
    counts.index_put_(index, torch.ones(len(events)), accumulate=True)
    strength = (counts / 3).clamp(max=1)
    picture = (windows.frames + 1) / 2 * 0.4
    picture[:, :, 0] += strength[0]
    picture[:, :, 2] += strength[1]
    return picture.clamp(0, 1)


def contact_sheet(windows: TrainingWindows) -> Image.Image:
    """Two rows per scene: frames, events."""
    rows = torch.stack([(windows.frames + 1) / 2, event_pictures(windows)], 1)  # [B, 2, F, 3, H, W]
    tiled = rows.permute(0, 1, 4, 2, 5, 3)  # [B, 2, H, F, W, 3]
    pixels = tiled.reshape(rows.shape[0] * 2 * rows.shape[-2], -1, 3)
    return Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="texture folder or packed file")
    parser.add_argument("target", type=Path, help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--num-frames", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--exposure-blur", type=float, default=WindowConfig.exposure_blur)
    arguments = parser.parse_args()
    library = load_textures(arguments.pictures)
    windows = make_batch(
        library,
        WindowConfig(exposure_blur=arguments.exposure_blur),
        StackConfig(),
        batch=arguments.batch,
        num_frames=arguments.num_frames,
        size=arguments.size,
        generator=torch.Generator().manual_seed(arguments.seed),
    )
    contact_sheet(windows).save(arguments.target)
    print(f"{arguments.target}: {len(windows.events)} events in {arguments.batch} windows")


if __name__ == "__main__":
    main()
