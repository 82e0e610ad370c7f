"""From counts of events to what they mean: rates, hot pixels, gaps, what falls outside the frame."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from evfi.errors import EvfiError
from evfi.events.filters import HotPixels, find_hot_pixels
from evfi.events.source import EventSource
from evfi.events.stream import EventStream
from evfi.recordings.alignment import covers_frame, warp_events
from evfi.recordings.event_statistics import NUM_GAPS, Counts, EventStatistics
from evfi.recordings.inspection_facts import EventFacts, Gap, HotPixel, RateOverTime
from evfi.recordings.recording import Recording
from evfi.recordings.subject import Subject

_NUM_RATE_COLUMNS: Final = 240
_PEAK_WINDOW_US: Final = 10_000
_MAX_LISTED: Final = 16
_MIN_GAP_US: Final = 10_000
_MIN_GAP_RATIO: Final = 5  # to gaps of which there are many
_PIXELS_AT_ONCE: Final = 2**18


def event_facts(subject: Subject, statistics: EventStatistics) -> EventFacts:
    """What the events of a subject are like, from the counts of all of them and its reader's report."""
    report = subject.events.report
    seconds = max(statistics.span_us, 1) / 1e6
    peak_rate, peak_at_us, peak_window_us = statistics.peak(_PEAK_WINDOW_US)
    step_us, rates = statistics.rate(_NUM_RATE_COLUMNS)
    hot = _hot_pixels(subject.events) if statistics.error is None else None
    gaps = unusual_gaps(statistics)
    per_pixel = statistics.per_pixel
    return EventFacts(
        format=report.format,
        convention=report.convention,
        width_px=subject.events.sensor_size[0],
        height_px=subject.events.sensor_size[1],
        num_events=statistics.num_events,
        num_left_out=statistics.num_left_out,
        first_us=statistics.first_us,
        last_us=statistics.last_us,
        duration_us=statistics.span_us,
        mean_rate_per_s=statistics.num_events / seconds,
        peak_rate_per_s=peak_rate,
        peak_at_us=peak_at_us,
        peak_window_us=peak_window_us,
        rate_over_time=RateOverTime(statistics.first_us, step_us, tuple(rates.tolist())),
        share_positive=statistics.num_positive / max(statistics.num_events, 1),
        share_outside_frame=_share_outside(subject.recording, per_pixel),
        num_active_pixels=None if per_pixel is None else int(np.count_nonzero(per_pixel)),
        num_hot_pixels=None if hot is None else len(hot),
        share_hot=None if hot is None else hot.share_of_events,
        hot_pixels=() if hot is None else _listed(hot),
        num_gaps=len(gaps),
        gaps=tuple(Gap(start, end) for start, end in gaps[:_MAX_LISTED].tolist()),
        num_unsorted=report.num_unsorted,
        num_duplicates=statistics.num_duplicates,
        num_times=statistics.num_times,
        max_at_once=statistics.max_at_once,
        time_step_us=statistics.time_step_us,
        num_triggers=report.num_triggers,
        num_unknown=report.num_unknown,
        num_clock_wraps=report.num_clock_wraps,
        num_lost_bytes=report.num_lost_bytes,
        error=statistics.error,
    )


def unusual_gaps(statistics: EventStatistics) -> Counts:
    """Stretches without an event, the longest first, that neither chance nor the scene's rhythm explains, int64 [G, 2].

    Chance: events that come at random at the mean rate r leave no gap longer than (ln N + 10) / r. Rhythm: gaps of
    nearly the same length are found again and again, as under a flickering lamp.
    """
    gaps = statistics.gaps
    if len(gaps) == 0:
        return gaps
    lengths = gaps[:, 1] - gaps[:, 0]
    mean_us = statistics.span_us / max(statistics.num_times - 1, 1)
    by_chance = (math.log(statistics.num_times) + 10) * mean_us
    usual = lengths[-1] if len(gaps) == NUM_GAPS else 0
    unusual: Counts = gaps[(lengths >= _MIN_GAP_US) & (lengths > by_chance) & (lengths >= _MIN_GAP_RATIO * usual)]
    return unusual


def _hot_pixels(source: EventSource) -> HotPixels | None:
    try:
        return find_hot_pixels(source)
    except (EvfiError, OSError):  # reading was tried before: this is a sensor that is too large
        return None


def _listed(hot: HotPixels) -> tuple[HotPixel, ...]:
    pixels = zip(hot.coordinates[:_MAX_LISTED].tolist(), hot.rates_hz[:_MAX_LISTED].tolist(), strict=True)
    return tuple(HotPixel(x, y, rate) for (x, y), rate in pixels)


def _share_outside(recording: Recording | None, per_pixel: Counts | None) -> float | None:
    """Part of the events that the mapping moves out of the frame."""
    if recording is None or per_pixel is None:
        return None
    size = recording.events.sensor_size
    if recording.rectification is None and covers_frame(recording.sensor_to_frame, size, recording.frames.size):
        return 0.0
    active = np.flatnonzero(per_pixel)
    num_inside = 0
    for first in range(0, len(active), _PIXELS_AT_ONCE):
        part = active[first : first + _PIXELS_AT_ONCE]
        x, y = (part % size[0]).astype(np.int32), (part // size[0]).astype(np.int32)
        pixels = EventStream(x, y, part.astype(np.int64), np.ones(len(part), np.int8), size)  # its time is its index
        inside = warp_events(pixels, recording.sensor_to_frame, recording.frames.size, recording.rectification)
        num_inside += int(per_pixel.reshape(-1)[inside.t].sum())
    return 1 - num_inside / max(int(per_pixel.sum()), 1)
