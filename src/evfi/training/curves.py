"""What a run writes down as it goes: numbers, their plot, sample pictures.

metrics.jsonl    a line per logged step and per validation
curves.png       the same as pictures, drawn anew at each validation
tensorboard/     the same for TensorBoard, where it is installed
samples/         pictures made by the networks

Files of these names that are not a run's are moved aside.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from evfi.files import make_room, written_whole
from evfi.plain_json import loads
from evfi.training.run_folder import CURVES_FILE, SAMPLES

_PANEL = (420, 200)  # px of one plot
_MARGIN = (12, 24)  # px kept clear on either side, and above and below
_COLUMNS = 2
_METRICS_FILE: Final = "metrics.jsonl"
_MARK: Final = ("Software", "evfi train")  # in every picture
_MAX_LINE_BYTES: Final = 2**16
_MAX_CURVES: Final = 64

_log = logging.getLogger(__name__)

Series = dict[str, dict[int, float]]
"""Values by step, by name."""


class Curves:
    """Writes numbers and pictures of a run as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metrics = folder / _METRICS_FILE
        make_room(self._metrics, _is_metrics)
        self._end_line()
        self._board = _tensorboard(folder / "tensorboard")

    def numbers(self, step: int, figures: dict[str, float]) -> None:
        """Add a line to the curves."""
        line = json.dumps({"step": step, **{name: float(f"{value:.6g}") for name, value in figures.items()}})
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        for name, value in figures.items():
            if self._board is not None:
                self._board.add_scalar(name, value, step)

    def pictures(self, step: int, rows: Tensor) -> None:
        """Write rows of pictures [N, M, 3, H, W] in [-1, 1] as one PNG."""
        sheet = rows.permute(0, 3, 1, 4, 2)  # [N, M, 3, H, W] -> [N, H, M, W, 3]
        sheet = sheet.reshape(sheet.shape[0] * sheet.shape[1], -1, 3)
        pixels = ((sheet.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
        folder = self.folder / SAMPLES
        folder.mkdir(exist_ok=True)
        _save(Image.fromarray(np.ascontiguousarray(pixels)), folder / f"step-{step:07d}.png")

    def plot(self) -> None:
        """Draw every curve so far as `curves.png`."""
        series = read_series(self._metrics)
        if series:
            _save(draw_series(series), self.folder / CURVES_FILE)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._board is not None:
            self._board.close()

    def _end_line(self) -> None:
        """Let the next line begin on its own, where a run was killed in the middle of one."""
        if self._metrics.is_file() and self._metrics.stat().st_size:
            with self._metrics.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")


def read_series(path: Path) -> Series:
    """The curves in a run's metrics.jsonl; of a step that was made twice, after a resume, the later line counts.

    Lines that are not whole, as a power cut leaves them, are passed over: they are for looking at only. So are curves after
    the first `_MAX_CURVES`.
    """
    series: Series = {}
    for line in _lines_of(path):
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
            figures = loads(line, finite=False)  # a loss may become NaN
            step = int(figures.pop("step"))
            for name, value in figures.items():
                if name in series or len(series) < _MAX_CURVES:
                    series.setdefault(name, {})[step] = float(value)
    return series


def _lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file; those that are too long come in parts."""
    if path.is_file():
        with path.open("rb") as stream:
            yield from iter(lambda: stream.readline(_MAX_LINE_BYTES), b"")


def _is_metrics(file: Path) -> bool:
    """Whether a file begins as curves do; a shorter one, whether it could."""
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as stream:
        first = stream.read(_MAX_LINE_BYTES).split(b"\n")[0]
    begins = b'{"step": '
    return first.startswith(begins) or begins.startswith(first)


def _save(picture: Image.Image, file: Path) -> None:
    """Write a picture with a mark, and move aside what has none."""
    make_room(file, _is_marked)
    mark = PngInfo()
    mark.add_text(*_MARK)
    with written_whole(file) as partial:
        picture.save(partial, format="PNG", pnginfo=mark)


def _is_marked(file: Path) -> bool:
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            return not file.is_symlink() and picture.info.get(_MARK[0]) == _MARK[1]
    except (OSError, ValueError, SyntaxError):
        return False


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
        _log.info("tensorboard is not installed; curves are written to metrics.jsonl and curves.png only")
        return None
    return SummaryWriter(str(folder))
