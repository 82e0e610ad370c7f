"""The number of inserted frames, the playback rate, and how much slower than real time the result plays.

Three numbers hang together: with `r` key frames per second in the recording, N inserted frames between neighbours and F
frames per second at playback, the result is r · (N + 1) / F times slower than life. Two of them may be given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from evfi.errors import ConfigError

DEFAULT_INSERT: Final = 7


@dataclass(frozen=True)
class Playback:
    """What a result will be.

    Attributes:
        insert: Frames between neighbouring key frames.
        fps: Frames per second at playback.
        slowdown: How many times slower than life it plays.
    """

    insert: int
    fps: float
    slowdown: float

    @property
    def speed(self) -> str:
        """The slowdown in words."""
        factor, word = (self.slowdown, "slower") if self.slowdown >= 1 else (1 / self.slowdown, "faster")
        shown = f"{factor:.3g}"
        return "at original speed" if shown == "1" else f"{shown} times {word} than real time"


def plan_playback(
    key_rate: float, *, insert: int | None = None, slowdown: float | None = None, fps: float | None = None
) -> Playback:
    """Derive what was not given.

    Without `fps` the result plays at the recording's own key-frame rate, so that N inserted frames make it N + 1 times
    slower. With `slowdown`, the number of inserted frames is the one that comes closest; key frames always stay.

    Args:
        key_rate: Key frames per second in the recording.
        insert: Frames between neighbouring key frames, at least 1; 7 if neither this nor `slowdown` is given.
        slowdown: How many times slower than life, instead of `insert`.
        fps: Frames per second at playback.

    Raises:
        ConfigError: A number is out of range, or `insert` and `slowdown` are both given.
    """
    if insert is not None and slowdown is not None:
        raise ConfigError(f"give either insert or slowdown, got insert {insert} and slowdown {slowdown:g}")
    for name, value in (("slowdown", slowdown), ("fps", fps)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} must be a positive number, got {value}")
    if insert is None:
        insert = DEFAULT_INSERT if slowdown is None else _insert_for(slowdown, key_rate, fps)
    if insert < 1:
        raise ConfigError(f"the number of frames to insert must be at least 1, got {insert}")
    if fps is None:
        fps = key_rate * (insert + 1) / slowdown if slowdown is not None else key_rate
    return Playback(insert, fps, key_rate * (insert + 1) / fps)


def _insert_for(slowdown: float, key_rate: float, fps: float | None) -> int:
    frames_per_key_frame = slowdown if fps is None else slowdown * fps / key_rate
    insert = round(frames_per_key_frame) - 1
    if insert < 1:
        rate = f"at {fps:g} fps " if fps is not None else ""
        raise ConfigError(
            f"a slowdown of {slowdown:g} {rate}needs no inserted frames: the recording has {key_rate:.4g} key frames per "
            f"second; use a slowdown of {2 * slowdown / max(frames_per_key_frame, 1e-9):.3g} or more"
        )
    return insert
