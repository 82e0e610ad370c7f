"""Format an inspection as text: aligned lines, the event rate as a sparkline, warnings at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from evfi.recordings.inspection_facts import AlignmentFacts, EventFacts, FrameFacts, Inspection, OverlapFacts

_BARS: Final = "▁▂▃▄▅▆▇█"
_SPARKLINE_COLUMNS: Final = 60
_LABEL: Final = 11


def describe_inspection(inspection: Inspection) -> list[str]:
    """The inspection, line by line."""
    lines = [("path", inspection.path), ("format", inspection.format)]
    if inspection.convention:
        lines.append(("convention", inspection.convention))
    lines += _frame_lines(inspection.frames, (inspection.no_frames or "").removeprefix(f"{inspection.path}: "))
    lines += _event_lines(inspection.events, inspection.format)
    if inspection.overlap is not None:
        lines += _overlap_lines(inspection.overlap)
    lines += _alignment_lines(inspection.alignment, inspection.no_alignment)
    text = [f"{label:{_LABEL}} {value}".rstrip() for label, value in lines]
    text += ["", _count_of_warnings(len(inspection.warnings))]
    return text + [f"  - {warning}" for warning in inspection.warnings]


def sparkline(rates: Sequence[float], num_columns: int = _SPARKLINE_COLUMNS) -> str:
    """Rates as a row of bars, at most `num_columns`; blank where there are no events."""
    per_column = -(-len(rates) // num_columns)
    columns = np.array([np.mean(rates[at : at + per_column]) for at in range(0, len(rates), per_column)])
    heights = np.ceil(columns / max(columns.max(), 1e-9) * len(_BARS)).astype(int)
    return "".join(_BARS[height - 1] if height else " " for height in heights)


def _frame_lines(frames: FrameFacts | None, why_none: str) -> list[tuple[str, str]]:
    if frames is None:
        return [("frames", f"none: {why_none}")]
    colour = "" if frames.is_grey is None else ", grey" if frames.is_grey else ", colour"
    spread = f"{frames.interval_min_us / 1e3:.6g} to {frames.interval_max_us / 1e3:.6g} ms"
    rate = f"{frames.rate_fps:.5g} fps: intervals {frames.interval_median_us / 1e3:.6g} ms (median), {spread}"
    lines = [
        ("frames", f"{frames.num_frames:,}, {frames.width_px}×{frames.height_px} px{colour}"),
        ("  time", _time_range(frames.first_us, frames.last_us)),
        ("  rate", f"{rate}, jitter {frames.interval_std_us / 1e3:.3g} ms (std)"),
    ]
    if frames.num_out_of_line:
        after = ", ".join(map(str, frames.out_of_line)) + (" …" * (frames.num_out_of_line > len(frames.out_of_line)))
        missing = f"; {frames.num_missing} missing" if frames.num_missing else ""
        lines.append(("", f"{frames.num_out_of_line} out of line, after frame {after}{missing}"))
    lines.append(("  exposure", _exposure(frames)))
    if frames.mean_level is not None and frames.share_dark is not None and frames.share_bright is not None:
        clipped = f"{frames.share_dark:.1%} black, {frames.share_bright:.1%} white"
        lines.append(
            ("  levels", f"mean {frames.mean_level:.0f} of 255, {clipped} ({frames.num_probed} frames looked at)")
        )
    return lines


def _exposure(frames: FrameFacts) -> str:
    if frames.exposure_median_us is None or frames.exposure_min_us is None or frames.exposure_max_us is None:
        return "not known"
    median = f"{frames.exposure_median_us / 1e3:.4g} ms"
    if frames.exposure_min_us == frames.exposure_max_us:
        return f"{median}, start and end known"
    spread = f"{frames.exposure_min_us / 1e3:.4g} to {frames.exposure_max_us / 1e3:.4g} ms"
    return f"{median} (median), {spread}; start and end known"


def _event_lines(events: EventFacts, format_told: str) -> list[tuple[str, str]]:
    peak_at = _duration(events.peak_at_us - events.first_us)
    peak = f"at most {_rate(events.peak_rate_per_s)} over {_duration(events.peak_window_us)}, {peak_at} after the first"
    lines = [
        ("events", f"{events.num_events:,}, {events.width_px}×{events.height_px} px sensor"),
        ("  time", _time_range(events.first_us, events.last_us)),
        ("  rate", f"{_rate(events.mean_rate_per_s)}; {peak}"),
        ("", sparkline(events.rate_over_time.events_per_s)),
        ("  polarity", f"{events.share_positive:.1%} brighter (+1), {1 - events.share_positive:.1%} darker (-1)"),
        ("  pixels", _pixels(events)),
        ("  outside", _outside(events)),
        ("  stamps", _stamps(events)),
        ("  gaps", _gaps(events)),
        ("  file", _file(events)),
    ]
    return lines if events.format == format_told else [*lines[:1], ("  format", events.format), *lines[1:]]


def _pixels(events: EventFacts) -> str:
    parts = [] if events.num_active_pixels is None else [f"{events.num_active_pixels:,} with events"]
    if events.num_hot_pixels is None or events.share_hot is None:
        return ", ".join([*parts, "hot ones not looked for"])
    hot = f"{events.num_hot_pixels:,} hot"
    if events.hot_pixels:
        worst = events.hot_pixels[0]
        hot += f" ({events.share_hot:.1%} of events; the worst at {worst.x}, {worst.y}: {_rate(worst.rate_hz)})"
    return ", ".join([*parts, hot])


def _outside(events: EventFacts) -> str:
    left_out = f"{events.num_left_out:,} left out (outside the sensor, or filtered)"
    if events.share_outside_frame is None:
        return left_out
    return f"{left_out}, {events.share_outside_frame:.2%} of the others outside the frame"


def _stamps(events: EventFacts) -> str:
    duplicates = "duplicates not counted" if events.num_duplicates is None else f"{events.num_duplicates:,} duplicates"
    times = f"{events.num_times:,} different times, at most {events.max_at_once:,} events at once"
    return f"{times}, step {events.time_step_us} µs; {events.num_unsorted:,} unsorted, {duplicates}"


def _gaps(events: EventFacts) -> str:
    if not events.gaps:
        return "none"
    shown = [
        f"{_duration(gap.end_us - gap.start_us)} at {_duration(gap.start_us - events.first_us)}"
        for gap in events.gaps[:3]
    ]
    return f"{events.num_gaps}: {', '.join(shown)}{' …' if events.num_gaps > len(shown) else ''}"


def _file(events: EventFacts) -> str:
    counts = (
        (events.num_triggers, "triggers"),
        (events.num_clock_wraps, "clock wraps"),
        (events.num_unknown, "unknown words"),
        (events.num_lost_bytes, "bytes lost"),
    )
    return ", ".join(f"{count:,} {name}" for count, name in counts)


def _overlap_lines(overlap: OverlapFacts) -> list[tuple[str, str]]:
    few = f", {overlap.num_with_few} of them few" if overlap.num_with_few else ""
    between = f"{overlap.num_with_events:,} of {overlap.num_intervals:,} intervals between frames have events{few}"
    return [("overlap", f"{between}; {overlap.share_of_events:.1%} of the events lie between frames")]


def _alignment_lines(alignment: AlignmentFacts | None, why_none: str | None) -> list[tuple[str, str]]:
    if alignment is None:
        return [] if why_none is None else [("alignment", f"not estimated: {why_none}")]
    if not alignment.is_reliable:
        return [("alignment", f"not known: {alignment.note}")]
    (right, down), (right_error, down_error) = alignment.shift_px, alignment.shift_error_px
    offset = f"time offset {alignment.time_offset_us / 1e3:+.2f} ms (± {alignment.time_offset_error_us / 1e3:.2f})"
    shift = f"shift {right:+.2f} (± {right_error:.2f}), {down:+.2f} (± {down_error:.2f}) px"
    certainty = f"correlation {alignment.correlation:.2f}, confidence {alignment.confidence:.2f}"
    return [("alignment", f"{offset}, {shift}; {certainty}"), ("", alignment.note)]


def _count_of_warnings(count: int) -> str:
    return "1 warning" if count == 1 else f"{count or 'no'} warnings"


def _time_range(first_us: int, last_us: int) -> str:
    return f"{_duration(last_us - first_us)}, from {first_us} to {last_us} µs"


def _duration(duration_us: float) -> str:
    if abs(duration_us) >= 1e6:
        return f"{duration_us / 1e6:.5g} s"
    return f"{duration_us / 1e3:.4g} ms"


def _rate(per_s: float) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if per_s >= factor:
            return f"{per_s / factor:.3g} {unit}/s"
    return f"{per_s:.3g}/s"
