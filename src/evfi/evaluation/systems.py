"""Systems under evaluation: anything that makes frames, and its interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evfi.evaluation.results import SystemInfo
from evfi.recordings.recording import Window
from evfi.sampling.presets import PresetName

SystemKind: TypeAlias = Literal["model", "baseline", "frames"]

SizeRule: TypeAlias = Literal["original", "floor8"]
"""At which size frames are scored: as they come, or floored to multiples of 8 by Lanczos, as the published evaluation does."""


@dataclass(frozen=True)
class SystemRequest:
    """Which system, in words that another process understands.

    Attributes:
        name: as it stands in tables.
        kind: what it is.
        source: the model's name or path, the baseline's name, or the folder of frames.
        settings: of a model: `SamplingConfig`'s that differ from its own and the preset's.
        preset: of a model: see `evfi.sampling.presets`.
        protocol: of a model: the protocol's own settings, over the preset's and under `settings`.
    """

    name: str
    kind: SystemKind
    source: str
    settings: dict[str, Any] = field(default_factory=dict)
    preset: PresetName = "exact"
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class WindowTask:
    """One window that a system shall fill.

    Attributes:
        sequence: the sequence's name.
        skip: true frames left out between the key frames.
        window: key frames at their original size, events, times; `window.spec.start_frame + k` is the number of the true
            frame that the k-th frame is compared with.
        seed: of random numbers, together with the window's index.
    """

    sequence: str
    skip: int
    window: Window
    seed: int = 0


BASELINES: Final = ("hold", "linear", "rife")
"""Baselines by name: the key frame before, as a plain player shows it; blending by time; the network RIFE."""


class System(Protocol):
    """Something that makes frames, ready to run.

    Attributes:
        notes: what had to be said of windows as they were made, one line each, in that order. Whoever keeps the frames may
            take them out.
    """

    notes: list[str]

    @property
    def info(self) -> SystemInfo:
        """Who it is."""

    def make(self, task: WindowTask) -> NDArray[np.uint8]:
        """All frames of a window at the size that is scored, uint8 [F, H, W, 3]; the first and last are the key frames."""
