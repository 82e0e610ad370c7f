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
from evfi.events.stacks import StackConfig, batched_event_stacks
from evfi.training.motion import Draw
from evfi.training.scenes import RenderedScenes, SceneConfig, render_windows
from evfi.training.textures import TextureLibrary

_GAMMA = 2.2
_MAX_EXPOSURE = 3  # longest exposure, in sub-frames to either side


@dataclass(frozen=True)
class SensorRanges:
    """Ranges that each scene's camera is drawn from (log-uniform, except leak and reference spread).

    Attributes:
        threshold: Mean contrast threshold, in natural-log intensity.
        threshold_ratio: OFF threshold / ON threshold.
        mismatch: Standard deviation of the thresholds over their mean.
        refractory_us: Refractory time in µs.
        leak_rate_hz: Leak events per pixel (uniform).
        noise_rate_hz: Noise events per pixel.
        window_us: Duration of the window in µs.
    """

    threshold: tuple[float, float] = (0.1, 0.45)
    threshold_ratio: tuple[float, float] = (0.75, 1.33)
    mismatch: tuple[float, float] = (0.01, 0.15)
    refractory_us: tuple[float, float] = (1.0, 2000.0)
    leak_rate_hz: tuple[float, float] = (0.0, 0.3)
    noise_rate_hz: tuple[float, float] = (0.01, 3.0)
    window_us: tuple[float, float] = (20_000.0, 300_000.0)

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
        key_frame_noise: Range of the standard deviation of the noise added to key frames, in [0, 1] pixel units.
        degraded: Probability that a scene's key frames get noise and a slight blur.
    """

    scenes: SceneConfig = field(default_factory=SceneConfig)
    sensors: SensorRanges = field(default_factory=SensorRanges)
    min_subframes: int = 33
    from_video: float = 0.3
    exposure_blur: float = 0.25
    key_frame_noise: tuple[float, float] = (0.002, 0.02)
    degraded: float = 0.3


@dataclass(frozen=True)
class TrainingWindows:
    """A batch of windows; the first ones have the most moving objects.

    Attributes:
        frames: Clean frames at the output times, float32 [B, F, 3, H, W] in [-1, 1].
        key_frames: First and last frame as a camera would give them, [B, 2, 3, H, W] in [-1, 1].
        forward: Event stacks, start to end, float32 [B, F, K, H, W].
        backward: Event stacks, end to start.
        times_us: Output times, int64 [B, F].
        events: The events themselves.
    """

    frames: Tensor
    key_frames: Tensor
    forward: Tensor
    backward: Tensor
    times_us: Tensor
    events: BatchedEvents


def subframes_per_interval(num_frames: int, min_subframes: int) -> int:
    """Sub-frame steps m per output interval, so that m (F - 1) + 1 is at least `min_subframes`."""
    if num_frames < 2:
        raise ConfigError(f"a window needs at least 2 output frames, got {num_frames}; try 5")
    return max(1, -(-(min_subframes - 1) // (num_frames - 1)))


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
    rendered = render_windows(library, config.scenes, times, batch, size, generator)
    frames = _exposed_frames(rendered, step, margin, num_frames, config.exposure_blur, draw)

    sensors, duration_us = config.sensors.draw(batch, draw)
    seed = int(draw.integers((1,), 2**31 - 1))
    times_us = (torch.arange(last + 1) * duration_us[:, None]) // last
    levels = rendered.log_intensity[:, margin : margin + last + 1]
    _interpolate_in_time(levels, step, draw.chance((batch,), config.from_video))
    events = simulate_events(levels, times_us, sensors, seed)
    output_us = times_us[:, ::step].to(library.device, non_blocking=True)
    columns = (events.b, events.x, events.y, events.t, events.p)
    forward, backward = batched_event_stacks(*columns, output_us, (size, size), stacks)
    key_frames = _degraded(frames[:, [0, -1]], config, seed, draw)
    return TrainingWindows(frames * 2 - 1, key_frames * 2 - 1, forward, backward, output_us, events)


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
    """Add noise and a slight blur to the frames [B, 2, 3, H, W] of some scenes."""
    batch = len(frames)
    chosen = draw.chance((batch,), config.degraded)
    sigma = draw.log_uniform((batch,), *config.key_frame_noise) * chosen
    blur = draw.uniform((batch,), 0.0, 0.5) * chosen
    if not bool(chosen.any()):
        return frames
    device = frames.device
    blurred = F.avg_pool2d(frames.flatten(0, 1), 3, stride=1, padding=1, count_include_pad=False).view_as(frames)
    mixed = torch.lerp(frames, blurred, blur.view(-1, 1, 1, 1, 1).to(device, non_blocking=True))
    noise = counter_random.normal(seed ^ 0x51AB, torch.arange(frames.numel(), device=device)).view_as(frames)
    return (mixed + sigma.view(-1, 1, 1, 1, 1).to(device, non_blocking=True) * noise).clamp(0.0, 1.0)
