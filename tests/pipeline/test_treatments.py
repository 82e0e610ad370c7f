"""What is done with windows that are no ordinary ones."""

from __future__ import annotations

import numpy as np
import pytest

from evfi.errors import ConfigError
from evfi.events.stream import EventStream
from evfi.pipeline.job_config import check_on_gap
from evfi.pipeline.treatments import frames_without_model, treatment_of
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Window


@pytest.mark.parametrize(
    ("kind", "by_itself", "hold", "blend", "interpolate", "fail"),
    [
        ("", "interpolate", "interpolate", "interpolate", "interpolate", "interpolate"),
        ("few-events", "blend", "blend", "blend", "blend", "blend"),
        ("gap", "blend", "hold", "blend", "interpolate", None),
        ("no-events", "blend", "hold", "blend", "interpolate", None),
        ("cut", "hold", "hold", "blend", "interpolate", None),
        ("exposure", "interpolate", "hold", "blend", "interpolate", None),
    ],
)
def test_every_finding_and_every_choice(kind, by_itself, hold, blend, interpolate, fail):
    assert treatment_of(kind, 100, None) == by_itself
    assert treatment_of(kind, 100, "hold") == hold
    assert treatment_of(kind, 100, "blend") == blend
    assert treatment_of(kind, 100, "interpolate") == interpolate
    assert treatment_of(kind, 100, "fail") == fail


@pytest.mark.parametrize("kind", ["", "gap", "no-events", "exposure"])
def test_without_any_event_nothing_can_be_interpolated(kind):
    assert treatment_of(kind, 0, "interpolate") == "blend"


def test_choices():
    for choice in (None, "hold", "blend", "interpolate", "fail"):
        check_on_gap(choice)
    with pytest.raises(ConfigError, match="one of hold, blend, interpolate, fail, got 'skip'"):
        check_on_gap("skip")


def test_frames():
    start, end = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8)
    events = EventStream.from_arrays([], [], [], [], (1, 1))
    window = Window(WindowSpec(0, 0, 1, np.array([0, 10, 40, 100])), start, end, events)
    assert frames_without_model(window, "hold")[:, 0, 0, 0].tolist() == [0, 0, 0, 200]
    assert frames_without_model(window, "blend")[:, 0, 0, 0].tolist() == [0, 20, 80, 200]
