"""Event sums: how many events, and of which polarity in total, fell since the start of a window and will fall until its end.

For an output time t of a window [t0, t1] there are four images per pixel: the sum of polarities and the number of events in
[t0, t), and both in [t, t1). The first tells by how much the brightness has changed since the start key frame; the second
whether anything happened at all. Counts v become ``sign(v) * log(1 + |v|) / log(16)``.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

_SCALE: Final = 1 / math.log(16)


def batched_event_sums(
    b: Tensor, x: Tensor, y: Tensor, t: Tensor, p: Tensor, times_us: Tensor, size: tuple[int, int]
) -> Tensor:
    """Sum the events of many windows, on the tensors' device.

    Args:
        b: int64 [N] window of each event.
        x, y: pixel coordinates [N].
        t: int64 [N] times in µs.
        p: polarities [N], +1 or -1.
        times_us: int64 [B, F] strictly increasing output times of each window; events outside of a window do not count.
        size: (width, height) of the sensor in px.

    Returns:
        float32 [B, F, 4, height, width]: since the start (signed, number), until the end (signed, number).
    """
    num_windows, num_frames = times_us.shape
    width, height = size
    interval = (t[:, None] >= times_us[b]).sum(1) - 1
    inside = (interval >= 0) & (interval < num_frames - 1)
    pixel = (((b * (num_frames - 1) + interval) * height + y) * width + x)[inside]
    sums = _summed(pixel, p[inside], num_windows * (num_frames - 1) * height * width)
    counts = sums.view(2, num_windows, num_frames - 1, height, width).permute(1, 2, 0, 3, 4)
    since = torch.cat([torch.zeros_like(counts[:, :1]), counts.cumsum(1, dtype=torch.int32)], 1)
    return compressed_counts(torch.cat([since, since[:, -1:] - since], 2))


def event_counts(x: Tensor, y: Tensor, p: Tensor, size: tuple[int, int]) -> Tensor:
    """The sum of polarities and the number of events per pixel, int32 [2, height, width].

    Args:
        x, y: pixel coordinates [N].
        p: polarities [N], +1 or -1.
        size: (width, height) of the sensor in px.
    """
    width, height = size
    return _summed(y.to(torch.int64) * width + x, p, width * height).view(2, height, width)


def _summed(pixel: Tensor, p: Tensor, number: int) -> Tensor:
    """The sum of polarities and the number of events at each of so many places, int32 [2, number]."""
    signs = p.to(torch.int32)
    counts = torch.zeros(2, number, dtype=torch.int32, device=pixel.device)
    counts[0].index_add_(0, pixel, signs)
    counts[1].index_add_(0, pixel, torch.ones_like(signs))
    return counts


def compressed_counts(counts: Tensor) -> Tensor:
    """Counts of any shape to about [-2, 2]; see the module's docstring."""
    values = counts.to(torch.float32)
    return values.sign() * values.abs().log1p() * _SCALE
