"""Pieces of a job on disk: there whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evfi.errors import InputError, OutputError
from evfi.pipeline import window_store
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.window_store import KeptPiece, WindowStore, holds_pieces, remove_pieces
from hostile_json import HOSTILE_JSON

FACTS = WindowFacts(3, 0, 40_000, 2, 500, 7, "interpolate", "exposure", ("brighter",), 1.25, "cpu", 2)
KEYS = [(3, ()), (3, (0,)), (3, (0, 12)), (4, ()), (1_000_000, ())]


def piece(key=KEYS[0], *, number: int = 2, seed: int = 0) -> KeptPiece:
    frames = np.random.default_rng(seed).integers(0, 256, (number, 6, 5, 3), dtype=np.uint8)
    return KeptPiece(key, replace(FACTS, index=key[0], num_inserted=number), frames)


@pytest.fixture
def store(tmp_path: Path) -> WindowStore:
    return WindowStore(tmp_path / "windows", "job")


def again(store: WindowStore, job: str = "job") -> WindowStore:
    return WindowStore(store.folder, job)


def only_file(store: WindowStore) -> Path:
    (path,) = (path for path in store.folder.iterdir() if path.suffix == ".zip")
    return path


def assert_not_taken(store: WindowStore, told: str, job: str = "job") -> None:
    """What is there is not taken, is told in one line, and is moved aside, so that it is told once."""
    found, problems = again(store, job).scan(KEYS)
    assert found == {}
    assert len(problems) == 1
    assert told in problems[0]
    assert "its window is made again" in problems[0]
    assert again(store, job).scan(KEYS) == ({}, [])
    assert [path.suffix for path in store.folder.iterdir()] == [".unusable"]


@pytest.mark.parametrize("key", KEYS)
def test_what_is_written_is_found_and_read(store, key):
    store.write(piece(key))
    fresh = again(store)
    found, problems = fresh.scan(KEYS)
    assert problems == []
    assert found == {key: piece(key).facts}
    read = fresh.read(key)
    assert (read.key, read.facts) == (key, piece(key).facts)
    np.testing.assert_array_equal(read.frames, piece(key).frames)
    assert key in fresh
    assert fresh.num_bytes == only_file(store).stat().st_size


def test_a_pipe_in_the_place_of_a_piece(store, in_time):
    store.write(piece())
    file = only_file(store)
    file.unlink()
    os.mkfifo(file)
    assert not holds_pieces(store.folder)
    assert_not_taken(store, "damaged (it is not a regular file)")


@pytest.mark.parametrize(
    ("size", "told"), [(2**40, "it is too large"), (2**28, "its checksum does not match its name")]
)
def test_a_huge_piece_is_not_read_into_memory(store, size, told):
    store.write(piece())
    os.truncate(only_file(store), size)
    tracemalloc.start()
    try:
        assert not holds_pieces(store.folder)
        assert_not_taken(store, f"damaged ({told})")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_the_same_frames_make_the_same_bytes(store, tmp_path):
    other = WindowStore(tmp_path / "other", "job")
    store.write(piece())
    other.write(piece())
    assert store.names == other.names
    assert only_file(store).read_bytes() == only_file(other).read_bytes()
    other.write(piece(seed=1))
    assert store.names != other.names


def test_a_piece_without_frames(store):
    store.write(piece(number=0))
    again_ = again(store)
    again_.scan(KEYS)
    assert len(again_.read(KEYS[0]).frames) == 0


def test_a_piece_that_is_made_otherwise_takes_the_place_of_the_first(store):
    store.write(piece())
    store.write(piece(seed=1))
    np.testing.assert_array_equal(store.read(KEYS[0]).frames, piece(seed=1).frames)
    only_file(store)


def test_what_the_job_does_not_consist_of_is_left_alone(store):
    store.write(piece((9, ())))
    (store.folder / "notes.txt").write_text("mine")
    before = sorted(store.folder.iterdir())
    assert again(store).scan(KEYS) == ({}, [])
    assert sorted(store.folder.iterdir()) == before


def test_a_folder_that_is_not_there_yet(store):
    assert store.scan(KEYS) == ({}, [])
    assert not store.folder.exists()
    assert store.num_bytes == 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_truncated_at_any_place(tmp_path, data):
    store = WindowStore(tmp_path / str(data.draw(st.uuids())), "job")
    store.write(piece())
    content = only_file(store).read_bytes()
    only_file(store).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert_not_taken(store, "checksum does not match")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit(tmp_path, data):
    store = WindowStore(tmp_path / str(data.draw(st.uuids())), "job")
    store.write(piece())
    content = bytearray(only_file(store).read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    only_file(store).write_bytes(content)
    assert_not_taken(store, "checksum does not match")


def test_a_piece_under_the_name_of_another(store):
    store.write(piece((3, ())))
    path = only_file(store)
    path.rename(path.with_name(path.name.replace("000003", "000004")))
    assert_not_taken(store, "is piece 000003 under another name")


def test_a_piece_of_another_job(store):
    store.write(piece())
    assert_not_taken(store, "belongs to a job with other settings", job="other")


def test_a_file_with_a_right_checksum_that_is_no_piece(store):
    import hashlib

    store.folder.mkdir()
    content = b"PK is what it says"
    name = f"000003-{hashlib.sha256(content).hexdigest()[:24]}.zip"
    (store.folder / name).write_bytes(content)
    assert_not_taken(store, "is not a piece of a job")


def test_altered_after_the_scan(store):
    store.write(piece())
    only_file(store).write_bytes(b"x")
    with pytest.raises(InputError, match="checksum does not match"):
        store.read(KEYS[0])
    only_file(store).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        store.read(KEYS[0])
    assert store.num_bytes == 0


def test_leftovers_of_a_killed_run_go_but_not_those_of_other_windows(store):
    store.write(piece())
    name = only_file(store).name
    own = store.folder / f".{name}.123.part"
    others = store.folder / f".000077{name[6:]}.123.part"  # perhaps of a shard that is at work
    own.touch(), others.touch()
    found, problems = again(store).scan(KEYS)
    assert list(found) == [KEYS[0]]
    assert problems == []
    assert not own.exists()
    assert others.exists()


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_disk_that_refuses_leaves_nothing_half_written(store, monkeypatch, step):
    store.write(piece())
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if step == "fsync":
            patched.setattr(window_store.os, "fsync", refuse)
        else:
            patched.setattr(Path, step, refuse)
        with pytest.raises(
            OutputError, match=r"cannot keep window 4 in .*: No space left on device; the windows kept so far"
        ):
            store.write(piece((4, ())))
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before
    assert list(again(store).scan(KEYS)[0]) == [KEYS[0]]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "windows").write_text("a file")
    with pytest.raises(OutputError, match="cannot keep window 3"):
        WindowStore(tmp_path / "windows", "job").write(piece())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read(store):
    store.folder.mkdir()
    store.folder.chmod(0)
    try:
        with pytest.raises(OutputError, match="cannot read"):
            store.scan(KEYS)
    finally:
        store.folder.chmod(0o700)


def test_removing_pieces_leaves_what_is_none(store):
    remove_pieces(store.folder)  # missing
    store.write(piece())
    name = only_file(store).name
    (store.folder / f".{name}.1.part").touch()
    (store.folder / f"{name}.unusable").touch()
    (store.folder / "notes.txt").touch()
    remove_pieces(store.folder)
    assert [path.name for path in store.folder.iterdir()] == ["notes.txt"]
    (store.folder / "notes.txt").unlink()
    store.write(piece())
    remove_pieces(store.folder)
    assert not store.folder.exists()


def put(store: WindowStore, content: bytes, method: int = zipfile.ZIP_STORED) -> None:
    """Put a piece of this description there, under a name that fits."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("piece.json", content)
    store.folder.mkdir()
    (store.folder / f"000003-{hashlib.sha256(packed.getvalue()).hexdigest()[:24]}.zip").write_bytes(packed.getvalue())


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_descriptions_are_not_taken(store: WindowStore, name: str):
    put(store, HOSTILE_JSON[name])
    assert_not_taken(store, "is not a piece of a job")


@pytest.mark.parametrize("facts", [[], 5, {}, {"notes": 5}, {"notes": []}])
def test_odd_facts_are_not_taken(store: WindowStore, facts: object):
    put(store, json.dumps({"job": "job", "piece": "000003", "frames": 0, "facts": facts}).encode())
    assert_not_taken(store, "is not a piece of a job")


def test_what_unpacks_to_more_than_it_holds_is_not_taken(store: WindowStore):
    put(store, b" " * 2**20, zipfile.ZIP_DEFLATED)
    assert_not_taken(store, "piece.json is compressed")
