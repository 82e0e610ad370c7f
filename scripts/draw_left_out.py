"""Draw one left-out frame of a recording: whole pictures above, enlarged crops below.

python scripts/draw_left_out.py RECORDING OUT.png --window 14 --crop 75 185 115 65 [--keep-every 2] [--model evfi-tiny]

Above: first key frame, events on it, the interpolated frame; below, enlarged: the first key frame, RIFE where its package is
installed, the diffusion model alone, the interpolated frame, and the ground truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import evfi
from evfi.errors import ModelError
from evfi.evaluation.loading import load_system
from evfi.evaluation.systems import SystemRequest, WindowTask
from evfi.events.render import render_events
from evfi.recordings.recording import Window
from evfi.training.validation import left_out_windows

Picture = NDArray[np.uint8]
GAP_PX, LABEL_PX = 6, 22


def labelled(picture: Image.Image, label: str) -> Image.Image:
    sheet = Image.new("RGB", (picture.width, picture.height + LABEL_PX), "white")
    sheet.paste(picture, (0, LABEL_PX))
    ImageDraw.Draw(sheet).text((2, 3), label, fill="black", font=ImageFont.load_default(14))
    return sheet


def brightened(pictures: list[tuple[str, Picture]], gain: float) -> list[tuple[str, Picture]]:
    return [(label, (picture * gain).clip(0, 255).astype(np.uint8)) for label, picture in pictures]


def row(pictures: list[tuple[str, Picture]], width: int) -> Image.Image:
    """Pictures beside each other, each scaled so that the row is `width` wide."""
    each = (width - GAP_PX * (len(pictures) - 1)) // len(pictures)
    cells = []
    for label, picture in pictures:
        height = round(each * picture.shape[0] / picture.shape[1])
        cells.append(labelled(Image.fromarray(picture).resize((each, height), Image.Resampling.BICUBIC), label))
    sheet = Image.new("RGB", (width, max(cell.height for cell in cells)), "white")
    for index, cell in enumerate(cells):
        sheet.paste(cell, (index * (each + GAP_PX), 0))
    return sheet


def rife_frame(window: Window, number: int) -> list[tuple[str, Picture]]:
    """What RIFE makes of the key frames, if it is installed."""
    try:
        rife = load_system(SystemRequest("rife", "baseline", "rife"), "original", "cpu")
    except ModelError:
        return []
    return [("RIFE (no events)", rife.make(WindowTask("", 1, window))[number])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--crop", type=int, nargs=4, metavar=("X", "Y", "W", "H"), required=True)
    parser.add_argument("--keep-every", type=int, default=2)
    parser.add_argument("--model", default="evfi-tiny")
    parser.add_argument("--width", type=int, default=1040)
    parser.add_argument("--gain", type=float, default=1.0, help="brighten what is shown, for dark recordings")
    arguments = parser.parse_args()
    interpolator = evfi.Interpolator.from_pretrained(arguments.model)
    with evfi.open_recording(arguments.recording) as recording:
        spec = left_out_windows(recording, arguments.keep_every - 1, len(recording.frames))[arguments.window]
        window = recording.load_window(spec)
        middle = len(spec.times_us) // 2
        truth = recording.frames.read(spec.start_frame + middle)
    ours = interpolator.interpolate_window(window)[middle]
    alone = evfi.Interpolator.from_pretrained(arguments.model, refinement=False).interpolate_window(window)[middle]
    x, y, w, h = arguments.crop
    name = interpolator.bundle.info.name
    start = (window.start_image * arguments.gain).clip(0, 255).astype(np.uint8)
    events = render_events(window.events, over=start, saturation=2)
    shown = [("key frame", window.start_image), (f"interpolated frame ({name})", ours)]
    first, between = brightened(shown, arguments.gain)
    whole = [first, ("events until the next key frame", events), between]
    named = [
        ("key frame", window.start_image),
        *rife_frame(window, middle),
        ("without refiner", alone),
        (name, ours),
        ("ground truth", truth),
    ]
    crops = [(label, picture[y : y + h, x : x + w]) for label, picture in named]
    rows = [row(whole, arguments.width), row(brightened(crops, arguments.gain), arguments.width)]
    sheet = Image.new("RGB", (arguments.width, sum(part.height for part in rows) + GAP_PX), "white")
    sheet.paste(rows[0], (0, 0))
    sheet.paste(rows[1], (0, rows[0].height + GAP_PX))
    sheet.save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
