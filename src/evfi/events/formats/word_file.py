"""Files of fixed-size words behind a header, read by an index of chunks; shared by the readers of RAW and DAT.

Opening goes through the whole file once and notes, for every chunk of some 100,000 events, where it begins and what the
decoder must know there; for large files that index is kept (`evfi.events.index`). A slice then decodes only the chunks
that it touches, and a run through the file decodes chunks on two threads. Chunks end where the clock moves, so that their
times do not touch unless events are out of order. At no time is more of the file in memory than a few chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.word_state import (
    EVENTS,
    LAST_T,
    LOOPS,
    MAX_T,
    MAX_X,
    MAX_Y,
    MIN_T,
    NO_LIMIT,
    NO_SIZE,
    NO_TIME,
    NUM_STATE,
    OUTSIDE,
    TRIGGERS,
    UNDATED,
    UNKNOWN,
    UNSORTED,
    empty_columns,
    initial_state,
    new_tally,
)
from evfi.events.index import ChunkIndex, load_or_build
from evfi.events.report import ReadReport
from evfi.events.source import ChunkedEvents, EventChunk, EventSource
from evfi.events.stream import EventStream

CHUNK_EVENTS: Final = 2**17
_MAX_CHUNK_EVENTS: Final = 2**21
_BLOCK_BYTES: Final = 2**21
_MAX_CHUNK_BYTES: Final = 2**24
_MAX_UNKNOWN_SHARE: Final = 0.1
_MAX_OUTSIDE_SHARE: Final = 0.01  # of a size that only the camera's number implies
_NUM_THREADS: Final = 2
_NUM_CACHED: Final = 16  # chunks, of about 2 MB each
_KNOWN_SIZES: Final = ((304, 240), (320, 320), (640, 480), (1280, 720))
_MIN_WORDS_TO_SPLIT: Final = 2**20
_NUM_WORDS_BEFORE: Final = 2**15
_GUESSED_LOOPS: Final = 2**20  # so many that a clock that jitters back over its wrap can be followed
_INDEX_VERSION: Final = 1
_END, _NUM_OUTSIDE = -2, -1  # the last columns of the index's states, which begin with the decoder's state

Decoder = Callable[..., int]


@dataclass(frozen=True)
class WordFile:
    """Where a file's words lie and how they are decoded.

    Attributes:
        path: the file.
        format: name of format and encoding, e.g. "prophesee-raw evt3".
        convention: what its numbers mean, in one line.
        word_dtype: type of one word.
        decode: the decoder, as `evt_words` describes.
        data_start: byte at which the words begin.
        sensor_size: (width, height) if the header tells it.
        notes: what the user should know of the header.
        clock_period_us: after how long the camera's clock begins again from zero.
        size_is_implied: whether the size is not written in the file, but follows from the camera's number.
    """

    path: Path
    format: str
    convention: str
    word_dtype: np.dtype[Any]
    decode: Decoder
    data_start: int
    sensor_size: tuple[int, int] | None
    notes: tuple[str, ...] = ()
    size_is_implied: bool = False
    clock_period_us: int = 0


def open_words(file: WordFile, options: EventFileOptions, *, chunk_events: int = CHUNK_EVENTS) -> EventSource:
    """Open a file of words.

    Args:
        file: the file.
        options: what the file leaves open.
        chunk_events: about how many events are decoded and kept as one chunk.

    Raises:
        InputError: the file is cut within a word, or too many of its words are of no known kind (unless tolerant), or
            events lie outside a sensor size that was only assumed.
        RecordingError: it holds no events.
        ConfigError: another unit of time than µs is declared.
    """
    if options.time_unit not in (None, "us"):
        raise ConfigError(
            f"{file.path}: times of Prophesee files are always µs, but '{options.time_unit}' is declared; remove that unit"
        )
    num_words, num_lost = divmod(file.path.stat().st_size - file.data_start, file.word_dtype.itemsize)
    size = file.sensor_size or options.sensor_size
    reader = f"{file.format} {_INDEX_VERSION} {file.data_start} {size} {chunk_events}"
    index = load_or_build(file.path, reader, lambda: _build_index(file, size, num_words, chunk_events))
    _check_content(file, options, index, num_words)
    if num_lost and not options.tolerant:
        raise InputError(
            f"{file.path}: truncated: the last {num_lost} bytes are not a whole word of {file.word_dtype.itemsize} bytes; "
            "copy the file again, or read the words before them with --tolerant"
        )
    report = replace(index.report, num_lost_bytes=num_lost)
    size = size or index.sensor_size
    assert size is not None  # a file with events has a size
    return _WordEvents(file, size, index, report)


def _check_content(file: WordFile, options: EventFileOptions, index: ChunkIndex, num_words: int) -> None:
    """Refuse files that hold no events, hardly any known word, or events outside a size that was only guessed."""
    num_unknown = index.report.num_unknown
    if num_unknown > _MAX_UNKNOWN_SHARE * num_words and not options.tolerant:
        raise InputError(
            f"{file.path}: {num_unknown} of {num_words} words are not of any {file.format} kind; the file is damaged "
            "or its header names another encoding; copy or export it again, or read the rest with --tolerant"
        )
    num_outside = int(index.states[:, _NUM_OUTSIDE].sum()) if len(index.counts) else 0
    if index.counts.sum() == 0 and num_outside == 0:
        raise RecordingError(f"{file.path}: holds no events; record again or give another file")
    if num_outside and file.sensor_size is None and options.size_is_assumed and options.sensor_size is not None:
        width, height = options.sensor_size
        raise InputError(
            f"{file.path}: {num_outside} of {index.counts.sum() + num_outside} events lie outside {width}×{height}, the "
            'size of the frames; declare the sensor: "sensor_size": [width, height] in recording.json'
        )
    if (
        file.size_is_implied
        and file.sensor_size
        and num_outside > _MAX_OUTSIDE_SHARE * (index.counts.sum() + num_outside)
    ):
        width, height = file.sensor_size
        raise InputError(
            f"{file.path}: {num_outside} of {index.counts.sum() + num_outside} events lie outside {width}×{height}, the size "
            "of the camera that the header's system_ID names; set the sensor size with --sensor-size"
        )
    if index.counts.sum() == 0:
        width, height = file.sensor_size or options.sensor_size or (0, 0)
        raise RecordingError(f"{file.path}: all {num_outside} events lie outside the {width}×{height} sensor")


class _IndexBuilder:
    """Goes through the words of a file and collects its chunks."""

    def __init__(self, file: WordFile, size: tuple[int, int] | None, chunk_events: int):
        self._file = file
        self._limits = np.array([*(size or (NO_SIZE, NO_SIZE)), chunk_events, _MAX_CHUNK_EVENTS], np.int64)
        self.begin(0, initial_state())

    def begin(self, start: int, state: NDArray[np.int64]) -> None:
        """Begin at this word in this state, with nothing collected."""
        self.state = state
        self.totals = new_tally()
        self.rows: list[tuple[int, NDArray[np.int64], int, NDArray[np.int64]]] = []
        self._start, self._start_state, self._tally = start, self.state.copy(), new_tally()

    def go_through(self, start: int, end: int) -> None:
        """Go through the words from one number to another."""
        block = _BLOCK_BYTES // self._file.word_dtype.itemsize
        for first in range(start, end, block):
            self.add(_read_words(self._file, first, min(first + block, end)), first)
        self.finish_chunk(end)

    def add(self, words: NDArray[Any], first: int) -> None:
        """Go through the next words, of which the first has this number in the file."""
        used = 0
        max_words = _MAX_CHUNK_BYTES // self._file.word_dtype.itemsize
        while used < len(words):
            used += self._file.decode(words[used:], self.state, self._limits, None, None, None, None, None, self._tally)
            if used < len(words) or first + used - self._start >= max_words:
                self.finish_chunk(first + used)

    def finish_chunk(self, end: int) -> None:
        """Keep the chunk that ends before this word if it holds events, and begin another."""
        if self._tally[EVENTS] + self._tally[OUTSIDE]:
            self.rows.append((self._start, self._start_state, end, self._tally))
        self.totals[:MIN_T] += self._tally[:MIN_T]
        self.totals[[MAX_X, MAX_Y]] = np.maximum(self.totals[[MAX_X, MAX_Y]], self._tally[[MAX_X, MAX_Y]])
        self._start, self._start_state, self._tally = end, self.state.copy(), new_tally()

    def append(self, later: _IndexBuilder, expected: NDArray[np.int64]) -> bool:
        """Take over what another collected from here on, if the state that it began with is that of here.

        Args:
            later: went through the words that follow.
            expected: the state with which it began; its number of clock wraps is a guess, by which its times are moved.

        Returns:
            Whether that was possible; otherwise nothing has changed.
        """
        num_loops = int(self.state[LOOPS] - expected[LOOPS])
        moved_us = num_loops * self._file.clock_period_us
        same = np.arange(NUM_STATE) != LOOPS
        moved = _moved(expected, num_loops, moved_us)
        starts = [_moved(row[1], num_loops, moved_us) for row in later.rows]
        end = _moved(later.state, num_loops, moved_us)
        is_possible = all(state[LOOPS] >= 0 for state in (*starts, end))
        if not is_possible or not np.array_equal(moved[same], self.state[same]):
            return False
        for row, state in zip(later.rows, starts, strict=True):
            row[3][[MIN_T, MAX_T]] += moved_us
            self.rows.append((row[0], state, row[2], row[3]))
        self.totals[:MIN_T] += later.totals[:MIN_T]
        self.totals[[MAX_X, MAX_Y]] = np.maximum(self.totals[[MAX_X, MAX_Y]], later.totals[[MAX_X, MAX_Y]])
        self.state = end
        return True


def _moved(state: NDArray[np.int64], num_loops: int, moved_us: int) -> NDArray[np.int64]:
    """A state as it is after so many more wraps of the clock."""
    moved = state.copy()
    moved[LOOPS] += num_loops
    if moved[LAST_T] != NO_TIME:
        moved[LAST_T] += moved_us
    return moved


def _went_through(file: WordFile, size: tuple[int, int] | None, num_words: int, chunk_events: int) -> _IndexBuilder:
    """Go through all words: both halves at once, if the state in the middle can be told from the words before it.

    A decoder that begins in the middle knows, after some thousand words, all that it would know if it had begun at the
    start, but for how often the clock has wrapped, and that only moves its times. Whether that is so is checked once the
    first half is done; if not, the second is gone through again.
    """
    builder = _IndexBuilder(file, size, chunk_events)
    if num_words < _MIN_WORDS_TO_SPLIT:
        builder.go_through(0, num_words)
        return builder
    middle = num_words // 2
    later = _IndexBuilder(file, size, chunk_events)
    state = initial_state()
    state[LOOPS] = _GUESSED_LOOPS
    later.begin(middle - min(_NUM_WORDS_BEFORE, middle), state)
    later.go_through(middle - min(_NUM_WORDS_BEFORE, middle), middle)
    expected = later.state.copy()
    later.begin(middle, later.state)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(later.go_through, middle, num_words)
        builder.go_through(0, middle)
        done.result()
    if not builder.append(later, expected):
        builder.go_through(middle, num_words)
    return builder


def _build_index(file: WordFile, size: tuple[int, int] | None, num_words: int, chunk_events: int) -> ChunkIndex:
    builder = _went_through(file, size, num_words, chunk_events)
    totals, rows = builder.totals, builder.rows
    content_size = None if size else _known_size(int(totals[MAX_X]), int(totals[MAX_Y]))
    report = ReadReport(
        file.format,
        file.convention,
        num_events=int(totals[EVENTS] + totals[OUTSIDE]),
        num_triggers=int(totals[TRIGGERS]),
        num_unknown=int(totals[UNKNOWN]),
        num_clock_wraps=int(builder.state[LOOPS]),
        num_unsorted=int(totals[UNSORTED]),
        notes=(*file.notes, *_notes(file, content_size, int(totals[UNDATED]))),
    )
    return ChunkIndex(
        starts=np.array([row[0] for row in rows] + [num_words], np.int64),
        bounds_us=np.array([row[3][[MIN_T, MAX_T]] for row in rows], np.int64).reshape(-1, 2),
        counts=np.array([row[3][EVENTS] for row in rows], np.int64),
        states=np.array([[*row[1], row[2], row[3][OUTSIDE]] for row in rows], np.int64).reshape(-1, NUM_STATE + 2),
        sensor_size=content_size,
        report=report,
    )


def _notes(file: WordFile, content_size: tuple[int, int] | None, num_undated: int) -> tuple[str, ...]:
    notes = []
    if content_size is not None:
        notes.append(
            f"{file.path.name} does not declare its sensor size; {content_size[0]}×{content_size[1]} is used as it holds all "
            'events; if that is wrong, declare it ("sensor_size": [width, height] in recording.json)'
        )
    if num_undated:
        notes.append(f"{num_undated} events come before the first time or row in the file; they are left out")
    return tuple(notes)


def _known_size(max_x: int, max_y: int) -> tuple[int, int] | None:
    """The smallest sensor made by Prophesee that holds all events, else what just holds them; None without events."""
    if max_x < 0:
        return None
    fitting = (size for size in _KNOWN_SIZES if max_x < size[0] and max_y < size[1])
    return next(fitting, (max_x + 1, max_y + 1))


def _read_words(file: WordFile, start: int, end: int) -> NDArray[Any]:
    """The words from one number to another.

    Raises:
        InputError: the file cannot be read, or became shorter.
    """
    itemsize = file.word_dtype.itemsize
    try:
        words = np.fromfile(file.path, file.word_dtype, end - start, offset=file.data_start + start * itemsize)
    except OSError as error:
        raise InputError(f"cannot read {file.path}: {error.strerror}") from None
    if len(words) != end - start:
        raise InputError(
            f"{file.path}: shrank while it was being read; wait until it is fully written, then open it again"
        )
    return words


class _WordEvents(ChunkedEvents):
    """The events of a file of words, decoded chunk by chunk."""

    def __init__(self, file: WordFile, size: tuple[int, int], index: ChunkIndex, report: ReadReport):
        self._file = file
        self._index = index
        super().__init__(
            size, index.time_range_us, index.bounds_us, self._decode_chunk, _NUM_CACHED, report, _NUM_THREADS
        )

    def _decode_chunk(self, number: int) -> EventChunk:
        index, (width, height) = self._index, self.sensor_size
        row = index.states[number]
        words = _read_words(self._file, int(index.starts[number]), int(row[_END]))
        limits = np.array([width, height, NO_LIMIT, NO_LIMIT], np.int64)
        x, y, t, p = empty_columns(int(index.counts[number]))
        outside_t = np.empty(int(row[_NUM_OUTSIDE]), np.int64)
        tally = new_tally()
        self._file.decode(words, row[:NUM_STATE].copy(), limits, x, y, t, p, outside_t, tally)
        if tally[EVENTS] != len(t) or tally[OUTSIDE] != len(outside_t):
            raise InputError(f"{self._file.path}: changed while it was read; open it again")
        stream = EventStream(x, y, t, p, self.sensor_size)
        if tally[UNSORTED]:
            stream = EventStream.concatenate([stream])
            outside_t.sort()
        return EventChunk(stream, outside_t)
