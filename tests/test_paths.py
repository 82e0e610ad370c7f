"""Names that the system refuses are errors of one line; only ordinary files are read, and no pipe is waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evfi.errors import ConfigError, InputError, OutputError
from evfi.events.formats import open_event_file
from evfi.files import cache_folder, check_folder_writable, check_writable, entry_of
from evfi.fingerprints import files_of
from evfi.paths import check_name, expanded, is_file, is_folder, open_to_read, read_bytes, real_path
from evfi.pipeline.job_plan import read_times
from evfi.recordings.alignment import read_homography
from evfi.recordings.frames import find_pictures
from evfi.recordings.opening import open_recording
from evfi.recordings.text_lines import numbered_lines

LONG = "x" * 300


@pytest.fixture(params=["long", "circular", "link to a long name"])
def refused(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A name that the system refuses."""
    if request.param == "long":
        return tmp_path / LONG
    (tmp_path / "link.png").symlink_to("link.png" if request.param == "circular" else LONG)
    return tmp_path / "link.png"


@pytest.fixture
def pipe(tmp_path: Path, in_time: None) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


class TestRefusedNames:
    def test_told_in_one_line(self, refused):
        with pytest.raises(InputError, match=r"cannot use .*(too long|[Tt]oo many levels).*; choose another name"):
            check_name(refused)
        with pytest.raises(ConfigError):
            check_name(refused / "inside", ConfigError)
        with pytest.raises(InputError, match="null"):
            check_name("a\0b")

    @pytest.mark.parametrize("name", ["missing", "missing/inside", "file/inside", ".", "dangling"])
    def test_names_that_may_be_right(self, tmp_path, name):
        (tmp_path / "file").write_text("x")
        (tmp_path / "dangling").symlink_to("nothing")
        check_name(tmp_path / name)

    def test_they_are_nothing(self, refused):
        assert not is_file(refused)
        assert not is_folder(refused)
        assert real_path(refused / "x").is_absolute()
        assert entry_of(refused).parent == refused.parent

    def test_results(self, refused):
        for check in (check_writable, check_folder_writable):
            with pytest.raises(OutputError, match="choose another name"):
                check(refused)

    def test_recordings_and_event_files(self, refused):
        for opened in (open_recording, open_event_file):
            with pytest.raises(InputError, match="choose another name"):
                opened(refused)

    def test_links_in_folders_are_passed_over(self, tmp_path):
        (tmp_path / "self.png").symlink_to("self.png")
        (tmp_path / "long.png").symlink_to(LONG)
        (tmp_path / "a.png").write_text("x")
        assert find_pictures(tmp_path) == [tmp_path / "a.png"] == list(files_of(tmp_path))

    def test_users_that_do_not_exist(self, monkeypatch):
        assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
        assert expanded("~/x") == Path.home() / "x"
        monkeypatch.setenv("EVFI_CACHE", "~nobody-of-this-name/x")
        with pytest.raises(
            ConfigError, match="EVFI_CACHE=~nobody-of-this-name/x: there is no such user; set EVFI_CACHE"
        ):
            cache_folder()
        monkeypatch.setenv("EVFI_CACHE", f"/{LONG}")
        with pytest.raises(ConfigError, match="too long"):
            cache_folder()


class TestPipes:
    def test_they_are_refused_at_once(self, pipe):
        for read in (open_to_read, lambda path: read_bytes(path, 10)):
            with pytest.raises(ValueError, match="it is not a regular file"):
                read(pipe)

    def test_as_files_of_numbers(self, pipe):
        with pytest.raises(ConfigError, match=r"cannot read the output times .*: it is not a regular file"):
            read_times(pipe)
        with pytest.raises(InputError, match=r"cannot read the homography .*: it is not a regular file"):
            read_homography(pipe)
        with pytest.raises(InputError, match=r"cannot read the frame times .*: it is not a regular file"):
            list(numbered_lines(pipe, "frame times"))


def test_what_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="larger than 1 KiB"):
        read_bytes(tmp_path / "huge", 1024)
    (tmp_path / "small").write_bytes(b"x" * 1024)
    assert read_bytes(tmp_path / "small", 1024) == b"x" * 1024
