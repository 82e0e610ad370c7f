"""Whether frames explain events, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evfi.evaluation.metrics.base import ScoredWindow
from evfi.evaluation.metrics.event_consistency import METRICS, area_means, area_sums, event_correlation, event_residual
from evfi.events.simulate import SimulatorConfig
from evfi.events.simulate_video import log_luminance, simulate_video
from evfi.events.stream import EventStream
from evfi.pipeline.blending import blend_linearly

_STEP_US = 10_000
_THRESHOLD = 0.1


def _edge(number=4, size=(32, 48), speed=4):
    """A vertical edge that moves right by some pixels per frame, bright behind it."""
    frames = np.full((number, *size, 3), 60, np.uint8)
    for index, frame in enumerate(frames):
        frame[:, : 16 + speed * index] = 180
    return frames


def _events_of(frames, threshold=_THRESHOLD, scale=1):
    """As many events as the log changes call for, rounded, each in the middle of its interval."""
    levels = np.stack([log_luminance(frame[::scale, ::scale]).numpy() for frame in frames])
    counts = np.rint(np.diff(levels, axis=0) / threshold).astype(int)
    interval, y, x = np.nonzero(counts)
    signed = counts[interval, y, x]
    index = np.repeat(np.arange(len(signed)), np.abs(signed))
    return EventStream.from_arrays(
        x[index], y[index], interval[index] * _STEP_US + _STEP_US // 2, np.sign(signed)[index], levels.shape[:0:-1]
    )


def _window(frames, events):
    times = np.arange(len(frames), dtype=np.int64) * _STEP_US
    return ScoredWindow(frames, np.zeros_like(frames), times, events=events)  # the truth is not looked at


def _reversed(events):
    return EventStream(events.x, events.y, events.t, -events.p, events.sensor_size)


def test_events_made_by_hand_are_explained():
    frames = _edge()
    window = _window(frames, _events_of(frames))
    assert event_correlation(window)["all"] == pytest.approx([1, 1], abs=1e-6)
    assert event_residual(window)["all"] == pytest.approx([0, 0], abs=1e-6)


def test_reversed_polarity():
    frames = _edge()
    window = _window(frames, _reversed(_events_of(frames)))
    assert event_correlation(window)["all"] == pytest.approx([-1, -1], abs=1e-6)
    assert np.isnan(event_residual(window)["all"]).all()


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.7])
def test_the_contrast_threshold_does_not_matter(threshold):
    frames = _edge()
    window = _window(frames, _events_of(frames, threshold))
    assert event_correlation(window)["all"] == pytest.approx([1, 1], abs=1e-6)
    assert event_residual(window)["all"] == pytest.approx([0, 0], abs=1e-6)


def test_events_on_a_grid_of_half_the_resolution():
    frames = _edge()  # all edges lie on even columns
    window = _window(frames, _events_of(frames, scale=2))
    assert window.events.sensor_size == (24, 16)
    assert event_correlation(window)["all"] == pytest.approx([1, 1], abs=1e-6)


def test_events_on_a_finer_grid_than_the_frames():
    frames = _edge()
    window = _window(frames[:, ::2, ::2], _events_of(frames))
    assert event_correlation(window)["all"] == pytest.approx([1, 1], abs=1e-6)


def test_frames_that_do_not_change_explain_nothing():
    frames = _edge()
    hold = np.concatenate([frames[:1]] * 3 + [frames[-1:]])
    values = _window(hold, _events_of(frames))
    assert event_correlation(values)["all"][0] == 0
    assert event_residual(values)["all"][0] == pytest.approx(1)


def test_the_true_frames_explain_events_better_than_others():
    frames = _edge(5)
    events = _events_of(frames)
    times = np.arange(5) * _STEP_US
    truth = event_correlation(_window(frames, events))["all"]
    blended = event_correlation(_window(blend_linearly(frames[0], frames[-1], times), events))["all"]
    late = event_correlation(_window(frames[[0, 0, 1, 2, 4]], events))["all"]
    assert (truth > blended + 0.3).all()
    assert (truth > late + 0.3).all()


def test_a_ghost_where_events_come_at_another_time_counts():
    frames = _edge(5)
    ghost = frames.copy()
    ghost[1, :, 28:32] = 180  # the edge is there in the last interval only
    window = _window(ghost, _events_of(frames))
    assert event_correlation(window)["all"][0] < 0.8
    assert event_residual(window)["all"][0] > 0.5


def test_changes_where_no_event_is_do_not_count():
    frames = _edge()
    noisy = frames.copy()
    noisy[1:-1, :, 40:] += np.random.default_rng(0).integers(0, 40, noisy[1:-1, :, 40:].shape).astype(np.uint8)
    events = _events_of(frames)
    np.testing.assert_array_equal(
        event_correlation(_window(noisy, events))["all"], event_correlation(_window(frames, events))["all"]
    )


def test_single_events_are_taken_for_noise_also_at_the_border():
    frames = _edge()
    events = _events_of(frames)
    x, y = np.array([47, 47, 40, 3]), np.array([31, 0, 20, 0])  # none beside another, two in corners
    lone = EventStream.from_arrays(x, y, np.full(4, _STEP_US // 3), [1, -1, 1, -1], (48, 32))
    both = EventStream.concatenate([events, lone])
    for metric in (event_correlation, event_residual):
        np.testing.assert_array_equal(metric(_window(frames, both))["all"], metric(_window(frames, events))["all"])


@pytest.mark.parametrize("metric", [event_correlation, event_residual])
def test_undefined_with_too_few_events(metric):
    frames = _edge()
    assert np.isnan(metric(_window(frames, None))["all"]).all()
    assert np.isnan(metric(_window(frames, EventStream.empty((48, 32))))["all"]).all()
    events = _events_of(frames)
    early = events.t < _STEP_US
    part = EventStream(events.x[early], events.y[early], events.t[early], events.p[early], events.sensor_size)
    assert np.isnan(metric(_window(frames, part))["all"]).all()  # each frame has an interval without


def test_simulated_events_are_explained_best_by_the_frames_they_were_made_of():
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(40, 220, (8, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = np.stack([picture[:48, 3 * index : 3 * index + 64] for index in range(5)])
    times = np.arange(5, dtype=np.int64) * _STEP_US
    parts = simulate_video(iter(frames), times.tolist(), SimulatorConfig(noise_rate_hz=1.0))
    events = EventStream.concatenate(parts)
    truth = event_correlation(_window(frames, events))["all"]
    blended = event_correlation(_window(blend_linearly(frames[0], frames[-1], times), events))["all"]
    assert (truth > 0.95).all()
    assert (truth > blended + 0.2).all()


def test_residual_by_hand():
    frames = _edge()
    events = _events_of(frames)
    late = frames.copy()
    late[1] = frames[0]  # the edge stands still for one interval, then moves twice as far
    # intervals are equally strong; missing in the first: all of it; in the second: the strip of the first comes too much
    assert event_residual(_window(late, events))["all"][0] == pytest.approx(1, abs=0.01)
    # frame 2 lies between the interval with the strip too much and one that is right: root of the mean of 1 and 0
    assert event_residual(_window(late, events))["all"][1] == pytest.approx(0.5**0.5, abs=0.01)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_areas_are_shared_exactly(width, height, cells_x, cells_y):
    size = (min(width, cells_x), min(height, cells_y))
    image = np.random.default_rng(width + 13 * height).random((height, width))
    fine = np.kron(image, np.ones((size[1], size[0])))  # every cell boundary lies on one of these pixels
    parts = fine.reshape(size[1], height, size[0], width)
    np.testing.assert_allclose(area_means(image, size), parts.mean(axis=(1, 3)))
    np.testing.assert_allclose(area_sums(image, size).sum(), image.sum())


def test_metrics_load():
    assert [metric.name for metric in METRICS] == ["event_correlation", "event_residual"]
    frames = _edge()
    for metric in METRICS:
        assert not metric.needs_truth
        assert np.isfinite(metric.load(torch.device("cpu"))(_window(frames, _events_of(frames)))["all"]).all()
