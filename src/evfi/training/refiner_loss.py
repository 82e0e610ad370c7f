"""The refiner's loss: pixels, detail at all scales, local structure, and what its flows alone make.

A network trained on pixel errors alone averages the places where a thing may be. The errors of a Laplacian pyramid (Niklaus and
Liu, "Context-aware Synthesis for Video Frame Interpolation", CVPR 2018) and of the soft census transform (Meister et al.,
"UnFlow", AAAI 2018) punish the blur that results.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.models.refiner import Refined, warp
from evfi.training.config import RefinerTraining

_LEVELS = 5
LOSS_MULTIPLE = 2 ** (_LEVELS - 1)
"""Sides of the pictures must be multiples of this."""
_CENSUS_REACH = 2
_CENSUS_SCALE, _CENSUS_SOFTNESS = 0.81, 0.1


def refiner_loss(refined: Refined, keys: Tensor, truth: Tensor, config: RefinerTraining) -> Tensor:
    """The loss of a batch.

    Args:
        refined: what the network made, [N, 3, H, W].
        keys: key frames [N, 2, 3, H, W].
        truth: true frames [N, 3, H, W].
        config: the weights of its parts.

    Returns:
        A scalar.
    """
    frames = refined.frames
    loss = (frames - truth).abs().mean()
    loss = loss + config.laplacian_weight * laplacian_error(frames, truth)
    loss = loss + config.census_weight * census_error(frames, truth)
    return loss + config.flow_weight * flow_error(refined.flows, keys, truth)


def laplacian_error(pictures: Tensor, truth: Tensor) -> Tensor:
    """L1 error over the bands of a Laplacian pyramid, each weighted by its scale."""
    difference, total = pictures - truth, torch.zeros((), device=truth.device)
    for level in range(_LEVELS - 1):
        coarse = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        total = total + 2**level * band.abs().mean()
        difference = coarse
    return total + 2 ** (_LEVELS - 1) * difference.abs().mean()


def census_error(pictures: Tensor, truth: Tensor) -> Tensor:
    """Mean soft distance of the census transforms of both pictures' grey levels."""
    height, width = truth.shape[-2:]
    grey = torch.cat([pictures, truth]).mean(1, keepdim=True) * 127.5
    padded = F.pad(grey, (_CENSUS_REACH,) * 4, mode="replicate")
    total = torch.zeros((), device=truth.device)
    around = range(2 * _CENSUS_REACH + 1)
    places = [(row, column) for row in around for column in around if (row, column) > (_CENSUS_REACH, _CENSUS_REACH)]
    for row, column in places:  # the other half are the same pairs
        difference = padded[..., row : row + height, column : column + width] - grey
        order, other = (difference * torch.rsqrt(_CENSUS_SCALE + difference.square())).chunk(2)
        distance = (order - other).square()
        total = total + (distance / (_CENSUS_SOFTNESS + distance)).mean()
    return total / len(places)


def flow_error(flows: list[tuple[int, Tensor, Tensor]], keys: Tensor, truth: Tensor) -> Tensor:
    """L1 error of the key frames warped by the flows and mixed by the start's share, summed over the levels."""
    total = torch.zeros((), device=truth.device)
    for scale, flow, share in flows:
        start, end, wanted = (F.avg_pool2d(picture, scale) for picture in (keys[:, 0], keys[:, 1], truth))
        warped = torch.lerp(warp(end, flow[:, 2:]), warp(start, flow[:, :2]), share.sigmoid())
        total = total + (warped - wanted).abs().mean()
    return total
