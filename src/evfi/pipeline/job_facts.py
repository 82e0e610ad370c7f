"""Facts about finished windows, kept with their frames and shown in the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Treatment = Literal["interpolate", "hold", "blend", "key"]
"""How a window's frames came about: by the model, by holding its first key frame, by blending, or nothing was to be made."""


@dataclass(frozen=True)
class WindowFacts:
    """One window.

    Attributes:
        index: its number, counted from the recording's first key frame.
        start_us: time of its first key frame.
        end_us: time of its last key frame.
        num_inserted: frames made for it.
        num_events: events between the key frames.
        num_dropped: events left out: outside the frame or their interval, or filtered.
        treatment: how its frames came about.
        finding: what is unusual about it, in one word ("" where nothing is): see `evfi.pipeline.window_checks`.
        notes: what is unusual about it, for people, one line each.
        seconds: how long its frames took.
        device: on what they were made, e.g. "cuda:1 (NVIDIA H100)".
        attempts: how often the work was begun, more than once where a worker was lost.
    """

    index: int
    start_us: int
    end_us: int
    num_inserted: int
    num_events: int
    num_dropped: int
    treatment: Treatment
    finding: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    device: str = ""
    attempts: int = 1
