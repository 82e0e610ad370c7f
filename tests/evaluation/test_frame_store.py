"""Frames of windows are kept whole, found again, and not mistaken for others."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_samples import sequence_info, window_record

from evfi.errors import InputError
from evfi.evaluation import generation
from evfi.evaluation.frame_store import FrameStore
from evfi.evaluation.generation import frame_store
from evfi.evaluation.plan import EvaluationPlan
from evfi.evaluation.protocol import load_protocol
from evfi.evaluation.results import SystemInfo
from hostile_json import HOSTILE_JSON
from killed import killed_while_writing

RECORD = window_record("dog", 3, 1)
SEQUENCE = sequence_info("dog")
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)


def test_what_is_written_is_read(tmp_path: Path):
    store = FrameStore(tmp_path, "me")
    assert store.facts(RECORD, SEQUENCE) is None
    store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7], seconds=1.5, is_warm=False, notes=("blended",))
    np.testing.assert_array_equal(store.read(RECORD, SEQUENCE), FRAMES)
    facts = store.facts(RECORD, SEQUENCE)
    assert facts is not None
    assert (facts.seconds, facts.is_warm, facts.notes, facts.frame_numbers) == (1.5, False, ("blended",), (5, 6, 7))
    assert sorted(path.name for path in (tmp_path / "dog" / "skip3" / "00001").iterdir()) == [
        "000005.png", "000006.png", "000007.png", "window.json"]  # fmt: skip


def test_frames_of_something_else_count_as_absent(tmp_path: Path):
    FrameStore(tmp_path, "me").write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    assert FrameStore(tmp_path, "other settings").facts(RECORD, SEQUENCE) is None
    other_data = dataclasses.replace(SEQUENCE, fingerprint="f" * 64)
    assert FrameStore(tmp_path, "me").facts(RECORD, other_data) is None
    other_times = dataclasses.replace(RECORD, times_us=tuple(time + 1 for time in RECORD.times_us))
    assert FrameStore(tmp_path, "me").facts(other_times, SEQUENCE) is None


def test_written_again_in_the_place_of_what_was_there(tmp_path: Path):
    FrameStore(tmp_path, "old").write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    FrameStore(tmp_path, "new").write(RECORD, SEQUENCE, 255 - FRAMES[:2], [5, 6])
    np.testing.assert_array_equal(FrameStore(tmp_path, "new").read(RECORD, SEQUENCE), 255 - FRAMES[:2])


def test_frames_of_other_devices_and_versions_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = EvaluationPlan(tmp_path, load_protocol("raw"), (), (), seed=0)
    info = SystemInfo("ours", "model", {}, "f" * 64, device="cpu")
    folders = {frame_store(plan, info).folder, frame_store(plan, dataclasses.replace(info, device="gpu")).folder}
    folders.add(frame_store(dataclasses.replace(plan, seed=1), info).folder)
    monkeypatch.setattr(generation, "__version__", "another")
    folders.add(frame_store(plan, info).folder)
    assert len(folders) == 4


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"made_of": 3}', '{"made_of": "x", "frame_numbers": []}'])
def test_damaged_facts_count_as_absent(tmp_path: Path, damage: str):
    store = FrameStore(tmp_path, "me")
    store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    (store.path(RECORD) / "window.json").write_text(damage)
    assert store.facts(RECORD, SEQUENCE) is None
    with pytest.raises(InputError, match="run the evaluation again"):
        store.read(RECORD, SEQUENCE)


def test_a_window_without_all_its_pictures_counts_as_absent(tmp_path: Path):
    store = FrameStore(tmp_path, "me")
    store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    (store.path(RECORD) / "000006.png").unlink()
    assert store.facts(RECORD, SEQUENCE) is None


def test_a_damaged_picture_is_told(tmp_path: Path):
    store = FrameStore(tmp_path, "me")
    store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    (store.path(RECORD) / "000006.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"000006\.png.*remove the folder .* and run again"):
        store.read(RECORD, SEQUENCE)


def test_facts_are_plain_json(tmp_path: Path):
    store = FrameStore(tmp_path, "me")
    store.write(RECORD, SEQUENCE, FRAMES, np.arange(5, 8))
    assert json.loads((store.path(RECORD) / "window.json").read_text())["frame_numbers"] == [5, 6, 7]


ODD_FACTS = (
    {"frame_numbers": ["a"]},
    {"frame_numbers": [10**40]},
    {"frame_numbers": [True]},
    {"notes": [5]},
    {"seconds": "3"},
    {"is_warm": 1},
    {"digests": ["a"]},
)


def assert_made_again(store: FrameStore) -> None:
    assert store.facts(RECORD, SEQUENCE) is None
    store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    assert store.facts(RECORD, SEQUENCE) is not None


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_facts_count_as_absent(tmp_path: Path, name: str):
    store = FrameStore(tmp_path, "me")
    store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    (store.path(RECORD) / "window.json").write_bytes(HOSTILE_JSON[name])
    assert_made_again(store)


@pytest.mark.parametrize("odd", ODD_FACTS, ids=str)
def test_odd_facts_count_as_absent(tmp_path: Path, odd: dict[str, Any]):
    store = FrameStore(tmp_path, "me")
    store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
    file = store.path(RECORD) / "window.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **odd}))
    assert_made_again(store)


class TestWhatIsNotOurs:
    """In a window's place only a window's frames, known by their content, are removed."""

    def written_over(self, store: FrameStore, caplog: pytest.LogCaptureFixture) -> Path | None:
        """Write a window; where what was there has gone, None if it was removed."""
        with caplog.at_level(logging.WARNING):
            store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
        np.testing.assert_array_equal(store.read(RECORD, SEQUENCE), FRAMES)
        aside = store.path(RECORD).with_name("00001.unusable")
        entries = {entry.name for entry in aside.parent.iterdir()}
        assert entries <= {"00001", "00001.unusable"}
        assert ("it was moved aside to 00001.unusable" in caplog.text) == ("00001.unusable" in entries)
        return aside if "00001.unusable" in entries else None

    def test_a_folder_of_somebody_else(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        store = FrameStore(tmp_path, "me")
        store.path(RECORD).mkdir(parents=True)
        (store.path(RECORD) / "thesis.txt").write_text("years of work")
        aside = self.written_over(store, caplog)
        assert aside is not None
        assert (aside / "thesis.txt").read_text() == "years of work"

    @pytest.mark.parametrize("name", ["thesis.txt", "000009.png", "000006.png"])
    def test_a_file_of_somebody_else_among_frames(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str):
        FrameStore(tmp_path, "old").write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
        store = FrameStore(tmp_path, "me")
        (store.path(RECORD) / name).write_text("years of work")
        aside = self.written_over(store, caplog)
        assert aside is not None
        assert (aside / name).read_text() == "years of work"

    def test_a_link(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        FrameStore(tmp_path / "theirs", "old").write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
        store = FrameStore(tmp_path / "ours", "me")
        store.path(RECORD).parent.mkdir(parents=True)
        store.path(RECORD).symlink_to(FrameStore(tmp_path / "theirs", "old").path(RECORD))
        aside = self.written_over(store, caplog)
        assert aside is not None
        assert aside.is_symlink()
        assert FrameStore(tmp_path / "theirs", "old").facts(RECORD, SEQUENCE) is not None

    def test_earlier_frames_are_removed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        FrameStore(tmp_path, "old").write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
        (FrameStore(tmp_path, "old").path(RECORD) / "000006.png").unlink()
        assert self.written_over(FrameStore(tmp_path, "me"), caplog) is None

    def test_earlier_frames_without_checksums_are_removed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        store = FrameStore(tmp_path, "old")
        store.write(RECORD, SEQUENCE, FRAMES, [5, 6, 7])
        file = store.path(RECORD) / "window.json"
        facts = json.loads(file.read_text())
        del facts["digests"]
        file.write_text(json.dumps(facts))
        assert store.facts(RECORD, SEQUENCE) is not None
        assert self.written_over(FrameStore(tmp_path, "me"), caplog) is None

    def test_what_a_killed_run_left_is_removed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture):
        store = FrameStore(tmp_path, "me")
        store.path(RECORD).parent.mkdir(parents=True)
        killed_while_writing(store.path(RECORD))
        assert list(store.path(RECORD).parent.iterdir()) != []
        assert self.written_over(store, caplog) is None
