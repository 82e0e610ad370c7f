"""The networks of LPIPS and ST-LPIPS: features of two pictures, compared layer by layer.

LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924): pictures in [-1, 1] are shifted and scaled per channel, five layers of an
image classifier are scaled to unit length across their channels at each place, and squared differences are weighted per
channel, averaged over places and added over layers. ST-LPIPS (Ghildyal and Liu, ECCV 2022, arXiv 2207.13686) replaces
AlexNet's strides by blurred ones, so that a shift of a pixel costs little.

A backbone is a list of layers; a layer's place in it is its number in the weights that the authors published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evfi.errors import ModelError

_SHIFT: Final = (-0.030, -0.088, -0.188)
_SCALE: Final = (0.458, 0.448, 0.450)
_SMALL: Final = 1e-10
_LAYERS: Final = ("features.", "net.")
"""How names of layers begin in torchvision's files and in those of LPIPS; the classifier's and the heads' do not."""

Layer: TypeAlias = tuple[Literal["conv"], int, int, int, int, int] | tuple[Literal["pool"], int, int] | tuple[str]
"""("conv", channels in, channels out, kernel, stride, padding), ("pool", kernel, stride), ("blur",) or ("relu",)."""


@dataclass(frozen=True)
class Backbone:
    """An image classifier's first layers.

    Attributes:
        title: what the distance is called.
        layers: in order.
        taps: numbers of the layers whose results are compared.
        channels: of these results.
        smallest_px: least width and height of a picture.
    """

    title: str
    layers: tuple[Layer, ...]
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    smallest_px: int


_RELU: Final = ("relu",)
_BLUR: Final = ("blur",)

ALEX: Final = Backbone(
    "LPIPS-Alex",
    (
        *(("conv", 3, 64, 11, 4, 2), _RELU, ("pool", 3, 2)),
        *(("conv", 64, 192, 5, 1, 2), _RELU, ("pool", 3, 2)),
        *(("conv", 192, 384, 3, 1, 1), _RELU),
        *(("conv", 384, 256, 3, 1, 1), _RELU),
        *(("conv", 256, 256, 3, 1, 1), _RELU),
    ),
    taps=(1, 4, 7, 9, 11),
    channels=(64, 192, 384, 256, 256),
    smallest_px=31,
)
"""AlexNet."""

SHIFT_TOLERANT_ALEX: Final = Backbone(
    "ST-LPIPS",
    (
        *(("conv", 3, 64, 11, 1, 2), _BLUR, _RELU, ("pool", 3, 1), _BLUR),
        *(("conv", 64, 192, 5, 1, 2), _RELU, ("pool", 3, 1), _BLUR),
        *(("conv", 192, 384, 3, 1, 1), _RELU),
        *(("conv", 384, 256, 3, 1, 1), _RELU),
        *(("conv", 256, 256, 3, 1, 1), _RELU),
    ),
    taps=(2, 6, 10, 12, 14),
    channels=(64, 192, 384, 256, 256),
    smallest_px=21,
)
"""AlexNet without strides, blurred before every halving."""


def _vgg_layers() -> tuple[Layer, ...]:
    layers: list[Layer] = []
    before = 3
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [("conv", before, channels, 3, 1, 1), _RELU]
            before = channels
        layers.append(("pool", 2, 2))
    return tuple(layers[:-1])


VGG: Final = Backbone(
    "LPIPS-VGG", _vgg_layers(), taps=(3, 8, 15, 22, 29), channels=(64, 128, 256, 512, 512), smallest_px=16
)
"""VGG with 16 layers."""


class Blur(nn.Module):
    """Halve a picture after smoothing it by [1, 2, 1] along both axes; borders are mirrored by 2 px."""

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, (H + 3) // 2, (W + 3) // 2]."""
        line = torch.tensor([0.25, 0.5, 0.25], dtype=features.dtype, device=features.device)
        channels = features.shape[1]
        weights = torch.outer(line, line).expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(features, (2, 2, 2, 2), mode="reflect"), weights, stride=2, groups=channels)


class PerceptualDistance(nn.Module):
    """A backbone and the weight of each channel of its taps."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        """Build it; weights are whatever the layers begin with.

        Args:
            backbone: which.
        """
        super().__init__()
        self.backbone = backbone
        self.layers = nn.ModuleList([_layer(layer) for layer in backbone.layers])
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(channels)) for channels in backbone.channels])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def load_published(self, layers: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> PerceptualDistance:
        """Take published weights.

        Args:
            layers: by names that end in ``NUMBER.weight`` and ``NUMBER.bias``, in torchvision's `features` or the slices of
                LPIPS' `net`; others are passed over.
            heads: by names ``linK.model.1.weight``, [1, C, 1, 1].

        Raises:
            ModelError: a weight is missing or has another shape.
        """
        numbered = {
            tuple(name.rsplit(".", 2)[-2:]): weight for name, weight in layers.items() if name.startswith(_LAYERS)
        }
        with torch.no_grad():
            for number, layer in enumerate(self.layers):
                if isinstance(layer, nn.Conv2d):
                    assert layer.bias is not None
                    self._copy(layer.weight, numbered.get((str(number), "weight")), f"weight of layer {number}")
                    self._copy(layer.bias, numbered.get((str(number), "bias")), f"bias of layer {number}")
            for number, head in enumerate(self.heads):
                found = heads.get(f"lin{number}.model.1.weight")
                self._copy(head, None if found is None else found.flatten(), f"head {number}")
        return self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Compare pictures.

        Args:
            pictures: RGB in [-1, 1], float32 [N, 3, H, W].
            truth: the same.

        Returns:
            The distance [N], and a map of it [N, H, W] whose mean is close to it: each layer's map is enlarged bilinearly.
        """
        size = pictures.shape[-2:]
        total, summed = pictures.new_zeros(len(pictures)), pictures.new_zeros(len(pictures), *size)
        pairs = zip(self._taps(pictures), self._taps(truth), self.heads, strict=True)
        for ours, theirs, head in pairs:
            layer = _weighted_difference(ours, theirs, head)
            total += layer.mean((1, 2, 3))
            summed += F.interpolate(layer, size=size, mode="bilinear", align_corners=False)[:, 0]
        return total, summed

    def _taps(self, pictures: Tensor) -> Iterator[Tensor]:
        """Features one by one, so that no layer's need be kept until the last is known."""
        features = (pictures - self.shift) / self.scale
        for number, layer in enumerate(self.layers):
            features = layer(features)
            if number in self.backbone.taps:
                yield features

    def _copy(self, place: Tensor, weight: Tensor | None, what: str) -> None:
        if weight is None or weight.shape != place.shape:
            found = "none" if weight is None else str(list(weight.shape))
            raise ModelError(
                f"weights of {self.backbone.title} do not match: {what} must be {list(place.shape)}, found {found}"
            )
        place.copy_(weight)


def _layer(layer: Layer) -> nn.Module:
    match layer:
        case ("conv", before, after, kernel, stride, padding):
            return nn.Conv2d(before, after, kernel, stride, padding)
        case ("pool", kernel, stride):
            return nn.MaxPool2d(kernel, stride)
        case ("blur",):
            return Blur()
    return nn.ReLU()


def _weighted_difference(ours: Tensor, theirs: Tensor, head: Tensor) -> Tensor:
    """Squared differences of features of unit length per place, weighted and added over channels, [N, 1, H, W]."""
    difference = _unit(ours)
    difference -= _unit(theirs)  # in place: one layer of a picture of 1280x720 px takes 236 MB
    return F.conv2d(difference.square_(), head.view(1, -1, 1, 1))


def _unit(features: Tensor) -> Tensor:
    """Features of unit length at each place."""
    lengths: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (lengths + _SMALL)
