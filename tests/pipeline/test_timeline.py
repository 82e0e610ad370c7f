"""When each frame of a video is shown, and of which moment it is."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evfi.errors import ConfigError, RecordingError
from evfi.pipeline.job_plan import read_times
from evfi.pipeline.timeline import Timeline, key_frame_rate, plan_timeline

STEP_US = 40_000
EVEN = 1_000_000 + STEP_US * np.arange(5, dtype=np.int64)


def shown(timeline: Timeline) -> list[int]:
    return list(timeline.shown_us())


@st.composite
def key_times(draw: st.DrawFn) -> np.ndarray:
    """Key frames at some rate, jittered by up to a third of their distance, some of them missing."""
    step = draw(st.integers(5_000, 200_000))
    number = draw(st.integers(3, 12))
    jitter = draw(st.lists(st.integers(-step // 3, step // 3), min_size=number, max_size=number))
    times = draw(st.integers(0, 2**51)) + step * np.arange(number) + np.array(jitter)
    missing = draw(st.sets(st.integers(1, number - 2), max_size=number // 3))
    return np.delete(times, sorted(missing)).astype(np.int64)


@given(key_times(), st.integers(1, 30), st.none() | st.floats(1, 240))
def test_all_key_frames_are_shown_between_inserted_frames(times, insert, fps):
    timeline = plan_timeline(times, insert=insert, fps=fps)
    assert timeline.num_frames == (len(times) - 1) * (insert + 1) + 1
    assert timeline.num_inserted == (len(times) - 1) * insert
    assert timeline.num_shown_key_frames == timeline.num_key_frames == len(times)
    np.testing.assert_array_equal(timeline.times_us[:: insert + 1], times)
    assert (np.diff(timeline.times_us) > 0).all()
    assert len(shown(timeline)) == timeline.num_frames


@given(key_times(), st.integers(1, 10), st.none() | st.floats(1, 240))
def test_times_of_a_variable_rate_are_proportional_to_the_recordings(times, insert, fps):
    timeline = plan_timeline(times, insert=insert, fps=fps)
    moments = timeline.times_us - timeline.times_us[0]
    if timeline.is_constant:
        even = np.arange(timeline.num_frames) * 1e6 / timeline.playback.fps
        strays = np.abs(moments * timeline.playback.slowdown - even).max()
        assert strays <= 0.0501 * 1e6 / timeline.playback.fps
        assert timeline.smallest_step_us == pytest.approx(1e6 / timeline.playback.fps)
    else:
        exact = moments * timeline.playback.slowdown
        assert np.abs(np.array(shown(timeline)) - exact).max() <= 0.5 + 1e-6 * exact[-1] * 1e-6
        assert timeline.smallest_step_us == pytest.approx(np.diff(exact).min(), abs=1e-3)


def test_even_key_frames_play_at_a_constant_rate_and_a_lost_one_does_not():
    assert plan_timeline(EVEN, insert=3).is_constant
    assert not plan_timeline(np.delete(EVEN, 2), insert=3).is_constant


@given(key_times(), st.floats(2, 40), st.floats(5, 500))
def test_a_slowdown_is_a_grid_in_the_recordings_time(times, slowdown, fps):
    try:
        timeline = plan_timeline(times, slowdown=slowdown, fps=fps)
    except ConfigError as error:
        assert "needs no inserted frames" in str(error) or "µs apart" in str(error)
        return
    step = 1e6 / (timeline.playback.fps * timeline.playback.slowdown)
    moments, keys = timeline.times_us, set(times.tolist())
    grid = np.arange(timeline.num_frames) * step
    strays = np.abs(moments - times[0] - grid)
    is_key = np.array([int(moment) in keys for moment in moments])
    assert (strays[~is_key] <= 0.5 + 1e-6).all()  # whole µs, nothing else
    assert (
        strays[is_key] <= max(0.1 * step, 0.5) + 1e-6
    ).all()  # key frames that the grid nearly meets are taken for it
    assert (np.diff(moments) > 0).all()
    assert times[-1] - step < moments[-1] <= times[-1]
    assert timeline.is_constant
    assert timeline.num_shown_key_frames == is_key.sum()
    for window in timeline.windows:
        inner = window.spec.times_us[1:-1]
        assert (np.diff(window.spec.times_us) > 0).all()
        assert not keys & set(inner.tolist())
        assert len(window.positions) > 0


def test_key_frames_further_apart_have_more_frames_between_them():
    timeline = plan_timeline(np.delete(EVEN, 2), slowdown=4)
    assert [window.spec.num_inserted for window in timeline.windows] == [3, 7, 3]
    assert timeline.times_us.tolist() == list(range(1_000_000, 1_160_001, 10_000))
    assert timeline.num_shown_key_frames == 4
    assert timeline.playback.fps == pytest.approx(25)


def test_key_frames_that_the_grid_does_not_meet_are_not_shown():
    times = np.array(
        [0, 40_000, 75_000, 120_000, 160_000], np.int64
    )  # the third 5 ms too early; the grid's step is 20 ms
    timeline = plan_timeline(times, slowdown=2)
    assert timeline.times_us.tolist() == list(range(0, 160_001, 20_000))
    assert timeline.num_shown_key_frames == 4
    assert timeline.num_key_frames == 5
    assert [window.spec.times_us.tolist() for window in timeline.windows[1:3]] == [
        [40_000, 60_000, 75_000],
        [75_000, 80_000, 100_000, 120_000],
    ]


def test_a_window_without_a_grid_time_is_left_out():
    times = np.array([0, 1_000, 2_000, 2_100, 3_000, 4_000, 5_000], np.int64)
    timeline = plan_timeline(times, slowdown=2)  # steps of 416.7 µs: 1667, 2083 (taken for 2100), 2500
    assert [window.spec.index for window in timeline.windows] == [0, 1, 3, 4, 5]
    assert timeline.times_us.tolist() == [0, 417, 833, 1250, 1667, 2100, 2500, 2917, 3333, 3750, 4167, 4583, 5000]


@given(st.integers(1, 40), st.floats(1, 3))
def test_grids_of_a_few_microseconds_lose_no_frame(number, step):
    times = np.arange(0, 10 * number + 1, 10, dtype=np.int64)
    timeline = plan_timeline(times, slowdown=1e6 / step / 1000, fps=1000)
    step = 1e6 / (timeline.playback.fps * timeline.playback.slowdown)
    grid = np.arange(timeline.num_frames) * step
    assert np.abs(timeline.times_us - grid).max() <= 0.5 + 1e-6
    assert times[-1] - timeline.times_us[-1] < step


def test_a_part_begins_with_the_window_that_holds_its_start():
    timeline = plan_timeline(EVEN, insert=1, start_us=1_050_000, end_us=1_100_000)
    assert [window.spec.index for window in timeline.windows] == [1, 2]
    assert timeline.times_us.tolist() == [1_040_000, 1_060_000, 1_080_000, 1_100_000, 1_120_000]
    assert timeline.num_key_frames == 3


def test_durations():
    timeline = plan_timeline(EVEN, insert=3, fps=50)
    assert shown(timeline) == [20_000 * index for index in range(17)]
    assert timeline.playback.slowdown == pytest.approx(2)
    assert timeline.smallest_step_us == pytest.approx(20_000)
    timeline = plan_timeline(np.array([0, 40_000, 100_000, 140_000], np.int64), insert=1)
    assert not timeline.is_constant
    slowdown = timeline.playback.slowdown
    steps = np.array([0, 20_000, 40_000, 70_000, 100_000, 120_000, 140_000])
    assert shown(timeline) == [round(step * slowdown) for step in steps]
    assert timeline.smallest_step_us == pytest.approx(20_000 * slowdown)


@given(st.sets(st.integers(int(EVEN[0]), int(EVEN[-1])), min_size=1, max_size=40))
def test_a_list_of_times_is_shown_and_nothing_else(asked):
    timeline = plan_timeline(EVEN, times_us=sorted(asked))
    assert timeline.times_us.tolist() == sorted(asked)
    assert timeline.num_inserted == len(asked - set(EVEN.tolist()))
    assert timeline.is_constant


@given(st.sets(st.sampled_from(EVEN.tolist()), min_size=1))
def test_key_frames_alone_may_be_asked_for(asked):
    timeline = plan_timeline(EVEN, times_us=sorted(asked))
    assert timeline.times_us.tolist() == sorted(asked)
    assert timeline.num_inserted == 0


def test_a_list_of_times_plays_at_the_mean_speed():
    timeline = plan_timeline(EVEN, times_us=[1_000_000, 1_010_000, 1_050_000, 1_100_000], fps=10)
    assert timeline.playback.fps == 10
    assert timeline.playback.slowdown == pytest.approx(3)  # 100 ms in three steps of 100 ms each
    assert plan_timeline(EVEN, times_us=[1_010_000]).playback.slowdown == 1


def test_missing_key_frames_do_not_lower_the_rate():
    assert key_frame_rate(EVEN) == pytest.approx(25)
    assert key_frame_rate(np.delete(EVEN, 2)) == pytest.approx(25)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"insert": 0}, ConfigError, "at least 1"),
        ({"insert": 3, "slowdown": 2}, ConfigError, "either insert or slowdown"),
        ({"slowdown": 1}, ConfigError, "needs no inserted frames"),
        ({"slowdown": float("nan")}, ConfigError, "positive number"),
        ({"slowdown": 1e6, "fps": 50}, ConfigError, "frames 0.02 µs apart; times are whole microseconds"),
        ({"insert": 50_000}, ConfigError, "insert fewer"),
        ({"times_us": [1_000_001], "insert": 3}, ConfigError, "leave out insert"),
        ({"times_us": [1_000_001], "slowdown": 3}, ConfigError, "leave out slowdown"),
        ({"times_us": [1_000_001], "end_us": 3}, ConfigError, "leave out end"),
        ({"times_us": [5]}, ConfigError, "outside the key frames"),
        ({"times_us": []}, ConfigError, "non-empty"),
        ({"start_us": 1_160_000}, RecordingError, "choose an earlier start"),
    ],
)
def test_settings_that_make_no_video(settings, error, message):
    with pytest.raises(error, match=message):
        plan_timeline(EVEN, **settings)


class TestReadTimes:
    def test_one_per_line(self, tmp_path: Path):
        file = tmp_path / "times.txt"
        file.write_text("# chosen by hand\n\n 12 \n-5\r\n+7\n")
        assert read_times(file) == [12, -5, 7]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"1\n2.5\n", "line 2: expected a whole number of µs, found '2.5'"),
            (b"#\n", "no times"),
            (b"\xff", "cannot"),
        ],
    )
    def test_what_is_no_list_of_times(self, tmp_path: Path, content, message):
        file = tmp_path / "times.txt"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_times(file)

    def test_no_such_file(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="cannot read the output times"):
            read_times(tmp_path / "none.txt")


@pytest.mark.parametrize("last_us", [2 * 10**11, 2 * 10**13, 2**61])
def test_a_wrong_frame_time_is_refused_before_memory_is_taken(last_us):
    times = np.array([0, 40_000, 80_000, last_us])
    tracemalloc.start()
    with pytest.raises(
        ConfigError, match=rf"frames between frames 2 and 3 of the recording \(at 80000 and {last_us} µs\)"
    ):
        plan_timeline(times, slowdown=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


def test_too_many_frames_in_many_windows_are_refused():
    with pytest.raises(
        ConfigError, match="asks for about 1e\\+07 frames, at most 10000000 can be made at a time; use a lower"
    ):
        plan_timeline(40_000 * np.arange(1002), slowdown=10_000)
    assert plan_timeline(40_000 * np.arange(12), slowdown=1_000).num_frames == 11_001


def test_where_frames_lie_too_far_apart_for_a_video():
    gap = 10**10
    times = np.concatenate([EVEN, EVEN + gap])
    timeline = plan_timeline(times, insert=3)
    window, shown_us = timeline.too_far_apart(1e9, 4)
    assert window.spec.times_us[[0, -1]].tolist() == [EVEN[-1], EVEN[0] + gap]
    assert shown_us == pytest.approx(4 * (EVEN[0] + gap - EVEN[-1]))
    assert timeline.too_far_apart(4.1e10, 4) is None
    assert timeline.too_far_apart(4e9, 10**6)[0] is window
    assert plan_timeline(EVEN, insert=3).too_far_apart(1, 4) is None  # constant rate
