"""Filters that leave out events which tell nothing of the scene: those of hot pixels, and background activity.

Hot pixel: one that fires all the time and far more often than the pixels around it. The recording (or, of a long one,
16 stretches spread over it) is counted per pixel in 16 stretches of time. A pixel is hot if

- it fires at `min_rate_hz` or more,
- at `min_ratio` times or more the rate of its surroundings, the median of the other pixels of the 5×5 around it, and
- in at least 3 of 4 stretches more than twice as often as its surroundings, which a moving object is not.

Background activity filter (Delbruck, "Frame-free dynamic digital vision", 2008): an event stays if one of the 8 pixels
next to its own had an event in the `background_filter_us` before it, earlier in the stream; an event of its own pixel is
no support, nor is one of a hot pixel that is left out. An event that is itself left out does support its neighbours, so
that a part of a stream is filtered as it would be within the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, RecordingError
from evfi.events.report import ReadReport
from evfi.events.source import EventSource
from evfi.events.stream import EventStream

_NUM_STRETCHES: Final = 16
_MIN_STRETCHES_HOT: Final = 12
_READ_US: Final = 50_000  # read at once, so that little is held
_MAX_EVENTS_PER_STRETCH: Final = 4_000_000
_MAX_PIXELS: Final = 2**22  # times 16 counts of 4 bytes
_MAX_SUPPORT_US: Final = 3_600_000_000  # an hour
_LONG_AGO: Final = -(2**62)


@dataclass(frozen=True, eq=False)
class HotPixels:
    """Pixels that fire all the time.

    Attributes:
        coordinates: column and row of each, int32 [N, 2], the busiest first.
        rates_hz: events per second of each, float64 [N].
        num_events: events of these pixels among those counted.
        num_events_counted: all events that were counted.
        seconds_counted: how much of the recording was counted.
        criterion: what made them hot, in plain words.
    """

    coordinates: NDArray[np.int32]
    rates_hz: NDArray[np.float64]
    num_events: int
    num_events_counted: int
    seconds_counted: float
    criterion: str

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def share_of_events(self) -> float:
        """Which part of all events is theirs, 0 to 1."""
        return self.num_events / max(self.num_events_counted, 1)


def find_hot_pixels(
    source: EventSource, *, min_rate_hz: float = 5.0, min_ratio: float = 8.0, max_seconds: float = 60.0
) -> HotPixels:
    """Find the pixels that fire all the time, as the module says.

    Args:
        source: the events.
        min_rate_hz: a pixel that fires less often is never hot.
        min_ratio: how many times more often than its surroundings it fires.
        max_seconds: of a longer recording, so much is counted, in 16 stretches from its start to its end.

    Raises:
        RecordingError: the sensor is too large to be counted.
        InputError: the events cannot be read.
    """
    counts, seconds = _count(source, max_seconds)
    total = counts.sum(axis=0, dtype=np.int64)
    hot = (total >= min_rate_hz * seconds) & (total >= 2)
    candidates = np.argwhere(hot)  # (y, x)
    surroundings = np.stack([_surroundings(stretch, candidates) for stretch in counts])  # [stretches, candidates]
    own = counts[:, candidates[:, 0], candidates[:, 1]].astype(np.int64)
    steady = (own > 2 * surroundings).sum(axis=0) >= _MIN_STRETCHES_HOT
    sums = own.sum(axis=0)
    chosen = steady & (sums >= min_ratio * _surroundings(total, candidates))
    order = np.argsort(-sums[chosen], kind="stable")
    return HotPixels(
        coordinates=candidates[chosen][order][:, ::-1].astype(np.int32),
        rates_hz=sums[chosen][order] / max(seconds, 1e-6),
        num_events=int(sums[chosen].sum()),
        num_events_counted=int(total.sum()),
        seconds_counted=seconds,
        criterion=f"at least {min_rate_hz:g} events per second and {min_ratio:g} times as many as the pixels around, "
        "nearly all the time",
    )


class FilteredEvents:
    """Events of a source less those that filters leave out; a slice holds what the same part of the whole would hold.

    Args:
        source: the events.
        remove_hot_pixels: leave out the events of hot pixels: find them now (True), or take those given.
        background_filter_us: leave out events that no neighbour supports within so many µs; None leaves all in.

    Attributes:
        hot_pixels: those left out; None where hot pixels stay in.

    Raises:
        ConfigError: the time is out of range.
        RecordingError: the sensor is too large to be filtered.
    """

    def __init__(
        self,
        source: EventSource,
        remove_hot_pixels: bool | HotPixels = False,
        background_filter_us: int | None = None,
    ):
        if background_filter_us is not None:
            check_filter_time(background_filter_us)
        self._source = source
        self._support_us = background_filter_us
        self.sensor_size = source.sensor_size
        self.time_range_us = source.time_range_us
        _check_area(source.sensor_size)
        self.hot_pixels = find_hot_pixels(source) if remove_hot_pixels is True else remove_hot_pixels or None
        self._is_hot = _mask(self.hot_pixels, source.sensor_size)

    @property
    def report(self) -> ReadReport:
        """The source's report, with what is filtered among its notes."""
        report, notes = self._source.report, []
        if self.hot_pixels is not None:
            share = f"{self.hot_pixels.share_of_events:.1%} of the events counted"
            found = f"the events of {len(self.hot_pixels)} hot pixel(s) are left out ({share})"
            notes.append(found if len(self.hot_pixels) else "no hot pixels were found; none are left out")
        if self._support_us is not None:
            notes.append(f"events that no neighbouring pixel supports within {self._support_us} µs are left out")
        return replace(report, notes=(*report.notes, *notes))

    def slice(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us that stay; `num_dropped` counts those left out here and before."""
        part = self._without_hot(self._source.slice(start_us, end_us))
        if self._support_us is None or len(part) == 0:
            return part
        latest = self._no_support()
        before = self._without_hot(self._source.slice(start_us - self._support_us, start_us))
        _supported(before, latest, self._support_us)
        return _kept(part, _supported(part, latest, self._support_us))

    def pieces(self) -> Iterator[EventStream]:
        """All events that stay, in order of time, in pieces of bounded size."""
        latest = self._no_support() if self._support_us is not None else None
        for piece in self._source.pieces():
            part = self._without_hot(piece)
            if latest is not None and self._support_us is not None:
                part = _kept(part, _supported(part, latest, self._support_us))
            yield part

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _without_hot(self, stream: EventStream) -> EventStream:
        return stream if self._is_hot is None else _kept(stream, ~self._is_hot[stream.y, stream.x])

    def _no_support(self) -> NDArray[np.int64]:
        """Time of each pixel's latest event, with a border of one pixel; none yet."""
        width, height = self.sensor_size
        return np.full((height + 2, width + 2), _LONG_AGO, np.int64)


def check_filter_time(background_filter_us: int) -> None:
    """Refuse a time within which no neighbour can support an event, or every one does.

    Raises:
        ConfigError: it is out of range.
    """
    if not 1 <= background_filter_us <= _MAX_SUPPORT_US:
        raise ConfigError(
            f"the background filter's time must be 1 to {_MAX_SUPPORT_US} µs, got {background_filter_us}; typical are a few "
            "thousands"
        )


def _check_area(sensor_size: tuple[int, int]) -> None:
    width, height = sensor_size
    if width * height > _MAX_PIXELS:
        raise RecordingError(f"a sensor of {width}×{height} is too large to filter; check the declared sensor size")


def _mask(hot_pixels: HotPixels | None, sensor_size: tuple[int, int]) -> NDArray[np.bool_] | None:
    if hot_pixels is None or len(hot_pixels) == 0:
        return None
    is_hot = np.zeros(sensor_size[::-1], np.bool_)
    is_hot[hot_pixels.coordinates[:, 1], hot_pixels.coordinates[:, 0]] = True
    return is_hot


def _kept(stream: EventStream, keep: NDArray[np.bool_]) -> EventStream:
    num_left_out = len(keep) - int(np.count_nonzero(keep))
    if num_left_out == 0:
        return stream
    num_dropped = stream.num_dropped + num_left_out
    return EventStream(stream.x[keep], stream.y[keep], stream.t[keep], stream.p[keep], stream.sensor_size, num_dropped)


def _supported(stream: EventStream, latest: NDArray[np.int64], support_us: int) -> NDArray[np.bool_]:
    """Which events a neighbour supports, bool [N]; `latest` takes in their times."""
    from evfi.events.filter_loops import mark_supported

    keep = np.zeros(len(stream), np.bool_)
    mark_supported(stream.x, stream.y, stream.t, support_us, latest, keep)
    return keep


def _count(source: EventSource, max_seconds: float) -> tuple[NDArray[np.uint32], float]:
    """Events per stretch of time and pixel, uint32 [stretches, H, W], and how many seconds were counted."""
    _check_area(source.sensor_size)
    width, height = source.sensor_size
    start, end = source.time_range_us[0], source.time_range_us[1] + 1
    bounds = np.linspace(start, end, _NUM_STRETCHES + 1).round().astype(np.int64)
    longest = round(max_seconds * 1e6 / _NUM_STRETCHES)
    counts, counted_us = np.zeros((_NUM_STRETCHES, height, width), np.uint32), 0
    for stretch, (first, last) in enumerate(pairwise(bounds.tolist())):
        counts[stretch], stretch_us = _count_stretch(source, first, min(last, first + longest))
        counted_us += stretch_us
    return counts, counted_us / 1e6


def _count_stretch(source: EventSource, start_us: int, end_us: int) -> tuple[NDArray[np.int64], int]:
    """Events per pixel, int64 [H, W], and the length in µs that was counted before there were enough."""
    width, height = source.sensor_size
    counts, num_counted, at = np.zeros(height * width, np.int64), 0, start_us
    while at < end_us and num_counted < _MAX_EVENTS_PER_STRETCH:
        until = min(at + _READ_US, end_us)
        part = source.slice(at, until)
        if len(part):
            counts += np.bincount(part.y.astype(np.int64) * width + part.x, minlength=height * width)
        num_counted += len(part)
        at = until
    return counts.reshape(height, width), at - start_us


def _surroundings(counts: NDArray[np.integer[Any]], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Median of the other pixels of the 5×5 around each place (y, x); mirrored at the border."""
    padded = np.pad(counts, 2, mode="symmetric")
    around = [padded[places[:, 0] + dy, places[:, 1] + dx] for dy in range(5) for dx in range(5) if (dy, dx) != (2, 2)]
    return np.asarray(np.median(np.stack(around), axis=0), np.float64)
