"""What the files of a dataset mean that keeps one event file per interval between two frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evfi.events.file_options import TimeUnit

_UNIT_NAMES = {"s": "s", "ms": "ms", "us": "µs", "ns": "ns"}


@dataclass(frozen=True)
class IntervalConvention:
    """The convention of one dataset: each reader declares it once, and reading checks it.

    Attributes:
        format: name of the reader.
        images: folder and pattern of the pictures, for people.
        events: folder and pattern of the event files, for people.
        frame_times: where the frames' times come from, for people.
        keys: names of x, y, time and polarity in an event file.
        steps_per_pixel: how many steps of a coordinate make one pixel of the frame.
        are_floats: coordinates may be fractions of a pixel; otherwise they must be whole numbers of steps.
        wraps: coordinates left of or above the frame wrapped around to large numbers.
        is_swapped: the member called x holds rows, and y columns.
        time_unit: unit of the event times; None is detected from the duration of an interval.
        polarity: the code of polarities; the other one is unmistakable, so it is read with a note.
        covers: whether file n holds the events from frame n to the next, or from the previous frame to frame n.
        first_file: number of the first file; None where sequences begin anywhere.
        may_have_spare_images: images beyond those that events belong to are known and left out.
        may_have_spare_times: so are lines of times beyond the images.
        may_have_spare_events: so are event files before the first or after the last frame.
    """

    format: str
    images: str
    events: str
    frame_times: str
    keys: tuple[str, str, str, str] = ("x", "y", "t", "p")
    steps_per_pixel: int = 1
    are_floats: bool = False
    wraps: bool = False
    is_swapped: bool = False
    time_unit: TimeUnit | None = "us"
    polarity: Literal["0/1", "-1/+1"] = "0/1"
    covers: Literal["next", "previous"] = "next"
    first_file: int | None = 0
    may_have_spare_images: bool = False
    may_have_spare_times: bool = False
    may_have_spare_events: bool = False

    def describe(self, unit: TimeUnit | None = None) -> str:
        """The convention in one line.

        Args:
            unit: the unit of time that was told from the files, where the convention leaves it open.
        """
        chosen = unit or self.time_unit
        time = f"time in {_UNIT_NAMES[chosen]}" if chosen else "unit of time detected from the length of an interval"
        return "; ".join(
            (
                self._coordinates(),
                f"{time}, on the frames' clock",
                f"polarity {self.polarity}",
                f"{self.events}: file n holds {self.interval}",
                f"frame times: {self.frame_times}",
            )
        )

    @property
    def interval(self) -> str:
        """Which interval an event file holds, in terms of its own number."""
        return "frames n to n + 1" if self.covers == "next" else "frames n - 1 to n"

    @property
    def scale(self) -> str:
        """The unit of coordinates."""
        if self.steps_per_pixel > 1:
            return f"1/{self.steps_per_pixel} px"
        return "px (fractions allowed)" if self.are_floats else "whole px"

    def _coordinates(self) -> str:
        parts = [f"{'y, x (swapped)' if self.is_swapped else 'x, y'} in {self.scale} of the frames"]
        if self.steps_per_pixel > 1 or self.are_floats:
            parts.append("rounded to the nearest pixel")
        if self.wraps:
            parts.append("those that wrapped around are dropped")
        return ", ".join(parts)
