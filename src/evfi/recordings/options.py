"""Input options: what a user may say about a recording that its files do not say, or say wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from evfi.errors import ConfigError
from evfi.events.file_options import TIME_UNITS, EventFileOptions, TimeUnit
from evfi.events.stream import MAX_ABS_TIME_US, MAX_SIDE
from evfi.limits import MAX_PIXELS

FrameTime = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class RecordingOptions:
    """How to open a recording; everything may be left out.

    Attributes:
        format: the recording's format, if it cannot be detected from the content.
        events: the event file, if it is not next to the frames.
        timestamps: a file with one time per frame (µs), if it is not next to the frames.
        events_unit: unit of the event file's times, if the file does not say it: s, ms, us or ns.
        sensor_size: width and height of the event sensor in pixels, if the files do not say them.
        sensor_to_frame: a text or JSON file of nine numbers: the homography from event to frame coordinates, row by row;
            pixel i covers [i, i + 1). It comes after the rectification where the layout ships one. Without a homography
            from either, the sensor is taken to show the frame's field of view.
        frame_time: which moment of the exposure is a frame's time: start, middle or end; by default what the layout
            says, the middle where the exposure is known.
        time_offset_us: microseconds to add to every frame's time, so that it names the same moment on the events' clock.
        estimate_offset: find the time offset from the recording itself, and use it.
        estimate_shift: find by how many pixels events and frames are shifted against each other, and use it.
        remove_hot_pixels: leave out the events of pixels that fire all the time.
        background_filter_us: leave out events that no neighbouring pixel supports within so many microseconds before.
        tolerant: read a damaged or truncated file as far as possible and say how much is lost, instead of refusing it.

    Raises:
        ConfigError: settings contradict each other or are out of range.
    """

    format: str | None = None
    events: Path | None = None
    timestamps: Path | None = None
    events_unit: TimeUnit | None = None
    sensor_size: tuple[int, int] | None = None
    sensor_to_frame: Path | None = None
    frame_time: FrameTime | None = None
    time_offset_us: int = 0
    estimate_offset: bool = False
    estimate_shift: bool = False
    remove_hot_pixels: bool = False
    background_filter_us: int | None = None
    tolerant: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("frame_time", get_args(FrameTime)), ("events_unit", TIME_UNITS)):
            if getattr(self, name) not in (None, *allowed):
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got '{getattr(self, name)}'")
        if abs(self.time_offset_us) > MAX_ABS_TIME_US:
            raise ConfigError(f"the time offset must lie within ±2^61 µs, got {self.time_offset_us}")
        if self.estimate_offset and self.time_offset_us:
            raise ConfigError("give a time offset or estimate it, not both")
        if self.background_filter_us is not None:
            from evfi.events.filters import check_filter_time  # with all that filters need

            check_filter_time(self.background_filter_us)
        if self.sensor_size is not None:
            width, height = self.sensor_size
            if min(width, height) < 1 or max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
                raise ConfigError(
                    f"the sensor size must be two positive integers of at most {MAX_SIDE}, and at most "
                    f"{MAX_PIXELS // 2**20} megapixels, got {width} {height}"
                )

    def for_events(
        self, sensor_size: tuple[int, int] | None = None, *, size_is_assumed: bool = False
    ) -> EventFileOptions:
        """What an event file's reader needs to know.

        Args:
            sensor_size: (width, height) to take where neither the user nor the file says it.
            size_is_assumed: that size is a guess.
        """
        return EventFileOptions(
            sensor_size=self.sensor_size or sensor_size,
            size_is_assumed=size_is_assumed and self.sensor_size is None,
            time_unit=self.events_unit,
            tolerant=self.tolerant,
        )
