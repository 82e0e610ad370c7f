"""LPIPS and ST-LPIPS: their networks with random weights, and ST-LPIPS' published ones where they are installed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_windows import window_of
from torch import Tensor, nn

from evfi.errors import ConfigError, ModelError
from evfi.evaluation.metrics import lpips_network, metric_weights, perceptual
from evfi.evaluation.metrics.base import ALL, ScoredWindow
from evfi.evaluation.metrics.lpips_network import (
    ALEX,
    SHIFT_TOLERANT_ALEX,
    VGG,
    Backbone,
    Blur,
    PerceptualDistance,
    _vgg_layers,
)

CPU = torch.device("cpu")
TINY = Backbone(
    "Tiny",
    (("conv", 3, 4, 3, 1, 1), ("relu",), ("pool", 2, 2), ("conv", 4, 6, 3, 1, 1), ("relu",)),
    taps=(1, 4),
    channels=(4, 6),
    smallest_px=2,
)


def weights_of(backbone: Backbone, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under published names: layers in torchvision's, and heads, which are positive."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for number, layer in enumerate(PerceptualDistance(backbone).layers):
        for name, weight in layer.named_parameters():
            spread = 2 / weight[0].numel() ** 0.5
            weights[f"features.{number}.{name}"] = torch.randn(weight.shape, generator=generator) * spread
    for number, channels in enumerate(backbone.channels):
        weights[f"lin{number}.model.1.weight"] = torch.rand(1, channels, 1, 1, generator=generator)
    return weights


def network_of(backbone: Backbone) -> PerceptualDistance:
    """A network with random weights."""
    weights = weights_of(backbone)
    return PerceptualDistance(backbone).load_published(weights, weights)


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Noise in [-1, 1], [N, 3, H, W]."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("backbone", [TINY, ALEX, SHIFT_TOLERANT_ALEX], ids=lambda backbone: backbone.title)
def test_distance_is_zero_for_equal_pictures_symmetric_and_of_each_pair_alone(backbone):
    network = network_of(backbone)
    ours, theirs = pictures(2, 34, 37), pictures(2, 34, 37, seed=1)
    distance, places = network(ours, theirs)
    assert distance.shape == (2,) and places.shape == (2, 34, 37)
    assert distance.min() > 0
    assert not network(ours, ours)[0].any() and not network(ours, ours)[1].any()
    torch.testing.assert_close(network(theirs, ours)[0], distance)
    for index in range(2):
        alone = network(ours[index : index + 1], theirs[index : index + 1])
        torch.testing.assert_close(alone[0], distance[index : index + 1], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(alone[1], places[index : index + 1], rtol=1e-4, atol=1e-6)


def test_distance_by_its_definition():
    network = network_of(TINY)
    ours, theirs = pictures(1, 6, 8), pictures(1, 6, 8, seed=1)
    weights = weights_of(TINY)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)

    def features(picture: Tensor) -> list[Tensor]:
        first = nn.functional.conv2d(
            (picture - shift) / scale, weights["features.0.weight"], weights["features.0.bias"], padding=1
        ).relu()
        second = nn.functional.conv2d(
            nn.functional.max_pool2d(first, 2), weights["features.3.weight"], weights["features.3.bias"], padding=1
        ).relu()
        return [layer / (layer.square().sum(1, keepdim=True).sqrt() + 1e-10) for layer in (first, second)]

    expected = 0.0
    for number, (a, b) in enumerate(zip(features(ours), features(theirs), strict=True)):
        expected += ((a - b) ** 2 * weights[f"lin{number}.model.1.weight"]).sum(1).mean().item()
    assert network(ours, theirs)[0].item() == pytest.approx(expected, rel=1e-5)


def test_blur_halves_and_mirrors_borders():
    picture = torch.zeros(1, 2, 3, 3)
    picture[0, 0] = torch.tensor([[0.0, 16, 32], [48, 64, 80], [96, 112, 128]])
    line = torch.tensor([[0.25, 0.5, 0.25, 0, 0, 0, 0], [0, 0, 0.25, 0.5, 0.25, 0, 0], [0, 0, 0, 0, 0.25, 0.5, 0.25]])
    mirrored = torch.tensor([2, 1, 0, 1, 2, 1, 0])
    expected = line @ picture[0, 0][mirrored][:, mirrored] @ line.T
    found = Blur()(picture)
    assert found.shape == (1, 2, 3, 3)
    torch.testing.assert_close(found[0, 0], expected)
    assert (
        found[0, 0, 0, 0] == 64 and found[0, 0, 1, 1] == 64
    )  # of the linear ramp: mirrored about its corner, and about 64
    assert not found[0, 1].any()  # channels apart
    assert Blur()(torch.zeros(1, 1, 8, 11)).shape[2:] == (5, 7)


def test_published_names_are_understood():
    weights = weights_of(TINY)
    sliced = {name.replace("features.", "net.slice1."): weight for name, weight in weights.items()}
    ours, theirs = pictures(1, 6, 8), pictures(1, 6, 8, seed=1)
    expected = PerceptualDistance(TINY).load_published(weights, weights)(ours, theirs)[0]
    assert PerceptualDistance(TINY).load_published(sliced, weights)(ours, theirs)[0] == expected


def test_weights_of_the_classifier_are_not_taken_for_layers():
    weights = weights_of(VGG)
    expected = weights["features.0.weight"]
    decoys = {name.replace("features.", "classifier."): weight + 1 for name, weight in weights.items()}
    network = PerceptualDistance(VGG).load_published(weights | decoys, weights)
    torch.testing.assert_close(network.layers[0].weight, expected, rtol=0, atol=0)
    with pytest.raises(
        ModelError, match=r"weights of LPIPS-VGG do not match: weight of layer 0 must be .*, found none"
    ):
        PerceptualDistance(VGG).load_published(decoys, weights)


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("features.3.weight", None, r"weight of layer 3 must be \[6, 4, 3, 3\], found none"),
        ("features.0.bias", torch.zeros(5), r"bias of layer 0 must be \[4\], found \[5\]"),
        ("lin1.model.1.weight", None, r"head 1 must be \[6\], found none"),
        ("lin0.model.1.weight", torch.zeros(1, 3, 1, 1), r"head 0 must be \[4\], found \[3\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, weight, message):
    weights = weights_of(TINY)
    if weight is None:
        del weights[name]
    else:
        weights[name] = weight
    with pytest.raises(ModelError, match=f"^weights of Tiny do not match: {message}$"):
        PerceptualDistance(TINY).load_published(weights, weights)


def test_layers_that_vgg_has():
    convolutions = [layer[2] for layer in _vgg_layers() if layer[0] == "conv"]
    assert convolutions == [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    assert all(_vgg_layers()[tap] == ("relu",) for tap in VGG.taps)


@pytest.mark.parametrize("backbone", [ALEX, SHIFT_TOLERANT_ALEX, VGG], ids=lambda backbone: backbone.title)
def test_smallest_size_is_the_smallest_that_works(backbone):
    network = PerceptualDistance(backbone).eval().requires_grad_(False)
    smallest = backbone.smallest_px
    for height, width in ((smallest, 40), (40, smallest)):
        distance, places = network(pictures(1, height, width), pictures(1, height, width, seed=1))
        assert distance.isfinite().all() and places.shape == (1, height, width)
    with pytest.raises(RuntimeError):
        network(pictures(1, smallest - 1, 40), pictures(1, smallest - 1, 40))


@pytest.mark.parametrize("backbone", [ALEX, SHIFT_TOLERANT_ALEX, VGG], ids=lambda backbone: backbone.title)
def test_frames_that_are_too_small_are_refused(backbone):
    smallest = backbone.smallest_px
    picture = np.zeros((smallest - 1, 50, 3), np.uint8)
    message = (
        f"^{backbone.title} needs frames of at least {smallest}x{smallest} px, got 50x{smallest - 1}; leave it out$"
    )
    with pytest.raises(ConfigError, match=message):
        perceptual.score(PerceptualDistance(backbone), CPU, window_of(picture, picture))


def test_scores_are_of_inserted_frames_and_of_regions():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (4, 10, 12, 3), dtype=np.uint8)
    frames = truth.copy()
    frames[0] = 0  # key frames do not count
    frames[2, :5] = 0
    upper = np.zeros((4, 10, 12), bool)
    upper[:, :4] = True
    masks = {"upper": upper, "lower": upper[:, ::-1], "none": upper & False, "every": upper | True}
    network = network_of(TINY)
    values = perceptual.score(network, CPU, ScoredWindow(frames, truth, np.arange(4), masks))
    assert set(values) == {ALL, *masks} and all(found.shape == (2,) for found in values.values())
    assert values[ALL][0] == 0 == values["upper"][0] and values[ALL][1] > 0
    assert np.isnan(values["none"]).all()
    assert values["upper"][1] > values["every"][1] > values["lower"][1]
    as_tensor = [torch.from_numpy(side[2]).permute(2, 0, 1)[None].float() / 127.5 - 1 for side in (frames, truth)]
    distance, places = network(*as_tensor)
    assert values[ALL][1] == pytest.approx(distance.item())
    assert values["every"][1] == pytest.approx(places.mean().item(), rel=1e-6)
    assert values["upper"][1] == pytest.approx(places[0, :4].mean().item(), rel=1e-6)


def test_a_shift_costs_little_where_it_is_tolerated():
    """The published weights; golden values are in test_golden_metrics.py."""
    try:
        weights = metric_weights.SHIFT_TOLERANT_ALEX
        network = perceptual.published(lpips_network.SHIFT_TOLERANT_ALEX, weights, weights)
    except ModelError as error:
        pytest.skip(str(error))
    rows, columns = np.mgrid[:48, :64]
    truth = np.stack([128 + 100 * np.sin(columns / 3), 128 + 100 * np.cos(rows / 4), columns + rows], axis=-1)
    truth = truth.astype(np.uint8)
    noisy = np.clip(truth + np.random.default_rng(0).normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    same, shifted, blurred = (
        perceptual.score(network, CPU, window_of(picture, truth))[ALL][0]
        for picture in (truth, np.roll(truth, 1, axis=1), noisy)
    )
    assert same == 0 < shifted < blurred / 2


def test_networks_of_the_metrics_are_made_when_loaded(monkeypatch):
    read = []

    def published(file):
        read.append(file.name)
        backbone = VGG if "vgg" in file.name else SHIFT_TOLERANT_ALEX if "tolerant" in file.name else ALEX
        return weights_of(replace(backbone, title="same"))

    monkeypatch.setattr(perceptual.metric_weights, "load_published", published)
    for metric in perceptual.METRICS:
        read.clear()
        picture = np.zeros((40, 40, 3), np.uint8)
        assert metric.load(CPU)(window_of(picture, picture))[ALL] == [0]
        assert len(read) == (1 if metric.name == "stlpips_alex" else 2)
