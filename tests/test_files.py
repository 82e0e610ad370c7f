"""Whole or not at all."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest

from evfi import files
from evfi.errors import OutputError
from evfi.files import (
    check_folder_writable,
    check_writable,
    folder_written_whole,
    held_alone,
    one_line,
    remove_leftovers,
    written_whole,
)
from killed import killed_while_writing


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
    with pytest.raises(OutputError, match="a file with that name exists"):
        check_folder_writable(tmp_path / "file")
    with pytest.raises(OutputError, match="there is no folder"):
        check_folder_writable(tmp_path / "no" / "frames")


def test_errors_that_quote_a_whole_file_are_cut():
    assert one_line(ValueError("a" * 501)) == "a" * 500 + " …"
    assert one_line(OutputError("a" * 501)) == "a" * 501  # our own messages say what to do at their end
    assert one_line(ValueError("\x1b" * 10_000)) == "\\x1b" * 125 + " …"


def test_errors_take_one_line():
    assert one_line(OSError(28, "No space left on device")) == "No space left on device"
    assert one_line(ValueError("two\nlines")) == "two lines"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


class TestTemporaryNames:
    def test_they_cannot_be_foreseen_and_nobody_else_may_look_in(self, tmp_path: Path):
        names = set()
        for _ in range(3):
            with written_whole(tmp_path / "a.txt") as partial:
                assert partial.parent.parent == tmp_path
                assert stat.S_IMODE(partial.parent.stat().st_mode) == 0o700
                names.add(partial.parent.name)
                partial.write_text("x")
        assert len(names) == 3
        assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]

    def test_a_planted_link_is_not_followed(self, tmp_path: Path):
        (tmp_path / "mine.txt").write_text("mine")
        (tmp_path / f".a.txt.{os.getpid()}.part").symlink_to(tmp_path / "mine.txt")
        with written_whole(tmp_path / "a.txt") as partial:
            partial.write_text("x")
        assert (tmp_path / "mine.txt").read_text() == "mine"
        assert (tmp_path / f".a.txt.{os.getpid()}.part").is_symlink()

    def test_the_longest_name(self, tmp_path: Path):
        name = "a" * 251 + ".txt"
        with written_whole(tmp_path / name) as partial:
            partial.write_text("x")
        assert (tmp_path / name).read_text() == "x"

    def test_leftovers_of_a_target_go(self, tmp_path: Path):
        for name in ("a.txt", "b\udcff.txt"):
            killed_while_writing(tmp_path / name)
        remove_leftovers(tmp_path, "a.txt".__eq__)
        (left,) = tmp_path.iterdir()
        assert (left / "b\udcff.txt").read_text() == "half"

    @pytest.mark.parametrize("writing", [written_whole, folder_written_whole])
    def test_whoever_writes_the_same_target_removes_them(self, tmp_path: Path, writing):
        killed_while_writing(tmp_path / "a.txt")
        killed_while_writing(tmp_path / "b.txt")
        with writing(tmp_path / "a.txt") as partial:
            if writing is written_whole:
                partial.write_text("x")
        assert [next(path.iterdir()).name for path in tmp_path.glob(".evfi-*")] != []
        assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["a.txt", "b.txt"]

    def test_a_large_folder_is_not_listed_for_every_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        moments = itertools.count(1000.0)  # each look at the clock is a second later, so that listing takes one
        monkeypatch.setattr(files.time, "monotonic", lambda: next(moments))
        listed = []
        iterdir = Path.iterdir
        monkeypatch.setattr(Path, "iterdir", lambda path: (listed.append(path), iterdir(path))[1])
        for number in range(250):
            with written_whole(tmp_path / f"{number}.txt") as partial:
                partial.write_text("x")
        assert listed.count(tmp_path) == 3

    def test_a_pipe_as_a_mark_is_not_waited_for(self, tmp_path: Path, in_time: None):
        folder = tmp_path / ".evfi-abcdefgh.part"
        folder.mkdir()
        os.mkfifo(folder / "evfi-temporary.json")
        remove_leftovers(tmp_path, lambda _: True)
        with held_alone(tmp_path / "frames"), written_whole(tmp_path / "a.txt") as partial:
            partial.write_text("x")
        assert folder.exists()

    def test_what_is_being_written_stays(self, tmp_path: Path):
        with written_whole(tmp_path / "a.txt") as partial:
            partial.write_text("x")
            remove_leftovers(tmp_path, "a.txt".__eq__)
            assert partial.read_text() == "x"

    @pytest.mark.parametrize("mark", ["", "[]", '{"format": "evfi-temporary", "version": 1}', None])
    def test_without_a_mark_nothing_goes(self, tmp_path: Path, mark: str | None):
        folder = tmp_path / ".evfi-abcdefgh.part"
        folder.mkdir()
        (folder / "a.txt").write_text("mine")
        if mark is not None:
            (folder / "evfi-temporary.json").write_text(mark)
        remove_leftovers(tmp_path, lambda _: True)
        assert (folder / "a.txt").read_text() == "mine"

    def test_something_else_beside_it_stays(self, tmp_path: Path):
        killed_while_writing(tmp_path / "a.txt")
        (folder,) = tmp_path.iterdir()
        (folder / "mine.txt").write_text("mine")
        remove_leftovers(tmp_path, "a.txt".__eq__)
        assert (folder / "mine.txt").read_text() == "mine"

    def test_a_linked_folder_is_not_looked_into(self, tmp_path: Path):
        killed_while_writing(tmp_path / "a.txt")
        (folder,) = tmp_path.iterdir()
        other = folder.rename(tmp_path / "other")
        folder.symlink_to(other)
        remove_leftovers(tmp_path, "a.txt".__eq__)
        assert (other / "a.txt").exists()


class TestLinks:
    def test_a_linked_file_is_replaced_not_followed(self, tmp_path: Path):
        (tmp_path / "mine.txt").write_text("mine")
        (tmp_path / "a.txt").symlink_to(tmp_path / "mine.txt")
        with written_whole(tmp_path / "a.txt") as partial:
            partial.write_text("x")
        assert not (tmp_path / "a.txt").is_symlink()
        assert (tmp_path / "mine.txt").read_text() == "mine"

    def test_a_linked_folder_is_refused_before_the_work(self, tmp_path: Path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with pytest.raises(OutputError, match="it is a link"):
            check_folder_writable(tmp_path / "link")
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(tmp_path / "nothing")
        with pytest.raises(OutputError, match="it is a link"):
            check_folder_writable(tmp_path / "link")

    def test_devices_are_refused(self, tmp_path: Path):
        (tmp_path / "null.txt").symlink_to("/dev/null")
        for path in (Path("/dev/null"), tmp_path / "null.txt"):
            with pytest.raises(OutputError, match="not a regular file"):
                check_writable(path)

    def test_a_name_that_is_too_long_is_refused_before_the_work(self, tmp_path: Path):
        with pytest.raises(OutputError, match="name too long"):
            check_writable(tmp_path / ("a" * 300))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    def test_a_protected_file_is_refused(self, tmp_path: Path):
        (tmp_path / "a.txt").touch(mode=0o444)
        with pytest.raises(OutputError, match="write-protected"):
            check_writable(tmp_path / "a.txt")


def test_what_cannot_be_removed_now_keeps_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", refuse)
        with written_whole(tmp_path / "a.txt") as partial:
            partial.write_text("x")
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path, "a.txt".__eq__)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
