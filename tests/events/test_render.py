"""Events drawn as pictures."""

from __future__ import annotations

import numpy as np
import pytest

from evfi.errors import ConfigError
from evfi.events.render import NEGATIVE_COLOUR, POSITIVE_COLOUR, render_events
from evfi.events.stream import EventStream


def stream(*events: tuple[int, int, int, int]) -> EventStream:
    x, y, t, p = zip(*events, strict=True)
    return EventStream.from_arrays(x, y, t, p, (6, 4))


def test_colours_and_ground():
    picture = render_events(stream((1, 2, 0, 1), (4, 0, 1, -1)), saturation=1)
    assert picture.shape == (4, 6, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[2, 1]) == POSITIVE_COLOUR
    assert tuple(picture[0, 4]) == NEGATIVE_COLOUR
    assert (picture == 255).all(axis=-1).sum() == 22


def test_more_events_are_stronger_and_opposite_ones_cancel():
    picture = render_events(
        stream(
            (0, 0, 0, 1),
            (1, 0, 0, 1),
            (1, 0, 1, 1),
            (2, 0, 2, 1),
            (2, 0, 3, -1),
            (2, 0, 4, -1),
            (3, 0, 5, 1),
            (3, 0, 6, -1),
        )
    ).astype(int)
    assert picture[0, 1, 1] < picture[0, 0, 1] < 255
    assert picture[0, 2, 2] > picture[0, 2, 0]
    assert (picture[0, 3] == 255).all()


def test_over_a_frame_of_another_resolution():
    frame = np.zeros((8, 12, 3), dtype=np.uint8)
    picture = render_events(stream((5, 3, 0, 1)), over=frame, saturation=1)
    assert picture.shape == frame.shape
    assert tuple(picture[6, 10]) == POSITIVE_COLOUR
    assert (picture[:6] == 127).all()


def test_empty_slice_is_white():
    assert (render_events(stream((0, 0, 5, 1)).slice(0, 5)) == 255).all()


def test_bad_settings():
    with pytest.raises(ConfigError, match="saturation"):
        render_events(stream((0, 0, 0, 1)), saturation=0)
    with pytest.raises(ConfigError, match="to draw on"):
        render_events(stream((0, 0, 0, 1)), size=(3, 3), over=np.zeros((4, 6, 3), dtype=np.uint8))
