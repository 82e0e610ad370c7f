"""What is gathered of a video, by hand-computed values."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import pytest

from evfi.pipeline.video_statistics import (
    MOST_SLICE_COLUMNS,
    MOST_SLICE_ROWS,
    NUM_THUMBNAILS,
    THUMBNAIL_WIDTH_PX,
    Frame,
    VideoFacts,
    VideoStatistics,
    busiest_row,
)

INSERT = 7
STEP_US = 1000


def is_key(index: int) -> bool:
    return index % (INSERT + 1) == 0


def flat(level: int, size: tuple[int, int] = (32, 20)) -> Frame:
    return np.full((size[1], size[0], 3), level, np.uint8)


def facts_of(frames: Iterable[Frame], num_frames: int, size: tuple[int, int] = (32, 20), row: int = 5) -> VideoFacts:
    statistics = VideoStatistics(size, num_frames, row)
    for index, frame in enumerate(frames):
        statistics.add(frame, 5_000_000 + index * STEP_US, is_key(index))
    return statistics.finish()


class TestKeyFrameSteps:
    def test_constant_video_has_none(self) -> None:
        steps = facts_of([flat(90)] * 25, 25).key_frame_steps
        assert steps.key.num_frames == 2  # of four, the first and the last have one neighbour only
        assert steps.made.num_frames == 15  # of seven in a window, five lie between made frames
        for summary in (steps.key, steps.made):
            assert summary.brightness == summary.texture == (0.0, 0.0) and summary.num_moving == 0
        assert steps.worst == 0.0 and steps.worst_us is not None

    def test_brighter_key_frames(self) -> None:
        levels = [103 if is_key(index) else 100 for index in range(33)]
        levels[16] = 95
        steps = facts_of([flat(level) for level in levels], 33).key_frame_steps
        assert steps.key.brightness == (3.0, 5.0) and steps.key.texture == (3.0, 5.0)
        assert steps.made.brightness == (0.0, 0.0)
        assert steps.worst == pytest.approx(-5, abs=1e-4) and steps.worst_us == 5_000_000 + 16 * STEP_US

    def test_a_steady_change_of_light_is_no_step(self) -> None:
        steps = facts_of([flat(50 + 2 * index) for index in range(25)], 25).key_frame_steps
        assert steps.key.brightness == steps.made.brightness == (0.0, 0.0)

    def test_noise_of_key_frames_is_texture_not_brightness(self) -> None:
        checks = flat(100).astype(np.int16) + 4 * ((np.indices((20, 32)).sum(axis=0) % 2) * 2 - 1)[..., None]
        frames = [checks.astype(np.uint8) if is_key(index) else flat(100) for index in range(25)]
        steps = facts_of(frames, 25).key_frame_steps
        assert steps.key.brightness == (0.0, 0.0) and steps.key.texture == (4.0, 4.0)
        assert steps.made.texture == (0.0, 0.0)

    def test_what_moves_does_not_count(self) -> None:
        frames = []
        for index in range(25):
            frame = flat(102 if is_key(index) else 100)
            frame[:, index : index + 3] = 255
            frames.append(frame)
        steps = facts_of(frames, 25).key_frame_steps
        # The column that is bright before, now and after is still, and bright in all three: 2 levels in 27 of 28 columns.
        assert steps.key.brightness is not None
        assert steps.key.brightness[0] == pytest.approx(2 * 27 / 28, abs=0.0051)
        assert steps.made.brightness == (0.0, 0.0)

    def test_frames_without_still_pixels_are_told(self) -> None:
        frames = [flat(20 * (index % 12)) for index in range(25)]
        steps = facts_of(frames, 25).key_frame_steps
        assert (steps.key.num_frames, steps.key.num_moving) == (0, 2)
        assert (steps.made.num_frames, steps.made.num_moving) == (0, 15)
        assert steps.key.brightness is None and steps.made.texture is None and steps.worst_us is None

    def test_percentiles(self) -> None:
        levels = [
            100 + (index // 8) // 2 if is_key(index) else 100 for index in range(8 * 21 + 1)
        ]  # 20 steps: 0, 1, 1, …
        steps = facts_of([flat(level) for level in levels], len(levels)).key_frame_steps
        assert steps.key.num_frames == 20
        assert steps.key.brightness == (5.0, 9.0)  # the 10th and the 19th of 0, 1, 1, 2, 2, … 9, 9, 10


class TestSlice:
    def test_every_frame_of_a_short_video(self) -> None:
        generator = np.random.default_rng(0)
        frames = generator.integers(0, 256, (30, 20, 32, 3), np.uint8)
        facts = facts_of(frames, 30)
        np.testing.assert_array_equal(facts.xt_slice, frames[:, 5])
        assert facts.xt_step == 1 and facts.row == 5
        assert np.flatnonzero(facts.xt_is_key).tolist() == [0, 8, 16, 24]
        assert (facts.num_frames, facts.first_us, facts.last_us) == (30, 5_000_000, 5_029_000)

    @pytest.mark.parametrize(("num_frames", "step"), [(1200, 1), (1201, 3), (3601, 5), (9600, 9)])
    def test_thinned_by_an_odd_step(self, num_frames: int, step: int) -> None:
        size = (2000, 2)
        facts = facts_of(((flat(index % 251, size)) for index in range(num_frames)), num_frames, size, row=1)
        assert facts.xt_step == step
        assert len(facts.xt_slice) == len(facts.xt_is_key) == -(-num_frames // step) <= MOST_SLICE_ROWS
        assert facts.xt_slice.shape[1] == MOST_SLICE_COLUMNS
        assert facts.xt_slice[:, 0, 0].tolist() == [index % 251 for index in range(0, num_frames, step)]
        assert 0 < facts.xt_is_key.mean() < 0.3

    def test_columns_are_even(self) -> None:
        frame = np.zeros((1, 1600, 3), np.uint8)
        frame[0, ::2] = 200
        facts = facts_of([frame], 1, (1600, 1), row=0)
        assert (facts.xt_slice == 200).all()

    def test_fewer_frames_than_announced(self) -> None:
        assert len(facts_of([flat(3)] * 4, 9).xt_slice) == 4


class TestThumbnails:
    def test_spread_evenly_and_by_turns(self) -> None:
        thumbnails = facts_of((flat(index % 256) for index in range(801)), 801).thumbnails
        assert len(thumbnails) == NUM_THUMBNAILS
        assert [thumbnail.is_key for thumbnail in thumbnails] == [True, False] * (NUM_THUMBNAILS // 2)
        places = [(thumbnail.time_us - 5_000_000) / STEP_US for thumbnail in thumbnails]
        assert np.abs(np.array(places) - np.arange(12) * 801 / 12).max() <= INSERT + 1
        for thumbnail, place in zip(thumbnails, places, strict=True):
            assert (thumbnail.picture == int(place) % 256).all()

    @pytest.mark.parametrize("num_frames", [1, 2, 3, 9, 12, 13, 17, 30])
    def test_of_short_videos(self, num_frames: int) -> None:
        thumbnails = facts_of((flat(index) for index in range(num_frames)), num_frames).thumbnails
        times = [thumbnail.time_us for thumbnail in thumbnails]
        assert len(times) == min(num_frames, NUM_THUMBNAILS) and times == sorted(set(times))

    def test_small(self) -> None:
        size = (1280, 720)
        (thumbnail,) = facts_of([flat(7, size)], 1, size).thumbnails
        assert thumbnail.picture.shape == (135, THUMBNAIL_WIDTH_PX, 3) and (thumbnail.picture == 7).all()

    def test_a_small_frame_is_copied(self) -> None:
        frame = flat(7)
        statistics = VideoStatistics((32, 20), 1, 0)
        statistics.add(frame, 0, True)
        frame[:] = 0
        (thumbnail,) = statistics.finish().thumbnails
        assert (thumbnail.picture == 7).all()


def test_a_video_of_nothing() -> None:
    facts = VideoStatistics((32, 20), 5, 0).finish()
    assert facts.num_frames == 0 and facts.thumbnails == () and len(facts.xt_slice) == 0


def test_moving_parts_are_gathered_too() -> None:
    """A texture that moves, with key frames that are sharper: hardly a step where nothing moves, but a pulse."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    frames = []
    for index in range(17):
        frame = np.full((64, 96, 3), 90, np.uint8)
        patch = noise[:40, :32] if is_key(index) else 64 + noise[:40, :32] // 2
        frame[8:48, 2 * index : 2 * index + 32] = patch[..., None]
        frames.append(frame)
    facts = facts_of(frames, 17, (96, 64))
    assert facts.key_frame_steps.key.brightness is not None and facts.key_frame_steps.key.brightness[1] < 0.5
    assert facts.moving_parts.num_spans == 2 and facts.moving_parts.sharpness_loss is not None
    assert facts.moving_parts.sharpness_loss.median > 0.3


def test_busiest_row() -> None:
    before, after = flat(0, (40, 60)), flat(0, (40, 60))
    after[10] = 90  # a single row with much, and a band with more around it
    after[30:39] = 50
    assert busiest_row([(before, after), (after, before)]) == 34


def test_keeps_up_with_large_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 720, 1280, 3), np.uint8)
    statistics = VideoStatistics((1280, 720), 3000, 360)
    taken = []
    for index in range(30):
        began = time.perf_counter()
        statistics.add(frames[index % 3], index, is_key(index))
        taken.append(time.perf_counter() - began)
    assert np.median(taken) < 0.05  # a tenth of it on a quiet machine
