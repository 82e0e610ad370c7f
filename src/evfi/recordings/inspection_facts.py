"""What is found when a recording is looked at, as plain numbers with units in their names.

`Inspection.as_json` is the stable form: `SCHEMA` changes where a name or a meaning does.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

SCHEMA: Final = "evfi-inspection/1"


@dataclass(frozen=True)
class FrameFacts:
    """Key frames and their times; times are on the events' clock as far as it is known.

    Attributes:
        num_frames: how many.
        width_px: of each.
        height_px: of each.
        is_grey: whether they hold no colour.
        first_us: time of the first.
        last_us: time of the last.
        duration_us: from the first to the last.
        rate_fps: frames per second by the median interval.
        interval_median_us: between two frames.
        interval_min_us: the shortest.
        interval_max_us: the longest.
        interval_std_us: jitter, standard deviation of the intervals.
        num_missing: frames that seem to be left out, judging by intervals of twice the median and more.
        num_out_of_line: intervals that differ from the median by more than a quarter.
        out_of_line: index of the frame before each of them, the first 16.
        exposure_known: whether start and end of exposures are known.
        exposure_median_us: length of the exposure; None where it is not known.
        exposure_min_us: the shortest.
        exposure_max_us: the longest.
        num_probed: frames that were looked at, spread over the recording.
        mean_level: mean of their levels, 0 to 255; None where none could be read.
        share_dark: part of their values that are 2 or less.
        share_bright: part of their values that are 253 or more.
        error: why a frame could not be read; None where all that were looked at could.
    """

    num_frames: int
    width_px: int
    height_px: int
    is_grey: bool | None
    first_us: int
    last_us: int
    duration_us: int
    rate_fps: float
    interval_median_us: float
    interval_min_us: int
    interval_max_us: int
    interval_std_us: float
    num_missing: int
    num_out_of_line: int
    out_of_line: tuple[int, ...]
    exposure_known: bool
    exposure_median_us: float | None
    exposure_min_us: int | None
    exposure_max_us: int | None
    num_probed: int
    mean_level: float | None
    share_dark: float | None
    share_bright: float | None
    error: str | None


@dataclass(frozen=True)
class RateOverTime:
    """Events per second over equal stretches of time.

    Attributes:
        start_us: where the first stretch begins.
        step_us: length of a stretch; the last ends with the last event, half a stretch earlier or later at most.
        events_per_s: in each.
    """

    start_us: int
    step_us: int
    events_per_s: tuple[float, ...]


@dataclass(frozen=True)
class Gap:
    """A stretch of time without any event.

    Attributes:
        start_us: the event before it.
        end_us: the event after it.
    """

    start_us: int
    end_us: int


@dataclass(frozen=True)
class HotPixel:
    """A pixel that fires all the time.

    Attributes:
        x: column.
        y: row.
        rate_hz: its events per second.
    """

    x: int
    y: int
    rate_hz: float


@dataclass(frozen=True)
class EventFacts:
    """The events, all of them counted.

    Attributes:
        format: of the event file, with its encoding.
        convention: what the reader takes the file to mean.
        width_px: of the sensor.
        height_px: of the sensor.
        num_events: events inside the sensor (and left by the filters, if any were asked for).
        num_left_out: events outside the sensor, or filtered.
        first_us: time of the first.
        last_us: time of the last.
        duration_us: from the first to the last.
        mean_rate_per_s: events per second over the duration.
        peak_rate_per_s: the highest over `peak_window_us`.
        peak_at_us: where that window begins.
        peak_window_us: its length.
        rate_over_time: at most 240 stretches.
        share_positive: part of events that are brighter (+1).
        share_outside_frame: part of events that fall outside the frame; None without frames.
        num_active_pixels: pixels with at least one event.
        num_hot_pixels: pixels that fire all the time; None where they could not be looked for.
        share_hot: part of events that are theirs.
        hot_pixels: the busiest of them, at most 16.
        num_gaps: stretches without any event that are much longer than usual.
        gaps: the longest of them, at most 16.
        num_unsorted: events that are earlier than the one before them in the file.
        num_duplicates: events that equal another in pixel, time and polarity.
        num_times: how many different times they carry.
        max_at_once: the most events of one time.
        time_step_us: all times are multiples of it, counted from the first.
        num_triggers: external triggers in the file.
        num_unknown: words, records or messages of no known kind.
        num_clock_wraps: how often the camera's clock began again.
        num_lost_bytes: bytes that could not be read.
        error: why reading ended early, so that all these figures tell of the part before; None where it did not.
    """

    format: str
    convention: str
    width_px: int
    height_px: int
    num_events: int
    num_left_out: int
    first_us: int
    last_us: int
    duration_us: int
    mean_rate_per_s: float
    peak_rate_per_s: float
    peak_at_us: int
    peak_window_us: int
    rate_over_time: RateOverTime
    share_positive: float
    share_outside_frame: float | None
    num_active_pixels: int | None
    num_hot_pixels: int | None
    share_hot: float | None
    hot_pixels: tuple[HotPixel, ...]
    num_gaps: int
    gaps: tuple[Gap, ...]
    num_unsorted: int
    num_duplicates: int | None
    num_times: int
    max_at_once: int
    time_step_us: int
    num_triggers: int
    num_unknown: int
    num_clock_wraps: int
    num_lost_bytes: int
    error: str | None


@dataclass(frozen=True)
class OverlapFacts:
    """How frames and events share time.

    Attributes:
        num_intervals: between two frames.
        num_with_events: of them have events.
        num_with_few: have events, but fewer than a hundredth of the median of all.
        share_of_events: part of the events that lie between the first and the last frame.
        share_at_frame_times: part of the events that carry exactly a frame's time.
    """

    num_intervals: int
    num_with_events: int
    num_with_few: int
    share_of_events: float
    share_at_frame_times: float


@dataclass(frozen=True)
class AlignmentFacts:
    """How far frames and events seem shifted against each other, see `estimation.AlignmentEstimate`.

    Attributes:
        time_offset_us: what to add to frame times.
        time_offset_error_us: its standard error.
        shift_px: right and down, what to add to events' places in the frame.
        shift_error_px: standard errors of both.
        correlation: of events with the frames' differences, at the estimate.
        confidence: 0 to 1.
        is_reliable: whether it should be used.
        note: how good the estimate is, in words.
        curve_offsets_us: time offsets that were tried.
        curve_correlations: the correlation at each.
    """

    time_offset_us: int
    time_offset_error_us: float
    shift_px: tuple[float, float]
    shift_error_px: tuple[float, float]
    correlation: float
    confidence: float
    is_reliable: bool
    note: str
    curve_offsets_us: tuple[float, ...]
    curve_correlations: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """What is in a recording, and what is wrong with it.

    Attributes:
        path: what was opened.
        format: the recording's layout, or the event file's format.
        convention: what its reader takes the files to mean.
        frames: None where there are none that can be read.
        no_frames: why there are none; None where there are.
        events: the events.
        overlap: None without frames.
        alignment: None without frames, or where nothing could be estimated.
        no_alignment: why not; None where it was estimated.
        warnings: what the user should know, and what to do, one line each.
    """

    path: str
    format: str
    convention: str
    frames: FrameFacts | None
    no_frames: str | None
    events: EventFacts
    overlap: OverlapFacts | None
    alignment: AlignmentFacts | None
    no_alignment: str | None
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Numbers, texts, lists and dictionaries only; numbers that are not finite become None."""
        return {"schema": SCHEMA, **_plain(asdict(self))}


def _plain(value: Any) -> Any:
    """Lists for tuples, None for numbers that are not finite, and plain numbers for numpy's."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
