"""LPIPS and ST-LPIPS: how different two pictures look to a network trained on people's judgements.

The value of the whole frame is the authors' own: the mean of each layer at its own resolution. That of a region is the mean
over the region of the map that results when the layers' maps are enlarged to the frame and added.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evfi.errors import ConfigError
from evfi.evaluation.metrics import lpips_network, metric_weights
from evfi.evaluation.metrics.base import ALL, Metric, Score, ScoredWindow, Values, masked_mean
from evfi.evaluation.metrics.lpips_network import Backbone, PerceptualDistance
from evfi.evaluation.metrics.metric_weights import WeightsFile


def published(backbone: Backbone, layers: WeightsFile, heads: WeightsFile) -> PerceptualDistance:
    """A network with its published weights.

    Args:
        backbone: which.
        layers: its weights.
        heads: those of the channels; the same file where one holds both.

    Raises:
        ModelError: a file is not here and cannot be fetched, or is another.
    """
    weights = {file: metric_weights.load_published(file) for file in {layers, heads}}
    return PerceptualDistance(backbone).load_published(weights[layers], weights[heads])


def load(backbone: Backbone, layers: WeightsFile, heads: WeightsFile, device: torch.device) -> Score:
    """Make a network ready, in float32; see `published`."""
    return partial(score, published(backbone, layers, heads).to(device), device)


@torch.inference_mode()
def score(network: PerceptualDistance, device: torch.device, window: ScoredWindow) -> Values:
    """Compare frame by frame; one pair at a time, so that memory does not grow with the window.

    Raises:
        ConfigError: frames are too small for the network.
    """
    height, width = window.frames.shape[1:3]
    smallest = network.backbone.smallest_px
    if min(height, width) < smallest:
        raise ConfigError(
            f"{network.backbone.title} needs frames of at least {smallest}x{smallest} px, got {width}x{height}; leave it out"
        )
    values: dict[str, list[float]] = {name: [] for name in (ALL, *window.regions)}
    for index in range(1, len(window.frames) - 1):
        pair = (_tensor(pictures[index], device) for pictures in (window.frames, window.truth))
        distance, places = network(*pair)
        values[ALL].append(float(distance[0]))
        found = places.cpu().numpy()
        for name, mask in window.regions.items():
            values[name].append(float(masked_mean(found, mask[index : index + 1])[0]))
    return {name: np.array(numbers, np.float64) for name, numbers in values.items()}


def _tensor(picture: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(device).permute(2, 0, 1)[None].float()
    return pixels / 127.5 - 1


_RULES: Final = (
    "RGB in [-1, 1]; five layers of unit length per place, squared differences weighted per channel, averaged per layer and "
    "added; in a region: the mean of the sum of the layers' maps, each enlarged bilinearly"
)

METRICS: Final = (
    Metric(
        "stlpips_alex",
        lpips_network.SHIFT_TOLERANT_ALEX.title,
        f"Shift-tolerant LPIPS with AlexNet, weights vST0.0 of stlpips-pytorch. {_RULES}.",
        higher_is_better=False,
        load=partial(
            load,
            lpips_network.SHIFT_TOLERANT_ALEX,
            metric_weights.SHIFT_TOLERANT_ALEX,
            metric_weights.SHIFT_TOLERANT_ALEX,
        ),
        decimals=4,
    ),
    Metric(
        "lpips_alex",
        lpips_network.ALEX.title,
        f"LPIPS 0.1 with AlexNet, as the library lpips and pyiqa's `lpips`. {_RULES}.",
        higher_is_better=False,
        load=partial(load, lpips_network.ALEX, metric_weights.ALEX_LAYERS, metric_weights.ALEX_HEADS),
        decimals=4,
        is_default=False,
    ),
    Metric(
        "lpips_vgg",
        lpips_network.VGG.title,
        f"LPIPS 0.1 with VGG-16, as the library lpips and pyiqa's `lpips-vgg`. {_RULES}.",
        higher_is_better=False,
        load=partial(load, lpips_network.VGG, metric_weights.VGG_LAYERS, metric_weights.VGG_HEADS),
        decimals=4,
        is_default=False,
    ),
)
