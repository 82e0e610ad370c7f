"""What rendered windows take from real cameras: short stretches of motion, haze, and the cameras' defects."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from evfi.events.stacks import StackConfig
from evfi.training import scenes as scenes_module
from evfi.training.motion import Draw, life_times
from evfi.training.scenes import SceneConfig
from evfi.training.synthetic import (
    SensorRanges,
    TrainingWindows,
    WindowConfig,
    _hot_pixel_events,
    _shifts,
    make_batch,
    motion_span,
)
from evfi.training.textures import TextureLibrary

STACKS = StackConfig(normalisation="symmetric")
SIZE = 24
PLAIN = WindowConfig(
    scenes=SceneConfig(low_contrast=0.0, parallax=0.0, flicker=0.0, max_layers=2, max_clutter=1, grey=0.0, dark=0.0),
    sensors=SensorRanges(hot_pixels=0.0, lost_events=0.0),
    min_subframes=9,
    exposure_blur=1.0,
    degraded=0.0,
    fixed_pattern=0.0,
    misaligned=0.0,
)
"""No defects; each test adds the one that it is about."""


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows_of(library: TextureLibrary, config: WindowConfig, num_frames: int = 3, batch: int = 4) -> TrainingWindows:
    return make_batch(library, config, STACKS, batch=batch, num_frames=num_frames, size=SIZE, generator=rng(3))


def with_sensors(**changes: object) -> WindowConfig:
    return replace(PLAIN, sensors=replace(PLAIN.sensors, **changes))  # type: ignore[arg-type]


def with_scenes(**changes: object) -> SceneConfig:
    return replace(PLAIN.scenes, **changes)  # type: ignore[arg-type]


def test_windows_of_few_frames_show_short_stretches(library: TextureLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [motion_span(number) for number in (3, 9, 17, 33)] == [(0.125, 1.0), (0.5, 1.0), (1.0, 1.0), (1.0, 1.0)]
    seen = []

    def recorded(times: Tensor, span: tuple[float, float], count: int, draw: Draw) -> Tensor:
        seen.append(life_times(times, span, count, draw))
        return seen[-1]

    monkeypatch.setattr(scenes_module, "life_times", recorded)
    for num_frames, low in ((3, 0.125), (17, 1.0)):
        windows_of(library, replace(PLAIN, exposure_blur=0.0), num_frames)
        length = seen[-1][:, -1] - seen[-1][:, 0]
        assert ((length >= low - 1e-5) & (length <= 1 + 1e-5)).all()
        assert (seen[-1] > -1e-5).all() and (seen[-1] < 1 + 1e-5).all()
        assert (length.amax() - length.amin() > 0.05) == (low < 1)


def test_hazy_scenes_keep_few_tones_and_make_fewer_events(library: TextureLibrary) -> None:
    def spread_and_events(share: float) -> tuple[Tensor, int]:
        config = replace(PLAIN, scenes=with_scenes(low_contrast=share, contrast=(0.15, 0.3)))
        windows = windows_of(library, config)
        return (windows.frames.flatten(1).amax(1) - windows.frames.flatten(1).amin(1)), len(windows.events)

    (hazy, few), (clear, many) = spread_and_events(1.0), spread_and_events(0.0)
    assert (hazy <= 2 * 0.3 + 1e-4).all()
    assert (clear > hazy).all()
    assert few < 0.8 * many


def test_a_fixed_pattern_is_the_same_in_all_frames(library: TextureLibrary) -> None:
    still = with_scenes(still_background=1.0, still_object=1.0, deforming=0.0)
    plain = replace(PLAIN, scenes=still)
    spotted = replace(plain, fixed_pattern=1.0, fixed_pattern_noise=(0.01, 0.011))
    clean, patterned = windows_of(library, plain), windows_of(library, spotted)
    offset = patterned.frames - clean.frames
    assert 0.012 < offset.std() < 0.024  # twice the sigma, less what is clamped
    assert (patterned.frames.diff(dim=1)).abs().max() < 1e-3
    assert torch.equal(patterned.key_frames, patterned.frames[:, [0, -1]])
    assert torch.equal(patterned.events.t, clean.events.t)


def test_recorded_frames_have_noise_of_their_own_and_the_ground_truth_has_none(library: TextureLibrary) -> None:
    noisy = replace(PLAIN, degraded=1.0, frame_noise=(0.05, 0.06))
    clean, degraded = windows_of(library, PLAIN), windows_of(library, noisy)
    assert torch.equal(clean.frames, degraded.frames)
    assert torch.equal(degraded.key_frames, degraded.recorded[:, [0, -1]])
    grain = (degraded.recorded - clean.recorded).unbind(1)
    assert all(part.std() > 0.03 for part in grain)
    assert not torch.equal(grain[0], grain[1])


def assert_inside_and_sorted(windows: TrainingWindows) -> None:
    events, ends = windows.events, windows.times_us[:, -1]
    assert (events.t >= 0).all() and (events.t < ends[events.b]).all()
    assert (events.x >= 0).all() and (events.x < SIZE).all() and (events.y >= 0).all() and (events.y < SIZE).all()
    assert ((events.b * 10**7 + events.t).diff() >= 0).all()


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_misaligned_events_are_shifted_and_stay_inside(library: TextureLibrary, blur: float) -> None:
    plain = replace(with_sensors(noise_rate_hz=(30.0, 31.0)), exposure_blur=blur)
    aligned = windows_of(library, plain)
    far = replace(plain, time_shift_us=(1e6, 1e6), time_shift_share=0.2, space_shift=1.0, space_shift_px=3.0)
    shifted = windows_of(library, replace(far, misaligned=1.0))
    for windows in (aligned, shifted):
        assert_inside_and_sorted(windows)
    assert torch.equal(aligned.frames, shifted.frames)
    assert not torch.equal(aligned.forward, shifted.forward)
    assert not torch.equal(aligned.backward, shifted.backward)
    # simulated over the margin, neither end runs empty
    scene, end = shifted.events.b, shifted.times_us[:, -1]
    first = torch.stack([shifted.events.t[scene == index].min() / end[index] for index in range(4)])
    last = torch.stack([1 - shifted.events.t[scene == index].max() / end[index] for index in range(4)])
    assert (torch.maximum(first, last).max() < 0.02) == (blur > 0)


def test_shifts_are_small_against_the_window_and_rare_in_space() -> None:
    duration = torch.tensor([20_000] * 500 + [50_000] * 500 + [300_000] * 500)
    x, y, t = _shifts(replace(WindowConfig(), misaligned=1.0), duration, Draw(rng()))
    short, medium, long = t.abs().split(500)
    assert short.max() <= 2_400 and medium.max() <= 6_000 and 8_000 < long.max() <= 12_000
    assert short.float().mean() < 1_200 and long.float().mean() < 4_000
    assert 0 < x.abs().max() <= 3
    assert 0.1 < ((x != 0) | (y != 0)).float().mean() < 0.3
    assert 0.3 < (_shifts(WindowConfig(), duration, Draw(rng()))[2] == 0).float().mean() < 0.5


def test_hot_pixels_fire_all_the_time(library: TextureLibrary) -> None:
    hot = {"hot_pixels": 1.0, "hot_pixel_count": (2, 3), "hot_pixel_rate_hz": (500.0, 501.0)}
    plain, fired = windows_of(library, PLAIN), windows_of(library, with_sensors(**hot))
    assert_inside_and_sorted(fired)
    expected = fired.times_us[:, -1] * 500e-6
    extra = torch.bincount(fired.events.b, minlength=4) - torch.bincount(plain.events.b, minlength=4)
    assert (extra > 1.9 * expected).all() and (extra < 3.1 * expected).all()
    b, x, y, t, _ = _hot_pixel_events(with_sensors(**hot).sensors, torch.tensor([100_000]), (SIZE, 9), Draw(rng()))
    assert (b == 0).all() and (y < 9).all()
    pixel = t[(x == x[0]) & (y == y[0])].sort().values
    assert len(pixel) >= 49 and pixel.diff().max() < 4_001


def test_lost_events_are_lost_at_random(library: TextureLibrary) -> None:
    plain, lossy = (
        windows_of(library, PLAIN),
        windows_of(library, with_sensors(lost_events=1.0, lost_share=(0.25, 0.3))),
    )
    share = 1 - len(lossy.events) / len(plain.events)
    assert 0.22 < share < 0.33
    assert_inside_and_sorted(lossy)


def test_all_defects_at_once_come_from_the_seed(library: TextureLibrary) -> None:
    scenes = with_scenes(parallax=1.0, low_contrast=0.5, flicker=0.5, still_background=0.0, small_fast=0.5)
    sensors = replace(PLAIN.sensors, hot_pixels=1.0, lost_events=1.0)
    config = replace(PLAIN, scenes=scenes, sensors=sensors, degraded=1.0, fixed_pattern=1.0, misaligned=1.0)
    first, second = windows_of(library, config), windows_of(library, config)
    for name in ("frames", "key_frames", "forward", "backward", "times_us"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    for name in "bxytp":
        assert torch.equal(getattr(first.events, name), getattr(second.events, name))
    assert_inside_and_sorted(first)
