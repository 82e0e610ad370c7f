"""The settings of a job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Literal, get_args

from evfi.errors import ConfigError

OnGap = Literal["hold", "blend", "interpolate", "fail"]


@dataclass(frozen=True)
class JobConfig:
    """Which frames to make from a recording.

    Attributes:
        insert: frames to insert between two key frames; 7 if neither this nor a slowdown is given.
        slowdown: instead of a number of frames, how many times slower than real time the video plays, at a constant frame
            rate; if key frames are uneven, more frames are inserted where they are further apart.
        fps: frames per second at playback; by default the recording's key-frame rate, so that N inserted frames play N + 1
            times slower than real time. Alone it changes only the playback speed; with a slowdown, as many frames are
            inserted as that speed needs.
        times: a text file with one time per line, in µs of the recording's clock: only these frames are made.
        start: where to begin, in seconds after the first key frame (with the window that contains this time).
        end: where to stop, in seconds after the first key frame.
        on_gap: what to show in windows that cannot be interpolated reliably (a long gap in frames or events, a scene cut, a
            jump in exposure): hold the first key frame, blend both, interpolate anyway, or fail. By default cuts are held,
            jumps in exposure are interpolated, and all others are blended. The report lists these windows.
        max_insert: maximum number of frames that the model makes at once; more are made coarse to fine. By default
            the number that it was trained with.
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
        for name in ("insert", "max_insert", "seed"):
            if not isinstance(value := getattr(self, name), Integral | None):
                raise ConfigError(f"{name} must be a whole number, got {value!r}")
            object.__setattr__(self, name, None if value is None else int(value))  # numpy's have no place in JSON
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
    """Check that `on_gap` is one of its choices.

    Raises:
        ConfigError: it is none.
    """
    if on_gap not in (None, *get_args(OnGap)):
        raise ConfigError(f"on_gap must be one of {', '.join(get_args(OnGap))}, got '{on_gap}'")
