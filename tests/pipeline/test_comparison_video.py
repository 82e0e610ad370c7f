"""Input, events and result side by side."""

from __future__ import annotations

import numpy as np
import pytest

from evfi.events.render import NEGATIVE_COLOUR, POSITIVE_COLOUR, WHITE, render_events
from evfi.events.stream import EventStream
from evfi.pipeline.comparison_video import comparison_frame, comparison_size


def flat(value: int, size: tuple[int, int]) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, dtype=np.uint8)


def some_events(sensor_size: tuple[int, int], count: int = 200) -> EventStream:
    rng = np.random.default_rng(4)
    return EventStream.from_arrays(
        x=rng.integers(0, sensor_size[0], count),
        y=rng.integers(0, sensor_size[1], count),
        t=np.arange(count),
        p=rng.choice([-1, 1], count),
        sensor_size=sensor_size,
    )


@pytest.mark.parametrize(
    ("size", "expected"), [((346, 260), (1046, 274)), ((1280, 720), (3848, 756)), ((33, 21), (107, 35))]
)
def test_size(size: tuple[int, int], expected: tuple[int, int]):
    assert comparison_size(size) == expected
    assert comparison_frame(flat(1, size), some_events((8, 8)), flat(2, size)).shape == (*reversed(expected), 3)


def test_panels_hold_the_pictures(size: tuple[int, int] = (90, 61)):
    held, result = np.random.default_rng(1).integers(0, 256, (2, 61, 90, 3), dtype=np.uint8)
    events = some_events(size)
    picture = comparison_frame(held, events, result)
    assert picture.dtype == np.uint8
    panels = picture[14:]
    np.testing.assert_array_equal(panels[:, :90], held)
    np.testing.assert_array_equal(panels[:, 94:184], render_events(events, size=size))
    np.testing.assert_array_equal(panels[:, 188:], result)
    for gap in (picture[:, 90:94], picture[:, 184:188]):
        assert gap.max() < 40


def test_events_of_a_smaller_sensor_fill_their_pixels():
    event = EventStream.from_arrays(x=[3, 0], y=[2, 0], t=[0, 1], p=[1, -1], sensor_size=(4, 3))
    panel = comparison_frame(flat(0, (40, 30)), event, flat(0, (40, 30)))[14:, 44:84]
    assert (panel[20:, 30:] == panel[25, 35]).all()
    assert (panel[:10, :10] == panel[5, 5]).all()
    assert (panel[12:18, :] == WHITE).all()
    for pixel, colour in ((panel[25, 35], POSITIVE_COLOUR), (panel[5, 5], NEGATIVE_COLOUR)):
        assert int(np.argmax(pixel)) == int(np.argmax(colour))


def test_no_events_are_white():
    empty = EventStream.from_arrays(x=[], y=[], t=[], p=[], sensor_size=(40, 30))
    assert (comparison_frame(flat(0, (40, 30)), empty, flat(0, (40, 30)))[14:, 44:84] == 255).all()


@pytest.mark.parametrize("width", [346, 64, 12, 1])
def test_labels_stand_above_and_stay_in_their_panel(width: int):
    picture = comparison_frame(flat(0, (width, 48)), some_events((8, 8)), flat(0, (width, 48)))
    strip = picture[:14].astype(int)
    lefts = [0, width + 4, 2 * width + 8]
    if width >= 64:
        for left in lefts:
            label = strip[:, left : left + width]
            assert 100 < label.max() < 220
            assert (label[:, -2:] < 60).all()
    for left in lefts[1:]:
        assert (strip[:, left - 4 : left] == strip[0, left - 1]).all()


def test_pictures_are_ones_own():
    first = comparison_frame(flat(9, (64, 48)), some_events((8, 8)), flat(9, (64, 48)))
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(comparison_frame(flat(9, (64, 48)), some_events((8, 8)), flat(9, (64, 48))), kept)
