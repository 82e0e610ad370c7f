"""The settings of a job, without the code that does it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from evfi.errors import ConfigError

OnGap = Literal["hold", "blend", "interpolate", "fail"]


@dataclass(frozen=True)
class JobConfig:
    """What is made of a recording.

    Attributes:
        insert: frames to insert between two key frames; 7 if neither this nor a slowdown is given.
        slowdown: instead of a number of frames: how many times slower than life the video plays, at a constant frame rate;
            where key frames are uneven, more frames are made where they are further apart.
        fps: frames per second at playback; by default the recording's key-frame rate, so that N inserted frames play N + 1
            times slower than life. Alone it changes only the speed of the video; with a slowdown, as many frames are
            inserted as that speed needs.
        times: a text file with one time per line, in µs of the recording's clock: these frames are made, and no others.
        start: seconds after the first key frame at which to begin (with the window that holds this time).
        end: seconds after the first key frame at which to stop.
        on_gap: what is shown in windows that cannot be interpolated soundly (frames or events missing for long, a scene cut,
            a jump of exposure): hold the first key frame, blend both, interpolate all the same, or fail. By default cuts are
            held, jumps of exposure interpolated, all else blended. The report names these windows.
        max_insert: frames that the model makes at a time; more are made coarse to fine. By default what it was trained with.
        seed: seed of all random numbers; the same seed gives the same frames.
    """

    insert: int | None = None
    slowdown: float | None = None
    fps: float | None = None
    times: Path | None = None
    start: float | None = None
    end: float | None = None
    on_gap: OnGap | None = None
    max_insert: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without a recording.

        Raises:
            ConfigError: A setting is out of its range.
        """
        for name in ("start", "end"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be seconds after the first key frame, at least 0, got {value}")
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}")
        if self.max_insert is not None and self.max_insert < 1:
            raise ConfigError(f"max_insert must be at least 1, got {self.max_insert}")
        check_on_gap(self.on_gap)


def check_on_gap(on_gap: OnGap | None) -> None:
    """Refuse what is no choice.

    Raises:
        ConfigError: it is none.
    """
    if on_gap not in (None, *get_args(OnGap)):
        raise ConfigError(f"on_gap must be one of {', '.join(get_args(OnGap))}, got '{on_gap}'")
