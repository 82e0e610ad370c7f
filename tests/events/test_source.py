"""Event sources: slices and pieces of what lies in memory or in chunks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evfi.errors import InputError, RecordingError
from evfi.events import source as source_module
from evfi.events.source import ChunkedEvents, EventChunk, MemoryEvents
from evfi.events.stream import EventStream

SIZE = (1000, 4)


def stream_of(times: list[int], first: int = 0) -> EventStream:
    """Events whose column tells the order in which they lie in the file."""
    num = len(times)
    return EventStream.from_arrays(range(first, first + num), [0] * num, times, [1] * num, SIZE)


def chunked(chunks: list[list[int]], num_threads: int = 1) -> ChunkedEvents:
    starts = np.cumsum([0, *map(len, chunks)])
    streams = [stream_of(times, int(first)) for times, first in zip(chunks, starts, strict=False)]
    bounds = np.array([[s.t.min(), s.t.max()] for s in streams], np.int64)
    loaded = [EventChunk(s, s.t[s.t % 10 == 0]) for s in streams]  # as if others had been dropped at full tens
    return ChunkedEvents(
        SIZE, (int(bounds.min()), int(bounds.max())), bounds, lambda i: loaded[i], num_threads=num_threads
    )


times_of_a_chunk = st.lists(st.integers(0, 60), min_size=1, max_size=6)


@given(st.lists(times_of_a_chunk, min_size=1, max_size=8), st.integers(1, 3))
def test_pieces_of_chunks_are_all_events_in_order(chunks: list[list[int]], num_threads: int) -> None:
    source = chunked(chunks, num_threads)
    whole = source.slice(0, 61)
    pieces = list(source.pieces())
    joined = EventStream.concatenate(pieces)
    assert joined.t.tolist() == whole.t.tolist()
    assert joined.x.tolist() == whole.x.tolist()
    assert sum(piece.num_dropped for piece in pieces) == whole.num_dropped
    ends = [(piece.t[0], piece.t[-1]) for piece in pieces if len(piece)]
    assert all(before[1] <= after[0] for before, after in pairwise(ends))


def test_pieces_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_MEMORY_PIECE", 3)
    stream = stream_of([0, 1, 1, 1, 2, 5, 9, 9])
    pieces = list(MemoryEvents(stream, np.array([-4, 1, 9, 30])).pieces())
    assert [len(piece) for piece in pieces] == [3, 3, 2]
    assert EventStream.concatenate(pieces).x.tolist() == stream.x.tolist()
    assert sum(piece.num_dropped for piece in pieces) == 4


def test_memory_reports_what_it_holds() -> None:
    source = MemoryEvents(stream_of([1, 2]), np.array([1]))
    assert source.report.num_events == 3
    with pytest.raises(RecordingError, match="expected events, got none"):
        MemoryEvents(EventStream.empty(SIZE))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_chunk_that_cannot_be_read_ends_the_pieces(num_threads: int) -> None:
    source = chunked([[1], [2], [3], [4]], num_threads)
    read = source._load

    def load(number: int) -> EventChunk:
        if number == 2:
            raise InputError("damaged")
        return read(number)

    source._load = load
    pieces = source.pieces()
    assert [next(pieces).t.tolist(), next(pieces).t.tolist()] == [[1], [2]]
    with pytest.raises(InputError, match="damaged"):
        next(pieces)
    started = chunked([[1], [2], [3], [4]], num_threads).pieces()
    next(started)
    started.close()


def test_files_far_out_of_order_are_refused_before_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_MAX_HELD_EVENTS", 4)
    late = [[time, 60, 60] for time in range(5)]
    with pytest.raises(InputError, match="so far out of order that more than 4"):
        list(chunked(late).pieces())
    assert len(chunked(late).slice(0, 100)) == 15
