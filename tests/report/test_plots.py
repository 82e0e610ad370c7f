from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from evfi.report.plots import Axis

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


@given(low=NUMBERS, span=st.floats(1e-4, 1e6), most=st.integers(3, 10))
def test_ticks_are_round_few_and_inside(low: float, span: float, most: int) -> None:
    axis = Axis(low, low + span, 0.0, 100.0)
    ticks = axis.ticks(most)
    assert len(ticks) <= most + 1 and all(low - 1e-3 * span <= tick <= low + 1.001 * span for tick in ticks)
    steps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    for step in steps:
        assert re.match(r"[125]\.0+e", f"{step:.3e}") or re.match(r"(9\.9+|4\.9+|1\.9+|0\.9+)", f"{step:.3e}")
    labels = [axis.label(tick, most) for tick in ticks]
    assert len(set(labels)) == len(labels)


def test_tick_labels() -> None:
    axis = Axis(-0.3, 0.3, 0.0, 100.0)
    assert [axis.label(tick, 6) for tick in axis.ticks(6)] == ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2", "0.3"]
    assert [Axis(20, 45, 0, 1).label(tick, 6) for tick in Axis(20, 45, 0, 1).ticks(6)] == [
        "20",
        "25",
        "30",
        "35",
        "40",
        "45",
    ]


def test_axis_keeps_inside() -> None:
    axis = Axis(0.0, 10.0, 50.0, 150.0)
    assert [axis.at(value) for value in (0, 5, 10, -3, 99)] == [50, 100, 150, 50, 150]
