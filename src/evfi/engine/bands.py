"""Activations that are made and freed band by band, for decoding large frames in little memory.

A picture is cut into bands of rows. A convolution of a band sees one row more at either side, taken from its neighbours;
group normalisation takes its statistics over all bands, from sums that were made with each. So the result is that of the
whole picture, to rounding, while only the bands of one or two activations live at a time: a band's input is freed as soon
as its last reader is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evfi.engine.layers import ResidualBlock
from evfi.engine.operators import Feature, Operators, as_pictures, enlarged, from_pictures

Bands = list[Feature]
"""One activation: bands [B, F, rows, w, C] from top to bottom. Who is given one takes its bands away while reading."""

_AboveBelow = tuple[Tensor | None, Tensor, Tensor | None]


def cut(values: Tensor, number: int) -> Bands:
    """Cut [B, F, h, w, C] into at most `number` bands of equal height, the last one lower where they do not fit."""
    return [Feature(part.contiguous()) for part in values.split(-(-values.shape[2] // number), dim=2)]


def residual_block(block: ResidualBlock, bands: Bands, run: Operators) -> Bands:
    """A residual block without a noise level; see `ResidualBlock.__call__`."""
    spatial, temporal = block.spatial, block.temporal
    shortcuts: list[Tensor] = []

    def first(band: Feature, seen: Tensor) -> Feature:
        shortcuts.append(block.shortcut([band]))
        return _summed(_convolved(seen, spatial.conv1), run)

    hidden = _over_neighbours(bands, run, spatial.norm1, None, first)
    offset = block.offsets[0](None)

    def second(band: Feature, seen: Tensor) -> Feature:
        del band
        return run.add(shortcuts.pop(0), _convolved(seen, spatial.conv2), 1.0, block.spatial_bias)

    made = _over_neighbours(hidden, run, spatial.norm2, offset, second)
    hidden = [
        _summed(run.convolve_frames(seen, temporal.conv1), run)
        for seen in _normalised(list(made), run, temporal.norm1, None, over_frames=True)
    ]
    offset = block.offsets[1](None)
    result: Bands = []
    for seen in _normalised(hidden, run, temporal.norm2, offset, over_frames=True):
        change = run.convolve_frames(seen, temporal.conv2)
        result.append(run.add(made.pop(0).values, change, block.temporal_share, block.temporal_bias))
    return result


def enlarge(bands: Bands, convolution: nn.Conv2d, run: Operators) -> Bands:
    """Twice as many pixels in both directions, and a convolution."""

    def twice(parts: _AboveBelow) -> Tensor:
        large = enlarged(_joined(parts))
        first, last = int(parts[0] is not None), int(parts[2] is not None)  # one of a neighbour's two rows is enough
        return _bordered(large.narrow(2, first, large.shape[2] - first - last), parts)

    made: Bands = []
    for parts in _with_neighbours(bands):
        made.append(_summed(_convolved(twice(parts), convolution, bias=True), run))
    return made


def finish(bands: Bands, norm: nn.GroupNorm, convolution: nn.Conv2d, run: Operators) -> Tensor:
    """Normalisation, SiLU and the last convolution, as a whole activation [B, F, h, w, C]."""

    def last(band: Feature, seen: Tensor) -> Feature:
        del band
        return Feature(_convolved(seen, convolution, bias=True))

    return torch.cat([band.values for band in _over_neighbours(bands, run, norm, None, last)], dim=2)


def _summed(values: Tensor, run: Operators) -> Feature:
    return Feature(values, run.sums(Feature(values)))


def _joined(parts: _AboveBelow) -> Tensor:
    """A band with its neighbours' rows, as far as it has neighbours."""
    rows = [part for part in parts if part is not None]
    return torch.cat(rows, dim=2) if len(rows) > 1 else rows[0]


def _bordered(values: Tensor, parts: _AboveBelow) -> Tensor:
    """With a row of zeros where there is no neighbour."""
    above, below = int(parts[0] is None), int(parts[2] is None)
    return F.pad(values, (0, 0, 0, 0, above, below)) if above or below else values


def _convolved(values: Tensor, module: nn.Conv2d, *, bias: bool = False) -> Tensor:
    """A 3 × 3 convolution of [B, F, rows + 2, w, C] that has its neighbours' rows, or zeros, above and below."""
    made = F.conv2d(as_pictures(values), module.weight, module.bias if bias else None, module.stride, (0, 1))
    return from_pictures(made, values.shape[1])


def _coefficients(
    bands: Bands, run: Operators, norm: nn.GroupNorm, offset: Tensor | None, *, over_frames: bool
) -> Tensor:
    pixels = sum(band.values.shape[2] * band.values.shape[3] for band in bands)
    frames = bands[0].values.shape[1] if over_frames else 1
    sums = torch.cat([run.sums(band) for band in bands], dim=1)
    return run.norm_coefficients(sums, pixels, norm, frames=frames, offset=offset)


def _normalised(
    bands: Bands, run: Operators, norm: nn.GroupNorm, offset: Tensor | None, *, over_frames: bool
) -> Iterator[Tensor]:
    """Each band's normalised values, SiLU included; bands are taken away."""
    coefficients = _coefficients(bands, run, norm, offset, over_frames=over_frames)
    while bands:
        yield run.scale_shift(bands.pop(0).values, coefficients, silu=True)


def _over_neighbours(
    bands: Bands,
    run: Operators,
    norm: nn.GroupNorm,
    offset: Tensor | None,
    make: Callable[[Feature, Tensor], Feature],
) -> Bands:
    """What `make` makes of each band and of its normalised values, which have a row more above and below."""
    coefficients = _coefficients(bands, run, norm, offset, over_frames=False)
    made: Bands = []
    for parts in _with_neighbours(bands):
        seen = _bordered(run.scale_shift(_joined(parts), coefficients, silu=True), parts)
        made.append(make(Feature(parts[1]), seen))
    return made


def _with_neighbours(bands: Bands) -> Iterator[_AboveBelow]:
    """The last row above, the band, the first row below; bands are taken away."""
    above: Tensor | None = None
    while bands:
        values = bands.pop(0).values
        yield above, values, bands[0].values[:, :, :1] if bands else None
        above = values[:, :, -1:].clone()
