"""Where events come from when they are read by time slice rather than all at once."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.report import ReadReport
from evfi.events.stream import EventStream, PolarityConvention, check_sensor_size

_MEMORY_PIECE: Final = 2**22
_MAX_CACHED_EVENTS: Final = 2**24
_MAX_HELD_EVENTS: Final = 2**24


class EventSource(Protocol):
    """Events that are read by time slice."""

    @property
    def report(self) -> ReadReport:
        """What the reader knows of the file, and what it found wrong in it."""

    @property
    def sensor_size(self) -> tuple[int, int]:
        """(width, height) of the grid of the events' coordinates."""

    @property
    def time_range_us(self) -> tuple[int, int]:
        """Times of the first and of the last event in µs."""

    def slice(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us; its `num_dropped` counts those that the reader had to leave out."""

    def pieces(self) -> Iterator[EventStream]:
        """All events in order of time, in pieces of bounded size; `num_dropped` counts those left out of each piece."""

    def close(self) -> None:
        """Close the files."""


class MemoryEvents:
    """Events in memory as an event source.

    Args:
        stream: the events; at least one.
        dropped_us: times of events that the reader left out, in any order; slices count them.
        report: what the reader found.

    Raises:
        RecordingError: the stream is empty.
    """

    def __init__(
        self,
        stream: EventStream,
        dropped_us: NDArray[np.int64] | None = None,
        report: ReadReport | None = None,
    ):
        if len(stream) == 0:
            raise RecordingError("expected events, got none; without events the motion between frames is unknown")
        self._chunk = EventChunk(stream, np.sort(dropped_us) if dropped_us is not None else stream.t[:0])
        self.sensor_size = stream.sensor_size
        self.time_range_us = (int(stream.t[0]), int(stream.t[-1]))
        self.report = report or ReadReport("memory", num_events=len(stream) + len(self._chunk.dropped_us))

    def slice(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us."""
        return self._chunk.slice(start_us, end_us)

    def pieces(self) -> Iterator[EventStream]:
        """All events in order of time, in pieces of bounded size."""
        yield from _pieces_of_chunk(self._chunk)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, eq=False)
class EventChunk:
    """Events of one stretch of a file.

    Attributes:
        stream: the events inside the sensor.
        dropped_us: sorted times of those outside, int64, so that any slice can count its own.
    """

    stream: EventStream
    dropped_us: NDArray[np.int64]

    @classmethod
    def from_arrays(
        cls,
        x: NDArray[Any],
        y: NDArray[Any],
        t: NDArray[np.int64],
        p: ArrayLike,
        sensor_size: tuple[int, int],
        *,
        polarity: PolarityConvention,
    ) -> EventChunk:
        """Check the columns as `EventStream.from_arrays` does, and keep the times of the events outside."""
        width, height = check_sensor_size(sensor_size)
        stream = EventStream.from_arrays(x, y, t, p, sensor_size, polarity=polarity, on_outside="drop")
        if stream.num_dropped == 0:
            return cls(stream, stream.t[:0])
        outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
        return cls(stream, np.sort(t[outside]))

    def slice(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us, with the count of those dropped in the same time."""
        part = self.stream.slice(start_us, end_us)
        first, last = np.searchsorted(self.dropped_us, [start_us, max(start_us, end_us)])
        return EventStream(part.x, part.y, part.t, part.p, part.sensor_size, int(last - first))


def _pieces_of_chunk(chunk: EventChunk) -> Iterator[EventStream]:
    """Views of a chunk of at most `_MEMORY_PIECE` events each."""
    stream, num_told = chunk.stream, 0
    for first in range(0, max(len(stream), 1), _MEMORY_PIECE):
        part = np.s_[first : first + _MEMORY_PIECE]
        is_last = first + _MEMORY_PIECE >= len(stream)
        until = len(chunk.dropped_us) if is_last else int(np.searchsorted(chunk.dropped_us, stream.t[part][-1]))
        columns = stream.x[part], stream.y[part], stream.t[part], stream.p[part]
        yield EventStream(*columns, stream.sensor_size, max(until - num_told, 0))
        num_told = max(until, num_told)


class ChunkedEvents:
    """Events that lie in chunks (files, or stretches of a file) of known times; a few chunks are kept in memory.

    Args:
        sensor_size: (width, height).
        time_range_us: times of the first and of the last event.
        bounds_us: earliest and latest time that each chunk may hold, int64 [C, 2]; stretches may touch and overlap.
        load: reads chunk i; it checks that its times are within the chunk's bounds.
        num_cached: how many chunks are kept.
        report: what the reader found.
        num_threads: how many chunks `pieces` reads at a time; more than one needs a `load` that several threads may call.
    """

    def __init__(
        self,
        sensor_size: tuple[int, int],
        time_range_us: tuple[int, int],
        bounds_us: NDArray[np.int64],
        load: Callable[[int], EventChunk],
        num_cached: int = 4,
        report: ReadReport | None = None,
        num_threads: int = 1,
    ):
        self.report = report or ReadReport("chunks")
        self.sensor_size = check_sensor_size(sensor_size)
        self.time_range_us = time_range_us
        self._bounds = bounds_us
        self._load = load
        self._num_cached = num_cached
        self._num_threads = num_threads
        self._cache: OrderedDict[int, EventChunk] = OrderedDict()

    def slice(self, start_us: int, end_us: int) -> EventStream:
        """The events with start_us <= t < end_us."""
        touched = np.flatnonzero((self._bounds[:, 0] < end_us) & (self._bounds[:, 1] >= start_us))
        parts = [_compact(self._chunk(int(i)).slice(start_us, end_us)) for i in touched]
        return EventStream.concatenate([EventStream.empty(self.sensor_size), *parts])

    def pieces(self) -> Iterator[EventStream]:
        """All events in order of time, chunk by chunk; what reaches into later chunks is held back until those are read.

        Raises:
            InputError: the file is so far out of order that too much would have to be held back.
        """
        order = np.argsort(self._bounds[:, 0], kind="stable")
        held: dict[int, EventChunk] = {}
        for position, (index, chunk) in enumerate(_read_ahead(self._load, order.tolist(), self._num_threads)):
            held[index] = chunk
            start = int(min(self._bounds[i, 0] for i in held))
            is_last = position + 1 == len(order)
            end = int(self._bounds[:, 1].max()) + 1 if is_last else int(self._bounds[order[position + 1], 0])
            if end > start:
                parts = [held[i].slice(start, end) for i in sorted(held)]
                yield parts[0] if len(parts) == 1 else EventStream.concatenate(parts)
            held = {i: _rest(chunk, end) for i, chunk in held.items() if self._bounds[i, 1] >= end}
            if sum(map(_num_times, held.values())) > _MAX_HELD_EVENTS:
                raise InputError(
                    f"the events ({self.report.format}) are so far out of order that more than {_MAX_HELD_EVENTS} would "
                    "have to be held in memory; the file is damaged, or must be sorted by time first"
                )

    def close(self) -> None:
        """Nothing is open; a source that keeps a file open closes it."""

    def _chunk(self, index: int) -> EventChunk:
        if index not in self._cache:
            self._cache[index] = self._load(index)
        self._cache.move_to_end(index)
        chunk = self._cache[index]
        while len(self._cache) > 1 and (len(self._cache) > self._num_cached or self._num_events() > _MAX_CACHED_EVENTS):
            self._cache.popitem(last=False)
        return chunk

    def _num_events(self) -> int:
        return sum(map(_num_times, self._cache.values()))


def _num_times(chunk: EventChunk) -> int:
    """What a chunk takes in memory: its events, and the times of those outside the sensor."""
    return len(chunk.stream) + len(chunk.dropped_us)


def _rest(chunk: EventChunk, start_us: int) -> EventChunk:
    """What a chunk holds from a time on."""
    first = int(np.searchsorted(chunk.stream.t, start_us))
    stream = chunk.stream
    later = EventStream(stream.x[first:], stream.y[first:], stream.t[first:], stream.p[first:], stream.sensor_size)
    return EventChunk(_compact(later), chunk.dropped_us[np.searchsorted(chunk.dropped_us, start_us) :])


def _compact(stream: EventStream) -> EventStream:
    """A copy of a small part of larger arrays, so that those can be let go; otherwise the stream itself."""
    whole = stream.t if stream.t.base is None else stream.t.base
    if not isinstance(whole, np.ndarray) or 2 * len(stream) > whole.size:
        return stream
    columns = stream.x.copy(), stream.y.copy(), stream.t.copy(), stream.p.copy()
    return EventStream(*columns, stream.sensor_size, stream.num_dropped)


def _read_ahead(
    load: Callable[[int], EventChunk], numbers: Iterable[int], num_threads: int
) -> Iterator[tuple[int, EventChunk]]:
    """Chunks of these numbers in this order; with several threads the next ones are read meanwhile."""
    if num_threads == 1:
        yield from ((number, load(number)) for number in numbers)
        return
    waiting: deque[tuple[int, Future[EventChunk]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for number in numbers:
                waiting.append((number, pool.submit(load, number)))
                if len(waiting) > num_threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
