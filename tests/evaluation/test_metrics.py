"""Metric values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_windows import window_of

from evfi.errors import ConfigError
from evfi.evaluation.metrics import moving_pixels, psnr, regions_of
from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.metrics.pixels import score_psnr_rgb, score_psnr_y, studio_luma
from evfi.evaluation.metrics.registry import METRICS, default_metrics, metric_named


def test_psnr_by_hand():
    truth = np.zeros((2, 2, 2, 3), np.uint8)
    pictures = truth.copy()
    pictures[0, 0, 0] = 255  # one of four pixels is wrong by 1: MSE 1/4
    pictures[1] = 51  # all wrong by 0.2: MSE 0.04
    assert psnr(pictures, truth) == pytest.approx([10 * np.log10(4), -20 * np.log10(0.2)])


def test_masked_psnr_by_hand():
    truth = np.zeros((1, 2, 2, 3), np.uint8)
    pictures = truth.copy()
    pictures[0, 0, 0] = 255
    mask = np.array([[True, True], [False, False]])
    assert psnr(pictures, truth, mask) == pytest.approx([10 * np.log10(2)])
    assert psnr(pictures, truth, ~mask) == pytest.approx([100])
    assert np.isnan(psnr(pictures, truth, np.zeros((2, 2), bool)))


def test_shapes_must_agree():
    with pytest.raises(ConfigError, match="one shape"):
        psnr(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((2, 2, 2, 3), np.uint8))


def test_moving_pixels_differ_from_either_key_frame():
    start, truth, end = np.zeros((3, 20, 30, 3), np.uint8)
    end[10, 3] = 40  # away from the truth
    truth[10, 20] = 13
    start[2, 29] = 12  # too little
    moving = moving_pixels(truth, start, end)
    expected = np.zeros((20, 30), bool)
    expected[7:14, 0:7] = True
    expected[7:14, 17:24] = True
    np.testing.assert_array_equal(moving, expected)


@pytest.mark.parametrize("score", [score_psnr_rgb, score_psnr_y])
def test_equal_frames_have_100_db(score):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert score(window_of(picture, picture))[ALL] == pytest.approx([100])


def test_constant_offset_by_hand():
    truth = np.full((4, 6, 3), 100, np.uint8)
    window = window_of(truth + np.uint8(10), truth)
    assert score_psnr_rgb(window)[ALL] == pytest.approx([20 * np.log10(255 / 10)])
    assert score_psnr_y(window)[ALL] == pytest.approx([20 * np.log10(255 / (10 * 219 / 255))])


def test_one_wrong_pixel_counts_in_its_region():
    truth = np.zeros((4, 6, 3), np.uint8)
    picture, left, none = truth.copy(), np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    picture[1, 1, 0] = 255  # red of one pixel of 24, or of 12
    left[:, :3] = True
    values = score_psnr_rgb(window_of(picture, truth, left=left, right=~left, none=none))
    assert values[ALL] == pytest.approx([10 * np.log10(24 * 3)])
    assert values["left"] == pytest.approx([10 * np.log10(12 * 3)])
    assert values["right"] == pytest.approx([100])
    assert np.isnan(values["none"]).all()


def test_studio_luma_of_corners():
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8)
    np.testing.assert_allclose(studio_luma(colours), [16, 235, 81.481], atol=1e-9)


def test_regions_of_a_window():
    truth = np.zeros((4, 40, 60, 3), np.uint8)
    truth[:, 5:10, 5:10] = 200  # still
    truth[1, 20, 30, 2] = 37  # 12.33 in the mean, range 37
    truth[2, 35, 50, :] = 20  # more than 12, a range of 20 is no change
    regions = regions_of(truth)
    assert set(regions) == {"moving", "changing"}
    assert [mask.sum() for mask in regions["moving"]] == [0, 49, 49, 0]
    assert regions["moving"][1, 17:24, 27:34].all()
    assert not regions["changing"].any()  # one pixel of 2400 is less than 0.1 %
    truth[1, 20, 30:33, 2] = 37
    changing = regions_of(truth)["changing"]
    np.testing.assert_array_equal(changing, np.broadcast_to(changing[0], changing.shape))
    assert np.argwhere(changing[0]).tolist() == [[20, 30], [20, 31], [20, 32]]


def test_registry_names_are_unique_and_unknown_ones_are_refused():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert names[0] == "psnr_rgb"
    assert metric_named("psnr_y").title == "PSNR-Y"
    assert {"psnr_rgb", "psnr_y", "ssim_y_pyiqa"} <= {metric.name for metric in default_metrics()}
    with pytest.raises(ConfigError, match=r"'psnr'.*psnr_rgb"):
        metric_named("psnr")
