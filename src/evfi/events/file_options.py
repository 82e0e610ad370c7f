"""What a user may say of an event file that the file leaves open; without the code that reads one (`evfi.events.formats`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

TimeUnit = Literal["s", "ms", "us", "ns"]
TIME_UNITS: tuple[str, ...] = get_args(TimeUnit)


@dataclass(frozen=True)
class EventFileOptions:
    """What an event file may leave open.

    Attributes:
        sensor_size: (width, height), used where the file does not say it.
        size_is_assumed: `sensor_size` is a guess: events outside it are an error instead of being dropped and counted.
        time_unit: unit of the file's times; None takes what the file says, or what its values look like.
        tolerant: read a damaged file up to the damage and report what is lost, instead of refusing it.
    """

    sensor_size: tuple[int, int] | None = None
    size_is_assumed: bool = False
    time_unit: TimeUnit | None = None
    tolerant: bool = False
