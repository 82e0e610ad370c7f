"""Key-frame detail given back: all of it where nothing moved, the texture where what is seen is still alike.

Whatever goes through the autoencoder loses detail, even a wall that stands still. But where nothing moved between a key
frame and an output frame, the key frame *is* the output: its pixels are put back there.

When did nothing move? An event camera says so pixel by pixel: from the start image to output time t nothing moved at a
pixel if no more events than noise fell near it in [start, t]; from t to the end image, likewise in [t, end]. So the start
image's pixels stay usable until motion arrives, and the end image's from when motion has left; where both hold, they are
blended by time. Two further witnesses guard against what the events miss:

- the key frames: where no events fell in the whole window, both must look alike, else the events do not tell of what
  happened there (outside the sensor's view, too slow, too low in contrast);
- the prediction: seen coarsely, it must not have changed between the key frame's time and t. It is compared with its own
  first or last frame, so that what the autoencoder does to brightness and colour everywhere cancels.

All witnesses are soft, what moves is widened before it is blurred, and so the result has neither borders nor ghosts.

Between what stands still and what moves far lies much that moves a little, or that motion comes near; it would stay as soft as
the autoencoder makes it. What that loses is known at the window's ends, from the model's own picture of the key frames. Of it
the texture, without the finest noise and the coarse colour, is added to the frames between, where the prediction still looks
like it did at that end (`restore_texture`, before the rest); elsewhere it would stay behind as a ghost.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from evfi.events.stream import EventStream
from evfi.sampling.two_sided import fusion_weights


@dataclass(frozen=True)
class DetailConfig:
    """What counts as motion; chosen on simulated and real recordings, see docs/decisions.md.

    Attributes:
        pool_px: standard deviation of the neighbourhood in which events are counted, in sensor pixels.
        quiet_events: events per sensor pixel, above noise, up to which nothing moved.
        moving_events: events per sensor pixel, above noise, from which something moved.
        max_noise_events: most events per sensor pixel and window that pass for noise; more is motion.
        widen_px: how far motion is widened, in sensor pixels.
        soften_px: standard deviation of the masks' blur, in sensor pixels.
        coarse_px: standard deviation of the blur through which pictures are compared, in frame pixels.
        same_levels: differences of coarse pictures up to which they are the same, of 255.
        different_levels: differences from which they are not.
        finest_px: standard deviation of the blur that takes from the lost texture what is too fine, in frame pixels.
        coarsest_px: standard deviation of the blur that tells what is too coarse to be texture, in frame pixels.
    """

    pool_px: float = 1.5
    quiet_events: float = 0.08
    moving_events: float = 0.25
    max_noise_events: float = 0.05
    widen_px: int = 2
    soften_px: float = 1.5
    coarse_px: float = 2.5
    same_levels: float = 12.0
    different_levels: float = 36.0
    finest_px: float = 1.0
    coarsest_px: float = 8.0


@dataclass(frozen=True)
class _Stillness:
    """How surely nothing moved, in [0, 1].

    Attributes:
        since_start: from the start image to each frame, [F, H, W].
        until_end: from each frame to the end image, [F, H, W].
        throughout: in the whole window, [H, W].
    """

    since_start: Tensor
    until_end: Tensor
    throughout: Tensor


def restore_texture(
    prediction: Tensor,
    start_image: Tensor,
    end_image: Tensor,
    times_us: ArrayLike,
    config: DetailConfig | None = None,
) -> Tensor:
    """Add the texture that the model lost of the key frames, where the prediction still looks like them.

    Lost texture is the band-passed difference of a key frame from the model's own picture of it. Both ends' are mixed by
    time, each as far as the prediction, seen coarsely, has not changed from that end's; it stays in its place.

    Args:
        prediction: all frames of a window as the model made them, the key frames included, [F, 3, H, W] in 0..255.
        start_image: the start key frame, [3, H, W] in 0..255.
        end_image: the end key frame, likewise.
        times_us: output times [F] in µs; first and last are the key frames'.
        config: what counts as texture, and as alike.

    Returns:
        float32 [F, 3, H, W] in 0..255.
    """
    config = config or DetailConfig()
    prediction, start, end = (picture.to(torch.float32) for picture in (prediction, start_image, end_image))
    lost = torch.stack([start, end]) - prediction[[0, -1]]
    lost = _blurred(lost, config.finest_px) - _blurred(lost, config.coarsest_px)
    coarse = _blurred(prediction, config.coarse_px)
    like_start, like_end = (_likeness(coarse, ends, config) for ends in (coarse[:1], coarse[-1:]))
    start_share, strength = _mixed(like_start, like_end, times_us)
    return torch.lerp(lost[1], lost[0], start_share).mul_(strength).add_(prediction).clamp_(0, 255)


def restore_detail(
    prediction: Tensor,
    start_image: Tensor,
    end_image: Tensor,
    events: EventStream,
    times_us: ArrayLike,
    config: DetailConfig | None = None,
) -> Tensor:
    """Put key-frame pixels back where nothing moved.

    Args:
        prediction: all frames of a window as the model made them, the key frames included, [F, 3, H, W] in 0..255.
        start_image: the start key frame, [3, H, W] in 0..255.
        end_image: the end key frame, likewise.
        events: the window's events on a grid that covers the frame; its resolution may differ.
        times_us: output times [F] in µs; first and last are the key frames'.
        config: what counts as motion.

    Returns:
        float32 [F, 3, H, W] in 0..255. Where nothing moved at all it is the key frames' blend, weighted by time.
    """
    config = config or DetailConfig()
    times = np.asarray(times_us, dtype=np.int64)
    prediction, start, end = (picture.to(torch.float32) for picture in (prediction, start_image, end_image))
    still = _stillness(events, times, (prediction.shape[-2], prediction.shape[-1]), prediction.device, config)
    coarse = _blurred(prediction, config.coarse_px)
    coarse_keys = _blurred(torch.stack([start, end]), config.coarse_px)
    trust = torch.maximum(_likeness(coarse_keys[0], coarse_keys[1], config), 1 - still.throughout)
    since_start = still.since_start * trust * _likeness(coarse, coarse[:1], config)
    until_end = still.until_end * trust * _likeness(coarse, coarse[-1:], config)

    start_share, strength = _mixed(since_start, until_end, times)
    return torch.lerp(prediction, torch.lerp(end, start, start_share), strength)


def _mixed(start_trust: Tensor, end_trust: Tensor, times_us: ArrayLike) -> tuple[Tensor, Tensor]:
    """How both ends are mixed, from how far each can be trusted [F, H, W] and by time.

    Returns:
        The start's share and how strongly the mixture counts, [F, 1, H, W] each, in [0, 1].
    """
    times = torch.from_numpy(np.asarray(times_us, dtype=np.int64))
    weights = fusion_weights(times).to(start_trust.device).view(-1, 1, 1)
    start_share, end_share = weights * start_trust, (1 - weights) * end_trust
    start_share = (start_share / (start_share + end_share).clamp(min=1e-6)).unsqueeze(1)
    return start_share, (1 - (1 - start_trust) * (1 - end_trust)).unsqueeze(1)


def _likeness(pictures: Tensor, other: Tensor, config: DetailConfig) -> Tensor:
    """How alike blurred pictures [..., 3, H, W] are, [..., H, W]: 1 the same, 0 different."""
    difference = (pictures - other).abs().amax(-3)
    return 1 - _smooth_step(difference, config.same_levels, config.different_levels)


def _stillness(
    events: EventStream, times: NDArray[np.int64], size: tuple[int, int], device: torch.device, config: DetailConfig
) -> _Stillness:
    """Stillness at a frame's resolution, from where and when events fell."""
    counts = _interval_counts(events, times).to(device)
    density = _blurred(counts, config.pool_px)
    so_far = torch.cat([torch.zeros_like(density[:1]), density.cumsum(0)])
    total = so_far[-1:]
    noise = min(float(torch.quantile(_thinned(total), 0.2)), config.max_noise_events)
    share = 1 - fusion_weights(torch.from_numpy(times)).to(device).view(-1, 1, 1)

    def still(events_per_pixel: Tensor) -> Tensor:
        moving = _smooth_step(events_per_pixel, config.quiet_events, config.moving_events).unsqueeze(1)
        moving = F.max_pool2d(moving, 2 * config.widen_px + 1, stride=1, padding=config.widen_px)
        moving = _blurred(moving, config.soften_px)
        return 1 - F.interpolate(moving, size=size, mode="bilinear", align_corners=False).squeeze(1).clamp(0, 1)

    return _Stillness(
        since_start=still(so_far - noise * share),
        until_end=still(total - so_far - noise * (1 - share)),
        throughout=still(total - noise)[0],
    )


def _interval_counts(events: EventStream, times: NDArray[np.int64]) -> Tensor:
    """Events per pixel and interval, float32 [F - 1, sensor height, sensor width]."""
    width, height = events.sensor_size
    edges = np.searchsorted(events.t, times, side="left")
    pixels = events.y.astype(np.int64) * width + events.x
    counts = [
        np.bincount(pixels[first:last], minlength=width * height).astype(np.float32).reshape(height, width)
        for first, last in itertools.pairwise(edges)
    ]
    return torch.from_numpy(np.stack(counts))


def _thinned(values: Tensor, most: int = 100_000) -> Tensor:
    """At most about `most` of the values, evenly taken: enough to find a percentile."""
    flat = values.flatten()
    return flat[:: max(flat.numel() // most, 1)]


def _smooth_step(values: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high`, a cubic between."""
    place = ((values - low) / (high - low)).clamp(0, 1)
    return place * place * (3 - 2 * place)


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [..., H, W], borders replicated, truncated at three standard deviations."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=pictures.device, dtype=torch.float32)
    kernel = torch.softmax(-offsets.square() / (2 * sigma**2), dim=0)
    planes = pictures.reshape(-1, 1, *pictures.shape[-2:])
    planes = F.conv2d(F.pad(planes, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    planes = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    return planes.reshape(pictures.shape)
