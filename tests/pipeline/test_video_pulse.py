"""A pulse of what moves is found, and perfect frames have none, with noise or without."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from evfi.pipeline.video_pulse import MovingParts, MovingPartsGatherer
from evfi.video.geometry import Frame

SIZE = (176, 128)
INSERT = 3
NUM_FRAMES = 8 * (INSERT + 1) + 1
STEP_US = 1000
NOISE_LEVELS = 4.0


def texture(shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    return blurred(np.random.default_rng(seed).normal(128, 90, shape).astype(np.float32), 1)


def blurred(picture: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    for _ in range(times):
        for axis in (0, 1):
            picture = (np.roll(picture, 1, axis) + 2 * picture + np.roll(picture, -1, axis)) / 4
    return picture


def scene(index: int) -> NDArray[np.float32]:
    """A patch of texture that moves 3 px per frame before a slope, with texture that rests."""
    picture = np.tile(np.linspace(60, 120, SIZE[0], dtype=np.float32), (SIZE[1], 1))
    picture[100:, :80] = texture((28, 80), 1)
    picture[20:68, 8 + 3 * index : 56 + 3 * index] = texture((48, 48), 2)
    return picture


def video(
    blur: int = 0, key_noise: float = 0.0, all_noise: float = 0.0, key_level: float = 0.0, still: bool = False
) -> Iterator[tuple[Frame, bool]]:
    """Frames of the scene, and whether each is a key frame; `blur` and levels concern the moving patch only."""
    generator = np.random.default_rng(3)
    for index in range(NUM_FRAMES):
        is_key = index % (INSERT + 1) == 0
        at = 0 if still else index
        picture = scene(at)
        patch = (slice(20, 68), slice(8 + 3 * at, 56 + 3 * at))
        if is_key:
            picture[patch] += key_level
        else:
            picture[patch] = blurred(picture, blur)[patch]
        picture += generator.normal(0, 1, picture.shape) * (all_noise + key_noise * is_key)
        grey = np.clip(np.round(picture), 0, 255).astype(np.uint8)
        yield np.repeat(grey[..., None], 3, axis=2), is_key


def parts_of(frames: Iterator[tuple[Frame, bool]]) -> MovingParts:
    gatherer = MovingPartsGatherer()
    for index, (frame, is_key) in enumerate(frames):
        gatherer.add(frame, 7_000_000 + index * STEP_US, is_key)
    return gatherer.finish()


def loss_of(parts: MovingParts) -> float:
    assert parts.sharpness_loss is not None
    return parts.sharpness_loss.median


@pytest.mark.parametrize("key_noise", [0.0, NOISE_LEVELS])
@pytest.mark.parametrize("all_noise", [0.0, NOISE_LEVELS])
class TestSharpness:
    def test_blurred_interpolated_frames_are_found(self, key_noise: float, all_noise: float) -> None:
        parts = parts_of(video(1, key_noise, all_noise))
        assert parts.num_spans == 8 and parts.num_unknown_noise == parts.num_still == 0
        assert 0.3 < loss_of(parts) < 0.6
        assert parts.worst_loss < 0.65 and parts.worst_us is not None

    def test_perfect_frames_have_no_pulse(self, key_noise: float, all_noise: float) -> None:
        parts = parts_of(video(0, key_noise, all_noise))
        assert parts.num_spans == 8 and parts.sharpness_loss is not None
        assert abs(loss_of(parts)) < 0.02 and max(np.abs(parts.sharpness_loss.middle)) < 0.06

    def test_more_blur_loses_more(self, key_noise: float, all_noise: float) -> None:
        losses = [loss_of(parts_of(video(blur, key_noise, all_noise))) for blur in range(4)]
        assert losses == sorted(losses) and losses[3] > losses[1] + 0.1


def test_strong_noise_of_key_frames_is_not_taken_for_sharpness(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(loss_of(parts_of(video(0, key_noise=8.0)))) < 0.05
    monkeypatch.setattr("evfi.pipeline.video_pulse._FEWEST_FLAT_BLOCKS", 10**9)  # as if nothing stood still
    fooled = parts_of(video(0, key_noise=8.0))
    assert loss_of(fooled) > 0.1 and fooled.num_unknown_noise == fooled.num_spans


def test_says_where_noise_is_not_known() -> None:
    moving = ((np.roll(np.stack([texture((96, 96), 4)] * 3, -1).clip(0, 255).astype(np.uint8), 3 * index, 1), index % 4 == 0)
              for index in range(17))  # fmt: skip
    parts = parts_of(moving)
    assert parts.num_spans == parts.num_unknown_noise == 4 and abs(loss_of(parts)) < 0.02


def test_brightness() -> None:
    steady, brighter, darker = (parts_of(video(key_level=level)).brightness for level in (0.0, 6.0, -6.0))
    assert steady is not None and brighter is not None and darker is not None
    assert abs(steady.median) < 0.1 and max(np.abs(steady.middle)) < 0.5
    assert 2 < brighter.median < 6 and -6 < darker.median < -2  # the place where the patch is not remains


def test_the_worst_window_is_named() -> None:
    blur_at = {10, 11}
    frames = list(video(0))
    bad = list(video(3))
    parts = parts_of((bad[index] if index in blur_at else frame) for index, frame in enumerate(frames))
    assert parts.worst_us == 7_000_000 + 8 * STEP_US and parts.worst_loss > 0.15 and abs(loss_of(parts)) < 0.02


def test_still_parts_that_pulse_do_not_count() -> None:
    parts = parts_of(video(2, still=True))
    assert (parts.num_spans, parts.num_still, parts.sharpness_loss, parts.brightness) == (0, 8, None, None)


def test_key_frames_side_by_side_and_frames_before_the_first() -> None:
    frames = [frame for frame, _ in video()]
    assert parts_of((frame, True) for frame in frames).num_spans == 0
    assert parts_of((frame, index == 5) for index, frame in enumerate(frames)).num_spans == 0


@pytest.mark.parametrize("size", [(1, 1), (9, 200), (200, 9), (10, 10), (17, 33)])
def test_tiny_frames(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, size[1], size[0], 3), np.uint8)
    parts_of((frame, index % 4 == 0) for index, frame in enumerate(frames))


def test_large_frames_cost_little_more() -> None:
    def seconds(size: tuple[int, int]) -> float:
        frame = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        gatherer, taken = MovingPartsGatherer(), []
        for index in range(13):
            began = time.thread_time()
            gatherer.add(frame, index, index % 4 == 0)
            taken.append(time.thread_time() - began)
        return float(np.median(taken))

    assert seconds((640, 360)) < 0.02  # 2 ms on a quiet machine
    assert seconds((3840, 2160)) < 0.1
