"""Training windows made on the fly: rendered scenes, their key frames, and simulated events as stacks.

`make_batch` is what a training loop calls; it renders (`scenes`), simulates (`evfi.events.simulate`) and stacks
(`evfi.events.stacks`) on the texture library's device. A seed gives the same windows whatever the device, up to
floating-point differences.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.errors import ConfigError
from evfi.events import counter_random
from evfi.events.simulate import BatchedEvents, SensorBatch, simulate_events
from evfi.events.stack_config import StackConfig
from evfi.events.stacks import batched_event_stacks
from evfi.training.motion import Draw
from evfi.training.scenes import RenderedScenes, SceneConfig, render_windows
from evfi.training.textures import TextureLibrary

_GAMMA = 2.2
_MAX_EXPOSURE = 3  # longest exposure, in sub-frames to either side
_LIFE_INTERVALS = 16  # a motion's whole life, in output intervals
_SALT_NOISE, _SALT_PATTERN, _SALT_LOST = 0x51AB, 0x3C77, 0x6E15


@dataclass(frozen=True)
class SensorRanges:
    """Ranges that each scene's camera is drawn from (log-uniform, except leak, reference spread and losses).

    Attributes:
        threshold: Mean contrast threshold, in natural-log intensity.
        threshold_ratio: OFF threshold / ON threshold.
        mismatch: Standard deviation of the thresholds over their mean.
        refractory_us: Refractory time in µs.
        leak_rate_hz: Leak events per pixel (uniform).
        noise_rate_hz: Noise events per pixel.
        window_us: Duration of the window in µs.
        hot_pixels: Probability that a camera has pixels that fire all the time.
        hot_pixel_count: Number of its hot pixels, ends included (uniform).
        hot_pixel_rate_hz: Events of each.
        lost_events: Probability that a camera loses events, as when its read-out is overloaded.
        lost_share: Share of the events that it loses (uniform).
    """

    threshold: tuple[float, float] = (0.1, 0.45)
    threshold_ratio: tuple[float, float] = (0.75, 1.33)
    mismatch: tuple[float, float] = (0.01, 0.15)
    refractory_us: tuple[float, float] = (1.0, 2000.0)
    leak_rate_hz: tuple[float, float] = (0.0, 0.3)
    noise_rate_hz: tuple[float, float] = (0.01, 3.0)
    window_us: tuple[float, float] = (20_000.0, 300_000.0)
    hot_pixels: float = 0.2
    hot_pixel_count: tuple[int, int] = (1, 20)
    hot_pixel_rate_hz: tuple[float, float] = (100.0, 2000.0)
    lost_events: float = 0.3
    lost_share: tuple[float, float] = (0.0, 0.3)

    def draw(self, batch: int, draw: Draw) -> tuple[SensorBatch, Tensor]:
        """Cameras for B scenes, and the durations of their windows in µs, int64 [B]."""
        threshold = draw.log_uniform((batch,), *self.threshold)
        root = draw.log_uniform((batch,), *self.threshold_ratio).sqrt()
        sensors = SensorBatch(
            threshold_positive=threshold / root,
            threshold_negative=threshold * root,
            threshold_std=threshold * draw.log_uniform((batch,), *self.mismatch),
            refractory_us=draw.log_uniform((batch,), *self.refractory_us),
            leak_rate_hz=draw.uniform((batch,), *self.leak_rate_hz),
            noise_rate_hz=draw.log_uniform((batch,), *self.noise_rate_hz),
            reference_spread=torch.ones(batch),
        )
        return sensors, draw.log_uniform((batch,), *self.window_us).long()


@dataclass(frozen=True)
class WindowConfig:
    """Training windows.

    Attributes:
        scenes: What is rendered.
        sensors: The event cameras.
        min_subframes: At least so many sub-frames per window.
        from_video: Probability that a scene's events are made from its output frames alone, with log intensity linear in
            between, as when events are simulated from an ordinary video.
        exposure_blur: Probability that a scene's frames are exposed for a while instead of an instant.
        frame_noise: Range of the standard deviation of the noise of recorded frames, in [0, 1] pixel units.
        degraded: Probability that a scene's recorded frames have noise and a slight blur.
        fixed_pattern: Probability that a scene's frames, output and key frames alike, share a pattern of offsets, one
            per pixel and colour, as the sensor of a frame camera leaves it. Events come from another sensor without it.
        fixed_pattern_noise: Range of its standard deviation, in [0, 1] pixel units.
        misaligned: Probability that a scene's events are shifted against its frames, as where the clocks and the optics
            of two cameras do not quite agree.
        time_shift_us: Two standard deviations of the shift in time (normal), and the most there is, in µs.
        time_shift_share: Neither is more than this share of the window.
        space_shift: Probability that misaligned events are shifted in space, too.
        space_shift_px: Standard deviation of that shift along x and y (normal, rounded to whole pixels), in px.
    """

    scenes: SceneConfig = field(default_factory=SceneConfig)
    sensors: SensorRanges = field(default_factory=SensorRanges)
    min_subframes: int = 33
    from_video: float = 0.3
    exposure_blur: float = 0.25
    frame_noise: tuple[float, float] = (0.002, 0.02)
    degraded: float = 0.3
    fixed_pattern: float = 0.15
    fixed_pattern_noise: tuple[float, float] = (0.002, 0.015)
    misaligned: float = 0.6
    time_shift_us: tuple[float, float] = (8_000.0, 12_000.0)
    time_shift_share: float = 0.12
    space_shift: float = 0.3
    space_shift_px: float = 0.7


@dataclass(frozen=True)
class TrainingWindows:
    """A batch of windows; the first ones have the most moving objects.

    Attributes:
        frames: Frames at the output times, without noise that changes, float32 [B, F, 3, H, W] in [-1, 1].
        recorded: The same as a camera would give them: those of some windows noisy and a little blurred.
        forward: Event stacks, start to end, float32 [B, F, K, H, W].
        backward: Event stacks, end to start.
        times_us: Output times, int64 [B, F].
        events: The events themselves, from the first output time on and before the last.
    """

    frames: Tensor
    recorded: Tensor
    forward: Tensor
    backward: Tensor
    times_us: Tensor
    events: BatchedEvents

    @property
    def key_frames(self) -> Tensor:
        """First and last frame as recorded, [B, 2, 3, H, W]."""
        return self.recorded[:, [0, -1]]


def subframes_per_interval(num_frames: int, min_subframes: int) -> int:
    """Sub-frame steps m per output interval, so that m (F - 1) + 1 is at least `min_subframes`."""
    if num_frames < 2:
        raise ConfigError(f"a window needs at least 2 output frames, got {num_frames}; try 5")
    return max(1, -(-(min_subframes - 1) // (num_frames - 1)))


def motion_span(num_frames: int) -> tuple[float, float]:
    """Range of the share of its motion's life that a window of so many output frames shows.

    Real windows are cut from recordings of one speed: one of 3 frames is an eighth of one of 17, and so nearly linear.
    """
    return min(1.0, (num_frames - 1) / _LIFE_INTERVALS), 1.0


def make_batch(
    library: TextureLibrary,
    config: WindowConfig,
    stacks: StackConfig,
    *,
    batch: int,
    num_frames: int,
    size: int,
    generator: torch.Generator,
) -> TrainingWindows:
    """Render and simulate one batch of training windows.

    Args:
        library: Pictures; its device does the work.
        config: What the windows are like.
        stacks: The event representation.
        batch: Number of windows B.
        num_frames: Output frames per window F, both key frames included.
        size: Side of the square frames in px.
        generator: CPU generator that all randomness comes from.
    """
    draw = Draw(generator)
    step = subframes_per_interval(num_frames, config.min_subframes)
    last = step * (num_frames - 1)
    margin = min(step // 2, _MAX_EXPOSURE) if config.exposure_blur > 0 else 0
    times = torch.arange(-margin, last + margin + 1) / last
    rendered = render_windows(library, config.scenes, times, batch, size, generator, motion_span(num_frames))
    frames = _exposed_frames(rendered, step, margin, num_frames, config.exposure_blur, draw)

    sensors, duration_us = config.sensors.draw(batch, draw)
    seed = int(draw.integers((1,), 2**31 - 1))
    times_us = (torch.arange(-margin, last + margin + 1) * duration_us[:, None]) // last
    levels = rendered.log_intensity
    _interpolate_in_time(levels[:, margin : margin + last + 1], step, draw.chance((batch,), config.from_video))
    events = _imperfect(simulate_events(levels, times_us, sensors, seed), config, duration_us, seed, draw)
    output_us = times_us[:, margin : margin + last + 1 : step].to(library.device, non_blocking=True)
    columns = (events.b, events.x, events.y, events.t, events.p)
    forward, backward = batched_event_stacks(*columns, output_us, (size, size), stacks)
    recorded = _degraded(frames, config, seed, draw)
    pattern = _fixed_pattern(frames, config, seed, draw)
    if pattern is not None:
        frames, recorded = ((part + pattern).clamp_(0.0, 1.0) for part in (frames, recorded))
    return TrainingWindows(frames * 2 - 1, recorded * 2 - 1, forward, backward, output_us, events)


def _interpolate_in_time(levels: Tensor, step: int, chosen: Tensor) -> None:
    """Make levels [B, T, H, W] of the chosen scenes linear between every `step`-th sub-frame, in place."""
    scenes = chosen.nonzero().squeeze(1).to(levels.device, non_blocking=True)
    if step == 1 or len(scenes) == 0:
        return
    index = torch.arange(levels.shape[1], device=levels.device)
    start = index - index % step
    end = (start + step).clamp(max=levels.shape[1] - 1)
    weight = ((index % step) / step).view(1, -1, 1, 1)
    coarse = levels[scenes]
    levels[scenes] = torch.lerp(coarse[:, start], coarse[:, end], weight)


def _exposed_frames(
    rendered: RenderedScenes, step: int, margin: int, num_frames: int, probability: float, draw: Draw
) -> Tensor:
    """Frames at the output times [B, F, 3, H, W] in [0, 1]; some scenes averaged in linear light over an exposure."""
    last = step * (num_frames - 1)
    instant = rendered.frames[:, margin : margin + last + 1 : step]
    if margin == 0:
        return instant.contiguous()
    batch = len(instant)
    width = draw.uniform((batch, 1), 0.0, margin + 0.5) * draw.chance((batch, 1), probability)
    offsets = torch.arange(-margin, margin + 1)
    weights = (width + 0.5 - offsets.abs()).clamp(0.0, 1.0)
    weights = (weights / weights.sum(1, keepdim=True)).to(instant.device, non_blocking=True)
    total = torch.zeros_like(instant)
    for index in range(2 * margin + 1):
        tap = rendered.frames[:, index : index + last + 1 : step]
        total += weights[:, index].view(-1, 1, 1, 1, 1) * tap**_GAMMA
    return total ** (1 / _GAMMA)


def _degraded(frames: Tensor, config: WindowConfig, seed: int, draw: Draw) -> Tensor:
    """Add noise and a slight blur to the frames [B, F, 3, H, W] of some scenes."""
    batch = len(frames)
    chosen = draw.chance((batch,), config.degraded)
    sigma = draw.log_uniform((batch,), *config.frame_noise) * chosen
    blur = draw.uniform((batch,), 0.0, 0.5) * chosen
    if not bool(chosen.any()):
        return frames
    device = frames.device
    blurred = F.avg_pool2d(frames.flatten(0, 1), 3, stride=1, padding=1, count_include_pad=False).view_as(frames)
    mixed = torch.lerp(frames, blurred, blur.view(-1, 1, 1, 1, 1).to(device, non_blocking=True))
    noise = counter_random.normal(seed ^ _SALT_NOISE, torch.arange(frames.numel(), device=device)).view_as(frames)
    return (mixed + sigma.view(-1, 1, 1, 1, 1).to(device, non_blocking=True) * noise).clamp(0.0, 1.0)


def _fixed_pattern(frames: Tensor, config: WindowConfig, seed: int, draw: Draw) -> Tensor | None:
    """Offsets [B, 1, 3, H, W] of the pixels of the cameras that took frames [B, F, 3, H, W]; None where all are zero."""
    batch = len(frames)
    chosen = draw.chance((batch,), config.fixed_pattern)
    sigma = draw.log_uniform((batch,), *config.fixed_pattern_noise) * chosen
    if not bool(chosen.any()):
        return None
    first = frames[:, :1]
    noise = counter_random.normal(seed ^ _SALT_PATTERN, torch.arange(first.numel(), device=frames.device))
    return noise.view_as(first) * sigma.view(-1, 1, 1, 1, 1).to(frames.device, non_blocking=True)


def _imperfect(
    events: BatchedEvents, config: WindowConfig, duration_us: Tensor, seed: int, draw: Draw
) -> BatchedEvents:
    """What cameras make of the events: some lost, some shifted against the frames, cut to the window; hot pixels added.

    Args:
        events: Events of the windows and of some time around them.
        config: What defects there are.
        duration_us: Durations of the windows, int64 [B]; they start at 0.
        seed: Seed of the losses.
        draw: Random source.
    """
    device, (width, height) = events.t.device, events.sensor_size
    shifts = _shifts(config, duration_us, draw)
    share = draw.uniform((events.batch_size,), *config.sensors.lost_share)
    share = share * draw.chance((events.batch_size,), config.sensors.lost_events)
    whole = torch.cat([shifts, duration_us[None]]).to(device, non_blocking=True)
    right, down, later, end = whole[:, events.b]
    x, y, t = events.x + right, events.y + down, events.t + later
    # by place and time, not by rank: one event more on another device must not change what happens to all after it
    pixel = (events.b * height + events.y) * width + events.x
    luck = counter_random.uniform(seed ^ _SALT_LOST, pixel, events.t)
    kept = (t >= 0) & (t < end) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    kept &= luck >= share.to(device, non_blocking=True)[events.b]
    where = kept.nonzero().squeeze(1)
    columns = tuple(column[where] for column in (events.b, x, y, t, events.p))
    return _with_hot_pixels(columns, config.sensors, duration_us, events.sensor_size, draw)


def _shifts(config: WindowConfig, duration_us: Tensor, draw: Draw) -> Tensor:
    """Shifts of the events along x and y in px and in time in µs, int64 [3, B]."""
    batch = len(duration_us)
    misaligned = draw.chance((batch,), config.misaligned)
    usual, most = (torch.clamp(config.time_shift_share * duration_us, max=limit) for limit in config.time_shift_us)
    in_time = (draw.normal((batch,)) * usual / 2).clamp(-most, most)
    in_space = (draw.normal((2, batch)) * config.space_shift_px).round() * draw.chance((batch,), config.space_shift)
    return (torch.cat([in_space, in_time[None]]) * misaligned).long()


def _with_hot_pixels(
    columns: tuple[Tensor, ...], ranges: SensorRanges, duration_us: Tensor, sensor_size: tuple[int, int], draw: Draw
) -> BatchedEvents:
    """Events (b, x, y, t, p), sorted by (b, t), and those of hot pixels among them."""
    hot = _hot_pixel_events(ranges, duration_us, sensor_size, draw)
    if len(hot[0]):
        device = columns[0].device
        added = (column.to(device, non_blocking=True) for column in hot)
        columns = tuple(torch.cat(pair) for pair in zip(columns, added, strict=True))
        order = torch.sort(columns[0] * int(duration_us.max()) + columns[3], stable=True).indices
        columns = tuple(column[order] for column in columns)
    b, x, y, t, p = columns
    return BatchedEvents(b, x, y, t, p, len(duration_us), sensor_size)


def _hot_pixel_events(
    ranges: SensorRanges, duration_us: Tensor, sensor_size: tuple[int, int], draw: Draw
) -> tuple[Tensor, ...]:
    """Events (b, x, y, t, p) of hot pixels on the CPU, in no order of time; each fires nearly regularly."""
    batch, (least, most) = len(duration_us), ranges.hot_pixel_count
    count = (least + draw.integers((batch, 1), most + 1 - least)) * draw.chance((batch, 1), ranges.hot_pixels)
    scene = (torch.arange(most) < count).nonzero()[:, 0]
    rate = draw.log_uniform((len(scene),), *ranges.hot_pixel_rate_hz)
    x, y = (draw.integers((len(scene),), side) for side in sensor_size)
    # most report one polarity alone, the others both at random
    positive = torch.where(draw.chance((len(scene),), 0.7), draw.chance((len(scene),), 0.7).float(), 0.5)
    number = (rate * duration_us[scene] * 1e-6).long()
    pixel = torch.repeat_interleave(torch.arange(len(scene)), number)
    rank = torch.arange(len(pixel)) - (number.cumsum(0) - number)[pixel]
    t = ((rank + draw.uniform((len(pixel),), 0.0, 1.0)) / rate[pixel] * 1e6).long()
    p = torch.where(draw.uniform((len(pixel),), 0.0, 1.0) < positive[pixel], 1, -1).to(torch.int8)
    b = scene[pixel]
    return b, x[pixel], y[pixel], t.minimum(duration_us[b] - 1), p
