"""Our values are those that the libraries of origin gave, see scripts/check_metrics.py."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from evaluation_windows import window_of
from golden_inputs import golden_pairs

from evfi.errors import ModelError
from evfi.evaluation.metrics.base import ALL
from evfi.evaluation.metrics.registry import metric_named

GOLDEN = json.loads((Path(__file__).parent / "golden_metrics.json").read_text(encoding="utf-8"))
AGREEING = [row for row in GOLDEN["origins"] if row["tolerance"] is not None]
PAIRS = golden_pairs()


@pytest.mark.parametrize("row", AGREEING, ids=lambda row: f"{row['metric']}-{row['origin']}")
def test_values_of_the_library(row):
    try:
        score = metric_named(row["metric"]).load(torch.device("cpu"))
    except ModelError as error:
        pytest.skip(str(error))
    for name, theirs in row["values"].items():
        ours = score(window_of(*PAIRS[name]))[ALL]
        assert ours == pytest.approx([theirs], abs=row["tolerance"]), name


def test_goldens_cover_all_pixel_metrics_and_say_their_versions():
    covered = {row["metric"] for row in AGREEING}
    assert {"psnr_rgb", "psnr_y", "flip", "ssim_y_pyiqa", "ssim_rgb_skimage", "ssim_rgb_skimage_uniform"} < covered
    assert {"ssim_rgb_torchmetrics", "ssim_rgb_volume"} < covered
    assert {"scikit-image", "pyiqa", "torchmetrics", "flip-evaluator"} <= set(GOLDEN["versions"])


def test_flip_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "flip_evaluator", None)
    with pytest.raises(ModelError, match=r"pip install 'evfi\[eval\]'"):
        metric_named("flip").load(torch.device("cpu"))


@pytest.mark.skipif(importlib.util.find_spec("flip_evaluator") is None, reason="flip-evaluator is not installed")
def test_flip_of_regions():
    picture, truth = PAIRS["one_pixel"]
    near = abs(picture.astype(int) - truth).any(axis=-1)
    values = metric_named("flip").load(torch.device("cpu"))(window_of(picture, truth, near=near, none=near & False))
    assert values["near"] > 50 * values[ALL] > 0
    assert values["none"] != values["none"]
