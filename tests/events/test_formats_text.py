"""Text event files: layouts, slices of stretches, and broken lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi.errors import InputError, RecordingError
from evfi.events.formats import open_event_file
from evfi.events.formats.columns import EventFileOptions
from evfi.events.formats.text import find_layout, is_text, open_text

SIZE = EventFileOptions(sensor_size=(10, 8))
SECONDS = EventFileOptions(sensor_size=(10, 8), time_unit="s")


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "5 1 2 0\n6 3 4 1\n",
        "5 1 2 -1\n6 3 4 1",
        "# made by hand\n\n5\t1\t2\t0\n6\t3\t4\t1\n\n\n",
        "10 8\n5 1 2 0\n6 3 4 1\n",
        "t,x,y,p\n5,1,2,0\n6,3,4,1\n",
        "x, y, polarity, timestamp\n1, 2, 0, 5\n3, 4, 1, 6\n",
        "5;1;2;0\r\n6;3;4;1\r\n",
        "t x y p extra\n5 1 2 0 9\n6 3 4 1 9\n",
        "5.0 1.0 2.0 0.0\n6.0 3.0 4.0 1.0\n",
    ],
)
def test_layouts(tmp_path: Path, text: str) -> None:
    source = open_event_file(write(tmp_path / "events.txt", text), SIZE)
    stream = source.slice(0, 100)
    assert [c.tolist() for c in (stream.t, stream.x, stream.y, stream.p)] == [[5, 6], [1, 3], [2, 4], [-1, 1]]
    assert source.time_range_us == (5, 6)
    assert source.sensor_size == (10, 8)


def test_seconds_are_rounded(tmp_path: Path) -> None:
    path = write(tmp_path / "e.txt", "0.003811000 1 1 0\n1589163147.365215400 1 1 1\n1589163147.365215600 1 1 1\n")
    source = open_text(path, SECONDS)
    stream = source.slice(0, 10**18)
    assert stream.t.tolist() == [3811, 1589163147365215, 1589163147365216]


def test_seconds_that_are_not_declared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'whole microseconds, got 0\.0038.*"s"'):
        open_text(write(tmp_path / "e.txt", "0.0038 1 1 0\n0.0039 1 1 1\n"), SIZE)


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    stretch=st.integers(1, 120),
    cuts=st.tuples(st.integers(-5, 70), st.integers(-5, 70)),
)
def test_slices_of_stretches_equal_slices_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], stretch: int, cuts: tuple[int, int]
) -> None:
    times = sorted(times)
    rows = [(t, i % 10, i % 8, i % 2) for i, t in enumerate(times)]
    text = "".join(f"{t} {x} {y} {p}\n" for t, x, y, p in rows)
    path = write(tmp_path_factory.getbasetemp() / "stretches.txt", text)
    stream = open_text(path, SIZE, stretch_bytes=stretch).slice(*cuts)
    expected = [row for row in rows if cuts[0] <= row[0] < cuts[1]]
    assert list(zip(stream.t.tolist(), stream.x.tolist(), stream.y.tolist(), strict=True)) == [r[:3] for r in expected]


def test_outside_is_counted_in_its_slice(tmp_path: Path) -> None:
    source = open_text(write(tmp_path / "e.txt", "1 1 1 0\n2 10 1 0\n3 1 8 1\n4 1 1 1\n"), SIZE)
    assert (len(source.slice(0, 3)), source.slice(0, 3).num_dropped) == (1, 1)
    assert (len(source.slice(0, 5)), source.slice(0, 5).num_dropped) == (2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1 1 0\n2 1 1 1\n3 1\n", "expected 4 columns|broken line"),
        ("1 1 1 0\n2 1 1\n3 1 1 0\n", "columns"),
        ("1 1 1 0\n2 a 1 1\n3 1 1 0\n", "could not convert string 'a'"),
        ("1 1 1 0\nnan 1 1 1\n3 1 1 0\n", "finite"),
        ("1 1 1 0\n2 1.5 1 1\n3 1 1 0\n", "whole pixels"),
        ("1 1 1 0\n2 1 1 7\n3 1 1 0\n", "polarities must be"),
        ("1 1 1 0\n9 1 1 1\n3 1 1 0\n", "times decrease"),
        ("5 1 1 0\n3 1 1 0\n", "times decrease"),
        ("t x y\n5 1 1\n", "expected lines 't x y p'"),
        ("t x y q\n5 1 1 0\n", "no column for p"),
        ("a b\n", "expected lines 't x y p'"),
        ("0 8\n1 1 1 0\n", "no sensor size"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_text(write(tmp_path / "e.txt", text), SIZE).slice(0, 100)
    assert str(tmp_path / "e.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_header_without_events(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no events after its header"):
        open_text(write(tmp_path / "e.csv", "t,x,y,p\n"), SIZE)


def test_unknown_sensor_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="begin it with a line 'W H'"):
        open_text(write(tmp_path / "e.txt", "1 1 1 0\n"), EventFileOptions())


def test_recognition(tmp_path: Path) -> None:
    assert is_text(write(tmp_path / "a.txt", "1 2 3 0\n"))
    assert not is_text(write(tmp_path / "b.txt", "1 2 3 4 5 6 7 8\n"))  # poses
    assert not is_text(write(tmp_path / "c.txt", "images/0.png\n"))
    (tmp_path / "d.bin").write_bytes(bytes(range(256)))
    assert not is_text(tmp_path / "d.bin")
    for content, message in ((b"", "the file is empty"), (b"\0\1\2\3", "unknown format of event file; known are")):
        (tmp_path / "e.bin").write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_event_file(tmp_path / "e.bin")


def test_layout_says_where_data_starts(tmp_path: Path) -> None:
    layout = find_layout(write(tmp_path / "e.csv", "# c\nx,y,t,p\n1,2,3,0\n"))
    assert layout is not None
    assert (layout.columns, layout.data_start, layout.first_line) == ((2, 0, 1, 3), 12, 3)
    assert layout.delimiter == ","


def test_a_million_lines_in_seconds(tmp_path: Path) -> None:
    count = 100_000
    rows = np.stack([np.arange(count), np.arange(count) % 10, np.arange(count) % 8, np.arange(count) % 2], 1)
    np.savetxt(tmp_path / "e.txt", rows, fmt="%d")
    assert len(open_text(tmp_path / "e.txt", SIZE).slice(0, count)) == count
