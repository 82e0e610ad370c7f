"""Random numbers that depend on what they are for, and on nothing else.

Each draw is made on the CPU by a generator of its own, seeded by a hash of (seed, window, purpose, step, repeat). So a
result depends neither on the device, nor on the tile batch size, nor on which windows were computed before or where.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Purpose = Literal["image", "initial", "churn", "reinjection"]


class NoiseSource(Protocol):
    """Where the sampler takes its noise from."""

    def draw(self, purpose: Purpose, shape: tuple[int, ...], step: int = 0, repeat: int = 0) -> Tensor:
        """Standard normal float32 noise of `shape` on the CPU; equal arguments give equal noise."""


@dataclass(frozen=True)
class SeededNoise:
    """The noise of one window.

    Attributes:
        seed: the run's seed.
        window: what tells the run's windows apart.
    """

    seed: int
    window: int = 0

    def draw(self, purpose: Purpose, shape: tuple[int, ...], step: int = 0, repeat: int = 0) -> Tensor:
        """Standard normal float32 noise of `shape` on the CPU; equal arguments give equal noise."""
        key = f"{self.seed}/{self.window}/{purpose}/{step}/{repeat}"
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.randn(shape, generator=generator, dtype=torch.float32)


def to_device(noise: Tensor, device: torch.device) -> Tensor:
    """Move noise to the sampling device without making the host wait for it."""
    if device.type != "cuda":
        return noise.to(device)
    return noise.pin_memory().to(device, non_blocking=True)
