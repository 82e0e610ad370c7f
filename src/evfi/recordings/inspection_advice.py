"""Warnings in plain words: what is wrong with a recording, and what to do about it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from evfi.recordings.estimation import AlignmentEstimate
from evfi.recordings.inspection_facts import AlignmentFacts, EventFacts, FrameFacts, Inspection, OverlapFacts
from evfi.recordings.options import RecordingOptions

_MIN_EVENTS: Final = 100  # fewer say nothing of shares
_ONE_SIDED: Final = 0.98
_HOT_SHARE: Final = 0.01
_DUPLICATE_SHARE: Final = 0.001
_OUTSIDE_SHARE: Final = 0.05
_STAMPED_EVERY_US: Final = 2000
_STAMPED_AT_ONCE: Final = 20
_COARSE_STEP_US: Final = 100
_MAX_RATE_PER_S: Final = 1e10  # no camera's bus carries as many
_SLOW_RATE_PER_S, _SLOW_SPAN_US = 200, 600_000_000
_UNITS: Final = ((1e3, "nanoseconds", "ns"), (1e-3, "milliseconds", "ms"), (1e-6, "seconds", "s"))
_UNIT_TOLERANCE: Final = 2.0
_MIN_OFFSET_US, _MIN_SHIFT_PX = 1000, 0.75
_NUM_ERRORS: Final = 3  # an estimate that is fewer standard errors from nothing is nothing
_JITTER: Final = 0.05
_CLIPPED: Final = 0.25


def advise(inspection: Inspection, options: RecordingOptions) -> Inspection:
    """The inspection with warnings that its figures give rise to, behind those that it has.

    Args:
        inspection: the figures, and what the readers said.
        options: what the user said: a time offset that is in the frames' times already, and filters.
    """
    frames, events, overlap = inspection.frames, inspection.events, inspection.overlap
    lines = [*_of_reading(inspection), *inspection.warnings, *_of_times(frames, events, overlap)]
    lines += [
        *_of_pixels(events, is_filtered=options.remove_hot_pixels or options.background_filter_us is not None),
        *_of_polarity(events),
        *_of_gaps(events),
    ]
    if frames is not None:
        lines += _of_frames(frames)
    if overlap is not None and frames is not None:
        lines += _of_overlap(overlap, frames, events)
    if inspection.alignment is not None:
        lines += advise_alignment(inspection.alignment, options.time_offset_us)
    return replace(inspection, warnings=tuple(dict.fromkeys(lines)))


def _of_reading(inspection: Inspection) -> list[str]:
    lines = []
    if inspection.events.error is not None:
        lines.append(f"reading the events ended early: {inspection.events.error}")
    if inspection.frames is not None and inspection.frames.error is not None:
        lines.append(f"a frame cannot be read: {inspection.frames.error}")
    return lines


def _of_times(frames: FrameFacts | None, events: EventFacts, overlap: OverlapFacts | None) -> list[str]:
    lines = []
    if unit := _likely_unit(frames, events):
        lines.append(unit)
    if events.num_events < _MIN_EVENTS:
        return lines
    per_time, spacing_us = events.num_events / events.num_times, events.duration_us / max(events.num_times - 1, 1)
    if overlap is not None and overlap.share_at_frame_times > 0.5:
        lines.append(
            f"{overlap.share_at_frame_times:.0%} of the events carry exactly a frame's time, as some simulators and exports "
            "stamp them: they do not show the motion between frames; generate the events again with true times"
        )
    elif events.num_times == 1 or (per_time >= _STAMPED_AT_ONCE and spacing_us >= _STAMPED_EVERY_US):
        lines.append(
            f"all events share {events.num_times:,} different times, one every {spacing_us / 1e3:.3g} ms, as some simulators "
            "and exports stamp them: they do not show the motion in between; generate the events again with true times"
        )
    elif events.time_step_us >= _COARSE_STEP_US:
        lines.append(
            f"all event times are multiples of {events.time_step_us} µs: finer times were lost in a conversion, or the unit is "
            "wrong (--events-unit)"
        )
    return lines


def _likely_unit(frames: FrameFacts | None, events: EventFacts) -> str | None:
    """A warning where event times make no sense in the unit that was taken."""
    if frames is not None:
        ratio = max(events.duration_us, 1) / frames.duration_us
        for factor, name, option in _UNITS:
            if abs(math.log(ratio / factor)) < math.log(_UNIT_TOLERANCE):
                return (
                    f"events last {_seconds(events.duration_us)} and frames {_seconds(frames.duration_us)}: event times "
                    f"look like {name}; try --events-unit {option}"
                )
        return None
    if events.num_events < _MIN_EVENTS:
        return None
    if events.mean_rate_per_s > _MAX_RATE_PER_S:
        return (
            f"{events.mean_rate_per_s:.2g} events per second are more than any camera gives: event times may be milliseconds "
            "or seconds; try --events-unit ms or s"
        )
    if events.mean_rate_per_s < _SLOW_RATE_PER_S and events.duration_us > _SLOW_SPAN_US:
        return (
            f"{events.mean_rate_per_s:.2g} events per second over {_seconds(events.duration_us)} are few: event times may "
            "be nanoseconds; try --events-unit ns"
        )
    return None


def _of_pixels(events: EventFacts, *, is_filtered: bool) -> list[str]:
    lines = []
    if events.num_hot_pixels and events.share_hot is not None and events.share_hot >= _HOT_SHARE:
        number = _number(events.num_hot_pixels, "pixel that fires", "pixels that fire")
        lines.append(f"{events.share_hot:.0%} of the events come from {number} all the time: use --remove-hot-pixels")
    if events.num_hot_pixels is None and events.error is None:
        lines.append("the sensor is too large to look for hot pixels; check its size (--sensor-size)")
    if events.num_left_out and not is_filtered:
        number = _number(events.num_left_out, "event", "events")
        lines.append(
            f"{number} left out: outside the {events.width_px}×{events.height_px} sensor; check its size (--sensor-size) "
            "if they are many"
        )
    if events.num_duplicates is not None and events.num_duplicates > _DUPLICATE_SHARE * events.num_events:
        share = events.num_duplicates / events.num_events
        lines.append(
            f"{events.num_duplicates:,} events ({share:.2%}) equal another in pixel, time and polarity: the file may hold "
            "parts twice, or times were rounded; record or export it again"
        )
    if events.share_outside_frame is not None and events.share_outside_frame >= _OUTSIDE_SHARE:
        lines.append(
            f"{events.share_outside_frame:.0%} of the events fall outside the frame: if the frame shows all that the sensor "
            "sees, the mapping is wrong (--sensor-to-frame)"
        )
    return lines


def _of_polarity(events: EventFacts) -> list[str]:
    if events.num_events < _MIN_EVENTS or 1 - _ONE_SIDED < events.share_positive < _ONE_SIDED:
        return []
    positive = events.share_positive >= 0.5
    share = events.share_positive if positive else 1 - events.share_positive
    which = "brighter (+1)" if positive else "darker (-1)"
    return [
        f"{'all' if share == 1 else f'{share:.1%} of the'} events are {which}: the camera's thresholds are one-sided, or "
        "polarity was lost in a conversion; check how the file was made"
    ]


def _of_gaps(events: EventFacts) -> list[str]:
    if not events.gaps:
        return []
    longest = events.gaps[0]
    number = _number(events.num_gaps, "stretch", "stretches")
    return [
        f"{number} without any event, the longest {_seconds(longest.end_us - longest.start_us)} from "
        f"{_seconds(longest.start_us - events.first_us)} after the first event: if something moved then, events were lost "
        "(bandwidth, disk); record again or leave that part out"
    ]


def _of_frames(frames: FrameFacts) -> list[str]:
    lines = []
    if frames.num_missing:
        where = ", ".join(str(index) for index in frames.out_of_line)
        lines.append(
            f"{_number(frames.num_missing, 'frame seems', 'frames seem')} to be missing (irregular intervals after frame "
            f"{where}): motion over longer intervals is harder to interpolate; check that no picture was lost"
        )
    elif frames.interval_std_us > _JITTER * frames.interval_median_us:
        lines.append(
            f"frame times jitter by {frames.interval_std_us / 1e3:.3g} ms around {frames.interval_median_us / 1e3:.4g} ms: "
            "if the camera runs evenly, the times are those of a computer; use the camera's own"
        )
    for share, level, what in ((frames.share_dark, "0", "dark"), (frames.share_bright, "255", "bright")):
        if share is not None and share > _CLIPPED:
            lines.append(
                f"{share:.0%} of the frames' values are too {what} (near {level}): nothing can be seen there; change exposure"
            )
    return lines


def _of_overlap(overlap: OverlapFacts, frames: FrameFacts, events: EventFacts) -> list[str]:
    if overlap.num_with_events == 0:
        return [
            f"frames and events do not overlap in time: frames from {frames.first_us} to {frames.last_us} µs, events from "
            f"{events.first_us} to {events.last_us} µs; check units and clocks of both (--events-unit, --time-offset-us)"
        ]
    lines = []
    if without := overlap.num_intervals - overlap.num_with_events:
        lines.append(
            f"{without} of {overlap.num_intervals} intervals between frames have no event: they would be blended; check "
            "the clocks of frames and events, or leave them out with --start and --end"
        )
    if overlap.num_with_few:
        lines.append(
            f"{overlap.num_with_few} of {overlap.num_intervals} intervals between frames have far fewer events than the "
            "others: if something moved then, events were lost"
        )
    return lines


def advise_alignment(alignment: AlignmentFacts | AlignmentEstimate, before_us: int) -> list[str]:
    """Warnings where frames and events are shifted against each other by more than the estimate's errors.

    Args:
        alignment: the estimate.
        before_us: what was added to the frames' times already.
    """
    if not alignment.is_reliable:
        return []
    lines, confidence = [], f"confidence {alignment.confidence:.2f}"
    offset, error = alignment.time_offset_us, alignment.time_offset_error_us
    if abs(offset) >= _MIN_OFFSET_US and abs(offset) > _NUM_ERRORS * error:
        lines.append(
            f"frames and events seem shifted by {abs(offset) / 1e3:.1f} ms ({confidence}): use --estimate-offset or "
            f"--time-offset-us {before_us + offset}"
        )
    distance, errors = math.hypot(*alignment.shift_px), math.hypot(*alignment.shift_error_px)
    if distance >= _MIN_SHIFT_PX and distance > _NUM_ERRORS * errors:
        right, down = alignment.shift_px
        lines.append(
            f"events seem shifted against frames by {distance:.1f} px ({right:+.1f} right, {down:+.1f} down; {confidence}): "
            "use --estimate-shift"
        )
    return lines


def _seconds(duration_us: float) -> str:
    return f"{duration_us / 1e6:.4g} s" if duration_us >= 1e6 else f"{duration_us / 1e3:.4g} ms"


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
