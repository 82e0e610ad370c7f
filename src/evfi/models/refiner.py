"""The refiner: a network that warps key frames to an output time and fuses them with the diffusion model's prediction.

The diffusion model says where things are, the key frames say what they look like. The refiner estimates two flows, from the
output frame to the start and to the end key frame, warps both key frames by them, and chooses, pixel by pixel, among the
warped key frames, the key frames as they are, and the prediction; a small residual corrects what no candidate has. (Flow and
fusion as in RIFE, arXiv 2011.06294, IFRNet, arXiv 2205.14620, and Time Lens, arXiv 2106.07286; the prediction as a third
witness is this project's own.)

How flows are found, from 1/32 to 1/2 of the resolution:

- Two feature pyramids. That of a key frame sees its pixels and the events next to it, that of the output frame sees the
  prediction and the events around it and since and until the key frames. Both see edges as events draw them, so that the
  events at the output time can be matched with the events at a key frame: an offset between the clocks of events and frames
  is the same in both and cancels.
- Three matching costs at the coarse levels, around the flow so far: output frame with start, output frame with end, and start
  with end along straight paths through the output pixel at the output time (bilateral matching, arXiv 2007.12622). The last
  needs neither events nor a prediction.

Conventions: pixels are in [-1, 1]; flows are in pixels of their level, (x, y), from the output frame to a key frame. B is
windows, N is output frames of each. Inputs that later training will use are reserved as channels and are zero until then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from evfi.events.stack_config import StackConfig
from evfi.models import onednn
from evfi.models.heap import give_back

EVENT_STACK: Final = StackConfig(num_channels=6, normalisation="symmetric")
"""How refiners see events, whatever the diffusion model's own representation is."""
SUM_CHANNELS: Final = 4
"""Signed and absolute event sums since the start and until the end key frame (`evfi.events.sums`)."""
RESERVED_CHANNELS: Final = 2
"""Exposure time and row time, both relative to the window's duration; zero until a model is trained with them."""

_PYRAMID_HALO: Final = 4  # two convolutions, the first of which halves the resolution; even
_DECODER_HALO: Final = 3  # three convolutions
_FUSION_HALO: Final = 8  # in pixels of 1/4 of the resolution
_MATCHED_CHANNELS: Final = 16
_SLOPE: Final = 0.1
_WIDEST: Final = 1024
_MOST_REACH: Final = 8
_ABSENT: Final = -1e4  # the logit of a candidate that is not there


@dataclass(frozen=True)
class RefinerInputs:
    """What N frames of each of B windows are refined from; sides are multiples of `Refiner.multiple`.

    Attributes:
        keys: [B, 2, 3, H, W] start and end key frame.
        key_stacks: [B, 2, 6, H, W] events right after the start (backward stack) and right before the end (forward stack);
            None where the key frames' features are known.
        prediction: [B, N, 3, H, W] the diffusion model's frames, or None to do without.
        stacks: [B, N, 12, H, W] forward and backward event stack of each output time.
        sums: [B, N, 4, H, W] event sums, see `evfi.events.sums`.
        times: [B, N] output times as a share of the window, in (0, 1).
        has_prediction: [B, N] whether the prediction counts, 0 or 1; by default it does where it is given.
    """

    keys: Tensor
    key_stacks: Tensor | None
    prediction: Tensor | None
    stacks: Tensor
    sums: Tensor
    times: Tensor
    has_prediction: Tensor | None = None


class Refined(NamedTuple):
    """What the refiner makes of B·N frames.

    Attributes:
        frames: [B·N, 3, H, W], not clamped.
        flows: per level from coarse to fine: its scale, flows to both key frames [B·N, 4, h, w], and the start's share as a
            logit [B·N, 1, h, w]; for training.
    """

    frames: Tensor
    flows: list[tuple[int, Tensor, Tensor]]


class Refiner(ModelMixin, ConfigMixin):
    """The network; see the module's docstring."""

    @register_to_config
    def __init__(
        self,
        widths: tuple[int, ...],
        fusion_widths: tuple[int, ...],
        matching_levels: int,
        matching_radius: int,
    ) -> None:
        """Build it with random weights.

        Args:
            widths: channels of the pyramids from 1/2 of the resolution on, each level half of the one before.
            fusion_widths: channels of the fusion at full, 1/2 and 1/4 resolution.
            matching_levels: number of coarsest levels that compute matching costs.
            matching_radius: positions tried around the flow so far, in each direction, in pixels of the level.

        Raises:
            ValueError: a size is out of range.
        """
        super().__init__()
        _check_sizes(widths, fusion_widths, matching_levels, matching_radius)
        key_inputs = 3 + EVENT_STACK.num_channels + 1 + RESERVED_CHANNELS
        target_inputs = 3 + 1 + SUM_CHANNELS + 2 * EVENT_STACK.num_channels + 1 + RESERVED_CHANNELS
        self.key_pyramid = _Pyramid(key_inputs, tuple(widths))
        self.target_pyramid = _Pyramid(target_inputs, tuple(widths))
        matched = [level >= len(widths) - matching_levels for level in range(len(widths))]
        above = [*widths[1:], 0]
        self.decoders = nn.ModuleList(
            _FlowDecoder(width, coarser, matching_radius if match else 0)
            for width, coarser, match in zip(widths, above, matched, strict=True)
        )
        self.fusion = _Fusion(tuple(widths), tuple(fusion_widths))
        for pyramid in (self.key_pyramid, self.target_pyramid):
            finest: Any = pyramid.levels[0]
            with torch.no_grad():
                finest[0].weight[:, -RESERVED_CHANNELS:] = 0

    @property
    def multiple(self) -> int:
        """Sides of the inputs must be multiples of this."""
        return int(2 ** len(self.config.widths))

    def forward(self, inputs: RefinerInputs) -> Refined:
        """Refine frames.

        Args:
            inputs: see `RefinerInputs`.
        """
        assert inputs.key_stacks is not None
        keys = [level.unflatten(0, (-1, 2)) for level in self.key_features(inputs.keys, inputs.key_stacks)]
        return self.refine(inputs, keys)

    def key_features(self, keys: Tensor, key_stacks: Tensor) -> list[Tensor]:
        """The key frames' pyramids, which serve all output frames: [B·2, C, h, w] per level, fine to coarse."""
        pixels = keys.flatten(0, 1)
        planes = pixels.new_zeros(len(pixels), 1 + RESERVED_CHANNELS, *pixels.shape[-2:])
        planes[:, 0] = 1  # the key frame is there
        features: list[Tensor] = self.key_pyramid(torch.cat([pixels, key_stacks.flatten(0, 1), planes], 1))
        return features

    def refine(self, inputs: RefinerInputs, key_features: list[Tensor], bands: int = 1) -> Refined:
        """Refine frames by key features that are known.

        Args:
            inputs: see `RefinerInputs`.
            key_features: [B, 2, C, h, w] per level.
            bands: horizontal bands in which the finest levels, which need most memory, are computed one by one; each overlaps
                its neighbours by all that its result depends on.
        """
        number = inputs.times.shape[1]
        times = inputs.times.flatten().view(-1, 1, 1, 1).to(inputs.keys.dtype)
        prediction, present = _prediction(inputs, times)
        given = [(part, 1) for part in (prediction, inputs.sums.flatten(0, 1), inputs.stacks.flatten(0, 1))]
        finest = _in_bands(partial(self._finest, present, times), given, bands, halo=_PYRAMID_HALO, shrink=2)[0]
        pyramid = self.target_pyramid.above(finest)
        starts, ends = ([_repeated(level[:, side], number) for level in key_features] for side in (0, 1))
        flows, hidden = self._flows(starts, ends, pyramid, times, bands)
        start, end = (_repeated(inputs.keys[:, side], number) for side in (0, 1))
        _, flow, share = flows[-1]
        frames = _in_bands(
            lambda top, *parts: (self.fusion(start, end, present, *parts, top=top),),
            [(prediction, 4), (flow, 2), (share, 2), (hidden[0], 2), (hidden[1], 1)],
            bands,
            halo=_FUSION_HALO,
        )[0]
        return Refined(frames, flows)

    def _finest(self, present: Tensor, times: Tensor, top: int, *parts: Tensor) -> tuple[Tensor]:
        """The target's finest features of some rows, from prediction, sums and stacks."""
        del top
        shape = (len(parts[0]), 1, *parts[0].shape[-2:])
        reserved = times.new_zeros(1).view(1, 1, 1, 1).expand(shape[0], RESERVED_CHANNELS, *shape[2:])
        planes = [present.expand(shape), times.expand(shape), reserved]
        return (self.target_pyramid.levels[0](torch.cat([*parts, *planes], 1)),)

    def _flows(
        self, starts: list[Tensor], ends: list[Tensor], targets: list[Tensor], times: Tensor, bands: int
    ) -> tuple[list[tuple[int, Tensor, Tensor]], list[Tensor]]:
        """Flows from coarse to fine, and the decoders' features at 1/2 and 1/4."""
        coarsest = targets[-1]
        flow = torch.zeros(len(coarsest), 4, *coarsest.shape[-2:], device=coarsest.device, dtype=torch.float32)
        share = flow[:, :1]
        hidden: Tensor | None = None
        flows, features = [], []
        for level in reversed(range(len(targets))):
            if hidden is not None:
                flow, share, hidden = _doubled(flow) * 2, _doubled(share), _doubled(hidden)
            decode = partial(self.decoders[level], starts[level], ends[level], times)
            parts = [(part, 1) for part in (targets[level], flow, share, hidden) if part is not None]
            hidden, correction = _in_bands(decode, parts, bands if level < 2 else 1, halo=_DECODER_HALO)
            flow, share = flow + correction[:, :4], share + correction[:, 4:]
            flows.append((2 ** (level + 1), flow, share))
            features.append(hidden)
        return flows, [features[-1], features[-2]]


def _check_sizes(widths: Any, fusion_widths: Any, matching_levels: Any, matching_radius: Any) -> None:
    """Refuse sizes that make no network, or one that no memory holds; they may come from a stranger's file."""
    for name, values, fewest, most in (("widths", widths, 3, 7), ("fusion_widths", fusion_widths, 3, 3)):
        whole = isinstance(values, list | tuple) and all(
            type(value) is int and 1 <= value <= _WIDEST for value in values
        )
        if not whole or not fewest <= len(values) <= most:
            number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise ValueError(f"the refiner's {name} must be {number} whole numbers from 1 to {_WIDEST}, got {values!r}")
    for name, value, most in (("levels", matching_levels, len(widths) - 2), ("radius", matching_radius, _MOST_REACH)):
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"the refiner's matching_{name} must be a whole number from 1 to {most}, got {value!r}")


class _Pyramid(nn.Module):
    """Convolutions that halve the resolution at every level."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for width in widths:
            self.levels.append(_convolutions(channels, width, width, stride=2))
            channels = width

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Features per level, fine to coarse."""
        return self.above(self.levels[0](pictures))

    def above(self, finest: Tensor) -> list[Tensor]:
        """The same, where the finest level's are known."""
        features = [finest]
        for level in self.levels[1:]:
            features.append(level(features[-1]))
        return features


class _FlowDecoder(nn.Module):
    """One level: corrects both flows and the start's share."""

    def __init__(self, width: int, coarser: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        costs = 3 * (2 * radius + 1) ** 2 if radius else 0
        middle = max(width, min(2 * width, 128)) if radius else width + width // 2
        self.project = _Convolution(width, _MATCHED_CHANNELS, 1) if radius else None
        self.project_target = _Convolution(width, _MATCHED_CHANNELS, 1) if radius else None
        self.merge = _convolutions(3 * width + coarser + 5 + costs, middle, width)
        self.correct = _Convolution(width, 5)
        with torch.no_grad():
            self.correct.weight.mul_(0.1)

    def forward(
        self,
        start: Tensor,
        end: Tensor,
        times: Tensor,
        top: int,
        target: Tensor,
        flow: Tensor,
        share: Tensor,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features [N, width, h, w] and corrections float32 [N, 5, h, w] of flows and share, for rows from `top` on."""
        parts = [warp(start, flow[:, :2], top), warp(end, flow[:, 2:], top), target]
        parts += [] if hidden is None else [hidden]
        parts += [(flow / 8).to(target.dtype), share.to(target.dtype)]
        if self.project is not None and self.project_target is not None:
            matched = _unit(self.project(start)), _unit(self.project(end))
            own = _unit(self.project_target(target))
            moved = [warp(matched[0], flow[:, :2], top), warp(matched[1], flow[:, 2:], top)]
            parts += [_costs(own, features, self.radius) for features in moved]
            parts += [_path_costs(*matched, flow, times, self.radius)]
        features = self.merge(torch.cat([part.to(target.dtype) for part in parts], 1))
        return features, self.correct(features).float()


class _Fusion(nn.Module):
    """Chooses among the candidates at full resolution, with a small U-Net."""

    def __init__(self, widths: tuple[int, ...], fused: tuple[int, ...]) -> None:
        super().__init__()
        full, half, quarter = fused
        self.at_full = _convolutions(3 * 3 + 3 + 2, full)
        self.to_half = _convolutions(full, half, stride=2)
        self.at_half = _convolutions(half + widths[0], half)
        self.to_quarter = _convolutions(half, quarter, stride=2)
        self.at_quarter = _convolutions(quarter + widths[1], quarter, quarter)
        self.back_at_half = _convolutions(quarter + half, half)
        self.shrink = _Convolution(half, full, 1)
        self.back_at_full = _convolutions(full + full, full)
        self.choose = _Convolution(full, 5 + 3 + 4)
        with torch.no_grad():
            self.choose.weight.mul_(0.1)

    def forward(
        self,
        start: Tensor,
        end: Tensor,
        present: Tensor,
        prediction: Tensor,
        flow: Tensor,
        share: Tensor,
        at_half: Tensor,
        at_quarter: Tensor,
        *,
        top: int,
    ) -> Tensor:
        """Frames float32 [N, 3, H, W], for rows from `top` on; flow, share and features are those of coarser levels."""
        flow, share = _doubled(flow) * 2, _doubled(share)
        warped = [warp(start, flow[:, :2], top), warp(end, flow[:, 2:], top)]
        rows = slice(top, top + flow.shape[-2])
        inputs = [*warped, prediction, (warped[0] - warped[1]).abs(), share, present.expand_as(share)]
        full = self.at_full(torch.cat([part.to(start.dtype) for part in inputs], 1))
        half = self.at_half(torch.cat([self.to_half(full), at_half], 1))
        quarter = self.at_quarter(torch.cat([self.to_quarter(half), at_quarter], 1))
        half = self.back_at_half(torch.cat([_doubled(quarter), half], 1))
        out = self.choose(self.back_at_full(torch.cat([_doubled(self.shrink(half)), full], 1))).float()
        absent = (1 - present.float()).expand_as(share) * _ABSENT
        bias = torch.cat([share / 2, -share / 2, torch.zeros_like(flow[:, :2]), absent], 1)
        weights = (out[:, :5] + bias).softmax(1).unsqueeze(2)
        flow = flow + out[:, 8:]
        warped = [warp(start, flow[:, :2], top, cubic=True), warp(end, flow[:, 2:], top, cubic=True)]
        candidates = torch.stack([*warped, start[..., rows, :], end[..., rows, :], prediction], 1)
        return (weights * candidates).sum(1) + out[:, 5:8]


def _prediction(inputs: RefinerInputs, times: Tensor) -> tuple[Tensor, Tensor]:
    """The prediction [B·N, 3, H, W], zero where it is absent, and whether it is there [B·N, 1, 1, 1]."""
    if inputs.prediction is None:
        shape = (len(times), *inputs.keys.shape[2:])
        return inputs.keys.new_zeros(shape), torch.zeros_like(times)
    prediction = inputs.prediction.flatten(0, 1)
    if inputs.has_prediction is None:
        return prediction, torch.ones_like(times)
    present = inputs.has_prediction.flatten().view(-1, 1, 1, 1).to(prediction.dtype)
    return prediction * present, present


class _Convolution(nn.Conv2d):
    """A convolution, and a leaky rectifier after it where one is wanted.

    On a CPU, where nothing has to be remembered for gradients, both are one operation; and the same one whatever the number of
    threads, which plain convolutions of small pictures are not: their results would differ in the last digits.
    """

    def __init__(self, channels: int, width: int, side: int = 3, *, stride: int = 1, rectified: bool = False) -> None:
        super().__init__(channels, width, side, stride, side // 2)
        self._rectified = rectified

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [N, width, h, w]."""
        is_fused = pictures.device.type == "cpu" and pictures.dtype == torch.float32  # few processors fuse other types
        if not is_fused or torch.is_grad_enabled() or not onednn.has_fused():
            made = super().forward(pictures)
            return F.leaky_relu_(made, _SLOPE) if self._rectified else made
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return onednn.convolved(pictures, self, *(("leaky_relu", [_SLOPE]) if self._rectified else ()))


def _convolutions(channels: int, *widths: int, stride: int = 1) -> nn.Sequential:
    """3×3 convolutions, each with a rectifier; the first may halve the resolution."""
    layers: list[nn.Module] = []
    for width in widths:
        layers.append(_Convolution(channels, width, stride=stride, rectified=True))
        channels, stride = width, 1
    return nn.Sequential(*layers)


def _doubled(pictures: Tensor) -> Tensor:
    return F.interpolate(pictures, scale_factor=2.0, mode="bilinear", align_corners=False)


def _repeated(features: Tensor, number: int) -> Tensor:
    """[B, ...] -> [B·number, ...]."""
    return features if number == 1 else features.repeat_interleave(number, 0)


def warp(pictures: Tensor, flow: Tensor, top: int = 0, *, cubic: bool = False) -> Tensor:
    """Sample pictures at every pixel moved by its flow; borders are replicated.

    Coordinates are float32 whatever the pictures are: in half precision they would be off by parts of a pixel.

    Args:
        pictures: [N, C, H, W].
        flow: [N, 2, h, W] in pixels, of the rows from `top` on.
        top: the first row.
        cubic: sample by cubic convolution, which blurs less than bilinear interpolation and takes longer.
    """
    return _sampled(pictures, _pixel_grid(flow, top) + flow.permute(0, 2, 3, 1), cubic=cubic)


def _in_bands(
    run: Callable[..., tuple[Tensor, ...]], parts: list[tuple[Tensor, int]], bands: int, halo: int, shrink: int = 1
) -> tuple[Tensor, ...]:
    """Compute something band by band.

    Args:
        run: takes the first row, in pixels of its result, and the parts' rows of a band; its results have one height.
        parts: tensors [N, C, h, w] with the share of the result's rows that theirs are, as 4 (all), 2 (half), 1 (quarter), or 1
            for all of them where the result is as coarse.
        bands: how many.
        halo: rows of the coarsest part that a result depends on beyond its own; a multiple of `shrink`.
        shrink: rows of the finest part per row of the result.
    """
    finest, unit = max(scale for _, scale in parts), min(scale for _, scale in parts)
    rows = parts[0][0].shape[-2] * unit // parts[0][1]  # of the coarsest part
    edges = [round(rows * band / (bands * shrink)) * shrink for band in range(bands + 1)]
    made = []
    for start, stop in pairwise(edges):
        if bands > 1 and parts[0][0].device.type == "cpu":
            give_back()
        first, last = max(0, start - halo), min(rows, stop + halo)
        cut = [part[..., first * scale // unit : last * scale // unit, :] for part, scale in parts]
        scale = finest // unit
        own = slice((start - first) * scale // shrink, (stop - first) * scale // shrink)
        made.append([result[..., own, :] for result in run(first * scale, *cut)])
    return tuple(results[0] if bands == 1 else torch.cat(results, -2) for results in zip(*made, strict=True))


def _pixel_grid(like: Tensor, top: int = 0) -> Tensor:
    """Pixel coordinates (x, y), float32 [H, W, 2], of rows from `top` on."""
    height, width = like.shape[-2:]
    rows = torch.arange(top, top + height, device=like.device, dtype=torch.float32)
    columns = torch.arange(width, device=like.device, dtype=torch.float32)
    return torch.stack([columns.expand(height, -1), rows.unsqueeze(1).expand(-1, width)], -1)


def _sampled(pictures: Tensor, places: Tensor, *, cubic: bool = False) -> Tensor:
    """Pictures [N, C, H, W] at places [N, h, w, 2] in pixels."""
    height, width = pictures.shape[-2:]
    scale = torch.stack(
        [torch.full((), 2 / side, device=places.device) for side in (width, height)]
    )  # no copy to the GPU
    grid = (places + 0.5) * scale - 1
    mode = "bicubic" if cubic else "bilinear"
    sampled = F.grid_sample(pictures.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return sampled.to(pictures.dtype)


def _unit(features: Tensor) -> Tensor:
    """Features [N, C, h, w] of mean square 1 over channels, so that their mean products are correlations."""
    return features * torch.rsqrt(features.float().square().mean(1, keepdim=True) + 1e-4).to(features.dtype)


def _offsets(radius: int, like: Tensor) -> Tensor:
    """Displacements (x, y) of a square neighbourhood, float32 [(2r + 1)^2, 2]."""
    steps = torch.arange(-radius, radius + 1, device=like.device, dtype=torch.float32)
    return torch.stack([steps.repeat(2 * radius + 1), steps.repeat_interleave(2 * radius + 1)], -1)


def _costs(target: Tensor, warped: Tensor, radius: int) -> Tensor:
    """How well the target matches a warped key frame, both [N, C, h, w], at and around each pixel: [N, (2r + 1)^2, h, w]."""
    side = 2 * radius + 1
    around = F.pad(warped, (radius,) * 4).unfold(2, side, 1).unfold(3, side, 1)  # [N, C, h, w, 2r + 1, 2r + 1]
    costs = (around * target[..., None, None]).mean(1)
    return costs.permute(0, 3, 4, 1, 2).flatten(1, 2)


def _path_costs(start: Tensor, end: Tensor, flow: Tensor, times: Tensor, radius: int) -> Tensor:
    """How well both key frames match along straight paths that cross each output pixel at its time: [N, (2r + 1)^2, h, w].

    A displacement v from start to end, added to the flows so far, moves the start's place by -t·v and the end's by (1 - t)·v.
    """
    grid = _pixel_grid(flow)
    steps = _offsets(radius, flow).view(1, -1, 1, 1, 2) * 2  # along a path both ends share the displacement
    time = times.float().view(-1, 1, 1, 1, 1)
    from_start = (grid + flow[:, :2].permute(0, 2, 3, 1)).unsqueeze(1) - time * steps
    from_end = (grid + flow[:, 2:].permute(0, 2, 3, 1)).unsqueeze(1) + (1 - time) * steps
    return (_sampled_each(start, from_start) * _sampled_each(end, from_end)).mean(1)


def _sampled_each(features: Tensor, places: Tensor) -> Tensor:
    """Features [N, C, h, w] at places [N, D, h, w, 2]: [N, C, D, h, w]."""
    return _sampled(features, places.flatten(1, 2)).unflatten(2, places.shape[1:3])
