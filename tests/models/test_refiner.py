"""The refiner: warping by hand, bands and shared key frames, what has no influence, and files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.errors import ModelError
from evfi.models.bundle import load_bundle, load_refiner, save_network
from evfi.models.refiner import RESERVED_CHANNELS, Refined, Refiner, RefinerInputs, warp
from tiny_models import tiny_bundle, tiny_refiner

HEIGHT, WIDTH = 128, 64


def some_inputs(batch: int = 1, number: int = 3, height: int = HEIGHT, width: int = WIDTH) -> RefinerInputs:
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, height, width, generator=generator) * 2 - 1

    return RefinerInputs(
        keys=drawn(batch, 2, 3),
        key_stacks=drawn(batch, 2, 6),
        prediction=drawn(batch, number, 3),
        stacks=drawn(batch, number, 12),
        sums=drawn(batch, number, 4),
        times=torch.linspace(0.1, 0.8, batch * number).view(batch, number),
    )


def one_frame(inputs: RefinerInputs, number: int) -> RefinerInputs:
    one = slice(number, number + 1)
    names = ("prediction", "stacks", "sums", "times")
    return replace(inputs, **{name: getattr(inputs, name)[:, one] for name in names})


def key_features(refiner: Refiner, inputs: RefinerInputs) -> list[Tensor]:
    return [level.unflatten(0, (-1, 2)) for level in refiner.key_features(inputs.keys, inputs.key_stacks)]


def assert_same(made: Refined, expected: Refined, tolerance: float = 1e-5) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(made.frames, expected.frames, **close)
    for (scale, *own), (other, *others) in zip(made.flows, expected.flows, strict=True):
        assert scale == other
        torch.testing.assert_close(own, others, **close)


def constant_flow(x: float, y: float, height: int, width: int) -> Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, height, width)


def test_warp_moves_by_whole_pixels_and_repeats_the_border() -> None:
    picture = torch.arange(12.0).view(1, 1, 3, 4)
    moved = warp(picture, constant_flow(2, 1, 3, 4))  # every pixel takes what is 2 to its right and 1 below
    assert moved[0, 0].tolist() == pytest.approx(torch.tensor([[6, 7, 7, 7], [10, 11, 11, 11], [10, 11, 11, 11]]))
    back = warp(picture, constant_flow(-1, -5, 3, 4))
    assert torch.allclose(back[0, 0], torch.tensor([0.0, 0, 1, 2]).expand(3, 4), atol=1e-5)


def test_warp_takes_parts_of_pixels_linearly() -> None:
    picture = torch.arange(12.0).view(1, 1, 3, 4)
    moved = warp(picture, constant_flow(0.25, 0.5, 3, 4))
    assert float(moved[0, 0, 0, 0]) == pytest.approx(0.25 * 1 + 0.5 * 4)


def test_cubic_warp_blurs_less_and_moves_by_whole_pixels_alike() -> None:
    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    whole = constant_flow(2, -1, 24, 24)
    torch.testing.assert_close(warp(picture, whole, cubic=True), warp(picture, whole), rtol=0, atol=1e-5)
    there, back = (constant_flow(side, 0, 24, 24) for side in (0.5, -0.5))
    inner = (..., slice(4, -4))
    errors = [
        float((warp(warp(picture, there, cubic=cubic), back, cubic=cubic) - picture)[inner].abs().mean())
        for cubic in (False, True)
    ]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("side", [0, 1])
@torch.no_grad()
def test_the_fusion_corrects_the_flows_before_it_warps_what_it_mixes(side: int) -> None:
    refiner, inputs = tiny_refiner(), some_inputs(number=1)
    choose = refiner.fusion.choose
    choose.weight.zero_()
    choose.bias.zero_()
    choose.bias[side] = 1000  # this warped key frame alone
    correction = torch.tensor([1.5, -0.75])
    choose.bias[8 + 2 * side : 10 + 2 * side] = correction
    made = refiner(inputs)
    flow = 2 * F.interpolate(made.flows[-1][1], scale_factor=2.0, mode="bilinear", align_corners=False)
    corrected = flow[:, 2 * side : 2 * side + 2] + correction.view(1, 2, 1, 1)
    torch.testing.assert_close(made.frames, warp(inputs.keys[:, side], corrected, cubic=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
def test_zero_flow_changes_nothing_even_far_from_the_origin(dtype: torch.dtype, tolerance: float) -> None:
    picture = torch.rand(1, 2, 5, 1999, generator=torch.Generator().manual_seed(0)).to(dtype)
    moved = warp(picture, torch.zeros(1, 2, 5, 1999))
    assert moved.dtype == dtype
    torch.testing.assert_close(moved, picture, atol=5e-4 if dtype == torch.float32 else tolerance, rtol=0)


def test_warp_of_some_rows_is_those_rows_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    picture, flow = torch.rand(2, 3, 9, 7, generator=generator), 3 * torch.randn(2, 2, 9, 7, generator=generator)
    rows = warp(picture, flow[..., 4:7, :], top=4)
    torch.testing.assert_close(rows, warp(picture, flow)[..., 4:7, :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bands", [2, 3, 7, 50])
@torch.no_grad()
def test_bands_give_the_same(bands: int) -> None:
    """Of 128 rows, 32 are at a quarter of the resolution; more bands than that leave some without a row."""
    refiner, inputs = tiny_refiner(), some_inputs(number=2)
    features = key_features(refiner, inputs)
    whole = refiner.refine(inputs, features)
    assert float(whole.flows[-1][1].abs().max()) > 2  # warping reaches beyond the bands' own rows
    assert_same(refiner.refine(inputs, features, bands=bands), whole)


@torch.no_grad()
def test_key_features_serve_many_frames_as_they_serve_one() -> None:
    refiner, inputs = tiny_refiner(), some_inputs(batch=2, number=3)
    together = refiner.refine(inputs, key_features(refiner, inputs)).frames.unflatten(0, (2, 3))
    for number in range(3):
        torch.testing.assert_close(refiner(one_frame(inputs, number)).frames, together[:, number], rtol=1e-5, atol=1e-5)
    assert float((together[:, 0] - together[:, 1]).abs().max()) > 0.01


@torch.no_grad()
def test_a_prediction_that_does_not_count_has_no_influence() -> None:
    refiner, inputs = tiny_refiner(), some_inputs()
    without = refiner(replace(inputs, prediction=None))
    for factor in (1.0, -1000.0):
        assert inputs.prediction is not None
        told = replace(inputs, prediction=factor * inputs.prediction, has_prediction=torch.zeros(1, 3))
        assert_same(refiner(told), without, tolerance=0)
    given = refiner(inputs)
    assert float((given.frames - without.frames).abs().max()) > 0.01
    assert_same(refiner(replace(inputs, has_prediction=torch.ones(1, 3))), given, tolerance=0)


@torch.no_grad()
def test_whether_a_prediction_counts_is_told_for_each_frame() -> None:
    refiner, inputs = tiny_refiner(), some_inputs()
    mixed = refiner(replace(inputs, has_prediction=torch.tensor([[0.0, 1.0, 0.0]]))).frames
    without, given = refiner(replace(inputs, prediction=None)).frames, refiner(inputs).frames
    torch.testing.assert_close(mixed, torch.stack([without[0], given[1], without[2]]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("levels", [3, 5])
@torch.no_grad()
def test_sides_are_multiples_of_the_coarsest_pixel(levels: int) -> None:
    refiner = tiny_refiner(widths=(8,) * levels, matching_levels=1)
    assert refiner.multiple == 2**levels
    smallest = refiner(some_inputs(number=1, height=refiner.multiple, width=2 * refiner.multiple))
    assert smallest.frames.shape == (1, 3, refiner.multiple, 2 * refiner.multiple)
    assert [scale for scale, _, _ in smallest.flows] == [2**level for level in range(levels, 0, -1)]
    with pytest.raises(RuntimeError):
        refiner(some_inputs(number=1, height=refiner.multiple, width=refiner.multiple + 2))


def test_reserved_channels_have_no_effect_and_learn_nothing() -> None:
    refiner, inputs = Refiner((8,) * 5, (8, 8, 8), 3, 3), some_inputs(number=1)
    refiner(inputs).frames.square().mean().backward()
    for pyramid in (refiner.key_pyramid, refiner.target_pyramid):
        first = pyramid.levels[0][0].weight
        assert not first[:, -RESERVED_CHANNELS:].any()
        assert not first.grad[:, -RESERVED_CHANNELS:].any()
        assert first.grad[:, :-RESERVED_CHANNELS].any()
    assert all(parameter.grad is not None for parameter in refiner.parameters())


@torch.no_grad()
def test_a_bundle_keeps_its_refiner(tmp_path: Path) -> None:
    bundle = tiny_bundle()
    bundle.refiner = tiny_refiner(matching_levels=2)
    bundle.save(tmp_path, dtype=torch.float16)
    back = load_bundle(tmp_path, dtype=torch.float32).refiner
    assert back is not None
    assert back.multiple == 32
    assert [bool(decoder.radius) for decoder in back.decoders] == [False, False, False, True, True]
    halved = {name: value.half().float() for name, value in bundle.refiner.state_dict().items()}
    assert all(torch.equal(value, halved[name]) for name, value in back.state_dict().items())
    assert back.state_dict().keys() == halved.keys()
    bundle.refiner.load_state_dict(halved)
    assert_same(back(some_inputs(number=1)), bundle.refiner(some_inputs(number=1)))
    kept = load_bundle(tmp_path).refiner
    assert kept is not None
    assert kept.dtype == torch.float16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": [10**9] * 5}, "widths must be 3 to 7 whole numbers from 1 to 1024"),
        ({"widths": ["a", "b", "c"]}, "widths must be"),
        ({"widths": [8, -8, 8, 8, 8]}, "widths must be"),
        ({"fusion_widths": [8, 8]}, "fusion_widths must be 3 whole numbers"),
        ({"matching_radius": 1000}, "matching_radius must be a whole number from 1 to 8"),
        ({"matching_levels": 2.5}, "matching_levels must be a whole number"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_network(tiny_refiner(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelError, match=message):
        load_refiner(tmp_path, dtype=None, device=torch.device("cpu"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    refiner = tiny_refiner()
    with torch.no_grad():
        next(refiner.parameters()).fill_(float("nan"))
    save_network(refiner, tmp_path)
    with pytest.raises(ModelError, match="not finite"):
        load_refiner(tmp_path, dtype=None, device=torch.device("cpu"))


def test_a_listed_refiner_that_is_missing_is_an_error(tmp_path: Path) -> None:
    replace(tiny_bundle(), refiner=tiny_refiner()).save(tmp_path)
    shutil.rmtree(tmp_path / "refiner")
    with pytest.raises(ModelError, match=r"lists a refiner, but .* is missing"):
        load_bundle(tmp_path)
