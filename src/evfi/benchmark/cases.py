"""Benchmark cases: windows of the published sizes, or of any other size.

Seconds and GiB of the reference implementation were measured with random weights of the published sizes in float16 autocast
with PyTorch's attention, 25 steps, on one H100 80GB with torch 2.11.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.errors import ConfigError
from evfi.sampling.conditioning import WindowInputs

ALL_CASES: Final = "all"
_ROUGH_PX: Final = 24
_EVENTS_PER_PIXEL: Final = 0.05


@dataclass(frozen=True)
class Case:
    """One window to measure.

    Attributes:
        name: what users call it.
        width: of the key images in pixels, before enlargement.
        height: the same.
        frames: per window, key frames included.
        upscale: whole factor of enlargement.
        reference_s: what the reference implementation takes, in seconds; None where it was not measured.
        reference_gib: its peak memory in GiB.
    """

    name: str
    width: int
    height: int
    frames: int
    upscale: int = 1
    reference_s: float | None = None
    reference_gib: float | None = None

    @property
    def inserted(self) -> int:
        """Frames that are made: all but the key frames."""
        return self.frames - 2

    @property
    def pixels(self) -> int:
        """Of all frames, as the networks see them but for padding."""
        return self.width * self.height * self.upscale**2 * self.frames

    def model_size(self, multiple: int) -> tuple[int, int]:
        """Width and height that the networks see: sides padded up to multiples of `multiple`, then enlarged."""
        width, height = (-(-side // multiple) * multiple * self.upscale for side in (self.width, self.height))
        return width, height


CASES: Final = (
    Case("one-tile-5", 512, 320, 5, reference_s=7.9, reference_gib=6.9),
    Case("one-tile-13", 512, 320, 13, reference_s=10.5, reference_gib=7.4),
    Case("hqf-x3", 240, 180, 5, 3, reference_s=33.2, reference_gib=8.5),
    Case("bsergb-x2", 970, 625, 5, 2, reference_s=229.0, reference_gib=22.9),
    Case("clear-motion-x2", 940, 720, 13, 2, reference_s=265.0, reference_gib=26.1),
)
"""The named cases."""


def find_cases(names: Sequence[str]) -> list[Case]:
    """Find cases by their names, from the smallest to the largest, each once.

    Args:
        names: of `CASES`; ``all`` for all of them; or WIDTHxHEIGHTxFRAMES or WIDTHxHEIGHTxFRAMESxUPSCALE.

    Raises:
        ConfigError: a name is none of these.
    """
    found: list[Case] = []
    for name in names:
        found += CASES if name == ALL_CASES else [_find_case(name)]
    return sorted(dict.fromkeys(found), key=lambda case: case.pixels)


def _find_case(name: str) -> Case:
    known = {case.name: case for case in CASES}
    if name in known:
        return known[name]
    sizes = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,3})(?:x(\d))?", name)
    if sizes is None:
        raise ConfigError(
            f"unknown case {name!r}; expected {', '.join(known)}, {ALL_CASES}, or "
            "WIDTHxHEIGHTxFRAMES[xUPSCALE], such as 512x320x5"
        )
    width, height, frames, upscale = (int(size or 1) for size in sizes.groups())
    if min(width, height, upscale) < 1 or frames < 3:
        raise ConfigError(
            f"case {name!r} needs a width, a height and an upscale factor of at least 1, and at least 3 frames"
        )
    return Case(name, width, height, frames, upscale)


def make_inputs(case: Case, channels: int, multiple: int, *, seed: int = 0) -> WindowInputs:
    """Key images and event stacks of a case: random, but always the same.

    Key images are smooth with a little noise, in [-1, 1]; stacks are signed counts that are zero at most pixels.

    Args:
        case: the case.
        channels: K, of an event stack.
        multiple: what the sides are padded up to multiples of.
        seed: of the values.
    """
    width, height = case.model_size(multiple)
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(2, 3, -(-height // _ROUGH_PX) + 1, -(-width // _ROUGH_PX) + 1, generator=generator)
    smooth = F.interpolate(rough, (height, width), mode="bicubic")
    images = torch.tanh(smooth + 0.05 * torch.randn(smooth.shape, generator=generator))
    stacks = torch.stack(
        [_counts((case.frames, channels, height, width), generator) for _ in range(2)]
    )  # one pass at a time: the indices are large
    return WindowInputs(images, stacks)


def _counts(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Signed counts of events that fall anywhere, float32."""
    counts = torch.zeros(shape)
    number = int(counts.numel() * _EVENTS_PER_PIXEL)
    places = torch.randint(0, counts.numel(), (number,), generator=generator)
    signs = torch.randint(0, 2, (number,), generator=generator).float() * 2 - 1
    return counts.view(-1).index_add_(0, places, signs).view(shape)
