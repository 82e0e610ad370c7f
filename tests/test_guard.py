"""What is written is kept apart from what is read, by the files' identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from evfi.errors import ConfigError, OutputError
from evfi.guard import Read, Written, check_cache, check_places


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is read, with a file, a folder, and links to a file and a folder outside."""
    read = tmp_path / "read"
    (read / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for file in (read / "a", read / "sub" / "b", tmp_path / "outside" / "c", tmp_path / "d"):
        file.write_text(file.name)
    (read / "far").symlink_to(tmp_path / "outside")
    (read / "file").symlink_to(tmp_path / "d")
    (read / "sub" / "up").symlink_to(read)
    (read / "dangling").symlink_to(tmp_path / "nothing")
    return read


def reads(folder: Path) -> list[Read]:
    return [Read(folder, "the recording", lambda name: name.startswith("sub") or name == "far")]


def check(path: Path, folder: Path, **settings: object) -> None:
    check_places([Written(path, "the video", **settings)], reads(folder))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["read/a", "read/../read/a", "read/sub/b", "outside/c", "d", "read/file", "read/sub/up/a"]
)
def test_what_is_read(folder, tmp_path, name):
    with pytest.raises(OutputError, match="the recording"):
        check(tmp_path / name, folder)
    (tmp_path / "hard").hardlink_to((tmp_path / name).resolve())
    (tmp_path / "soft").symlink_to(tmp_path / name)
    for other in ("hard", "soft"):
        with pytest.raises(OutputError, match="the recording is read from it"):
            check(tmp_path / other, folder)


@pytest.mark.parametrize("name", ["read/sub/new", "read/sub.mp4", "read/sub/up/sub2", "read/far/new", "outside/new"])
def test_what_would_be_read(folder, tmp_path, name):
    with pytest.raises(OutputError, match="would become part of the recording"):
        check(tmp_path / name, folder)


@pytest.mark.parametrize("name", ["new", "read/new", "read/other/../new", "read/sub/up/new", "readable"])
def test_what_may_be_written(folder, tmp_path, name):
    (folder / "other").mkdir()
    check(tmp_path / name, folder)


@pytest.mark.parametrize("target", ["self", "x" * 300])
def test_links_that_lead_nowhere_are_passed_over(folder, tmp_path, target):
    for place in (folder, folder / "sub"):
        (place / "self").symlink_to(target)
    check(tmp_path / "new", folder)
    with pytest.raises(OutputError, match="is read from it"):
        check(folder / "sub" / "b", folder)
    check_places([], [Read(folder / "self", "the model")])


@pytest.mark.parametrize("kind", ["file", "folder", "store"])
def test_results_of_names_that_the_system_refuses(tmp_path, kind):
    (tmp_path / "self").symlink_to("self")
    for name in ("self", "x" * 300, "self/inside"):
        with pytest.raises(OutputError, match="choose another name"):
            check_places([Written(tmp_path / name, "the video", kind)], [])


def test_what_is_there_in_a_folder_that_is_read_must_be_ours(folder, tmp_path):
    (folder / "new").write_text("x")
    for name in ("new", "dangling"):
        with pytest.raises(OutputError, match="nothing shows that an earlier run"):
            check(folder / name, folder)
    check(folder / "new", folder, is_ours=True)


def test_a_folder_that_holds_what_is_read(folder, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").hardlink_to(folder / "a")
    for path in (folder, tmp_path / "store", folder / "sub"):
        with pytest.raises(OutputError, match="is read from it"):
            check(path, folder, kind="store")
    with pytest.raises(OutputError, match="is read from it"):  # the recording lies in it
        check(tmp_path, folder, kind="store")


def test_results_apart_from_each_other(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "d")

    def two(first: str, second: str, kind: str = "file") -> None:
        names = (Written(tmp_path / first, "one"), Written(tmp_path / second, "two", kind))  # type: ignore[arg-type]
        check_places(names, [])

    for first, second in (("a", "a"), ("a", "d/../a"), ("a", "A"), ("d/a", "link/a"), ("e\u0301", "\u00e9")):
        with pytest.raises(ConfigError, match="one and two would both be"):
            two(first, second)
    for second in ("d", "link"):
        with pytest.raises(ConfigError, match=r"one, .*, would lie in two"):
            two("d/a", second, "store")
    two("a", "ab")


def test_what_the_user_did_not_name_is_not_replaced(tmp_path):
    (tmp_path / "a").write_text("mine")
    check_places([Written(tmp_path / "a", "the video")], [])
    with pytest.raises(OutputError, match=r"the report: a file with that name exists, and nothing shows"):
        check_places([Written(tmp_path / "a", "the report", is_named=False)], [])
    check_places([Written(tmp_path / "a", "the report", is_named=False, is_ours=True)], [])
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="a file with that name exists"):
        check_places([Written(tmp_path / "a", "the report", is_named=False)], [])


def test_what_is_missing_is_no_hindrance(tmp_path):
    check_places([Written(tmp_path / "a", "the video")], [Read(tmp_path / "none", "the recording")])


def test_the_cache_apart_from_what_is_read(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EVFI_CACHE", str(folder / "sub" / "cache"))
    with pytest.raises(OutputError, match="set EVFI_CACHE to another folder"):
        check_cache([tmp_path / "d", folder])
    check_cache([tmp_path / "d", tmp_path / "outside"])
    monkeypatch.setenv("EVFI_CACHE", str(tmp_path / "outside"))
    check_cache([folder])
