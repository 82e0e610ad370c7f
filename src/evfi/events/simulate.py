"""An event camera, simulated: log intensity at sub-frame times in, events out.

The model is ESIM's (Rebecq et al., "ESIM: an Open Event Camera Simulator", CoRL 2018), with the imperfections that v2e
(Hu et al., CVPR-W 2021) lists: every pixel remembers a reference log intensity; between two sub-frames its log
intensity is linear in time; each time it moves one threshold away from the reference an event is written and the
reference follows. On top: thresholds per polarity and per pixel, a refractory time, leak and noise events.

Conventions and notable choices:
- Tensors are [B, T, H, W]: B scenes (cameras) side by side, T sub-frames. Times are int64 µs.
- The loop runs over time with element-wise operations and no device synchronisation; events are gathered at the end.
- Random numbers are counter-based (`counter_random`): the events of a scene depend on its own seed only, not on the
  batch, the chunking or the order of calls.
- A crossing during the refractory time moves the reference but writes no event: it is lost, as in ESIM.
- Noise events come on top; they neither move the reference nor wait for the refractory time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch
from torch import Tensor

from evfi.errors import ConfigError, InputError
from evfi.events import counter_random
from evfi.events.stream import EventStream

SIMULATOR_VERSION: Final = 1
"""Raised whenever the same frames, settings and seed give other events."""

_MIN_THRESHOLD = 0.01
_SALT_POSITIVE, _SALT_NEGATIVE, _SALT_REFERENCE, _SALT_NOISE, _SALT_NOISE_TIME = range(1, 6)


@dataclass(frozen=True)
class SimulatorConfig:
    """One simulated event camera.

    Attributes:
        threshold_positive: Mean contrast threshold of ON events, in natural-log intensity.
        threshold_negative: Mean contrast threshold of OFF events, in natural-log intensity (positive number).
        threshold_std: Standard deviation of the thresholds from pixel to pixel, in natural-log intensity.
        refractory_us: Time after an event in which its pixel writes no other, in µs.
        leak_rate_hz: Rate of the ON events that a still pixel writes because its reference leaks, per pixel.
        noise_rate_hz: Rate of random events of either polarity, per pixel.
        reference_spread: Where references start: 0, at the first sub-frame's level; 1, anywhere within the thresholds
            of it, as in a camera that has been running.
    """

    threshold_positive: float = 0.2
    threshold_negative: float = 0.2
    threshold_std: float = 0.02
    refractory_us: float = 100.0
    leak_rate_hz: float = 0.05
    noise_rate_hz: float = 0.05
    reference_spread: float = 0.0

    def __post_init__(self) -> None:
        for name in ("threshold_positive", "threshold_negative"):
            if not getattr(self, name) >= _MIN_THRESHOLD:
                raise ConfigError(f"{name} must be at least {_MIN_THRESHOLD}, got {getattr(self, name)}; try 0.2")
        for name in ("threshold_std", "refractory_us", "leak_rate_hz", "noise_rate_hz"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.reference_spread <= 1:
            raise ConfigError(f"reference_spread must be in [0, 1], got {self.reference_spread}")


@dataclass(frozen=True)
class SensorBatch:
    """The parameters of B cameras: `SimulatorConfig`'s fields as float32 tensors of shape [B]."""

    threshold_positive: Tensor
    threshold_negative: Tensor
    threshold_std: Tensor
    refractory_us: Tensor
    leak_rate_hz: Tensor
    noise_rate_hz: Tensor
    reference_spread: Tensor

    @classmethod
    def from_config(cls, config: SimulatorConfig, batch_size: int) -> SensorBatch:
        """B equal cameras."""
        return cls(**{f.name: torch.full((batch_size,), float(getattr(config, f.name))) for f in fields(config)})

    def to(self, device: torch.device | str) -> SensorBatch:
        """The same cameras with their parameters on another device."""
        return SensorBatch(**{f.name: getattr(self, f.name).to(device, torch.float32) for f in fields(self)})


@dataclass(frozen=True)
class BatchedEvents:
    """Events of B scenes in flat tensors of one length, sorted by scene, then by time (stably).

    Attributes:
        b: Scene index, int64.
        x: Column, int64.
        y: Row, int64.
        t: Time in µs, int64.
        p: Polarity, +1 or -1, int8.
        batch_size: Number of scenes B, also where some have no event.
        sensor_size: (width, height) in pixels.
    """

    b: Tensor
    x: Tensor
    y: Tensor
    t: Tensor
    p: Tensor
    batch_size: int
    sensor_size: tuple[int, int]

    def __len__(self) -> int:
        return int(self.t.numel())

    def stream(self, scene: int) -> EventStream:
        """The events of one scene as an `EventStream` on the CPU."""
        chosen = self.b == scene
        x, y, t, p = (column[chosen].cpu().numpy() for column in (self.x, self.y, self.t, self.p))
        return EventStream(x.astype(np.int32), y.astype(np.int32), t, p, self.sensor_size)


def scene_seeds(seed: int, batch_size: int) -> Tensor:
    """Seeds of the scenes 0..B-1 that belong to one seed: int64 [B]."""
    return counter_random.hash_counters(seed, torch.arange(batch_size))


def simulate_events(
    log_intensity: Tensor, times_us: Tensor, sensors: SimulatorConfig | SensorBatch, seeds: int | Tensor
) -> BatchedEvents:
    """Simulate B event cameras over one piece of video each.

    Args:
        log_intensity: Natural log of linear intensity, float [B, T, H, W]; its device does the work.
        times_us: Increasing sub-frame times in µs, int64 [T] or [B, T].
        sensors: One camera for all scenes, or one per scene.
        seeds: One seed (scene b gets `scene_seeds(seed, B)[b]`), or int64 [B].

    Returns:
        All events, times in [first, last] sub-frame time.
    """
    batch_size, _, height, width = log_intensity.shape
    simulator = Simulator(sensors, seeds, (width, height), batch_size, log_intensity.device)
    return simulator.push(log_intensity, times_us)


class Simulator:
    """B event cameras whose state lasts from chunk to chunk, so that a long video needs little memory.

    Args:
        sensors: One camera for all scenes, or one per scene.
        seeds: One seed (scene b gets `scene_seeds(seed, B)[b]`), or int64 [B].
        sensor_size: (width, height) in pixels.
        batch_size: Number of scenes B.
        device: Where the work is done.
    """

    def __init__(
        self,
        sensors: SimulatorConfig | SensorBatch,
        seeds: int | Tensor,
        sensor_size: tuple[int, int],
        batch_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sensor_size = sensor_size
        self.batch_size = batch_size
        self.device = torch.device(device)
        batch = sensors if isinstance(sensors, SensorBatch) else SensorBatch.from_config(sensors, batch_size)
        self._has_noise = bool((batch.noise_rate_hz > 0).any())
        self._sensors = batch.to(self.device)
        self._seeds = (scene_seeds(seeds, batch_size) if isinstance(seeds, int) else seeds).to(self.device)
        self._thresholds = (
            self._draw_thresholds(self._sensors.threshold_positive, _SALT_POSITIVE),
            self._draw_thresholds(self._sensors.threshold_negative, _SALT_NEGATIVE),
        )
        self._refractory_us = self._sensors.refractory_us.view(-1, 1, 1)
        self._leak_per_us = self._sensors.leak_rate_hz.view(-1, 1, 1) * self._thresholds[0] * 1e-6
        self._level: Tensor | None = None
        self._reference: Tensor | None = None
        self._blocked_us = torch.zeros((batch_size, sensor_size[1], sensor_size[0]), device=self.device)
        self._last_time_us = torch.zeros((batch_size, 1), dtype=torch.int64)
        self._num_intervals = 0

    def push(self, log_intensity: Tensor, times_us: Tensor) -> BatchedEvents:
        """Advance all cameras to the last of these sub-frames.

        Args:
            log_intensity: Natural log of linear intensity, float [B, T, H, W].
            times_us: Sub-frame times in µs, int64 [T] or [B, T], increasing and later than all pushed before.

        Returns:
            The events since the last sub-frame pushed before (on the first call: since the first one of this call).

        Raises:
            InputError: if shapes do not fit or times do not increase.
        """
        times = self._checked_times(log_intensity, times_us)
        levels = log_intensity.to(self.device, torch.float32)
        if self._level is None:
            self._start(levels[:, 0])
            levels = levels[:, 1:]
        else:
            times = torch.cat([self._last_time_us, times], dim=1)
        self._last_time_us = times[:, -1:]
        counts, firsts, spacings = self._run(levels, times.diff(dim=1).to(self.device, torch.float32))
        times = times.to(self.device)
        columns = self._gather_signal(counts, firsts, spacings, times)
        if self._has_noise and len(counts):
            noise = self._gather_noise(len(counts), times)
            columns = tuple(torch.cat(pair) for pair in zip(columns, noise, strict=True))
        self._num_intervals += len(counts)
        return self._sorted(columns)

    def _checked_times(self, log_intensity: Tensor, times_us: Tensor) -> Tensor:
        """Validate one chunk; its times as int64 [B, T] on the CPU."""
        width, height = self.sensor_size
        expected = (self.batch_size, log_intensity.shape[1] if log_intensity.ndim == 4 else -1, height, width)
        if tuple(log_intensity.shape) != expected or expected[1] < 1:
            raise InputError(
                f"log intensity must be [{self.batch_size}, T, {height}, {width}], got {tuple(log_intensity.shape)}"
            )
        times = times_us.cpu().to(torch.int64)
        times = times.expand(self.batch_size, -1) if times.ndim == 1 else times
        if times.shape != expected[:2]:
            raise InputError(f"expected sub-frame times [T] or [B, T] for {expected[:2]}, got {tuple(times_us.shape)}")
        known = times if self._level is None else torch.cat([self._last_time_us, times], dim=1)
        if bool((known.diff(dim=1) <= 0).any()):
            raise InputError("sub-frame times must increase strictly; sort the frames or drop those with equal times")
        return times

    def _pixels(self) -> Tensor:
        """Row-major pixel numbers, int64 [H, W]."""
        width, height = self.sensor_size
        return torch.arange(width * height, device=self.device).view(height, width)

    def _draw_thresholds(self, mean: Tensor, salt: int) -> Tensor:
        """Thresholds with mismatch from pixel to pixel: [B] -> [B, H, W]."""
        deviation = counter_random.normal(self._seeds.view(-1, 1, 1) ^ salt, self._pixels())
        spread = self._sensors.threshold_std.view(-1, 1, 1) * deviation
        return (mean.view(-1, 1, 1) + spread).clamp_min(_MIN_THRESHOLD)

    def _start(self, level: Tensor) -> None:
        """Set levels and references from the first sub-frame [B, H, W]."""
        positive, negative = self._thresholds
        draw = counter_random.uniform(self._seeds.view(-1, 1, 1) ^ _SALT_REFERENCE, self._pixels())
        residual = (draw * (positive + negative) - negative) * 0.999
        self._level = level.clone()
        self._reference = level - self._sensors.reference_spread.view(-1, 1, 1) * residual

    def _run(self, levels: Tensor, durations_us: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Advance through n intervals.

        Args:
            levels: Log intensity at the intervals' ends [B, n, H, W].
            durations_us: Their lengths, float32 [B, n].

        Returns:
            Per interval and pixel, [n, B, H, W]: signed number of events (int16), time of the first one after the
            interval's start and time between them (µs, float32; arbitrary where there is none).
        """
        shape = (levels.shape[1], self.batch_size, *levels.shape[2:])
        counts = torch.empty(shape, dtype=torch.int16, device=self.device)
        firsts, spacings = (torch.empty(shape, device=self.device) for _ in range(2))
        for index in range(shape[0]):
            step = self._advance(levels[:, index], durations_us[:, index].view(-1, 1, 1))
            counts[index], firsts[index], spacings[index] = step
        return counts, firsts, spacings

    def _advance(self, level: Tensor, duration_us: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One interval: move the references, count the events; all [B, H, W], duration [B, 1, 1]."""
        assert self._level is not None and self._reference is not None
        positive, negative = self._thresholds
        before = self._level - self._reference
        reference = self._reference - self._leak_per_us * duration_us
        after = level - reference
        sign = torch.sign(after)
        threshold = torch.where(after > 0, positive, negative)
        crossings = torch.floor(after.abs() / threshold)
        self._reference = reference + sign * crossings * threshold
        self._level = level

        us_per_level = duration_us / (after - before).abs().clamp_min(1e-12)
        first = ((threshold - sign * before) * us_per_level).clamp_min(0.0)
        return self._thin(crossings, sign, first, threshold * us_per_level, duration_us)

    def _thin(
        self, crossings: Tensor, sign: Tensor, first: Tensor, spacing: Tensor, duration_us: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Drop the crossings that fall into the refractory time, in closed form.

        Crossing k = 0..n-1 is at `first + k * spacing`. The pixel is blocked until `blocked_us` after the interval's
        start, so the first event is k0 = ceil((blocked - first) / spacing); each event blocks the next
        ceil(refractory / spacing) - 1 crossings.
        """
        skipped = torch.ceil((self._blocked_us - first) / spacing).clamp_min(0.0)
        stride = torch.ceil(self._refractory_us / spacing).clamp_min(1.0)
        count = torch.floor((crossings - 1.0 - skipped) / stride + 1.0).clamp_min(0.0)
        first = torch.minimum(first + skipped * spacing, duration_us)
        spacing = stride * spacing
        blocked = torch.where(count > 0, first + (count - 1.0) * spacing + self._refractory_us, self._blocked_us)
        self._blocked_us = (blocked - duration_us).clamp_min(0.0)
        return (count * sign).to(torch.int16), first, spacing

    def _gather_signal(self, counts: Tensor, firsts: Tensor, spacings: Tensor, times: Tensor) -> tuple[Tensor, ...]:
        """Turn counts [n, B, H, W] into flat columns (b, x, y, t, p), ordered by interval, scene, pixel."""
        where = counts.view(-1).nonzero().squeeze(1)
        signed = counts.view(-1)[where].to(torch.int64)
        number = signed.abs()
        source = torch.repeat_interleave(torch.arange(len(where), device=self.device), number)
        rank = torch.arange(len(source), device=self.device) - (number.cumsum(0) - number)[source]
        offset = firsts.view(-1)[where][source] + rank * spacings.view(-1)[where][source]
        b, x, y, t, end = self._locate(where, times)
        t = torch.minimum(t[source] + offset.to(torch.int64), end[source])
        return b[source], x[source], y[source], t, signed.sign().to(torch.int8)[source]

    def _gather_noise(self, num_intervals: int, times: Tensor) -> tuple[Tensor, ...]:
        """Noise events as flat columns: at most one per pixel and interval, with probability 1 - exp(-rate dt)."""
        durations = times.diff(dim=1).T.to(torch.float32) * 1e-6
        probability = -torch.expm1(-self._sensors.noise_rate_hz * durations)
        intervals = torch.arange(num_intervals, device=self.device) + self._num_intervals
        key = counter_random.hash_counters(self._seeds ^ _SALT_NOISE, intervals.view(-1, 1))
        pixels = self._pixels().view(-1)
        chance = counter_random.uniform(key.unsqueeze(-1), pixels)
        where = (chance < probability.unsqueeze(-1)).view(-1).nonzero().squeeze(1)
        b, x, y, t, end = self._locate(where, times)
        pixel = where % len(pixels)
        bits = counter_random.hash_counters(key.view(-1)[where // len(pixels)], pixel ^ (_SALT_NOISE_TIME << 24))
        fraction = (bits >> 9).to(torch.float32) / 2**23
        t = torch.minimum(t + (fraction * (end - t)).to(torch.int64), end - 1)
        return b, x, y, t, ((bits & 1) * 2 - 1).to(torch.int8)

    def _locate(self, where: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Split flat indices into [n, B, H, W]: scene, column, row, and the interval's start and end time."""
        width, height = self.sensor_size
        pixel = where % (width * height)
        plane = where // (width * height)
        b, interval = plane % self.batch_size, plane // self.batch_size
        return b, pixel % width, pixel // width, times[b, interval], times[b, interval + 1]

    def _sorted(self, columns: tuple[Tensor, ...]) -> BatchedEvents:
        """Sort by (scene, time), keeping the given order among equals."""
        b, x, y, t, p = columns
        if len(t):
            first = t.min()
            order = torch.sort(b * (t.max() - first + 1) + (t - first), stable=True).indices
            b, x, y, t, p = (column[order] for column in (b, x, y, t, p))
        return BatchedEvents(b, x, y, t, p, self.batch_size, self.sensor_size)
