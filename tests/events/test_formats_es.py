"""ES files: round trips, damage, other kinds, and an independent reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import open_event_file
from evfi.events.formats.es import open_es
from file_writers.es import write_es

SIZE = (20, 10)
NONE = EventFileOptions()
HEADER = b"Event Stream\x02\x00\x00\x01\x14\x00\x0a\x00"
ROWS = st.lists(
    st.tuples(st.integers(0, 19), st.integers(0, 9), st.integers(0, 900), st.sampled_from([-1, 1])), min_size=1
)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, chunk=st.integers(1, 7))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, int]], chunk: int
) -> None:
    x, y, gaps, p = (np.array(column) for column in zip(*rows, strict=True))
    t = np.cumsum(gaps)
    source = open_es(write_es(tmp_path_factory.mktemp("es") / "e.es", x, y, t, p, SIZE), NONE, chunk_events=chunk)
    stream = source.slice(0, 10**9)
    assert [c.tolist() for c in (stream.x, stream.y, stream.t, stream.p)] == [c.tolist() for c in (x, y, t, p)]
    assert source.report.num_events == len(rows) == sum(len(piece) for piece in source.pieces())
    middle = int(t[len(t) // 2])
    assert source.slice(middle, middle + 100).t.tolist() == t[(t >= middle) & (t < middle + 100)].tolist()


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=200), tolerant=st.booleans())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, body: bytes, tolerant: bool) -> None:
    path = tmp_path_factory.mktemp("es") / "e.es"
    path.write_bytes(HEADER + body)
    try:
        source = open_es(path, EventFileOptions(tolerant=tolerant), chunk_events=3)
    except EvfiError as error:
        assert "\n" not in str(error)
        return
    stream = source.slice(-1, 10**12)
    assert len(stream) + stream.num_dropped == source.report.num_events


def test_outside_and_filler_are_counted(tmp_path: Path) -> None:
    path = write_es(tmp_path / "e.es", [1, 30], [2, 3], [4, 500], [1, -1], SIZE)
    path.write_bytes(path.read_bytes() + b"\xfe")
    source = open_event_file(path)
    assert source.slice(0, 1000).num_dropped == 1
    assert source.report.num_unknown == 1


def test_cut_off(tmp_path: Path) -> None:
    path = write_es(tmp_path / "e.es", [1, 3], [2, 3], [4, 5], [1, -1], SIZE)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"cut off at byte 25.*--tolerant"):
        open_event_file(path)
    report = open_event_file(path, EventFileOptions(tolerant=True)).report
    assert (report.num_events, report.num_lost_bytes) == (1, 3)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"Event Stream\x01\x00\x00\x01\x14\x00\x0a\x00", InputError, "found 1.0.0"),
        (b"Event Stream\x02\x00\x00\x02\x14\x00\x0a\x00", InputError, "kind 2 .atis"),
        (b"Event Stream\x02\x00\x00\x01\x00\x00\x0a\x00", InputError, "0×10"),
        (HEADER[:18], InputError, "18 of 20"),
        (HEADER, RecordingError, "no events"),
        (b"#!AER-DAT2.0\r\n", InputError, "AEDAT 2 .*jAER"),
        (b"#!AER-DAT3.1\r\n", InputError, "AEDAT 3 .*jAER"),
        (b"PAR1aaaa", InputError, "Parquet"),
        (b"\x93NUMPY\x01\x00", InputError, "npz"),
    ],
)
def test_refusals(tmp_path: Path, content: bytes, kind: type[EvfiError], message: str) -> None:
    path = tmp_path / "events"
    path.write_bytes(content)
    with pytest.raises(kind, match=message):
        open_event_file(path)


def test_an_independent_reader_agrees(shared_dir: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("event_stream")
    path = shared_dir / "data" / "recordings" / "dvs.es"
    with library.Decoder(str(path)) as decoder:
        theirs = np.concatenate(list(decoder))
    ours = open_event_file(path).slice(0, 2**60)
    assert len(ours) == len(theirs)
    assert np.array_equal(ours.t, theirs["t"].astype(np.int64))
    assert np.array_equal(ours.x, theirs["x"])
    assert np.array_equal(ours.sensor_size[1] - 1 - ours.y, theirs["y"])
    assert np.array_equal(ours.p > 0, theirs["on"])


def test_libraries_read_and_write_the_same(tmp_path: Path) -> None:
    library = pytest.importorskip("event_stream")
    events = np.zeros(5, library.dvs_dtype)
    events["t"], events["x"], events["on"] = [0, 126, 253, 10**6, 10**6], [0, 19, 3, 4, 5], [1, 0, 1, 0, 1]
    events["y"] = [0, 9, 1, 2, 3]
    with library.Encoder(str(tmp_path / "theirs.es"), "dvs", *SIZE) as encoder:
        encoder.write(events)
    columns = events["x"], 9 - events["y"].astype(int), events["t"].astype(int), events["on"] * 2 - 1
    stream = open_event_file(tmp_path / "theirs.es").slice(0, 2**60)
    assert [c.tolist() for c in (stream.x, stream.y, stream.t, stream.p)] == [c.tolist() for c in columns]
    ours = write_es(tmp_path / "ours.es", *columns, SIZE)
    assert ours.read_bytes() == (tmp_path / "theirs.es").read_bytes()
    with library.Decoder(str(ours)) as decoder:
        assert np.concatenate(list(decoder)).tolist() == events.tolist()
