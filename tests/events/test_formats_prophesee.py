"""Prophesee RAW and DAT files: headers, sensor sizes, chunks and their index, and every way in which they can be broken."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evfi.errors import ConfigError, EvfiError, InputError, RecordingError
from evfi.events import index as event_index
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import find_event_format, open_event_file, word_file
from evfi.events.formats.dat import is_dat, open_dat
from evfi.events.formats.prophesee_raw import is_prophesee_raw, open_prophesee_raw
from evfi.events.source import EventSource
from evfi.events.stream import EventStream
from file_writers.prophesee import evt2_words, evt3_words, evt21_words, raw_header, write_dat, write_raw

OPTIONS = EventFileOptions()
TOLERANT = EventFileOptions(tolerant=True)
SIZE = (640, 480)
KINDS = ("EVT2", "EVT21-little", "EVT21-legacy", "EVT3", "DAT")
OLD_HEADER = (
    b"%% Date 2020-09-14 09:03:25\n%% integrator_name Prophesee\n%% plugin_name p\n%% system_ID %d\n%% evt %s\n"
)
Events = tuple[NDArray[Any], ...]


def random_events(count: int, seed: int = 0, start_us: int = 1000, duration_us: int = 50_000) -> Events:
    rng = np.random.default_rng(seed)
    t = start_us + np.sort(rng.integers(0, duration_us, count))
    return rng.integers(0, SIZE[0], count), rng.integers(0, SIZE[1], count), t, rng.integers(0, 2, count)


def write(path: Path, kind: str, events: Events, size: tuple[int, int] | None = SIZE, **more: Any) -> Path:
    if kind == "DAT":
        return write_dat(path, *events, size, **more)
    if kind.startswith("EVT21"):
        return write_raw(path, "EVT21", *events, size, order=kind[6:], **more)  # type: ignore[arg-type]
    return write_raw(path, kind, *events, size, **more)  # type: ignore[arg-type]


def read_all(source: EventSource) -> EventStream:
    return source.slice(source.time_range_us[0], source.time_range_us[1] + 1)


def assert_same(stream: EventStream, events: Events) -> None:
    for a, b in zip((stream.x, stream.y, stream.t, (stream.p + 1) // 2), events, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_events_come_back(tmp_path: Path, kind: str) -> None:
    events = random_events(3000)
    source = open_event_file(write(tmp_path / "events", kind, events))
    assert source.sensor_size == SIZE
    assert source.time_range_us == (events[2][0], events[2][-1])
    assert_same(read_all(source), events)
    assert source.report.num_events == 3000 and not source.report.warnings()
    assert kind.lower().replace("21-", "2.1 ") in source.report.format.replace("prophesee-", "")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 800), chunk=st.integers(1, 300), start=st.integers(0, 2**24))
def test_chunks_hold_the_same_events_and_slices_partition(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, count: int, chunk: int, start: int
) -> None:
    events = random_events(count, seed, start, 200)
    assume(kind != "EVT3" or events[2][0] < 2**24)  # its clock has 24 bits: turns before the first event cannot be told
    path = write(tmp_path_factory.mktemp("chunks") / "events", kind, events)
    source = (open_dat if kind == "DAT" else open_prophesee_raw)(path, OPTIONS, chunk_events=chunk)
    assert_same(EventStream.concatenate(source.pieces()), events)
    edges = [start, *np.sort(np.random.default_rng(seed).integers(start, start + 200, 4)).tolist(), start + 200]
    assert_same(EventStream.concatenate(source.slice(a, b) for a, b in pairwise(edges)), events)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_reach_over_blocks_and_end_in_long_silence(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_file, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(word_file, "_MAX_CHUNK_BYTES", 1000)
    events = random_events(600)
    path = write(tmp_path / "a", kind, events)
    if kind == "EVT3":  # words of time only, before, between and after events
        silence = np.tile(np.array([0x8000, 0x6000], np.uint16), 2000).tobytes()
        content = path.read_bytes()
        start = content.index(b"% end\n") + 6
        path.write_bytes(content[:start] + silence + content[start:] + silence.replace(b"\x00\x80", b"\x0c\x80"))
    source = open_event_file(path)
    assert len(list(source.pieces())) > 1
    assert_same(EventStream.concatenate(source.pieces()), events)
    assert_same(read_all(source), events)


def test_chunks_of_a_file_out_of_order_are_merged(tmp_path: Path) -> None:
    x, y, t, p = random_events(2000, duration_us=4000)
    late = np.concatenate([t[:1500], t[1500:] - 1500])
    source = open_dat(write_dat(tmp_path / "a.dat", x, y, late, p, SIZE), OPTIONS, chunk_events=100)
    order = np.argsort(late, kind="stable")
    expected = x[order], y[order], late[order], p[order]
    assert source.report.num_unsorted == 1
    assert_same(EventStream.concatenate(source.pieces()), expected)
    assert_same(read_all(source), expected)


def test_index_is_kept_and_a_slice_reads_only_its_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(event_index.load_or_build, "__kwdefaults__", {"min_bytes": 1})
    events = random_events(20_000, start_us=2**24 - 25_000)
    path = write(tmp_path / "a.raw", "EVT3", events)
    first = open_prophesee_raw(path, OPTIONS, chunk_events=500)
    monkeypatch.setattr(word_file, "_build_index", None)
    read = []
    monkeypatch.setattr(word_file, "_read_words", _noting(word_file._read_words, read))
    source = open_prophesee_raw(path, OPTIONS, chunk_events=500)
    assert source.report == first.report and source.report.num_clock_wraps == 1
    end = source.time_range_us[1] + 1
    part = source.slice(end - 300, end)
    first_event = np.searchsorted(events[2], end - 300)
    assert_same(part, tuple(column[first_event:] for column in events))
    assert len(read) == 1


def _noting(function: Any, calls: list[Any]) -> Any:
    def noted(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    return noted


def test_headers_without_geometry_take_the_sensor_of_the_camera(tmp_path: Path) -> None:
    events = random_events(50)
    path = tmp_path / "a.raw"
    for system, version, words, size in (
        (21, b"2.0", evt2_words(*events), (640, 480)),
        (48, b"3.0", evt3_words(*events), (1280, 720)),
        (49, b"2.1", evt21_words(*events, order="legacy"), (1280, 720)),
    ):
        path.write_bytes(OLD_HEADER % (system, version) + words.tobytes())
        source = open_event_file(path, EventFileOptions(sensor_size=(800, 800), size_is_assumed=True))
        assert source.sensor_size == size and not source.report.notes
        assert open_event_file(path, EventFileOptions(sensor_size=(800, 800))).sensor_size == (800, 800)
        assert_same(read_all(source), events)
    path.write_bytes(OLD_HEADER.replace(b"%% evt %s\n", b"") % 40 + evt3_words(*events).tobytes())
    assert_same(read_all(open_event_file(path)), events)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_sensors(tmp_path: Path, kind: str) -> None:
    events = random_events(500)
    path = write(tmp_path / "a", kind, events, None)
    source = open_event_file(path)
    assert source.sensor_size == SIZE and "does not declare its sensor size; 640×480" in source.report.notes[0]
    given = open_event_file(path, EventFileOptions(sensor_size=(500, 500)))
    stream = read_all(given)
    assert given.sensor_size == (500, 500) and not given.report.notes
    assert stream.num_dropped == (events[0] >= 500).sum() and len(stream) + stream.num_dropped == 500
    with pytest.raises(InputError, match=r"outside 500×500, the size of the frames; declare the sensor"):
        open_event_file(path, EventFileOptions(sensor_size=(500, 500), size_is_assumed=True))
    large = (events[0] + 2000, *events[1:]) if kind == "DAT" else (events[0], events[1] + 900, *events[2:])
    source = open_event_file(write(path, kind, large, None))
    assert source.sensor_size == (large[0].max() + 1, large[1].max() + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_events_outside_the_sensor_are_dropped_and_counted(tmp_path: Path, kind: str) -> None:
    events = random_events(400)
    path = write(tmp_path / "a", kind, events, (320, 240))
    source = open_event_file(path)
    inside = (events[0] < 320) & (events[1] < 240)
    stream = read_all(source)
    assert_same(stream, tuple(column[inside] for column in events))
    assert stream.num_dropped == 400 - len(stream) == sum(piece.num_dropped for piece in source.pieces())
    assert source.report.num_events == 400
    with pytest.raises(RecordingError, match="all 400 events lie outside the 1×1 sensor"):
        open_event_file(write(path, kind, (events[0] + 1, *events[1:]), (1, 1)))


@pytest.mark.parametrize("told", ["little", "legacy", None])
@pytest.mark.parametrize("order", ["little", "legacy"])
def test_word_order_of_evt21_is_checked(tmp_path: Path, told: str | None, order: str) -> None:
    events = random_events(200)
    endianness = f";endianness={told}" if told else ""
    header = f"% format EVT21;height=480;width=640{endianness}\n% end\n".encode()
    path = tmp_path / "a.raw"
    path.write_bytes(header + evt21_words(*events, order=order).tobytes())  # type: ignore[arg-type]
    source = open_event_file(path)
    assert_same(read_all(source), events)
    assert bool(source.report.notes) == (told not in (None, order))


def test_header_may_come_without_end_and_in_other_forms(tmp_path: Path) -> None:
    events = random_events(50)
    words = evt3_words(*events).tobytes()
    path = tmp_path / "a.raw"
    for header in (
        b"% evt 3.0\n% geometry 640x480\n",
        b"% evt 3.0\r\n% geometry 640x480\r\n% end\r\n",
        b"% format EVT3;height=480;width=640\n",
        b"% format EVT3\n% Geometry 640x480\n% date caf\xc3\xa9\n% end\n",
        b"% evt 3.0 \n% geometry 640x480 \n% empty \n",
    ):
        path.write_bytes(header + words)
        assert_same(read_all(open_event_file(path)), events)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"% evt 4.0\n", "found '4.0'; export"),
        (b"% format HISTO3D;height=320;width=320\n", "found 'HISTO3D'"),
        (b"% plugin_name p\n", "found 'none'"),
        (b"% evt 3.0\n% geometry 640\n", "two positive numbers, got '640'"),
        (b"% evt 3.0\n% geometry 0x480\n", "two positive numbers, got '0x480'"),
        (b"% evt 3.0\n% geometry 99999999999999999x480\n", "two positive numbers"),
        (b"% format EVT3;height=480;width=640\n% geometry 1280x720\n", "two sensor sizes, 640×480 and 1280×720"),
    ],
)
def test_wrong_headers(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(header + evt3_words(*random_events(50)).tobytes())
    with pytest.raises(InputError, match=message):
        open_event_file(path)


def test_raw_dat_and_text_are_told_apart(tmp_path: Path) -> None:
    events = random_events(50)
    for kind in KINDS:
        path = write(tmp_path / "a", kind, events)
        assert find_event_format(path).name == ("dat" if kind == "DAT" else "prophesee-raw")
    text = tmp_path / "a.txt"
    for content in (b"% a comment\n0.5 1 2 1\n", b"%", b"% ", b"%\n", b"% evt", b"\x25\x20\x0a", b"% Version 2\n\x0c"):
        text.write_bytes(content)
        assert not is_dat(text) and not is_prophesee_raw(text)


def test_files_without_events(tmp_path: Path) -> None:
    path = tmp_path / "a"
    nothing = random_events(0)
    for kind in KINDS:
        with pytest.raises(RecordingError, match="holds no events"):
            open_event_file(write(path, kind, nothing))
    path.write_bytes(raw_header("EVT3", SIZE) + np.array([0x0004, 0x2005] * 9, np.uint16).tobytes())
    with pytest.raises(RecordingError, match="holds no events"):
        open_event_file(path)


def test_events_before_the_first_time_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    undated = np.array([0x0004, 0x2005, 0x2006], np.uint16)
    path.write_bytes(raw_header("EVT3", SIZE) + undated.tobytes() + evt3_words(*random_events(9)).tobytes())
    source = open_event_file(path)
    assert source.report.num_events == 9 and source.report.notes[0].startswith("2 events come before")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_word_is_refused_or_counted(tmp_path: Path, kind: str) -> None:
    events = random_events(300)
    path = write(tmp_path / "a", kind, events)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"truncated: the last \d bytes are not a whole word .* --tolerant"):
        open_event_file(path)
    source = open_event_file(path, TOLERANT)
    stream = read_all(source)
    assert 260 < len(stream) < 300 and np.array_equal(stream.x, events[0][: len(stream)])
    assert 1 <= source.report.num_lost_bytes < 8


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_is_refused_or_counted(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    path = write(tmp_path / "a", kind, random_events(300))
    garbage = rng.integers(0, 256, 80_000, np.uint8).tobytes()
    path.write_bytes(path.read_bytes() + garbage)
    with pytest.raises(InputError, match="words are not of any"):
        open_event_file(path)
    source = open_event_file(path, TOLERANT)
    assert source.report.num_unknown > 1000
    for piece in source.pieces():
        assert (piece.x < SIZE[0]).all() and (piece.y < SIZE[1]).all() and (np.diff(piece.t) >= 0).all()


@pytest.mark.parametrize("kind", [0x0E, 0x07])
def test_dat_files_of_other_records_are_refused(tmp_path: Path, kind: int) -> None:
    path = write_dat(tmp_path / "a.dat", *random_events(9), SIZE, kind=kind)
    with pytest.raises(InputError, match=f"found kind {kind} "):
        open_event_file(path)


def test_dat_of_2d_events_and_minimal_headers(tmp_path: Path) -> None:
    events = random_events(90)
    assert_same(read_all(open_event_file(write_dat(tmp_path / "a.dat", *events, SIZE, kind=0))), events)
    path = tmp_path / "b.dat"
    whole = write_dat(path, *events).read_bytes()
    path.write_bytes(b"% Version 2\n" + whole[whole.index(b"\x0c\x08") :])
    assert_same(read_all(open_event_file(path)), events)


def test_other_units_of_time_and_lost_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.raw", "EVT2", random_events(9))
    with pytest.raises(ConfigError, match="always µs"):
        open_event_file(path, EventFileOptions(time_unit="ns"))
    source = open_event_file(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="shrank while it was being read"):
        read_all(source)
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        read_all(source)
    with pytest.raises(InputError, match="cannot read"):
        open_prophesee_raw(path, OPTIONS)
    path.write_bytes(b"nothing")
    for open_file in (open_prophesee_raw, open_dat):
        with pytest.raises(InputError, match="header"):
            open_file(path, OPTIONS)


@settings(max_examples=100, deadline=None)
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_damaged_files_give_events_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    path = write(tmp_path_factory.mktemp("damaged") / "a", kind, random_events(60))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    content[data.draw(st.integers(0, len(content))) :] = data.draw(st.binary(max_size=30))
    path.write_bytes(content)
    for options in (OPTIONS, TOLERANT):
        try:
            source = open_event_file(path, options)
            pieces = list(source.pieces())
        except EvfiError as error:
            assert "\n" not in str(error)
            continue
        width, height = source.sensor_size
        assert all(((piece.x < width) & (piece.y < height)).all() for piece in pieces)
        assert source.report.num_events == sum(len(piece) + piece.num_dropped for piece in pieces)


def test_triggers_are_counted(tmp_path: Path) -> None:
    for kind in KINDS[:-1]:
        events = random_events(100)
        source = open_event_file(write(tmp_path / "a", kind, events, num_triggers=4))
        assert source.report.num_triggers == 4
        assert_same(read_all(source), events)


def test_a_size_that_the_camera_number_implies_must_hold_the_events(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    x = np.arange(0, 1280, 2)
    words = evt2_words(x, x // 2, 1000 + x, x % 4 // 2)
    path.write_bytes(OLD_HEADER % (28, b"2.0") + words.tobytes())
    with pytest.raises(InputError, match=r"of 640 events lie outside 640×480, .* system_ID names; set .*--sensor-size"):
        open_event_file(path)
    events = open_event_file(path, EventFileOptions(sensor_size=(1280, 720)))
    assert events.report.num_events == 640


@pytest.mark.parametrize("num_before", [0, 5, 200, 3000])
@pytest.mark.parametrize("start_us", [1000, 2**24 - 20_000, 5 * 2**24 - 45_000])
@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, start_us: int, num_before: int
) -> None:
    """What is indexed from the middle on equals what is indexed from the start, whatever the middle knows."""
    path = write(tmp_path / "a.bin", kind, random_events(3000, start_us=start_us))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(num_before)
    for position in rng.integers(len(data) // 3, len(data), 20):  # clocks that jump, unknown words, events out of order
        data[position] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    open_file = open_dat if kind == "DAT" else open_prophesee_raw

    def read(min_words: int) -> tuple[EventSource, EventStream]:
        monkeypatch.setattr(word_file, "_MIN_WORDS_TO_SPLIT", min_words)
        monkeypatch.setattr(word_file, "_NUM_WORDS_BEFORE", num_before)
        source = open_file(path, EventFileOptions(SIZE, tolerant=True), chunk_events=100)
        return source, EventStream.concatenate(source.pieces())

    (whole, expected), (halves, found) = read(2**40), read(0)
    assert halves.report == whole.report
    assert halves.time_range_us == whole.time_range_us
    for name in "xytp":
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.num_dropped == expected.num_dropped


def test_halves_are_joined_where_the_clock_has_wrapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = 1000 + np.arange(4000) * (3 * 2**24 // 4000)
    x, y, _, p = random_events(4000)
    path = write(tmp_path / "a.raw", "EVT3", (x, y, t, p))
    monkeypatch.setattr(word_file, "_MIN_WORDS_TO_SPLIT", 0)
    taken: list[bool] = []
    append = word_file._IndexBuilder.append
    monkeypatch.setattr(
        word_file._IndexBuilder, "append", lambda self, *rest: taken.append(append(self, *rest)) or taken[-1]
    )
    source = open_prophesee_raw(path, OPTIONS, chunk_events=100)
    assert taken == [True]
    assert source.report.num_clock_wraps == 2
    assert_same(EventStream.concatenate(source.pieces()), (x, y, t, p))
