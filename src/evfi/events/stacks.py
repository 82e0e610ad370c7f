"""Multi-stacks: the event representation that conditions the networks.

Between two neighbouring output times lie N events in time order. Channel k of the interval's stack holds the signed
count per pixel of its last ``max(N // 2**k - 1, 0)`` events, so that later channels look ever closer at the interval's
end. The backward stack shows the same interval traversed in reverse: times mirrored, polarity negated, so its channel
k holds the *first* events with flipped sign. (Repurposing Pre-trained Video Diffusion Models for Event-based Video
Interpolation, CVPR 2025, section 3.)

Two normalisations exist; a checkpoint's config says which one it was trained with:

- ``released``: what the published checkpoints expect. Per channel, positive values are clipped to their 2nd and 98th
  percentile and divided by the latter; negative values are treated alike, but their 98th percentile is the one closest
  to zero, so that nearly every negative pixel saturates.
- ``symmetric``: ``sign(v) * log(1 + |v|) / log(1 + count_cap)``. It depends on the pixel's count alone and treats both
  polarities alike, so that the backward stack is the exact mirror of the forward one.

Both are then quantised to 8 bits as the published preprocessing does (values become uint8/127 - 1 and zero stays exactly
zero), and resized to the frame by Lanczos where the sensor's size differs.

Everything is vectorised torch: one implementation serves the CPU, the GPU, sampling and training.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from evfi.errors import ConfigError
from evfi.events.stack_config import MIN_EVENTS, StackConfig
from evfi.events.stream import EventStream


def event_stacks(
    events: EventStream, times_us: ArrayLike, frame_size: tuple[int, int], config: StackConfig
) -> tuple[Tensor, Tensor]:
    """Turn the events of one window into its forward and backward stacks.

    Args:
        events: the window's events, time-ordered; their sensor covers the frame's field of view.
        times_us: F strictly increasing output times in µs; interval i is [times[i-1], times[i]).
        frame_size: (width, height) in px to resize the stacks to.
        config: the representation.

    Returns:
        forward, backward: float32 [F, K, height, width] in [-1, 1]; frame 0 of each is zero. Backward frame j belongs to
        the j-th interval counted from the window's end.
    """
    times = _checked_times(times_us)
    width, height = events.sensor_size
    forward, backward = (torch.zeros(len(times), config.num_channels, height, width) for _ in range(2))
    edges = np.searchsorted(events.t, times, side="left").tolist()
    for number, (start, stop) in enumerate(pairwise(edges), 1):  # one by one they stay in the processor's caches
        forward[number], backward[-number] = interval_stacks(events, start, stop, config)
    return _resized(forward, frame_size), _resized(backward, frame_size)


def batched_event_stacks(
    b: Tensor, x: Tensor, y: Tensor, t: Tensor, p: Tensor, times_us: Tensor, size: tuple[int, int], config: StackConfig
) -> tuple[Tensor, Tensor]:
    """Turn the events of many windows into stacks at once, on the tensors' device.

    Args:
        b: int64 [N] window of each event; the events are ordered by (b, t).
        x, y: pixel coordinates [N].
        t: int64 [N] times in µs.
        p: polarities [N], +1 or -1.
        times_us: int64 [B, F] strictly increasing output times of each window.
        size: (width, height) of sensor and frame in px.
        config: the representation.

    Returns:
        forward, backward: float32 [B, F, K, height, width], as `event_stacks` gives for each window.
    """
    num_windows, num_frames = times_us.shape
    interval = _interval_of(b, t, times_us)
    inside = interval >= 0
    group = (b * (num_frames - 1) + interval)[inside]
    totals = torch.bincount(group, minlength=num_windows * (num_frames - 1))
    counts = _counts(totals, x[inside], y[inside], p[inside], size, config.num_channels)
    width, height = size
    shape = (num_windows, num_frames - 1, config.num_channels, height, width)
    forward = _normalised(counts[:, 0], config).reshape(shape)
    backward = _normalised(counts[:, 1], config).reshape(shape).flip(1)
    return _with_first_frame(forward), _with_first_frame(backward)


def normalised_interval_stacks(events: EventStream, config: StackConfig) -> tuple[Tensor, Tensor]:
    """The stacks of one interval that holds all of `events`, at the sensor's size.

    Returns:
        forward, backward: float32 [K, height, width] in [-1, 1].
    """
    return interval_stacks(events, 0, len(events), config)


def interval_stacks(
    events: EventStream, start: int, stop: int, config: StackConfig, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The stacks of one interval that holds events number `start` to `stop`, at the sensor's size, on a device.

    Returns:
        forward, backward: float32 [K, height, width] in [-1, 1].
    """
    x, y, p = (column.to(device) for column in event_columns(events, start, stop))
    counts = _counts(torch.tensor([stop - start], device=device), x, y, p, events.sensor_size, config.num_channels)
    forward, backward = (_normalised(direction, config) for direction in counts[0])  # in turn: large frames need much
    return forward, backward


def _checked_times(times_us: ArrayLike) -> np.ndarray:
    times = np.asarray(times_us, dtype=np.int64)
    if times.ndim != 1 or times.size < 2 or (np.diff(times) <= 0).any():
        raise ConfigError(f"output times must be at least two and strictly increasing, got {times.tolist()[:8]}")
    return times


def _interval_of(b: Tensor, t: Tensor, times_us: Tensor) -> Tensor:
    """The interval of each event within its window, -1 for events outside of it."""
    num_frames = times_us.shape[1]
    interval = (t[:, None] >= times_us[b]).sum(1) - 1
    return torch.where(interval == num_frames - 1, -1, interval)


def event_columns(events: EventStream, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and p of events number `start` to `stop` as tensors on the CPU."""
    x, y, p = (np.ascontiguousarray(column[start:stop]) for column in (events.x, events.y, events.p))
    return torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(p)


def _counts(totals: Tensor, x: Tensor, y: Tensor, p: Tensor, size: tuple[int, int], num_channels: int) -> Tensor:
    """Signed counts int32 [groups, 2, K, height, width] of consecutive groups of events, `totals` [groups] long.

    A channel is a run of first or last events, so it is the difference of two running counts. The runs' ends cut each
    group into segments; every event is counted once, in its segment, and the segments are then summed up.
    """
    width, height = size
    lengths = torch.stack([(totals >> k) - 1 for k in range(num_channels)], 1)
    lengths = torch.where(lengths < MIN_EVENTS, 0, lengths)
    totals = totals[:, None]
    cuts = torch.cat([totals - lengths, lengths], 1).sort(1).values
    segments = torch.diff(cuts, dim=1, prepend=torch.zeros_like(totals), append=totals)
    # running[:, j] counts a group's events before its j-th cut: [groups, 2K + 1, H, W]
    running = _segment_sums(segments, x, y, p, size).view(*segments.shape, height, width)
    for cut in range(1, segments.shape[1]):  # several times faster than cumsum
        running[:, cut] += running[:, cut - 1]
    forward = running[:, -1:] - _taken(running, torch.searchsorted(cuts, totals - lengths))
    backward = _taken(running, torch.searchsorted(cuts, lengths)).neg_()
    empty = (lengths == 0)[:, :, None, None]
    return torch.stack([forward.masked_fill_(empty, 0), backward.masked_fill_(empty, 0)], 1)


def _segment_sums(segments: Tensor, x: Tensor, y: Tensor, p: Tensor, size: tuple[int, int]) -> Tensor:
    """Signed counts int32 [segments, pixels] of consecutive segments of events."""
    width, height = size
    pixel = torch.add(x, y, alpha=width)
    index = torch.repeat_interleave(
        torch.arange(0, segments.numel() * width * height, width * height, device=p.device), segments.flatten()
    )
    sums = torch.zeros(segments.numel() * width * height, dtype=torch.int32, device=p.device)
    return sums.index_add_(0, index.add_(pixel), p.to(torch.int32))


def _taken(running: Tensor, index: Tensor) -> Tensor:
    """running [G, S, H, W] at index [G, K] -> [G, K, H, W]."""
    return running[torch.arange(running.shape[0], device=running.device)[:, None], index]


def _normalised(counts: Tensor, config: StackConfig) -> Tensor:
    """Counts int32 [..., K, H, W] to 8-bit-quantised values in [-1, 1]."""
    if config.normalisation == "symmetric":
        most = config.count_cap + 1
        levels = torch.arange(-most, most + 1, device=counts.device)
        values = levels.sign() * torch.log1p(levels.abs()) / math.log1p(config.count_cap)
        return _looked_up(_quantised(values), counts.clamp(-most, most).sub_(-most))
    channels = [_released(channel) for channel in counts.reshape(-1, *counts.shape[-2:])]
    return torch.stack(channels).reshape(counts.shape)


def _quantised(values: Tensor) -> Tensor:
    """Values in [-1, 1] to 8-bit levels, truncated as the published preprocessing does."""
    return ((values.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)


def _dequantised(levels: Tensor) -> Tensor:
    return levels.to(torch.float32) / 127 - 1


def _looked_up(levels: Tensor, places: Tensor) -> Tensor:
    """The 8-bit level at each place, int32 of any shape, as a value in [-1, 1]."""
    return _dequantised(levels).index_select(0, places.flatten()).view(places.shape)


def _released(counts: Tensor) -> Tensor:
    """The published normalisation of one channel [H, W]; left as counts if it lacks one polarity."""
    low, high = int(counts.min()), int(counts.max())
    levels = torch.arange(low, high + 1)
    table = levels.to(torch.float64)
    positive, negative = levels > 0, levels < 0
    if low < 0 < high:
        histogram = torch.bincount((counts - low).flatten(), minlength=levels.numel()).cpu()
        table[positive] = _released_values(levels[positive], histogram[positive])
        table[negative] = -_released_values(levels[negative], histogram[negative])
    return _looked_up(_quantised(table).to(counts.device), counts - low)


def _released_values(levels: Tensor, histogram: Tensor) -> Tensor:
    """The values that counts of one sign map to, given how often each occurs.

    They are clipped to their 2nd and 98th percentile. Where these coincide, the divisor alone becomes the maximum.
    """
    low, high = (_percentile(levels, histogram, quantile) for quantile in (0.02, 0.98))
    divisor = high
    if low == high:
        present = levels[histogram > 0]
        divisor = float(present[-1]) if present[0] != present[-1] else 1.0
    return levels.to(torch.float64).clamp(low, high) / abs(divisor) * levels.sign()


def _percentile(levels: Tensor, histogram: Tensor, quantile: float) -> float:
    """Linearly interpolated percentile (numpy's default) of sorted values given by level and number."""
    cumulative = torch.cumsum(histogram, 0)
    position = quantile * (int(cumulative[-1]) - 1)
    below = math.floor(position)
    lower, upper = (
        float(levels[torch.searchsorted(cumulative, torch.tensor(rank), right=True)])
        for rank in (below, min(below + 1, int(cumulative[-1]) - 1))
    )
    return lower + (upper - lower) * (position - below)


def _resized(stacks: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Resize quantised stacks [N, K, H, W] to frame_size (width, height) by Lanczos on their 8-bit values."""
    if (stacks.shape[-1], stacks.shape[-2]) == tuple(frame_size):
        return stacks
    levels = torch.round((stacks + 1) * 127).to(torch.uint8)
    planes = [
        np.asarray(Image.fromarray(plane).resize(frame_size, Image.Resampling.LANCZOS))
        for plane in levels.flatten(0, 1).numpy()
    ]
    resized = torch.from_numpy(np.stack(planes)).reshape(*stacks.shape[:2], *planes[0].shape)
    return _dequantised(resized)


def _with_first_frame(stacks: Tensor) -> Tensor:
    """Stacks [B, F - 1, K, H, W] with that of frame 0, which is zero, before them."""
    return torch.cat([torch.zeros_like(stacks[:, :1]), stacks], 1)
