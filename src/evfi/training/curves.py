"""What a run writes down as it goes: numbers, their plot, sample pictures.

metrics.jsonl    a line per logged step and per validation
curves.png       the same as pictures, drawn anew at each validation
tensorboard/     the same for TensorBoard, where it is installed
samples/         pictures made by the networks
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

_PANEL = (420, 200)  # px of one plot
_MARGIN = (12, 24)  # px kept clear on either side, and above and below
_COLUMNS = 2

Series = dict[str, dict[int, float]]
"""Values by step, by name."""


class Curves:
    """Writes numbers and pictures of a run as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._board = _tensorboard(folder / "tensorboard")

    def numbers(self, step: int, figures: dict[str, float]) -> None:
        """Add a line to the curves."""
        line = json.dumps({"step": step, **{name: float(f"{value:.6g}") for name, value in figures.items()}})
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        for name, value in figures.items():
            if self._board is not None:
                self._board.add_scalar(name, value, step)

    def pictures(self, step: int, rows: Tensor) -> None:
        """Write rows of pictures [N, M, 3, H, W] in [-1, 1] as one PNG."""
        sheet = rows.permute(0, 3, 1, 4, 2)  # [N, M, 3, H, W] -> [N, H, M, W, 3]
        sheet = sheet.reshape(sheet.shape[0] * sheet.shape[1], -1, 3)
        pixels = ((sheet.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"step-{step:07d}.png")

    def plot(self) -> None:
        """Draw every curve so far as `curves.png`."""
        series = read_series(self.folder / "metrics.jsonl")
        if series:
            draw_series(series).save(self.folder / "curves.png")

    def close(self) -> None:
        """Write out what is buffered."""
        if self._board is not None:
            self._board.close()


def read_series(path: Path) -> Series:
    """The curves in a run's metrics.jsonl; of a step that was made twice, after a resume, the later line counts.

    Lines that are not whole, as a power cut leaves them, are passed over: they are for looking at only.
    """
    series: Series = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):
            figures = json.loads(line)
            step = int(figures.pop("step"))
            for name, value in figures.items():
                series.setdefault(name, {})[step] = float(value)
    return series


def draw_series(series: Series) -> Image.Image:
    """One panel per curve, two beside each other: value over step, with its range."""
    width, height = _PANEL
    rows = -(-len(series) // _COLUMNS)
    sheet = Image.new("RGB", (width * _COLUMNS, height * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (name, values) in enumerate(series.items()):
        left, top = index % _COLUMNS * width, index // _COLUMNS * height
        points = sorted((step, value) for step, value in values.items() if math.isfinite(value))
        draw.rectangle((left + 4, top + 4, left + width - 5, top + height - 5), outline="#bbbbbb")
        draw.text((left + _MARGIN[0], top + 8), _caption(name, points), fill="black")
        if points:
            draw.line(_placed(points, left, top), fill="#1f5fa8", width=2)
    return sheet


def _caption(name: str, points: Sequence[tuple[int, float]]) -> str:
    if not points:
        return f"{name}: no finite value"
    values = [value for _, value in points]
    return f"{name}: last {values[-1]:.4g}, range {min(values):.4g} to {max(values):.4g}, {points[-1][0]} steps"


def _placed(points: Sequence[tuple[int, float]], left: int, top: int) -> list[tuple[float, float]]:
    """Where (step, value) pairs lie in the panel at (left, top); a single one becomes a short line."""
    steps, values = np.array(points, np.float64).T
    x = (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    y = (values.max() - values) / max(float(np.ptp(values)), 1e-12)
    place_x = left + _MARGIN[0] + x * (_PANEL[0] - 2 * _MARGIN[0])
    place_y = top + _MARGIN[1] + 4 + y * (_PANEL[1] - 2 * _MARGIN[1])
    placed = list(zip(place_x.tolist(), place_y.tolist(), strict=True))
    return placed if len(placed) > 1 else [*placed, (placed[0][0] + 3, placed[0][1])]


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("evfi: tensorboard is not installed; curves go to metrics.jsonl and curves.png alone", file=sys.stderr)
        return None
    return SummaryWriter(str(folder))
