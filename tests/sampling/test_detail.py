from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.events.stream import EventStream
from evfi.sampling.detail import DetailConfig, restore_detail, restore_texture

TIMES = np.array([0, 10_000, 20_000, 30_000, 40_000])
SIZE = (64, 48)


def _events(x: list[int], y: list[int], t: list[int], size: tuple[int, int] = SIZE) -> EventStream:
    return EventStream.from_arrays(x, y, t, np.ones(len(x)), size)


def _texture(seed: int = 0) -> Tensor:
    return torch.rand(3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(seed)) * 255


def _softened(picture: Tensor) -> Tensor:
    """What an autoencoder might leave of a picture."""
    return F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)


def _block(start_us: int, end_us: int, left: int = 40, right: int = 56) -> EventStream:
    """Dense events in a block of columns during a time."""
    times, ys, xs = np.meshgrid(np.linspace(start_us, end_us - 1, 4), np.arange(16, 32), np.arange(left, right))
    return _events(xs.ravel().tolist(), ys.ravel().tolist(), times.astype(int).ravel().tolist())


def test_a_still_scene_becomes_the_key_frames_blended_by_time() -> None:
    start = _texture()
    end = (start + 3).clamp(0, 255)
    prediction = _softened(start).expand(5, -1, -1, -1)
    restored = restore_detail(prediction, start, end, _events([5], [5], [20_000]), TIMES)
    weights = torch.linspace(1, 0, 5).view(-1, 1, 1, 1)
    torch.testing.assert_close(restored, weights * start + (1 - weights) * end, rtol=0, atol=1e-3)


def test_where_events_fell_the_prediction_stays() -> None:
    start = _texture()
    prediction = _softened(start).expand(5, -1, -1, -1)
    restored = restore_detail(prediction, start, start, _block(0, 40_000), TIMES)
    torch.testing.assert_close(restored[1:4, :, 18:30, 42:54], prediction[1:4, :, 18:30, 42:54])
    torch.testing.assert_close(restored[2, :, :, :30], start[:, :, :30])


@pytest.mark.parametrize("early", [True, False])
def test_before_motion_comes_the_start_image_holds_and_after_it_the_end_image(early: bool) -> None:
    start, end = _texture(0), _texture(1)
    keys = torch.stack([start, end])
    prediction = torch.stack([_softened(keys[index]) for index in ((0, 1, 1, 1, 1) if early else (0, 0, 0, 0, 1))])
    span = (0, 10_000) if early else (30_000, 40_000)
    restored = restore_detail(prediction, start, end, _block(*span, 0, 64), TIMES)
    expected = end if early else start
    inside = (slice(None), slice(19, 29), slice(3, 61))
    for frame in (1, 2, 3):
        torch.testing.assert_close(restored[frame][inside], expected[inside], rtol=0, atol=2.0)


def test_key_frames_that_differ_without_events_are_not_trusted() -> None:
    start = torch.full((3, SIZE[1], SIZE[0]), 40.0)
    end = torch.full_like(start, 200.0)
    prediction = torch.full((5, *start.shape), 40.0)
    restored = restore_detail(prediction, start, end, _events([], [], []), TIMES)
    torch.testing.assert_close(restored, prediction)


def test_a_prediction_that_changes_is_believed() -> None:
    start = torch.full((3, SIZE[1], SIZE[0]), 40.0)
    prediction = start.expand(5, -1, -1, -1).clone()
    prediction[2, :, 10:40, 10:50] = 200.0
    restored = restore_detail(prediction, start, start, _events([], [], []), TIMES)
    torch.testing.assert_close(restored[2, :, 15:35, 15:45], prediction[2, :, 15:35, 15:45])


def test_what_the_autoencoder_does_everywhere_is_no_motion() -> None:
    start = _texture()
    prediction = (_softened(start) * 0.6 + 20).expand(5, -1, -1, -1)
    restored = restore_detail(prediction, start, start, _events([], [], []), TIMES)
    torch.testing.assert_close(restored, start.expand(5, -1, -1, -1), rtol=0, atol=1e-3)


def test_scattered_noise_is_tolerated() -> None:
    generator = np.random.default_rng(0)
    number = int(0.02 * SIZE[0] * SIZE[1])
    columns = generator.integers(0, SIZE[0], number), generator.integers(0, SIZE[1], number)
    events = _events(columns[0].tolist(), columns[1].tolist(), generator.integers(0, 40_000, number).tolist())
    start = _texture()
    prediction = _softened(start).expand(5, -1, -1, -1)
    restored = restore_detail(prediction, start, start, events, TIMES)
    lost, left = (prediction - start).abs().mean(), (restored - start).abs().mean()
    assert left < 0.15 * lost


def test_no_border_shows() -> None:
    """Between what is restored and what is not, the picture changes no faster than the masks' blur allows."""
    start = torch.full((3, SIZE[1], SIZE[0]), 100.0)
    prediction = torch.full((5, *start.shape), 110.0)
    restored = restore_detail(prediction, start, start, _block(0, 40_000), TIMES)[2]
    assert float(restored.min()) < 100.5
    assert float(restored.max()) > 109.5
    steps = [restored.diff(dim=axis).abs().amax() for axis in (1, 2)]
    assert max(float(step) for step in steps) < 4.0


def test_the_sensor_may_have_another_resolution_than_the_frame() -> None:
    half = EventStream.from_arrays([24], [12], [20_000], [1], (32, 24))
    start = _texture()
    restored = restore_detail(_softened(start).expand(5, -1, -1, -1), start, start, half, TIMES)
    torch.testing.assert_close(restored[2, :, :, :20], start[:, :, :20], rtol=0, atol=1e-3)


def test_uneven_times_weigh_the_key_frames_by_time() -> None:
    start = torch.full((3, SIZE[1], SIZE[0]), 100.0)
    end = start + 4
    times = np.array([0, 10_000, 40_000])
    restored = restore_detail(start.expand(3, -1, -1, -1), start, end, _events([], [], []), times)
    assert float(restored[1].mean()) == pytest.approx(101.0, abs=1e-3)


def test_thresholds_are_settings() -> None:
    start = _texture()
    prediction = _softened(start).expand(5, -1, -1, -1)
    strict = DetailConfig(quiet_events=-1.0, moving_events=-0.5)
    restored = restore_detail(prediction, start, start, _events([5], [5], [0]), TIMES, strict)
    torch.testing.assert_close(restored, prediction)


class TestTexture:
    FLAT = torch.full((3, 8, 128), 100.0)
    WAVE = (20 * torch.cos(torch.arange(128) * (2 * math.pi / 8))).expand(3, 8, -1)
    """A wave of 8 px: a Gaussian blur of sigma px leaves exp(-2 (pi sigma / 8)^2) of it, 0.735 at 1 px and 0 at 8 px."""
    LEFT = 0.735
    INSIDE = (..., slice(32, 96))

    def test_a_model_that_keeps_the_key_frames_is_left_alone(self) -> None:
        prediction = torch.stack([_texture(seed) for seed in range(5)])
        restored = restore_texture(prediction, prediction[0], prediction[-1], TIMES)
        torch.testing.assert_close(restored, prediction)

    @pytest.mark.parametrize("at_start", [True, False])
    def test_lost_texture_is_added_by_time(self, at_start: bool) -> None:
        times = np.array([0, 10_000, 40_000])
        keys = (self.FLAT + self.WAVE, self.FLAT) if at_start else (self.FLAT, self.FLAT + self.WAVE)
        restored = restore_texture(self.FLAT.expand(3, -1, -1, -1), *keys, times)
        for frame, weight in zip(restored, (1, 0.75, 0) if at_start else (0, 0.25, 1), strict=True):
            expected = self.FLAT + weight * self.LEFT * self.WAVE
            torch.testing.assert_close(frame[self.INSIDE], expected[self.INSIDE], rtol=0, atol=0.2)

    def test_lost_colour_and_what_is_finest_is_not_texture(self) -> None:
        dots = 40.0 * ((torch.arange(128) % 2).float() - 0.5).expand(3, 8, -1)
        for lost in (torch.tensor([8.0, -8.0, 4.0]).view(3, 1, 1), dots):
            key = self.FLAT + lost
            restored = restore_texture(self.FLAT.expand(5, -1, -1, -1), key, key, TIMES)
            torch.testing.assert_close(
                restored[self.INSIDE], self.FLAT.expand_as(restored)[self.INSIDE], rtol=0, atol=0.5
            )

    def test_it_does_not_stay_where_something_else_is_seen(self) -> None:
        prediction = self.FLAT.expand(5, -1, -1, -1).clone()
        prediction[2] = 200.0
        key = self.FLAT + self.WAVE
        restored = restore_texture(prediction, key, key, TIMES)
        torch.testing.assert_close(restored[2], prediction[2])
        torch.testing.assert_close(restored[1][self.INSIDE], restored[0][self.INSIDE])

    def test_what_looks_like_one_end_alone_has_its_texture(self) -> None:
        prediction = torch.stack([self.FLAT, self.FLAT, self.FLAT + 100])
        restored = restore_texture(prediction, self.FLAT + self.WAVE, self.FLAT + 100, np.array([0, 30_000, 40_000]))
        expected = self.FLAT + self.LEFT * self.WAVE
        torch.testing.assert_close(restored[1][self.INSIDE], expected[self.INSIDE], rtol=0, atol=0.2)

    def test_levels_stay_in_range_and_inputs_unchanged(self) -> None:
        prediction = self.FLAT.expand(5, -1, -1, -1) * 2.5
        key = prediction[0] + 3 * self.WAVE
        before = prediction.clone()
        restored = restore_texture(prediction, key, key, TIMES)
        assert restored.max() == 255
        assert (prediction == before).all()

    def test_a_window_of_key_frames_alone(self) -> None:
        keys = self.FLAT.expand(2, -1, -1, -1)
        restored = restore_texture(keys, keys[0], keys[1] + self.WAVE, np.array([0, 40_000]))
        torch.testing.assert_close(restored[0], keys[0])
