"""Frames of the comparison video: input, events and result side by side.

=============  =========  ==========
input, held    events     result       labels, in a strip above
key frame      red, blue  frame        panels of the frames' size, dark lines between them
=============  =========  ==========
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evfi.events.render import render_events
from evfi.events.stream import EventStream
from evfi.video.geometry import Frame, Size, frame_size, resize_frame

LABELS: Final = ("input, held", "events", "result")

_GAP_PX: Final = 4
_STRIP_SHARE: Final = 0.05
_MIN_STRIP_PX: Final = 14
_TEXT_SHARE: Final = 0.72
_DARK: Final = (24, 24, 28)
_INK: Final = (172, 172, 180)


def comparison_size(size: Size) -> Size:
    """(width, height) of a comparison of frames of a size."""
    width, height = size
    return len(LABELS) * width + (len(LABELS) - 1) * _GAP_PX, height + _strip_height(height)


def comparison_frame(held: Frame, events: EventStream, result: Frame) -> Frame:
    """Put the input, the events and the result side by side, labelled.

    Args:
        held: uint8 [H, W, 3], the last key frame at the time shown.
        events: Those to draw, on white; from any sensor that sees what the frames show.
        result: uint8 [H, W, 3], the frame of the video.

    Returns:
        uint8 frame of `comparison_size`.
    """
    size = frame_size(result)
    assert frame_size(held) == size
    panels = (held, _drawn(events, size), result)
    picture = _empty_comparison(size).copy()
    top = _strip_height(size[1])
    for left, panel in zip(_lefts(size), panels, strict=True):
        picture[top:, left : left + size[0]] = panel
    return picture


def _drawn(events: EventStream, size: Size) -> Frame:
    """Events on white; those of a sensor with fewer pixels than the picture fill the whole of their pixel."""
    width, height = (min(sides) for sides in zip(size, events.sensor_size, strict=True))
    return resize_frame(render_events(events, size=(width, height)), size, "NEAREST")


def _strip_height(height: int) -> int:
    return max(_MIN_STRIP_PX, round(_STRIP_SHARE * height))


def _lefts(size: Size) -> list[int]:
    """Where the panels begin, px."""
    return [number * (size[0] + _GAP_PX) for number in range(len(LABELS))]


@lru_cache(maxsize=4)
def _empty_comparison(size: Size) -> Frame:
    """A comparison without pictures: dark, with labels; cached, therefore not to be changed."""
    picture = np.full((*reversed(comparison_size(size)), 3), _DARK, dtype=np.uint8)
    strip = _strip_height(size[1])
    for left, text in zip(_lefts(size), LABELS, strict=True):
        picture[:strip, left : left + size[0]] = _label(text, (size[0], strip))
    picture.setflags(write=False)
    return picture


def _label(text: str, size: Size) -> Frame:
    """A text at the left of a dark strip, smaller where there is little room, and cut off where there is hardly any."""
    width, height = size
    image = Image.new("RGB", size, _DARK)
    draw = ImageDraw.Draw(image)
    margin = max(1, height // 4)
    text_height = max(8.0, height * _TEXT_SHARE)
    needed = draw.textlength(text, font=ImageFont.load_default(text_height)) + 2 * margin
    font = ImageFont.load_default(max(8.0, text_height * min(1.0, width / needed)))
    draw.text((margin, height / 2), text, fill=_INK, font=font, anchor="lm")
    return np.array(image)
