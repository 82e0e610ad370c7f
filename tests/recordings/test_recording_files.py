"""A recording's files: their fingerprint, and whether they change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from evfi.errors import InputError
from evfi.events.stream import EventStream
from evfi.fingerprints import files_of, fingerprint_of_files
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.recordings.files import FileWatch, recording_fingerprint
from evfi.recordings.opening import open_recording
from evfi.recordings.options import RecordingOptions
from stand_ins import STEP_US, key_frames

NO_OPTIONS = RecordingOptions()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A small plain recording."""
    folder, generator = tmp_path / "r", np.random.default_rng(0)
    events = EventStream.from_arrays(
        generator.integers(0, 34, 200),
        generator.integers(0, 22, 200),
        generator.integers(0, 2 * STEP_US, 200),
        generator.choice([-1, 1], 200),
        (34, 22),
    )
    write_plain_recording(folder, key_frames(3), STEP_US * np.arange(3), events)
    return folder


def fingerprint(path: Path, options: RecordingOptions = NO_OPTIONS, ignored: tuple[Path, ...] = ()) -> str:
    with open_recording(path, options) as opened:
        return recording_fingerprint(opened, options, ignored)


class TestFingerprint:
    def test_it_is_stable_and_independent_of_place_and_time(self, recording, tmp_path):
        copy = tmp_path / "elsewhere" / "copy"
        shutil.copytree(recording, copy)
        os.utime(copy / "events.npz", (1, 1))
        assert fingerprint(recording) == fingerprint(recording) == fingerprint(copy)

    def test_a_byte_of_any_file_counts(self, recording):
        before = fingerprint(recording)
        seen = {before}
        files = [file for file in recording.rglob("*") if file.is_file()]
        assert len(files) >= 5
        for file in files:
            content = file.read_bytes()
            file.write_bytes(content + b"\n")
            try:
                seen.add(fingerprint(recording))
            finally:
                file.write_bytes(content)
        assert len(seen) == len(files) + 1
        assert fingerprint(recording) == before

    def test_names_count(self, recording):
        before = fingerprint(recording)
        (recording / "notes.txt").write_text("x")
        added = fingerprint(recording)
        (recording / "notes.txt").rename(recording / "remarks.txt")
        assert len({before, added, fingerprint(recording)}) == 3

    def test_options_count(self, recording):
        options = [NO_OPTIONS, RecordingOptions(time_offset_us=1), RecordingOptions(remove_hot_pixels=True)]
        assert len({fingerprint(recording, one) for one in options}) == 3

    def test_files_named_by_options_count_by_content(self, recording, tmp_path):
        def mapped(name: str, shift: int) -> str:
            file = tmp_path / name
            file.write_text(f"1 0 {shift}\n0 1 0\n0 0 1\n")
            return fingerprint(recording, RecordingOptions(sensor_to_frame=file))

        first = mapped("a.txt", 1)
        assert first == mapped("b.txt", 1)
        assert first != mapped("b.txt", 2)
        assert first != fingerprint(recording)

    def test_results_within_the_folder_do_not_count(self, recording):
        before = fingerprint(recording)
        job = recording / ".out.mp4.evfi"
        (job / "windows").mkdir(parents=True)
        (job / "windows" / "000000.zip").touch()
        output, partial = recording / "out.mp4", recording / ".out.mp4.12.part"
        output.touch(), partial.touch()
        assert fingerprint(recording, ignored=(output, job)) == before
        assert fingerprint(recording, ignored=(output,)) != before


class TestFilesOf:
    def test_links_are_followed_once(self, tmp_path):
        folder = tmp_path / "a" / "b"
        folder.mkdir(parents=True)
        (folder / "x").touch()
        (folder / "up").symlink_to(tmp_path / "a")
        (tmp_path / "a" / "link").symlink_to(folder / "x")
        names = [str(file.relative_to(tmp_path)) for file in files_of(tmp_path)]
        assert names == ["a/b/x", "a/link"]

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(InputError, match="none"):
            list(files_of(tmp_path / "none"))

    def test_a_file_ignored_through_a_link_is_ignored(self, tmp_path):
        (tmp_path / "x").touch()
        (tmp_path / "y").touch()
        other = tmp_path / "other"
        other.symlink_to(tmp_path)
        assert list(files_of(tmp_path, [other / "x", other])) == []
        assert [file.name for file in files_of(tmp_path, [other / "x"])] == ["y"]


class TestFileWatch:
    @pytest.mark.parametrize("harm", ["longer", "same length", "replaced", "gone"])
    def test_changes_are_noticed(self, recording, harm):
        watch, file = FileWatch([recording]), recording / "events.npz"
        watch.check()
        content = file.read_bytes()
        if harm == "longer":
            file.write_bytes(content + b"x")
        elif harm == "same length":
            file.write_bytes(content)
            os.utime(file, ns=(1, 1))
        elif harm == "replaced":
            facts = file.stat()
            other = file.with_name("other")
            other.write_bytes(content)
            other.replace(file)
            os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        else:
            file.unlink()
        expected = "can no longer be read" if harm == "gone" else "changed while it was being read"
        with pytest.raises(InputError, match=rf"events\.npz {expected}"):
            watch.check()

    def test_results_may_change(self, recording):
        output = recording / "out.mp4"
        output.touch()
        watch = FileWatch([recording], [output])
        output.write_text("new")
        (recording / "new.txt").touch()
        watch.check()


def test_files_whose_names_are_no_text_have_a_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"1")
    before = fingerprint_of_files([tmp_path / "a"])
    (tmp_path / "a" / os.fsdecode(b"\xff.png")).rename(tmp_path / "a" / os.fsdecode(b"\xfe.png"))
    assert fingerprint_of_files([tmp_path / "a"]) != before
