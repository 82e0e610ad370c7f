"""Counter-based random numbers: a value is a pure function of (seed, counters), not of the order of drawing.

The simulator needs noise that does not depend on how a video was cut into chunks, which scenes share a batch, or which
device computes it. A stateful generator cannot give that; hashing the counters does. The mixer is the 32-bit integer
hash `lowbias32` (C. Wellons, "Prospecting for hash functions", 2018), on int64 tensors that hold 32-bit values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_SCALE = 1.0 / 2**24


def mix(values: Tensor) -> Tensor:
    """Hash 32-bit integers held in int64: [...] -> [...] in [0, 2^32)."""
    values = values & _MASK
    values = ((values ^ (values >> 16)) * 0x7FEB352D) & _MASK
    values = ((values ^ (values >> 15)) * 0x846CA68B) & _MASK
    return values ^ (values >> 16)


def hash_counters(*counters: Tensor | int) -> Tensor:
    """Hash a tuple of broadcastable integer tensors into [0, 2^32), first counter innermost.

    Put the counters with the fewest elements first: only the last one is mixed at the full broadcast size.
    """
    state = torch.zeros((), dtype=torch.int64)
    for salt, counter in enumerate(counters):
        value = counter if isinstance(counter, Tensor) else torch.tensor(counter, dtype=torch.int64)
        if state.device != value.device and value.ndim:
            state = state.to(value.device)
        state = mix((state * 0x9E3779B1 + salt + 1) ^ value.to(torch.int64))
    return state


def uniform(*counters: Tensor | int) -> Tensor:
    """Uniform float32 numbers in [0, 1) with 24 random bits, one per broadcast tuple of counters."""
    return (hash_counters(*counters) >> 8).to(torch.float32) * _SCALE


def normal(*counters: Tensor | int) -> Tensor:
    """Standard normal float32 numbers, one per broadcast tuple of counters (Box-Muller on two hashes)."""
    bits = hash_counters(*counters)
    first = ((mix(bits ^ 0x5BD1E995) >> 8).to(torch.float32) + 0.5) * _SCALE
    second = (mix(bits ^ 0x1B873593) >> 8).to(torch.float32) * _SCALE
    return torch.sqrt(-2.0 * torch.log(first)) * torch.cos(2.0 * math.pi * second)
