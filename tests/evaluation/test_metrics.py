"""Metric values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evfi.errors import ConfigError
from evfi.evaluation.metrics import moving_pixels, psnr


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
