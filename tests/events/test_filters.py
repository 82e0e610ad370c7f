"""Filters of hot pixels and of background activity."""

from __future__ import annotations

import numpy as np
import pytest

from evfi.errors import ConfigError, RecordingError
from evfi.events.filters import FilteredEvents, find_hot_pixels
from evfi.events.source import MemoryEvents
from evfi.events.stream import EventStream

SIZE = (24, 18)


def scene(count: int = 4000, seconds: float = 2.0, *, hot: bool = False) -> MemoryEvents:
    """Noise everywhere; with `hot`, pixel (5, 7) and the corner fire all the time and (12, 9) in one burst."""
    rng = np.random.default_rng(0)
    x, y, t = (
        rng.integers(0, SIZE[0], count),
        rng.integers(0, SIZE[1], count),
        rng.integers(0, int(seconds * 1e6), count),
    )
    if hot:
        steady = np.arange(0, int(seconds * 1e6), 5_000)
        burst = np.arange(300_000, 400_000, 200)
        for column, row, times in ((5, 7, steady), (0, 0, steady), (12, 9, burst)):
            x, y = np.append(x, np.full(len(times), column)), np.append(y, np.full(len(times), row))
            t = np.append(t, times)
    return MemoryEvents(EventStream.from_arrays(x, y, t, np.where(t % 2, 1, -1), SIZE))


def test_hot_pixels_are_steady_not_bursts() -> None:
    found = find_hot_pixels(scene(hot=True))
    assert sorted(map(tuple, found.coordinates.tolist())) == [(0, 0), (5, 7)]
    assert found.num_events >= 800
    assert found.share_of_events == pytest.approx(found.num_events / found.num_events_counted)
    assert found.rates_hz.min() >= 200
    assert len(find_hot_pixels(scene())) == 0


def test_a_long_recording_is_counted_in_part() -> None:
    found = find_hot_pixels(scene(seconds=100, hot=True), max_seconds=10)
    assert found.seconds_counted == pytest.approx(10, rel=0.01)
    assert len(found) == 2


def test_removed_pixels_are_counted_and_told() -> None:
    source = scene(hot=True)
    filtered = FilteredEvents(source, remove_hot_pixels=True)
    part, whole = filtered.slice(0, 10**7), source.slice(0, 10**7)
    assert len(part) + part.num_dropped == len(whole)
    assert not ((part.x == 5) & (part.y == 7)).any()
    assert "events of 2 hot pixel(s) are left out" in filtered.report.notes[0]


def by_hand(events: EventStream, support_us: int) -> np.ndarray:
    keep = []
    for i in range(len(events)):
        near = (abs(events.x[:i] - events.x[i]) <= 1) & (abs(events.y[:i] - events.y[i]) <= 1)
        other = (events.x[:i] != events.x[i]) | (events.y[:i] != events.y[i])
        keep.append(bool((near & other & (events.t[:i] >= events.t[i] - support_us)).any()))
    return np.array(keep)


def test_background_filter_by_hand() -> None:
    source = scene(600)
    whole = source.slice(0, 10**7)
    keep = by_hand(whole, 40_000)
    part = FilteredEvents(source, background_filter_us=40_000).slice(0, 10**7)
    assert part.t.tolist() == whole.t[keep].tolist()
    assert part.num_dropped == np.count_nonzero(~keep)


@pytest.mark.parametrize("hot", [False, True])
def test_slices_join_to_the_whole(hot: bool) -> None:
    filtered = FilteredEvents(scene(hot=True), remove_hot_pixels=hot, background_filter_us=5_000)
    pieces = EventStream.concatenate(filtered.pieces())
    slices = EventStream.concatenate([filtered.slice(at, at + 7_000) for at in range(0, 2_100_000, 7_000)])
    for name in "xytp":
        assert getattr(pieces, name).tolist() == getattr(slices, name).tolist()
    assert pieces.num_dropped == slices.num_dropped > 0


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match="must be 1 to 3600000000 µs, got 0"):
        FilteredEvents(scene(), background_filter_us=0)
    huge = MemoryEvents(EventStream.from_arrays([0], [0], [0], [1], (2**13, 2**13)))
    with pytest.raises(RecordingError, match="too large to filter"):
        FilteredEvents(huge, background_filter_us=5)


def test_no_hot_pixels_are_told_too() -> None:
    filtered = FilteredEvents(scene(), remove_hot_pixels=True)
    assert filtered.report.notes[-1] == "no hot pixels were found; none are left out"
