"""Metrics of changes in time, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evfi.evaluation.metrics.base import ScoredWindow
from evfi.evaluation.metrics.temporal import METRICS, flicker, static_pixels, temporal_mae


def _window(frames, truth, **regions):
    return ScoredWindow(frames, truth, np.arange(len(frames), dtype=np.int64) * 10, regions)


def _still(number=5, size=(20, 30), level=100):
    return np.full((number, *size, 3), level, np.uint8)


def _noisy(seed=0, **options):
    noise = np.random.default_rng(seed).integers(-3, 4, _still(**options).shape)
    return (_still(**options) + noise).astype(np.uint8)


def _moving():
    """A bright square that moves by 4 px per frame."""
    frames = _still(size=(40, 60), level=50)
    for index, frame in enumerate(frames):
        frame[10:20, 10 + 4 * index : 20 + 4 * index] = 200
    return frames


@pytest.mark.parametrize("metric", [flicker, temporal_mae])
@pytest.mark.parametrize("truth", [_still(), _noisy(), _moving()])
def test_truth_itself_has_the_best_value(metric, truth):
    np.testing.assert_array_equal(metric(_window(truth, truth))["all"], np.zeros(len(truth) - 2))


def test_flicker_of_an_alternating_offset_is_the_offset():
    truth = _still()
    frames = truth.copy()
    frames[1::2] += 7
    assert flicker(_window(frames, truth))["all"] == pytest.approx([7, 7, 7])
    assert temporal_mae(_window(frames, truth))["all"] == pytest.approx([7, 7, 7])


def test_a_jump_is_shared_by_the_frames_beside_it():
    truth = _still()
    frames = truth.copy()
    frames[1:3, ..., 0] += 6  # one channel: 2 levels in the mean; changes lie before frame 1 and before frame 3
    assert flicker(_window(frames, truth))["all"] == pytest.approx([1, 1, 1])
    frames[3] = frames[1]  # the jump back lies between frame 3 and the last key frame
    assert flicker(_window(frames, truth))["all"] == pytest.approx([1, 0, 1])


def test_noise_like_the_truths_does_not_flicker():
    truth = _noisy(size=(80, 80))
    frames = _noisy(1, size=(80, 80))
    assert flicker(_window(frames, truth))["all"] == pytest.approx(0, abs=0.05)
    smooth = flicker(_window(_still(size=(80, 80)), truth))["all"]
    np.testing.assert_array_equal(smooth, [0, 0, 0])


def test_flicker_looks_at_static_pixels_only():
    truth = _moving()
    frames = truth.copy()
    frames[2, 8:22, 8:38] = 0  # within two pixels of where the truth changes
    np.testing.assert_array_equal(flicker(_window(frames, truth))["all"], [0, 0, 0])
    frames[2, 7, 20] = 0
    assert flicker(_window(frames, truth))["all"][1] > 0


def test_static_pixels_by_hand():
    truth = _still(3)
    truth[1, 10, 12, 2] += 8
    assert static_pixels(truth).all()
    truth[1, 10, 12, 2] += 1
    expected = np.ones((20, 30), bool)
    expected[8:13, 10:15] = False
    np.testing.assert_array_equal(static_pixels(truth), expected)


def test_flicker_is_undefined_where_nothing_is_static():
    truth = _still()
    truth[2] += 50
    assert np.isnan(flicker(_window(truth, truth))["all"]).all()


def test_temporal_error_by_hand():
    truth = _still(4, level=0)
    truth[2:, :, 15:] = 60  # half of the picture becomes brighter between frames 1 and 2
    frames = truth.copy()
    frames[1], frames[2] = 0, 0  # here only before the last key frame
    right = np.zeros((4, 20, 30), bool)
    right[:, :, 15:] = True
    values = temporal_mae(_window(frames, truth, right=right, left=~right, nowhere=right & ~right))
    # errors of the intervals, right half: 0, 60, 60
    assert values["right"] == pytest.approx([30, 60])
    assert values["all"] == pytest.approx([15, 30])
    np.testing.assert_array_equal(values["left"], [0, 0])
    assert np.isnan(values["nowhere"]).all()


def test_a_regions_mask_is_that_of_the_frame():
    truth = _still(4)
    frames = truth.copy()
    frames[1, 0, 0] += 10
    mask = np.zeros((4, 20, 30), bool)
    mask[1, 0, 0] = mask[2, 5, 5] = True
    assert temporal_mae(_window(frames, truth, spot=mask))["spot"] == pytest.approx([10, 0])


def test_a_constant_error_is_no_temporal_error_but_at_key_frames():
    truth = _moving()
    frames = truth.copy()
    frames[1:-1] += 5
    assert temporal_mae(_window(frames, truth))["all"] == pytest.approx([2.5, 0, 2.5])


def test_metrics_load():
    assert [metric.name for metric in METRICS] == ["flicker", "temporal_mae"]
    for metric in METRICS:
        assert metric.load(torch.device("cpu"))(_window(_still(), _still()))["all"] == pytest.approx([0, 0, 0])
