"""Pictures of a report: their size, their encoding, and the most informative row for a slice through time."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evfi.report.markup import Html, element

LARGEST_EDGE_PX: Final = 448
"""Larger pictures are made smaller, where nothing else is asked for."""

_QUALITY: Final = 86


def shown_size(picture: NDArray[np.uint8], largest_px: int = LARGEST_EDGE_PX) -> tuple[int, int]:
    """(width, height) in px at which a picture is shown."""
    height, width = picture.shape[:2]
    scale = min(1.0, largest_px / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def data_uri(picture: NDArray[np.uint8], largest_px: int = LARGEST_EDGE_PX) -> str:
    """A picture as text that a page can hold: WebP at the size at which it is shown; the same for the same pixels."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.size != shown_size(picture, largest_px):
        image = image.resize(shown_size(picture, largest_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture_element(picture: NDArray[np.uint8], words: str, largest_px: int = LARGEST_EDGE_PX) -> Html:
    """A picture inside the page, with words for those who cannot see it."""
    width, height = shown_size(picture, largest_px)
    uri = data_uri(picture, largest_px)
    return element("img", src=uri, alt=words, width=width, height=height, loading="lazy")


def picture_figure(picture: NDArray[np.uint8], caption: str, largest_px: int = LARGEST_EDGE_PX) -> Html:
    """A picture inside the page with its caption below."""
    return element("figure", picture_element(picture, caption, largest_px), element("figcaption", caption))


def busiest_row(pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]], smoothing_rows: int = 1) -> int:
    """The row of pixels that changes most between the pictures of pairs, counted from 0 at the top.

    Args:
        pairs: at least one, of pictures uint8 [H, W, 3] of one size.
        smoothing_rows: changes are averaged over so many rows, an odd number; beyond the edges nothing changes.
    """
    changes = np.sum([np.abs(after.astype(np.int16) - before).mean(axis=(1, 2)) for before, after in pairs], axis=0)
    half = smoothing_rows // 2
    sums = np.cumsum(np.pad(changes, (half + 1, half)))
    return int(np.argmax(changes if half == 0 else sums[smoothing_rows:] - sums[:-smoothing_rows]))
