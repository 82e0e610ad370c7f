"""Indexes of event files: kept, validated, made anew."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evfi.events.index import ChunkIndex, index_path, load_or_build
from evfi.events.report import ReadReport
from file_writers.hostile import npy_header
from hostile_json import HOSTILE_JSON
from killed import killed_while_writing

READER = "test 1"


class Builder:
    """Counts how often the file is gone through."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self) -> ChunkIndex:
        self.num_calls += 1
        report = ReadReport("x", num_events=7, num_clock_wraps=self.num_calls, notes=("a", "b"))
        bounds = np.array([[1, 5], [5, 9]])
        return ChunkIndex(np.array([0, 4, 9]), bounds, np.array([3, 4]), report, np.ones((2, 3), np.int64), (640, 480))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVFI_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "events.bin"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def test_kept_and_used_again(file: Path) -> None:
    build = Builder()
    first, again = (load_or_build(file, READER, build, min_bytes=0) for _ in range(2))
    assert build.num_calls == 1
    assert again.report == first.report
    assert again.sensor_size == (640, 480)
    assert again.time_range_us == (1, 9)
    for name in ("starts", "bounds_us", "counts", "states"):
        assert np.array_equal(getattr(again, name), getattr(first, name))


def test_small_files_are_gone_through_each_time(file: Path) -> None:
    build = Builder()
    for _ in range(2):
        load_or_build(file, READER, build)
    assert build.num_calls == 2
    assert not index_path(file, READER).exists()


def test_another_reader_or_option_makes_its_own(file: Path) -> None:
    build = Builder()
    load_or_build(file, READER, build, min_bytes=0)
    load_or_build(file, "test 2", build, min_bytes=0)
    assert build.num_calls == 2


def test_stale_index_is_made_anew(file: Path) -> None:
    build = Builder()
    load_or_build(file, READER, build, min_bytes=0)
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a careless copy would leave it
    load_or_build(file, READER, build, min_bytes=0)
    assert build.num_calls == 2
    os.utime(file)
    assert load_or_build(file, READER, build, min_bytes=0).report.num_clock_wraps == 3


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 nonsense", None])
def test_damaged_index_is_made_anew(file: Path, damage: bytes | None) -> None:
    build = Builder()
    load_or_build(file, READER, build, min_bytes=0)
    kept = index_path(file, READER)
    kept.write_bytes(kept.read_bytes()[:-40] if damage is None else damage)
    load_or_build(file, READER, build, min_bytes=0)
    load_or_build(file, READER, build, min_bytes=0)
    assert build.num_calls == 2


def test_cache_that_cannot_be_written_is_no_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFI_CACHE", str(file / "not a folder"))
    assert load_or_build(file, READER, Builder(), min_bytes=0).report.num_events == 7


def save_with(kept: Path, about: bytes) -> None:
    with np.load(kept) as members:
        arrays = {name: members[name] for name in members.files}
    np.savez(kept, **{**arrays, "about": np.frombuffer(about, np.uint8)})


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_a_hostile_index_is_made_anew(file: Path, name: str) -> None:
    build = Builder()
    load_or_build(file, READER, build, min_bytes=0)
    save_with(index_path(file, READER), HOSTILE_JSON[name])
    load_or_build(file, READER, build, min_bytes=0)
    load_or_build(file, READER, build, min_bytes=0)
    assert build.num_calls == 2


@pytest.mark.parametrize("report", [5, {"notes": 5}, {"format": "x", "notes": [], "other": 1}])
def test_an_index_with_an_odd_report_is_made_anew(file: Path, report: object) -> None:
    build = Builder()
    load_or_build(file, READER, build, min_bytes=0)
    kept = index_path(file, READER)
    with np.load(kept) as members:
        about = json.loads(bytes(members["about"]))
    save_with(kept, json.dumps({**about, "report": report}).encode())
    load_or_build(file, READER, build, min_bytes=0)
    assert build.num_calls == 2


def test_an_index_that_promises_more_than_memory_holds_is_made_anew(file: Path) -> None:
    build = Builder()
    load_or_build(file, READER, build, min_bytes=0)
    kept = index_path(file, READER)
    with zipfile.ZipFile(kept) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["starts.npy"] = npy_header(2**50, "<i8")
    with zipfile.ZipFile(kept, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    load_or_build(file, READER, build, min_bytes=0)
    assert build.num_calls == 2


def test_nothing_but_indexes_is_left(file: Path) -> None:
    kept = index_path(file, READER)
    kept.parent.mkdir(parents=True)
    killed_while_writing(kept.with_name("0" * 32 + ".npz"))
    load_or_build(file, READER, Builder(), min_bytes=0)
    assert list(kept.parent.iterdir()) == [kept]


def test_file_whose_name_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.raw")
    assert index_path(path, "r") != index_path(tmp_path / "x.raw", "r")
