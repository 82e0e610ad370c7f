"""Text event files: layouts, slices of stretches, and broken lines."""

from __future__ import annotations

import gzip
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats import open_event_file
from evfi.events.formats.text import is_text, open_text
from evfi.events.formats.text_layout import find_layout
from evfi.events.stream import EventStream

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
        "\ufefft,x,y,p\n5,1,2,0\n6,3,4,1\n",
        "\ufeff5 1 2 0\n6 3 4 1\n",
        ",t,x,y,p\n0,5,1,2,False\n1,6,3,4,True\n",
        "t,x,y,p,\n5,1,2,0,\n6,3,4,1,\n",
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


def test_units_are_told(tmp_path: Path) -> None:
    for text, unit, expected in (
        ("0.0038114 1 1 0\n0.0039 1 1 1\n", None, [3811, 3900]),
        ("1600000000000001500 1 1 0\n1600000000000002499 1 1 1\n", None, [1600000000000002, 1600000000000002]),
        ("x,y,p,t[s]\n1,1,0,2\n1,1,1,3\n", None, [2_000_000, 3_000_000]),
        ("x,y,p,timestamp_ns\n1,1,0,2499\n1,1,1,2500\n", None, [2, 3]),
        ("time (ms) x y p\n", None, None),
        ("# t_ms x y p\n2 1 1 0\n2.0006 1 1 1\n", None, [2000, 2001]),
        ("2 1 1 0\n3 1 1 1\n", "ms", [2000, 3000]),
        ("1e-3 1 1 0\n2.5E-3 1 1 1\n", "s", [1000, 2500]),
        ("-0.0000015 1 1 0\n0.5 1 1 1\n", "s", [-1, 500_000]),
    ):
        path = write(tmp_path / "e.txt", text)
        if expected is None:
            with pytest.raises(RecordingError, match="no events after its header"):
                open_event_file(path)
        else:
            source = open_event_file(path, EventFileOptions(time_unit=unit))  # type: ignore[arg-type]
            assert EventStream.concatenate(source.pieces()).t.tolist() == expected, text


def test_fractions_of_declared_microseconds(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"line 2: '0\.5 1 1 1': expected times in whole microseconds.*--events-unit s"
    ):
        open_text(write(tmp_path / "e.txt", "1 1 1 0\n0.5 1 1 1\n"), EventFileOptions((10, 8), time_unit="us"))


def test_another_order_without_header(tmp_path: Path) -> None:
    rows = [(9, 1, 100_000, 0), (3, 7, 200_000, 1), (4, 0, 300_000, 1), (2, 5, 300_000, 0)]
    path = write(tmp_path / "e.txt", "".join(f"{x} {y} {t} {p}\n" for x, y, t, p in rows))
    source = open_event_file(path, SIZE)
    stream = source.slice(0, 10**6)
    assert list(zip(stream.x.tolist(), stream.y.tolist(), stream.t.tolist(), strict=True)) == [r[:3] for r in rows]
    assert "columns are read as x y t p" in source.report.notes[0]


def test_unsorted_times_are_sorted_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "e.txt", "1 1 1 0\n9 2 1 1\n3 3 1 0\n4 4 1 1\n2 5 1 1\n")
    for stretch_bytes in (1, 8, 100):
        source = open_text(path, SIZE, stretch_bytes=stretch_bytes)
        assert EventStream.concatenate(source.pieces()).x.tolist() == [1, 5, 3, 4, 2]
        assert source.report.num_unsorted == 2
        assert source.report.num_events == 5


def test_gzip(tmp_path: Path) -> None:
    text = "".join(f"{i} {i % 10} {i % 8} {i % 2}\n" for i in range(500))
    packed = gzip.compress(text.encode())
    (tmp_path / "e.txt.gz").write_bytes(packed)
    source = open_event_file(tmp_path / "e.txt.gz", SIZE)
    assert source.slice(490, 600).t.tolist() == list(range(490, 500))
    (tmp_path / "cut.txt.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"damaged or truncated gzip file.*--tolerant"):
        open_event_file(tmp_path / "cut.txt.gz", SIZE)
    tolerant = open_event_file(tmp_path / "cut.txt.gz", EventFileOptions((10, 8), tolerant=True))
    assert 0 < tolerant.report.num_events < 500  # type: ignore[operator]
    assert tolerant.report.num_lost_bytes > 0


def test_gzip_made_to_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evfi.limits.FREE_BYTES", 2**16)
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"1 1 1 0\n" * 10**6))
    with pytest.raises(InputError, match=r"may unpack to at most .* KiB, found more"):
        open_event_file(tmp_path / "e.txt.gz", SIZE)


def test_tolerant_leaves_broken_lines_out(tmp_path: Path) -> None:
    path = write(tmp_path / "e.txt", "1 1 1 0\n2 a 1 1\n3 1 1\n4 1 1 1\n5 1 1 7\n6 2")
    source = open_text(path, EventFileOptions((10, 8), tolerant=True))
    assert source.slice(0, 10).t.tolist() == [1, 4]
    assert source.report.notes == ("4 lines are not events and were left out",)
    assert source.report.num_lost_bytes == 8 + 6 + 8 + 4


NUMBERS = st.one_of(
    st.decimals(0, 2_000_000_000, places=9, allow_nan=False).map(str),
    st.decimals(0, 2_000_000_000, places=3, allow_nan=False).map(lambda d: f"{d:e}"),
    st.integers(0, 10**9).map(str),
)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_decimals_are_rounded_exactly(tmp_path_factory: pytest.TempPathFactory, numbers: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "decimals.txt"
    write(path, "".join(f"{number} 1 1 1\n" for number in numbers))
    expected = [int((Decimal(number) * 10**6).to_integral_value(ROUND_HALF_UP)) for number in numbers]
    assert EventStream.concatenate(open_text(path, SECONDS).pieces()).t.tolist() == sorted(expected)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet="0123456789.-+e ,;\t#%\r", max_size=24), max_size=12), st.booleans())
def test_no_lines_crash(tmp_path_factory: pytest.TempPathFactory, lines: list[str], tolerant: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    write(path, "\n".join(["1 2 3 0", *lines]))
    try:
        source = open_text(path, EventFileOptions((10, 8), tolerant=tolerant))
        list(source.pieces())
    except EvfiError as error:
        assert "\n" not in str(error)


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
        ("1 1 1 0\n2 a 1 1\n3 1 1 0\n", "line 2: '2 a 1 1': expected 4 columns of numbers"),
        ("1 1 1 0\nnan 1 1 1\n3 1 1 0\n", "line 2: 'nan 1 1 1': expected 4 columns of numbers"),
        ("1 1 1 0\n2\x1b[31m 1 1\n3 1 1 0\n", r"line 2: '2\\x1b\[31m 1 1': expected 4 columns"),
        ("1 1 1 0\n2 1 1 1\n3 1 1 0 5\n", "line 3: '3 1 1 0 5': expected 4 columns"),
        ("1 1 1 0\n99999999999999999999 1 1 1\n", "too large for a time"),
        ("1 1 1 0\n2 1 1 -1\n", "found -1 and 0"),
        ("1 1 1 0\n2 1.5 1 1\n3 1 1 0\n", "whole pixels"),
        ("1 1 1 0\n2 1 1 7\n3 1 1 0\n", "polarities must be"),
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
    source = open_text(write(tmp_path / "e.txt", "1 4 1 0\n2 1 5 1\n"), EventFileOptions())
    assert source.sensor_size == (5, 6)
    assert "does not declare its sensor size; 5×6 just holds all events" in source.report.notes[0]
    with pytest.raises(InputError, match="1 of 2 events lie outside 4×8, the size of the frames"):
        open_text(tmp_path / "e.txt", EventFileOptions((4, 8), size_is_assumed=True))


def test_recognition(tmp_path: Path) -> None:
    assert is_text(write(tmp_path / "a.txt", "1 2 3 0\n"))
    assert not is_text(write(tmp_path / "b.txt", "1 2 3 4 5 6 7 8\n"))  # poses
    assert not is_text(write(tmp_path / "c.txt", "images/0.png\n"))
    (tmp_path / "d.bin").write_bytes(bytes(range(256)))
    assert not is_text(tmp_path / "d.bin")
    for content, message in (
        (b"", "the file is empty"),
        (b"\0\1\2\3", "unknown format of event file; expected one of"),
    ):
        (tmp_path / "e.bin").write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_event_file(tmp_path / "e.bin")


def test_layout_says_where_data_starts(tmp_path: Path) -> None:
    layout = find_layout(write(tmp_path / "e.csv", "# c\nx,y,t,p\n1,2,3,0\n"))
    assert layout is not None
    assert (layout.columns, layout.num_columns, layout.data_start) == ((2, 0, 1, 3), 4, 12)


def test_a_million_lines_in_seconds(tmp_path: Path) -> None:
    count = 100_000
    rows = np.stack([np.arange(count), np.arange(count) % 10, np.arange(count) % 8, np.arange(count) % 2], 1)
    np.savetxt(tmp_path / "e.txt", rows, fmt="%d")
    assert len(open_text(tmp_path / "e.txt", SIZE).slice(0, count)) == count
