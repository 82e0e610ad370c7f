"""Windows between key frames: which, and at what times."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evfi.errors import ConfigError, RecordingError
from evfi.recordings.planning import plan_windows

FRAMES = np.array([0, 100, 250, 400, 1000], np.int64)


def test_evenly_spaced_windows() -> None:
    specs = plan_windows(FRAMES, insert=3)
    assert [(s.index, s.start_frame, s.end_frame) for s in specs] == [(0, 0, 1), (1, 1, 2), (2, 2, 3), (3, 3, 4)]
    assert specs[0].times_us.tolist() == [0, 25, 50, 75, 100]
    assert specs[1].times_us.tolist() == [100, 138, 175, 213, 250]  # 137.5 and 212.5 are rounded up
    assert specs[0].times_us.dtype == np.int64
    assert specs[0].num_inserted == 3


def test_skip_uses_every_nth_frame_and_leaves_the_rest() -> None:
    specs = plan_windows(FRAMES, insert=1, skip=3)
    assert [(s.index, s.start_frame, s.end_frame, s.times_us.tolist()) for s in specs] == [(0, 0, 3, [0, 200, 400])]


def test_start_and_end_keep_overlapping_windows_and_their_index() -> None:
    def indices(start: int | None, end: int | None) -> list[int]:
        return [s.index for s in plan_windows(FRAMES, insert=1, start_us=start, end_us=end)]

    assert indices(None, None) == [0, 1, 2, 3]
    assert indices(100, 250) == [1]
    assert indices(99, 251) == [0, 1, 2]
    assert indices(-50, 1) == [0]
    assert indices(999, None) == [3]
    for start, end in ((1000, 2000), (-10, 0)):
        with pytest.raises(RecordingError, match="no window between"):
            indices(start, end)
    with pytest.raises(RecordingError, match="no window after 1000 µs; the key frames lie between 0 and 1000 µs"):
        indices(1000, None)
    with pytest.raises(ConfigError, match="must lie after the start"):
        indices(50, 50)


def test_output_times_go_to_the_windows_that_hold_them() -> None:
    specs = plan_windows(FRAMES, times_us=[10, 20, 399, 401])
    assert [(s.index, s.times_us.tolist()) for s in specs] == [
        (0, [0, 10, 20, 100]),
        (2, [250, 399, 400]),
        (3, [400, 401, 1000]),
    ]


def test_key_frame_times_are_in_some_window() -> None:
    assert [s.times_us.tolist() for s in plan_windows(FRAMES, times_us=[100, 120])] == [[100, 120, 250]]
    assert [s.times_us.tolist() for s in plan_windows(FRAMES, times_us=[50, 100])] == [[0, 50, 100]]
    assert [s.times_us.tolist() for s in plan_windows(FRAMES, times_us=[250])] == [[250, 400]]
    assert [s.times_us.tolist() for s in plan_windows(FRAMES, times_us=[1000])] == [[400, 1000]]


@given(st.sets(st.integers(0, 1000), min_size=1), st.integers(1, 4))
def test_every_output_time_is_planned_and_times_increase(times: set[int], skip: int) -> None:
    specs = plan_windows(FRAMES, times_us=sorted(t for t in times if t <= FRAMES[::skip][-1]) or [0], skip=skip)
    planned = {int(t) for spec in specs for t in spec.times_us}
    assert {t for t in times if t <= FRAMES[::skip][-1]} <= planned
    assert all((np.diff(spec.times_us) > 0).all() for spec in specs)
    assert all(a.index < b.index for a, b in pairwise(specs))


@given(st.integers(1, 40), st.integers(0, 2**50))
def test_even_spacing_is_within_half_a_microsecond(insert: int, offset: int) -> None:
    for spec in plan_windows(FRAMES + offset, insert=insert):
        exact = np.linspace(0, spec.times_us[-1] - spec.times_us[0], insert + 2)
        assert np.abs((spec.times_us - spec.times_us[0]) - exact).max() <= 0.5 + 1e-6
        assert (np.diff(spec.times_us) > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either"),
        ({"insert": 1, "times_us": [5]}, "either"),
        ({"insert": 0}, "must be 1 to 1000000, got 0"),
        ({"insert": 100}, "into the 100 µs after key frame time 0 µs"),
        ({"insert": 1, "skip": 0}, "skip must be at least 1"),
        ({"times_us": []}, "non-empty"),
        ({"times_us": [1.5]}, "whole microseconds"),
        ({"times_us": [5, 5]}, "increase strictly"),
        ({"times_us": [7, 5]}, "increase strictly"),
        ({"times_us": [5, 1001]}, "1001 µs lies outside the key frames, which span 0 to 1000"),
        ({"times_us": [5], "start_us": 0}, "either output times or a start"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_windows(FRAMES, **settings)  # type: ignore[arg-type]


def test_even_spacing_over_months() -> None:
    (spec,) = plan_windows(np.array([0, 2 * 10**13]), insert=999_999)
    assert spec.times_us[[1, 2, -2, -1]].tolist() == [2 * 10**7, 4 * 10**7, 2 * 10**13 - 2 * 10**7, 2 * 10**13]


def test_too_many_output_times_in_one_window() -> None:
    frames, times = np.array([0, 10, 3_000_000]), np.arange(1_000_012)
    with pytest.raises(
        ConfigError, match="1000001 output times lie between the key frames at 10 and 3000000 µs, at most"
    ):
        plan_windows(frames, times_us=times)
    assert plan_windows(frames, times_us=times[:-1])[1].num_inserted == 1_000_000
    with pytest.raises(ConfigError, match="at most 10000000 at a time, got 10000001; split them into parts"):
        plan_windows(np.array([0, 2 * 10**7]), times_us=np.arange(10_000_001))


def test_output_times_in_many_windows_take_little_time() -> None:
    frames = 10 * np.arange(20_001)
    began = time.monotonic()
    specs = plan_windows(frames, times_us=np.arange(1, 200_000, 2))
    assert [spec.num_inserted for spec in specs] == [5] * 20_000
    assert time.monotonic() - began < 5  # looking at all times for each window would take minutes


def test_skip_beyond_the_last_frame() -> None:
    with pytest.raises(RecordingError, match="fewer than two of 5 frames"):
        plan_windows(FRAMES, insert=1, skip=5)
