"""Show how well the time offset and the shift between frames and events are estimated: a picture of curves, and a table.

python scripts/draw_alignment.py RECORDING ... [--picture docs/images/alignment.png] [--table]

The picture shows the correlation over the time offset, one line per recording. The table inserts errors that are known
(the frames' times moved by ±2 ms and ±1.3 ms, the events by ±1 px in x and in y, and both at once) and shows by how much
the estimate answers, relative to the estimate without them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import evfi
from evfi.recordings.alignment import shifted_mapping
from evfi.recordings.estimation import AlignmentEstimate, estimate_alignment
from evfi.recordings.recording import Recording
from evfi.recordings.retiming import retimed

COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b9770e", "#6c3483", "#424949")
WIDTH, HEIGHT, MARGIN = 960, 480, 60
OFFSETS_US = (-2000, -1300, 1300, 2000)
SHIFTS_PX = ((1, 0), (-1, 0), (0, 1), (0, -1))


def moved(recording: Recording, offset_us: int, shift_px: tuple[float, float]) -> Recording:
    """The recording as if its frame times and its mapping were wrong, so that the estimate grows by these amounts."""
    frames = retimed(recording.path, recording.frames, None, -offset_us)
    mapping = shifted_mapping(recording.sensor_to_frame, (-shift_px[0], -shift_px[1]))
    return replace(recording, frames=frames, sensor_to_frame=mapping)


def print_recovery(recording: Recording) -> None:
    """Rows of a Markdown table: what was inserted, what was found of it, alone and together."""
    plain = estimate_alignment(recording, shift=False)
    name = recording.path.name
    print(f"| {name} | nothing | {plain.describe(shift=False)} |")
    for offset in OFFSETS_US:
        found = estimate_alignment(moved(recording, offset, (0, 0)), shift=False)
        print(f"| {name} | {offset:+d} µs | {found.time_offset_us - plain.time_offset_us:+d} µs |")
    aligned = moved(recording, -plain.time_offset_us, (0, 0))
    still = estimate_alignment(aligned, offset=False)
    print(f"| {name} | nothing, offset corrected | {still.describe(offset=False)} |")
    for shift in SHIFTS_PX:
        found = estimate_alignment(moved(aligned, 0, shift), offset=False)
        dx, dy = (new - old for new, old in zip(found.shift_px, still.shift_px, strict=True))
        print(f"| {name} | {shift[0]:+d}, {shift[1]:+d} px | {dx:+.2f}, {dy:+.2f} px |")
    both = estimate_alignment(recording)
    print(f"| {name} | nothing, both estimated | {both.describe()} |")
    for offset, shift in ((2000, (1, -1)), (-2000, (-1, 1))):
        found = estimate_alignment(moved(recording, offset, shift))
        dx, dy = (new - old for new, old in zip(found.shift_px, both.shift_px, strict=True))
        difference = found.time_offset_us - both.time_offset_us
        print(
            f"| {name} | {offset:+d} µs and {shift[0]:+d}, {shift[1]:+d} px | {difference:+d} µs, {dx:+.2f}, {dy:+.2f} px |"
        )


def draw_curves(estimates: dict[str, AlignmentEstimate], path: Path) -> None:
    """Correlation over offset, with a mark at each estimate."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    limit = max(float(estimate.curve_offsets_us[-1]) for estimate in estimates.values())

    def at(offset_us: float, correlation: float) -> tuple[float, float]:
        x = MARGIN + (offset_us / limit + 1) / 2 * (WIDTH - 2 * MARGIN)
        return x, HEIGHT - MARGIN - max(correlation, 0) * (HEIGHT - 2 * MARGIN)

    for level in np.arange(0, 1.01, 0.2):
        draw.line([at(-limit, level), at(limit, level)], "#dddddd")
        draw.text((MARGIN - 34, at(0, level)[1] - 9), f"{level:.1f}", "black", font)
    for offset in np.linspace(-limit, limit, 9):
        draw.line([at(offset, 0), at(offset, 1)], "#dddddd")
        draw.text(at(offset, 0), f"{offset / 1000:+.0f}", "black", font, "ma")
    draw.text((WIDTH / 2, HEIGHT - 24), "time offset tried, ms", "black", font, "mm")
    draw.text((MARGIN, 20), "correlation of polarity sums with log-frame differences", "black", font)
    for index, (name, estimate) in enumerate(estimates.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = zip(estimate.curve_offsets_us, estimate.curve_correlations, strict=True)
        draw.line([at(float(offset), float(value)) for offset, value in points], colour, 3)
        x, y = at(estimate.time_offset_us, estimate.correlation)
        draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=colour)
        label = f"{name}: {estimate.time_offset_us / 1000:+.1f} ms"
        draw.text((MARGIN + 8, MARGIN + 6 + 22 * index), label, colour, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    estimates = {}
    for path in arguments.recordings:
        with evfi.open_recording(path) as recording:
            if arguments.table:
                print_recovery(recording)
            if arguments.picture:
                estimates[path.stem] = estimate_alignment(recording, shift=False)
    if arguments.picture:
        draw_curves(estimates, arguments.picture)


if __name__ == "__main__":
    main()
