"""AEDAT 4: recordings of DV and dv-processing (https://docs.inivation.com, file format 4.0).

The container is in `aedat4_container`. A packet of events, compressed with LZ4 or Zstandard, holds one FlatBuffers table
with a vector of 16-byte records: time in µs, x, y, polarity as a bit. Packets are small, so they are joined into chunks.

Files are decoded here rather than by dv-processing 2.0.4, because on damaged packets that never returns, crashes the
interpreter, or leaves out events in silence; its tests compare both.

What is checked when: opening finds a truncated file and broken packet headers or table. Files below 64 MiB, files
without a table that fits, and all files read tolerantly are decoded once at opening, so that every damaged packet of
events is found then; for larger ones without table what that found is kept as an index. In a large file with a table the
times and counts of packets are the table's, and each packet is checked against it when it is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.aedat4_container import LARGE_BYTES, MAGIC, Aedat4File, Aedat4Stream, Packet, Packets
from evfi.events.formats.aedat4_unpacking import unpack
from evfi.events.index import ChunkIndex, load_or_build
from evfi.events.report import ReadReport
from evfi.events.source import ChunkedEvents, EventChunk, EventSource
from evfi.events.stream import MAX_ABS_TIME_US, EventStream
from evfi.limits import allowed_bytes

CONVENTION: Final = "time in µs since 1970, polarity 0/1 as -1/+1, origin at the top left, whole pixels"
_READER: Final = "aedat4 1"
_CHUNK_EVENTS: Final = 2**17
_NUM_CACHED_CHUNKS: Final = 16
_NUM_THREADS: Final = 2
_GROUP_BYTES: Final = 2**21
_GROUP_PACKETS: Final = 2**12
_GAP_BYTES: Final = 2**16


@dataclass(frozen=True, eq=False)
class _Records:
    """Records of some packets.

    Attributes:
        words: the packets as 64-bit words; a record is two of them: time; x, y and polarity.
        firsts: word at which each packet's records begin, int64 [P].
        counts: records per packet, int64 [P].
    """

    words: NDArray[np.int64]
    firsts: NDArray[np.int64]
    counts: NDArray[np.int64]

    def facts(self) -> NDArray[np.int64]:
        """What `aedat4_loops.measure` finds, int64 [P, F]."""
        from evfi.events.formats import aedat4_loops

        facts = np.zeros((len(self.counts), aedat4_loops.NUM_FACTS), np.int64)
        aedat4_loops.measure(self.words, self.firsts, self.counts, facts)
        return facts

    def chunk(self, size: tuple[int, int]) -> EventChunk:
        """The events of a sensor of this size."""
        from evfi.events.formats import aedat4_loops

        num, none = int(self.counts.sum()), np.empty(0, np.int64)
        x, y, t, p = np.empty(num, np.int32), np.empty(num, np.int32), np.empty(num, np.int64), np.empty(num, np.int8)
        source = self.words, self.firsts, self.counts, *size
        count, is_ordered = aedat4_loops.decode(*source, x, y, t, p, none)
        dropped = np.empty(num - count, np.int64)
        if count < num:
            aedat4_loops.decode(*source, x, y, t, p, dropped)
            dropped.sort()
        inside: NDArray[np.int64] | slice = slice(count)
        if not is_ordered:
            inside = np.argsort(t[:count], kind="stable")
        return EventChunk(EventStream(x[inside], y[inside], t[inside], p[inside], size), dropped)


def is_aedat4(path: Path) -> bool:
    """Whether the file begins as AEDAT 4 files do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_aedat4(path: Path, options: EventFileOptions) -> EventSource:
    """Open the events of an AEDAT 4 file.

    Raises:
        InputError: the file is missing, damaged or truncated.
        RecordingError: it holds no events.
        ConfigError: another unit of time than its own is declared.
    """
    file = Aedat4File(path, tolerant=options.tolerant)
    try:
        return Aedat4Events(file, options)
    except BaseException:
        file.close()
        raise


class Aedat4Events(ChunkedEvents):
    """The events of an AEDAT 4 file; packets are joined into chunks of some 100,000 events.

    Args:
        file: the open file.
        options: what the file leaves open: the sensor's size, if its header does not say it.
        min_indexed_bytes: files below this size are decoded once at opening.

    Raises:
        RecordingError: the file holds no events.
        InputError: a packet is damaged.
        ConfigError: another unit of time than its own is declared.
    """

    def __init__(
        self,
        file: Aedat4File,
        options: EventFileOptions | None = None,
        *,
        min_indexed_bytes: int = LARGE_BYTES,
    ):
        options = options or EventFileOptions()
        if options.time_unit not in (None, "us"):
            raise ConfigError(
                f"{file.path}: AEDAT4 times are always µs, but '{options.time_unit}' is declared; remove that unit"
            )
        self._aedat4 = file
        stream = file.stream("EVTS", "events")
        if stream is None:
            raise RecordingError(f"{file.path}: has no event stream; pass a separate event file")
        packets = file.packets(stream)
        is_large = file.path.stat().st_size >= min_indexed_bytes
        self._is_from_table = is_large and packets.elements is not None and not file.tolerant
        if self._is_from_table:
            index = _index_of_table(file, packets)
        else:
            reader = f"{_READER} stream={stream.number} tolerant={file.tolerant}"
            index = load_or_build(
                file.path, reader, lambda: _index_of_content(file, packets), min_bytes=min_indexed_bytes
            )
        if not len(index.counts):
            lost = index.report.num_lost_bytes
            told = f"no event packet can be read, {lost} bytes are lost" if lost else "the event stream is empty"
            raise RecordingError(f"{file.path}: {told}; pass a separate event file")
        self._index = index
        self._chunks = _joined_packets(index.counts)
        bounds = np.array([_bounds(index.bounds_us[a:b]) for a, b in self._chunks], np.int64)
        self._unsorted_in_chunk = np.zeros(len(bounds), np.int64)
        self._lock = threading.Lock()
        size = _sensor_size(file, stream, options)
        super().__init__(
            size, index.time_range_us, bounds, self._load_chunk, _NUM_CACHED_CHUNKS, index.report, _NUM_THREADS
        )

    def close(self) -> None:
        """Close the file."""
        self._aedat4.close()

    def _load_chunk(self, number: int) -> EventChunk:
        from evfi.events.formats.aedat4_loops import IMPOSSIBLE, MAX_US, MIN_US, NUM_UNSORTED

        first, last = self._chunks[number]
        starts, lengths = self._index.states[first:last].T
        records = _read_records(self._aedat4, starts, lengths)
        facts, expected = records.facts(), self._index.bounds_us[first:last]
        wrong = (facts[:, MIN_US] < expected[:, 0]) | (facts[:, MAX_US] > expected[:, 1]) | (facts[:, IMPOSSIBLE] > 0)
        wrong |= records.counts != self._index.counts[first:last]
        if wrong.any():
            raise InputError(
                f"{self._aedat4.path}: the packet at byte {starts[np.argmax(wrong)]} does not match the file's "
                "data table; copy the file again, or read it with --tolerant, which does not rely on that table"
            )
        self._count_unsorted(number, int(facts[:, NUM_UNSORTED].sum()))
        return records.chunk(self.sensor_size)

    def _count_unsorted(self, number: int, num_unsorted: int) -> None:
        """The data table does not tell the order within packets: events out of order are counted as they are met."""
        if not num_unsorted or not self._is_from_table:
            return
        with self._lock:
            self._unsorted_in_chunk[number] = num_unsorted
            total = self._index.report.num_unsorted + int(self._unsorted_in_chunk.sum())
            self.report = replace(self.report, num_unsorted=total)


def _sensor_size(file: Aedat4File, stream: Aedat4Stream, options: EventFileOptions) -> tuple[int, int]:
    if min(stream.size) >= 1:
        return stream.size
    if options.sensor_size is None or options.size_is_assumed:
        raise InputError(
            f"{file.path}: the event stream '{stream.name[:80]}' does not declare its sensor size; set it with --sensor-size"
        )
    return options.sensor_size


def _index_of_table(file: Aedat4File, packets: Packets) -> ChunkIndex:
    """One entry per packet that holds events, as the file's table says; `states` are the packet's place and length."""
    assert packets.elements is not None
    filled = packets.where(packets.elements[:, 0] > 0)
    assert filled.elements is not None
    counts, times = filled.elements[:, 0], filled.elements[:, 1:]
    with file.reading():
        is_far = (times < -MAX_ABS_TIME_US) | (times > MAX_ABS_TIME_US)  # not np.abs: that of -2^63 is negative
        if is_far.any() or (times[:, 0] > times[:, 1]).any():
            raise ValueError("its data table holds impossible times")
    num_unsorted = int(np.count_nonzero(times[1:, 0] < times[:-1, 1]))
    report = _report(file, int(counts.sum()), num_unsorted)
    return _index(filled, counts, times, report)


def _index_of_content(file: Aedat4File, packets: Packets) -> ChunkIndex:
    """The same, from the packets themselves."""
    from evfi.events.formats.aedat4_loops import FIRST_US, LAST_US, MAX_US, MIN_US, NUM_FACTS, NUM_UNSORTED

    groups = list(_groups(packets.lengths))
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        parts = list(pool.map(lambda group: _measured(file, packets, group), groups))
    counts = np.concatenate([counts for counts, _ in parts]) if parts else np.zeros(0, np.int64)
    facts = np.concatenate([facts for _, facts in parts]) if parts else np.zeros((0, NUM_FACTS), np.int64)
    damaged, filled = counts < 0, counts > 0
    facts, times = facts[filled], facts[filled][:, [MIN_US, MAX_US]]
    between = np.count_nonzero(facts[1:, FIRST_US] < facts[:-1, LAST_US])
    report = _report(file, int(counts[filled].sum()), int(facts[:, NUM_UNSORTED].sum() + between))
    if damaged.any():
        lost = report.num_lost_bytes + int(packets.lengths[damaged].sum())
        note = f"{file.path}: {np.count_nonzero(damaged)} damaged packets of events were left out"
        report = replace(report, num_lost_bytes=lost, notes=(*report.notes, note))
    return _index(packets.where(filled), counts[filled], times, report)


def _index(packets: Packets, counts: NDArray[np.int64], bounds_us: NDArray[np.int64], report: ReadReport) -> ChunkIndex:
    places = np.stack([packets.starts, packets.lengths], axis=1)
    starts = np.append(packets.starts, packets.starts[-1:] + packets.lengths[-1:])
    return ChunkIndex(starts, np.ascontiguousarray(bounds_us), counts, report, places)


def _report(file: Aedat4File, num_events: int, num_unsorted: int) -> ReadReport:
    return ReadReport(
        f"aedat4 {file.compression}",
        CONVENTION,
        num_events=num_events,
        num_triggers=file.num_elements("TRIG"),
        num_unknown=file.num_unknown,
        num_unsorted=num_unsorted,
        num_lost_bytes=file.num_lost_bytes,
        notes=tuple(file.warnings),
    )


def _measured(file: Aedat4File, packets: Packets, group: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Events per packet, -1 where it is damaged (tolerant only), and the facts of `aedat4_loops.measure`."""
    from evfi.events.formats.aedat4_loops import IMPOSSIBLE, NUM_FACTS

    starts, lengths = packets.starts[group], packets.lengths[group]
    try:
        records = _read_records(file, starts, lengths)
        facts = records.facts()
        with file.reading():
            if (impossible := facts[:, IMPOSSIBLE] > 0).any():
                start = starts[np.argmax(impossible)]
                raise ValueError(f"the packet at byte {start} holds an impossible time or polarity")
    except InputError:
        if not file.tolerant:
            raise
        if len(starts) == 1:
            return np.full(1, -1), np.zeros((1, NUM_FACTS), np.int64)
        ones = [_measured(file, packets, slice(i, i + 1)) for i in range(group.start, group.stop)]
        return np.concatenate([counts for counts, _ in ones]), np.concatenate([facts for _, facts in ones])
    return records.counts, facts


def _read_records(file: Aedat4File, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> _Records:
    """Records of neighbouring packets.

    Raises:
        InputError: a packet is damaged.
    """
    from evfi.events.formats import aedat4_loops

    with file.reading():
        unpacked, left = [], allowed_bytes(int(lengths.sum()))
        for packed, start in zip(_read_packets(file, starts, lengths), starts.tolist(), strict=True):
            unpacked.append(unpack(packed, file.compression, start, left))
            left -= len(unpacked[-1]) if file.compression != "none" else 0
        padded = [part if len(part) % 8 == 0 else part + bytes(-len(part) % 8) for part in unpacked]
        data = np.frombuffer(b"".join(padded), np.uint8)
        ends = np.cumsum([len(part) for part in padded], dtype=np.int64)
        ends -= np.array([-len(part) % 8 for part in unpacked], np.int64)
        positions, counts = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
        if (damaged := aedat4_loops.locate(data, ends, positions, counts)) >= 0:
            file.table(Packet(int(starts[damaged]), int(lengths[damaged])), "EVTS").vector(0, 16)
            raise ValueError(f"the packet at byte {starts[damaged]} holds no readable events")
    if (positions % 8).any():  # no known writer does so
        parts = [data[at : at + 16 * count] for at, count in zip(positions, counts, strict=True)]
        data, positions = np.concatenate(parts), 16 * (np.cumsum(counts) - counts)
    return _Records(data.view(np.int64), positions // 8, counts)


def _read_packets(file: Aedat4File, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Iterator[bytes]:
    """The bytes of each packet; those that lie close together are read at once."""
    begin, end = int(starts[0]), int(starts[-1] + lengths[-1])
    if end - begin <= 2 * int(lengths.sum()) + _GAP_BYTES:
        block = file.read(begin, end - begin)
        for start, length in zip((starts - begin).tolist(), lengths.tolist(), strict=True):
            yield block[start : start + length]
    else:
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            yield file.read(start, length)


def _groups(lengths: NDArray[np.int64]) -> Iterator[slice]:
    """Runs of packets of about `_GROUP_BYTES`, and of no more than `_GROUP_PACKETS`."""
    first, total = 0, 0
    for i, length in enumerate(lengths.tolist()):
        total += length
        if total >= _GROUP_BYTES or i + 1 - first == _GROUP_PACKETS:
            yield slice(first, i + 1)
            first, total = i + 1, 0
    if first < len(lengths):
        yield slice(first, len(lengths))


def _joined_packets(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last (exclusive) packet of each chunk."""
    chunks, first, total = [], 0, 0
    for i, count in enumerate(counts.tolist()):
        total += count
        if total >= _CHUNK_EVENTS:
            chunks.append((first, i + 1))
            first, total = i + 1, 0
    if first < len(counts):
        chunks.append((first, len(counts)))
    return chunks


def _bounds(bounds_us: NDArray[np.int64]) -> tuple[int, int]:
    return int(bounds_us[:, 0].min()), int(bounds_us[:, 1].max())
