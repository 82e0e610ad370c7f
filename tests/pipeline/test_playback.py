"""Inserted frames, speed and slowdown hang together."""

from __future__ import annotations

import pytest

from evfi.errors import ConfigError
from evfi.pipeline.playback import Playback, plan_playback


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (7, 25.0, 8.0)),
        ({"insert": 3}, (3, 25.0, 4.0)),
        ({"insert": 3, "fps": 50.0}, (3, 50.0, 2.0)),
        ({"fps": 100.0}, (7, 100.0, 2.0)),
        ({"slowdown": 8}, (7, 25.0, 8.0)),
        ({"slowdown": 2.6}, (2, 25.0 * 3 / 2.6, 2.6)),
        ({"slowdown": 4, "fps": 50.0}, (7, 50.0, 4.0)),
        ({"slowdown": 1, "fps": 240.0}, (9, 240.0, 250 / 240)),
    ],
)
def test_two_give_the_third(given, expected):
    playback = plan_playback(25.0, **given)
    assert playback.insert == expected[0]
    assert (playback.fps, playback.slowdown) == pytest.approx(expected[1:])


def test_the_result_is_plain():
    assert plan_playback(30.0, insert=1) == Playback(1, 30.0, 2.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"insert": 3, "slowdown": 4}, "either insert or slowdown"),
        ({"insert": 0}, "at least 1"),
        ({"slowdown": 1}, "use a slowdown of 2 or more"),
        ({"slowdown": 1, "fps": 25.0}, "at 25 fps needs no inserted frames"),
        ({"slowdown": float("nan")}, "slowdown must be a positive"),
        ({"fps": -1.0}, "fps must be a positive"),
        ({"fps": float("inf")}, "fps must be a positive"),
    ],
)
def test_contradictions_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        plan_playback(25.0, **given)


@pytest.mark.parametrize(
    ("slowdown", "words"),
    [(8, "8 times slower than real time"), (1.0, "at original speed"), (0.5, "2 times faster than real time")],
)
def test_the_speed_in_words(slowdown, words):
    assert Playback(1, 25.0, slowdown).speed == words
