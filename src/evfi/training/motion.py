"""Random draws and smooth motion for training scenes.

Everything here is computed on the CPU from one generator, so that a seed means the same scenes on every device.
Frame coordinates: x and y run from -1 to 1 over the frame; object coordinates: -1 to 1 over an object's picture.

A motion's life lasts from time 0 to 1. A window may show a stretch of it: the range of the motion over the window is
the same, but the shorter the stretch, the straighter and steadier it is, as in a short piece of a real recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_WAVE_COUNT = 2


@dataclass(frozen=True)
class Draw:
    """Random numbers in the shapes that scenes need, all from one CPU generator."""

    generator: torch.Generator

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """Uniform numbers in [low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def log_uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        """Numbers in [low, high) whose logarithm is uniform."""
        return torch.exp(self.uniform(shape, math.log(low), math.log(high)))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def chance(self, shape: tuple[int, ...], probability: float) -> Tensor:
        """True with the given probability."""
        return torch.rand(shape, generator=self.generator) < probability

    def integers(self, shape: tuple[int, ...], high: int) -> Tensor:
        """Integers in [0, high)."""
        return torch.randint(high, shape, generator=self.generator)

    def choice(self, count: int, weights: tuple[float, ...]) -> Tensor:
        """Indices drawn with the given weights, int64 [count]."""
        return torch.multinomial(torch.tensor(weights), count, replacement=True, generator=self.generator)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy parameters to a device without waiting for the work queued there."""
    return values.to(device, non_blocking=True)


def life_times(times: Tensor, span: tuple[float, float], count: int, draw: Draw) -> Tensor:
    """When in the life of its motion each window is.

    Args:
        times: Sub-frame times in window lengths [T].
        span: Range of the share of the life that a window lasts, within (0, 1]; log-uniform.
        count: Number of windows.
        draw: Random source.

    Returns:
        float [count, T].
    """
    length = draw.log_uniform((count, 1), *span)
    return draw.uniform((count, 1), 0.0, 1.0) * (1 - length) + length * times


def smooth_paths(count: int, channels: int, times: Tensor, draw: Draw) -> Tensor:
    """Smooth random functions of time with range 1 over the window and value 0 in its middle.

    A path is a line bent by a parabola and sinusoids; one in ten is folded, as when something hits and bounces back.

    Args:
        count: Number of objects.
        channels: Functions per object.
        times: Sub-frame times in the motion's life, float [T] or [count, T].
        draw: Random source.

    Returns:
        float [count, channels, T].
    """
    shape = (count, channels, 1)
    fold_time = draw.uniform(shape, 0.2, 0.8)
    times = torch.cat([times.view(-1, 1, times.shape[-1]).expand(count, channels, -1), fold_time], 2)
    bend = draw.uniform((count, 1, 1), 0.0, 1.0) ** 2
    line = torch.where(draw.chance(shape, 0.5), 1.0, -1.0)
    parabola = bend * draw.normal(shape) * 2.0
    path = line * times + parabola * (times - draw.uniform(shape, 0.2, 0.8)) ** 2
    for _ in range(_WAVE_COUNT):
        frequency = draw.uniform(shape, 0.4, 1.6)
        phase = draw.uniform(shape, 0.0, 2 * math.pi)
        path = path + bend * draw.normal(shape) * 0.4 * torch.sin(2 * math.pi * frequency * times + phase)
    path, fold = path[..., :-1], path[..., -1:]
    path = torch.where(draw.chance((count, 1, 1), 0.1), (path - fold).abs(), path)
    spread = (path.amax(2, keepdim=True) - path.amin(2, keepdim=True)).clamp_min(1e-3)
    return (path - path[..., path.shape[-1] // 2, None]) / spread


def motion_matrices(
    translation: Tensor,
    angle: Tensor,
    log_scale: Tensor,
    shear: Tensor,
    perspective: Tensor,
) -> Tensor:
    """Homographies T·R·K·S·P from their parameters over time.

    Args:
        translation: [N, 2, T], in frame coordinates.
        angle: Rotation [N, T] in radians.
        log_scale: Natural log of the scale along both axes [N, 2, T].
        shear: [N, T].
        perspective: Last row's first two entries [N, 2, T].

    Returns:
        float [N, T, 3, 3], from object to frame coordinates.
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    scale_x, scale_y = torch.exp(log_scale).unbind(1)
    a, b = cos * scale_x, (cos * shear - sin) * scale_y
    c, d = sin * scale_x, (sin * shear + cos) * scale_y
    one = torch.ones_like(angle)
    (x, y), (g, h) = translation.unbind(1), perspective.unbind(1)
    rows = (a + x * g, b + x * h, x, c + y * g, d + y * h, y, g, h, one)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def inverse_homographies(matrices: Tensor) -> Tensor:
    """Inverses up to scale, normalised to a last entry of 1 at the image of the origin: [..., 3, 3] -> [..., 3, 3]."""
    first, second, third = matrices.unbind(-1)
    adjugate = torch.stack(
        [torch.linalg.cross(second, third), torch.linalg.cross(third, first), torch.linalg.cross(first, second)], dim=-2
    )
    at_origin = (adjugate[..., 2, :] * third).sum(-1) / third[..., 2]
    return adjugate / at_origin[..., None, None]


def camera_motion(count: int, times: Tensor, magnitude: Tensor, draw: Draw) -> Tensor:
    """Hand-held camera: pan, roll, zoom and a little keystone.

    Args:
        count: Number of scenes.
        times: Sub-frame times in the motion's life, [T] or [count, T].
        magnitude: Range of the pan over the window [count], as a fraction of the frame's side; 0 is a still camera.
        draw: Random source.

    Returns:
        float [count, T, 3, 3].
    """
    paths = smooth_paths(count, 6, times, draw)
    direction = draw.uniform((count,), 0.0, 2 * math.pi)
    along, across = paths[:, 0], paths[:, 1] * 0.3
    pan = torch.stack([direction.cos(), direction.sin()], 1)[..., None] * along[:, None]
    pan = pan + torch.stack([-direction.sin(), direction.cos()], 1)[..., None] * across[:, None]
    size = magnitude[:, None]
    zoom = paths[:, 3] * size * draw.uniform((count, 1), 0.0, 1.2)
    return motion_matrices(
        translation=pan * 2 * size[..., None],
        angle=paths[:, 2] * size * draw.uniform((count, 1), 0.0, 1.0),
        log_scale=torch.stack([zoom, zoom], 1),
        shear=torch.zeros_like(zoom),
        perspective=paths[:, 4:6] * size[..., None] * draw.uniform((count, 2, 1), 0.0, 0.3),
    )


def nearer(cameras: Tensor, depth: Tensor) -> Tensor:
    """Camera motion as seen by things nearer than the background: its translation times a factor.

    Args:
        cameras: Homographies [N, T, 3, 3].
        depth: Factors [N]; 1 is the background's depth.
    """
    shift = (depth - 1)[:, None, None] * cameras[..., :2, 2]
    rows = cameras[..., :2, :] + shift[..., None] * cameras[..., 2:, :]
    return torch.cat([rows, cameras[..., 2:, :]], 2)


@dataclass(frozen=True)
class ObjectMotion:
    """Where objects are over time.

    Attributes:
        matrices: Object to frame coordinates, float [N, T, 3, 3].
        wave: Deformation of object coordinates, (amplitude, frequency, phase) of x and y: float [N, 6, T].
        radius_px: Mean half-width and half-height on screen, float [N, 2].
    """

    matrices: Tensor
    wave: Tensor
    radius_px: Tensor


def object_motion(
    radius: Tensor, magnitude: Tensor, deforming: Tensor, times: Tensor, size: int, draw: Draw
) -> ObjectMotion:
    """Objects under translation, rotation, scaling, shear, perspective and a wavy deformation.

    Args:
        radius: Half-width and half-height in frame coordinates [N, 2].
        magnitude: Range of the translation over the window [N], as a fraction of the frame's side; the other motions
            shrink with it, and 0 stands still.
        deforming: Which objects deform, bool [N].
        times: Sub-frame times in the motion's life, [T] or [N, T].
        size: The frame's side in px.
        draw: Random source.
    """
    count = len(radius)
    paths = smooth_paths(count, 9, times, draw)
    direction = draw.uniform((count,), 0.0, 2 * math.pi)
    along, across = paths[:, 0], paths[:, 1] * draw.uniform((count, 1), 0.0, 0.5)
    path = torch.stack([direction.cos(), direction.sin()], 1)[..., None] * along[:, None]
    path = path + torch.stack([-direction.sin(), direction.cos()], 1)[..., None] * across[:, None]
    centre = draw.uniform((count, 2, 1), -0.9, 0.9)

    liveliness = (magnitude / 0.1).clamp(max=1.0)[:, None]
    spin = draw.log_uniform((count, 1), 0.01, 1.5) * liveliness
    growth = draw.log_uniform((count, 1), 0.005, 0.3) * liveliness
    squash = draw.log_uniform((count, 1), 0.002, 0.15) * liveliness
    log_scale = torch.log(radius)[..., None] + torch.stack([paths[:, 2] * growth, paths[:, 2] * growth], 1)
    log_scale = log_scale + torch.stack([paths[:, 3] * squash, -paths[:, 3] * squash], 1)
    tilt = draw.uniform((count, 2, 1), -0.15, 0.15) + paths[:, 4:6] * 0.15 * liveliness[..., None]
    upright = draw.chance((count, 1), 0.6)
    start_angle = torch.where(upright, draw.normal((count, 1)) * 0.1, draw.uniform((count, 1), -math.pi, math.pi))
    matrices = motion_matrices(
        translation=centre + path * 2 * magnitude[:, None, None],
        angle=start_angle + paths[:, 6] * spin,
        log_scale=log_scale,
        shear=draw.normal((count, 1)) * 0.1 + paths[:, 7] * squash,
        perspective=tilt,
    )
    phases = paths[:, 8] * (times[..., -1:] - times[..., :1])
    return ObjectMotion(matrices, waves(deforming, phases, liveliness, draw), radius * size / 2)


def waves(deforming: Tensor, path: Tensor, liveliness: Tensor, draw: Draw) -> Tensor:
    """Wavy deformations: amplitude, frequency and phase for x and y, float [N, 6, T]."""
    count, num_times = path.shape
    amplitude = draw.uniform((count, 2, 1), 0.01, 0.06) * deforming[:, None, None]
    frequency = draw.uniform((count, 2, 1), 1.5, 6.0)
    phase = draw.uniform((count, 2, 1), 0.0, 2 * math.pi) + path[:, None] * liveliness[..., None] * draw.uniform(
        (count, 2, 1), 0.3, 4.0
    )
    parts = [amplitude.expand(-1, -1, num_times), frequency.expand(-1, -1, num_times), phase]
    return torch.stack(parts, 2).flatten(1, 2)
