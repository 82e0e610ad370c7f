"""The refiner's loss: by hand, zero where it must be, and what it punishes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.models.refiner import Refined
from evfi.training.config import RefinerTraining
from evfi.training.refiner_loss import LOSS_MULTIPLE, census_error, flow_error, laplacian_error, refiner_loss

CONFIG = RefinerTraining(Path("t"), Path("o"))
SIDE = 32


def pictures(number: int = 2) -> Tensor:
    return torch.rand(number, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9


def blurred(given: Tensor, width: int) -> Tensor:
    return F.avg_pool2d(F.pad(given, (width // 2,) * 4, mode="replicate"), width, stride=1)


def still(number: int = 2) -> list[tuple[int, Tensor, Tensor]]:
    sides = [(scale, SIDE // scale) for scale in (4, 2)]
    return [(scale, torch.zeros(number, 4, side, side), torch.zeros(number, 1, side, side)) for scale, side in sides]


def test_nothing_moves_and_all_is_right() -> None:
    truth = pictures()
    keys = truth.unsqueeze(1).expand(-1, 2, -1, -1, -1)
    assert float(refiner_loss(Refined(truth, still()), keys, truth, CONFIG)) == pytest.approx(0, abs=1e-5)


def test_the_parts_are_weighted() -> None:
    truth = pictures()
    keys, made = torch.stack([truth.flip(-1), truth], 1), blurred(truth, 3)
    parts = [laplacian_error(made, truth), census_error(made, truth), flow_error(still(), keys, truth)]
    assert all(part > 0.01 for part in parts)
    config = replace(CONFIG, laplacian_weight=2.0, census_weight=3.0, flow_weight=5.0)
    loss = refiner_loss(Refined(made, still()), keys, truth, config)
    expected = (made - truth).abs().mean() + 2 * parts[0] + 3 * parts[1] + 5 * parts[2]
    torch.testing.assert_close(loss, expected)


def test_every_error_grows_with_blur() -> None:
    truth = pictures()
    for error in (laplacian_error, census_error):
        values = [float(error(blurred(truth, width), truth)) for width in (1, 3, 5)]
        assert values[0] == pytest.approx(0, abs=1e-6)
        assert values[0] < values[1] < values[2]


def test_laplacian_error_of_a_constant_shift_is_in_the_coarsest_band_alone() -> None:
    truth = pictures()
    assert float(laplacian_error(truth + 0.03, truth)) == pytest.approx(16 * 0.03, rel=1e-4)
    assert float(laplacian_error(truth - 0.03, truth)) == pytest.approx(16 * 0.03, rel=1e-4)
    smallest = torch.zeros(1, 1, LOSS_MULTIPLE, LOSS_MULTIPLE)
    assert float(laplacian_error(smallest + 1, smallest)) == pytest.approx(16)


def test_laplacian_error_of_one_pixel_by_hand() -> None:
    """Of a value 1 a block of 2×2 keeps 1/4; that, made large again, spreads over 4×4 with weights of 1/4 and 3/4."""
    truth = torch.zeros(1, 1, 16, 16)
    made = truth.clone()
    made[..., 6, 6] = 1
    spread = torch.tensor([0.25, 0.75, 0.75, 0.25])
    finest = (
        (spread[:, None] * spread / 4).sum() - 2 * 0.75**2 / 4 + 1
    )  # one pixel of the block held more than it gets back
    without = float(laplacian_error(made, truth)) - float(finest) / 256
    coarse = F.avg_pool2d(made, 2)
    bands = 0.0
    for level in range(1, 4):
        coarser = F.avg_pool2d(coarse, 2)
        band = coarse - F.interpolate(coarser, scale_factor=2.0, mode="bilinear", align_corners=False)
        bands += 2**level * float(band.abs().mean())
        coarse = coarser
    assert without == pytest.approx(bands + 16 * float(coarse.abs().mean()), rel=1e-5)


def test_census_error_sees_order_and_not_brightness() -> None:
    truth = pictures()
    assert float(census_error(truth + 0.1, truth)) < 1e-6
    assert float(census_error(-truth, truth)) > 0.5
    assert float(census_error(truth.flip(-1), truth)) > 0.3


def test_flow_error_is_of_what_the_flows_make() -> None:
    """The picture lies two pixels further left in the start frame and three further right in the end frame."""
    wide = torch.rand(1, 3, 1, SIDE + 8, generator=torch.Generator().manual_seed(0)).expand(-1, -1, SIDE, -1)
    start, truth, end = (wide[..., left : left + SIDE] for left in (6, 4, 1))
    keys = torch.stack([start, end], 1)
    flow = torch.tensor([-2.0, 0, 3, 0]).view(1, 4, 1, 1).expand(-1, -1, SIDE, SIDE)
    share = torch.zeros(1, 1, SIDE, SIDE)
    right = float(flow_error([(1, flow, share)], keys, truth))
    assert right == pytest.approx(_border_error(start, end, truth), rel=1e-3)
    assert float(flow_error([(1, -flow, share)], keys, truth)) > 3 * right
    only_start = flow * torch.tensor([1.0, 1, 0, 0]).view(1, 4, 1, 1)
    trusted = [float(flow_error([(1, only_start, share + logit)], keys, truth)) for logit in (20, 0, -20)]
    assert trusted[0] < trusted[1] < trusted[2]


def _border_error(start: Tensor, end: Tensor, truth: Tensor) -> float:
    """Where flows point out of the picture, the border is repeated."""
    columns = torch.arange(SIDE)
    made = (start[..., (columns - 2).clamp(min=0)] + end[..., (columns + 3).clamp(max=SIDE - 1)]) / 2
    return float((made - truth).abs().mean())
