"""The simulated event camera: events by hand, thinning, and independence of chunks and batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evfi.errors import ConfigError, InputError
from evfi.events.simulate import (
    BatchedEvents,
    SensorBatch,
    Simulator,
    SimulatorConfig,
    scene_seeds,
    simulate_events,
)
from evfi.events.simulate_video import log_luminance, simulate_video
from evfi.events.stream import EventStream

IDEAL = SimulatorConfig(threshold_std=0, refractory_us=0, leak_rate_hz=0, noise_rate_hz=0)
REAL = SimulatorConfig(threshold_std=0.03, refractory_us=700, leak_rate_hz=4, noise_rate_hz=20, reference_spread=1)


def ideal(**changes: float) -> SimulatorConfig:
    settings_ = {"threshold_std": 0.0, "refractory_us": 0.0, "leak_rate_hz": 0.0, "noise_rate_hz": 0.0}
    return SimulatorConfig(**{**settings_, **changes})


def walk(batch: int = 2, num: int = 20, height: int = 7, width: int = 9) -> Tensor:
    return torch.randn(batch, num, height, width, generator=torch.Generator().manual_seed(3)).cumsum(1) * 0.15


def ramp(*levels: float) -> Tensor:
    return torch.tensor(levels, dtype=torch.float32).view(1, -1, 1, 1)


def columns(events: BatchedEvents) -> tuple[Tensor, ...]:
    return events.b, events.x, events.y, events.t, events.p


def assert_same(first: EventStream, second: EventStream) -> None:
    for name in "xytp":
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_constant_picture_gives_no_events(spread: float) -> None:
    level = torch.rand(2, 1, 5, 6).expand(2, 12, 5, 6)
    assert len(simulate_events(level, torch.arange(12) * 1000, ideal(reference_spread=spread), 0)) == 0


def test_linear_ramp_gives_evenly_spaced_events() -> None:
    slope_per_us = 1.1 / 10_000
    level = torch.linspace(0, 1.1, 11).view(1, 11, 1, 1).expand(1, 11, 2, 3)
    events = simulate_events(level, torch.arange(11) * 1000, IDEAL, 0)
    assert len(events) == 6 * 5  # floor(1.1 / 0.2) per pixel
    assert (events.p == 1).all()
    expected = [k * 0.2 / slope_per_us for k in range(1, 6)]
    times = events.t.view(5, 6)
    assert (times == times[:, :1]).all()
    assert np.allclose(times[:, 0].numpy(), expected, atol=1.01)


def test_falling_intensity_gives_negative_events_at_their_own_threshold() -> None:
    events = simulate_events(ramp(0, -1), torch.tensor([0, 1000]), ideal(threshold_negative=0.3), 0)
    assert events.p.tolist() == [-1, -1, -1]
    assert events.t.tolist() == [300, 600, 900]


def test_reference_follows_events_so_that_a_turn_needs_a_whole_threshold() -> None:
    events = simulate_events(ramp(0, 0.5, 0.1), torch.tensor([0, 1000, 2000]), IDEAL, 0)
    # up: 0.2 at 400, 0.4 at 800; down from 0.4: 0.2 at 1750
    assert list(zip(events.t.tolist(), events.p.tolist(), strict=True)) == [(400, 1), (800, 1), (1750, -1)]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), threshold=st.floats(0.05, 0.6))
def test_events_add_up_to_the_change_of_intensity(seed: int, threshold: float) -> None:
    level = torch.randn(1, 12, 4, 5, generator=torch.Generator().manual_seed(seed))
    config = ideal(threshold_positive=threshold, threshold_negative=threshold)
    events = simulate_events(level, torch.arange(12) * 1000, config, 0)
    total = torch.zeros(4, 5).index_put_((events.y, events.x), events.p.float() * threshold, accumulate=True)
    assert ((level[0, -1] - level[0, 0] - total).abs() < threshold + 1e-4).all()


def test_refractory_time_thins_events_across_intervals() -> None:
    times, config = torch.tensor([0, 1000, 2000]), ideal(threshold_positive=0.1, refractory_us=250)
    events = simulate_events(ramp(0, 1.001, 2.002), times, config, 0)
    # crossings every 99.9 µs; each event blocks the next two: crossings 1, 4, 7, 10, 13, 16, 19
    expected = [99.9 * k for k in (1, 4, 7, 10, 13, 16, 19)]
    assert np.allclose(events.t.numpy(), expected, atol=1.01)


def test_a_long_refractory_time_lasts_over_several_intervals() -> None:
    times = torch.arange(6) * 100
    events = simulate_events(ramp(0, 1, 2, 3, 4, 5), times, ideal(threshold_positive=0.99, refractory_us=330), 0)
    assert np.allclose(events.t.numpy(), [99, 99 * 5], atol=1.01)


def test_leak_fires_a_still_pixel_at_its_rate() -> None:
    level = torch.zeros(1, 41, 1, 1)
    events = simulate_events(level, torch.arange(41) * 50_000, ideal(leak_rate_hz=2.5), 0)
    assert (events.p == 1).all()
    assert len(events) in (4, 5)  # the fifth falls on the last sub-frame
    assert np.allclose(events.t[:4].numpy(), np.arange(1, 5) * 400_000, atol=1000)


def test_noise_rate() -> None:
    level = torch.zeros(1, 51, 40, 40)
    events = simulate_events(level, torch.arange(51) * 2000, ideal(noise_rate_hz=10), 0)
    expected = 10 * 0.1 * 1600
    assert abs(len(events) - expected) < 5 * expected**0.5
    assert abs(float(events.p.float().mean())) < 0.1
    assert events.t.min() >= 0
    assert events.t.max() < 100_000
    assert (events.t.diff() >= 0).all()


def test_thresholds_vary_from_pixel_to_pixel() -> None:
    level = ramp(0, 1).expand(1, 2, 60, 60)
    config = ideal(threshold_positive=0.3, threshold_std=0.03)
    events = simulate_events(level, torch.tensor([0, 1_000_000]), config, 0)
    first = torch.full((3600,), 10**9).scatter_reduce(0, events.y * 60 + events.x, events.t, "amin")
    thresholds = first.float() / 1e6
    assert abs(float(thresholds.mean()) - 0.3) < 0.003
    assert abs(float(thresholds.std()) - 0.03) < 0.003


def test_events_are_sorted_by_scene_and_time_and_lie_within_the_window() -> None:
    events = simulate_events(walk(), torch.arange(20) * 1000 + 5, REAL, 1)
    key = events.b * 10**9 + events.t
    assert (key.diff() >= 0).all()
    assert events.t.min() >= 5
    assert events.t.max() <= 19_005
    assert set(events.p.unique().tolist()) == {-1, 1}


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(1, 19), max_size=4), seed=st.integers(0, 2**31 - 1))
def test_result_does_not_depend_on_chunks(cuts: list[int], seed: int) -> None:
    level, times = walk(), torch.arange(20) * 997
    whole = simulate_events(level, times, REAL, seed)
    simulator = Simulator(REAL, seed, (9, 7), 2)
    edges = [0, *sorted(set(cuts)), 20]
    parts = [simulator.push(level[:, i:j], times[i:j]) for i, j in itertools.pairwise(edges)]
    for scene in range(2):
        joined = EventStream.concatenate([part.stream(scene) for part in parts])
        assert_same(whole.stream(scene), joined)


def test_result_does_not_depend_on_the_batch() -> None:
    level, times = walk(3), torch.arange(20) * 1000
    together = simulate_events(level, times, REAL, 9)
    alone = simulate_events(level[1:2], times, REAL, scene_seeds(9, 3)[1:2])
    assert_same(together.stream(1), alone.stream(0))


def test_same_seed_same_events_other_seed_other_events() -> None:
    level, times = walk(), torch.arange(20) * 1000
    first, again, other = (columns(simulate_events(level, times, REAL, seed)) for seed in (4, 4, 5))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not (len(first[3]) == len(other[3]) and torch.equal(first[3], other[3]))


def test_scenes_have_their_own_cameras_and_times() -> None:
    level = ramp(0, 1).expand(2, 2, 1, 1)
    sensors = SensorBatch.from_config(IDEAL, 2)
    sensors.threshold_positive[1] = 0.45
    events = simulate_events(level, torch.tensor([[0, 1000], [0, 2000]]), sensors, 0)
    assert events.stream(1).t.tolist() == [900, 1800]
    assert len(events.stream(0)) in (4, 5)


def test_playing_a_video_backwards_reverses_its_events() -> None:
    # levels on multiples of the threshold: each crossing k..k+1 is written at its end, forwards as well as backwards
    level = ramp(0, 0.5, 0.25, 1.0, 0.75)
    times = torch.arange(5) * 1000
    config = ideal(threshold_positive=0.25, threshold_negative=0.25)
    forward = simulate_events(level, times, config, 0).stream(0)
    backward = simulate_events(level.flip(1), times, config, 0).stream(0)
    reverse = forward.reverse(0, 4000)
    assert np.array_equal(backward.p, reverse.p)
    # a reversed event is earlier by the time that the pixel needs for one threshold
    assert (backward.t >= reverse.t).all()


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match="increase"):
        simulate_events(walk(), torch.zeros(20, dtype=torch.int64), IDEAL, 0)
    with pytest.raises(InputError, match="times"):
        simulate_events(walk(), torch.arange(19), IDEAL, 0)
    simulator = Simulator(IDEAL, 0, (9, 7), 2)
    with pytest.raises(InputError, match="must be"):
        simulator.push(walk(1), torch.arange(20))
    with pytest.raises(ConfigError, match="threshold_negative"):
        SimulatorConfig(threshold_negative=-0.2)


def test_log_luminance_is_linear_in_light() -> None:
    frame = np.zeros((1, 3, 3), np.uint8)
    frame[0, 1], frame[0, 2] = 255, 188
    level = log_luminance(frame, 0.01)[0]
    assert level.tolist() == pytest.approx([np.log(0.01), np.log(1.01), np.log(0.5029 + 0.01)], abs=1e-3)


def test_video_gives_a_stream_and_needs_frames_of_one_size() -> None:
    frames = [np.full((4, 5, 3), value, np.uint8) for value in (10, 60, 120, 240)]
    streams = list(simulate_video(frames, [0, 1000, 2000, 3000], IDEAL))
    stream = EventStream.concatenate(streams)
    assert stream.sensor_size == (5, 4)
    assert (stream.p == 1).all()
    assert len(stream) % 20 == 0
    with pytest.raises(InputError):
        list(simulate_video([frames[0], frames[1][:2]], [0, 1000], IDEAL))
