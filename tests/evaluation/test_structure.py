"""SSIM by hand, at borders, and beside scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_windows import window_of
from golden_inputs import golden_pairs

from evfi.evaluation.metrics import structure
from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.metrics.registry import metric_named

CPU = torch.device("cpu")
VARIANTS = {
    "ssim_y_pyiqa": structure.PYIQA,
    "ssim_rgb_skimage": structure.SKIMAGE_GAUSSIAN,
    "ssim_rgb_skimage_uniform": structure.SKIMAGE_UNIFORM,
    "ssim_rgb_torchmetrics": structure.TORCHMETRICS,
    "ssim_rgb_zeros": structure.ZEROS,
    "ssim_rgb_volume": structure.VOLUME,
}
each_variant = pytest.mark.parametrize("name", VARIANTS)


def flat(level: int, height: int = 24, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


@each_variant
def test_equal_pictures_have_1(name):
    picture = golden_pairs()["noise"][0]
    assert metric_named(name).load(CPU)(window_of(picture, picture))[ALL] == pytest.approx([1.0], abs=1e-9)


@each_variant
def test_flat_pictures_differ_in_luminance_only(name):
    (similarity,) = structure.ssim_maps(flat(110)[None], flat(100)[None], VARIANTS[name], CPU)
    expected = (2 * 110 * 100 + 6.5025) / (110**2 + 100**2 + 6.5025)
    assert similarity[len(similarity) // 2, similarity.shape[1] // 2] == pytest.approx(expected, abs=1e-9)


def test_one_wrong_pixel_in_the_middle_of_a_uniform_window_by_hand():
    picture = flat(100, 7, 7)
    picture[3, 3] = 149
    mean, square = 100 + 1, (48 * 100**2 + 149**2) / 49
    variance = (square - mean**2) * 49 / 48
    expected = (2 * mean * 100 + 6.5025) * 58.5225 / ((mean**2 + 100**2 + 6.5025) * (variance + 58.5225))
    maps = structure.ssim_maps(picture[None], flat(100, 7, 7)[None], structure.SKIMAGE_UNIFORM, CPU)
    assert maps.shape == (1, 1, 1)
    assert maps.item() == pytest.approx(expected, abs=1e-12)


@each_variant
def test_a_wrong_pixel_is_seen_within_the_window_around_it_only(name):
    variant = VARIANTS[name]
    picture, reach = flat(100, 40, 44), len(variant.window) // 2
    picture[20, 22] = 250
    (similarity,) = structure.ssim_maps(picture[None], flat(100, 40, 44)[None], variant, CPU)
    rows, columns = np.nonzero(np.abs(similarity - 1) > 1e-9)
    assert (rows.min() + variant.margin, rows.max() + variant.margin) == (20 - reach, 20 + reach)
    assert (columns.min() + variant.margin, columns.max() + variant.margin) == (22 - reach, 22 + reach)


def test_negative_structure_counts_as_0_in_one_variant_only():
    picture, truth = golden_pairs()["noise"]
    lowest = {
        name: structure.ssim_maps(picture[None], truth[None], variant, CPU).min() for name, variant in VARIANTS.items()
    }
    assert lowest.pop("ssim_y_pyiqa") == 0
    assert max(lowest.values()) < 0


def test_a_region_is_the_mean_of_its_values_without_the_margin():
    picture, truth = golden_pairs()["noisy_scene"]
    mask = np.zeros(picture.shape[:2], bool)
    mask[:20, :30] = True
    scores = metric_named("ssim_y_pyiqa").load(CPU)(window_of(picture, truth, corner=mask, border=~mask & False))
    (similarity,) = structure.ssim_maps(picture[None], truth[None], structure.PYIQA, CPU)
    assert scores["corner"] == pytest.approx([similarity[:15, :25].mean()])
    assert np.isnan(scores["border"]).all()


@each_variant
def test_a_picture_smaller_than_the_window_has_no_value(name):
    picture = flat(10, 6, 40)
    values = metric_named(name).load(CPU)(window_of(picture, picture, some=np.ones((6, 40), bool)))
    assert np.isnan(values[ALL]).all()
    assert np.isnan(values["some"]).all()


def test_luma_is_rounded_to_whole_levels():
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 1, 1]], np.uint8)
    np.testing.assert_array_equal(structure.rounded_luma(colours), [255, 76, 150, 29, 1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ssim_rgb_skimage", {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
        ("ssim_rgb_skimage_uniform", {}),
    ],
)
def test_scikit_image_gives_the_same(name, settings):
    metrics = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(5)
    truth = random.integers(0, 256, (33, 47, 3), dtype=np.uint8)
    picture = (truth // 2 + random.integers(0, 128, truth.shape)).astype(np.uint8)
    theirs = metrics.structural_similarity(truth, picture, data_range=255, channel_axis=-1, **settings)
    assert metric_named(name).load(CPU)(window_of(picture, truth))[ALL] == pytest.approx([theirs], abs=1e-12)
