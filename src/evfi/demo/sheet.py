"""Labelled pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

_GAP_PX: Final = 6
_PAPER: Final = (250, 250, 248)
_INK: Final = (34, 34, 40)
_FAINT_INK: Final = (110, 110, 120)


def label_row(panels: Sequence[Picture], titles: Sequence[str] = (), notes: Sequence[str] = ()) -> Picture:
    """Put pictures of one height side by side, each with a title above it if there are titles.

    Args:
        panels: uint8 [H, W, 3] each.
        titles: One per picture.
        notes: A second, fainter line per picture.

    Returns:
        uint8 [H + header, total width, 3].
    """
    size = max(10, round(panels[0].shape[0] / 15))
    header = round(size * (3.0 if notes else 1.7)) if titles else 0
    width = sum(panel.shape[1] for panel in panels) + _GAP_PX * (len(panels) + 1)
    sheet = Image.new("RGB", (width, panels[0].shape[0] + header), _PAPER)
    draw = ImageDraw.Draw(sheet)
    left = _GAP_PX
    for number, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel), (left, header))
        if titles:
            draw.text((left + 1, size * 0.25), titles[number], fill=_INK, font=ImageFont.load_default(size))
        if notes:
            font = ImageFont.load_default(round(size * 0.85))
            draw.text((left + 1, size * 1.6), notes[number], fill=_FAINT_INK, font=font)
        left += panel.shape[1] + _GAP_PX
    return np.array(sheet)


def stack_rows(rows: Sequence[Picture]) -> Picture:
    """Put pictures of one width below each other, with a margin at the bottom."""
    gap = np.full((_GAP_PX, rows[0].shape[1], 3), _PAPER, dtype=np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)])


def magnify(picture: Picture, box: tuple[int, int, int, int], size: tuple[int, int]) -> Picture:
    """Cut a box out and enlarge it without smoothing.

    Args:
        picture: uint8 [H, W, 3].
        box: (left, top, right, bottom) in px.
        size: (width, height) of the result.

    Returns:
        uint8 [height, width, 3].
    """
    return np.array(Image.fromarray(picture).crop(box).resize(size, Image.Resampling.NEAREST))


def outline(picture: Picture, box: tuple[int, int, int, int]) -> Picture:
    """Draw the outline of a box into a copy of a picture."""
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).rectangle(box, outline=(255, 255, 255), width=1)
    return np.array(image)
