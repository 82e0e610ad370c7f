"""Whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from evfi.errors import OutputError
from evfi.files import check_folder_writable, check_writable, folder_written_whole, one_line, written_whole


def test_written_whole_renames_only_at_success(tmp_path: Path):
    with written_whole(tmp_path / "a.txt") as partial:
        partial.write_text("x")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 1


def test_failed_file_leaves_nothing(tmp_path: Path):
    with pytest.raises(OutputError, match="No space left"), written_whole(tmp_path / "a.txt") as partial:
        partial.write_text("x")
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_unwritable_files_are_named(tmp_path: Path):
    with pytest.raises(OutputError, match="it is a folder"):
        check_writable(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="there is no folder"):
        check_writable(tmp_path / "file" / "a.mp4")
    check_writable(tmp_path / "file")


def test_folder_appears_only_at_success(tmp_path: Path):
    for folder in (tmp_path / "new", tmp_path / "empty"):
        if folder.name == "empty":
            folder.mkdir()
        with folder_written_whole(folder) as partial:
            (partial / "a.txt").write_text("x")
            assert not folder.exists() or not list(folder.iterdir())
        assert (folder / "a.txt").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 2


def test_failed_folder_leaves_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "new") as partial:
        (partial / "a.txt").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_unwritable_folders_are_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        check_folder_writable(tmp_path)
    with pytest.raises(OutputError, match="there is a file of that name"):
        check_folder_writable(tmp_path / "file")
    with pytest.raises(OutputError, match="there is no folder"):
        check_folder_writable(tmp_path / "no" / "frames")


def test_errors_take_one_line():
    assert one_line(OSError(28, "No space left on device")) == "No space left on device"
    assert one_line(ValueError("two\nlines")) == "two lines"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
