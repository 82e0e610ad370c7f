"""open_recording: recognition by content and the errors of paths that are no recording."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evfi.errors import ConfigError, InputError
from evfi.events.formats import open_event_file
from evfi.events.stream import EventStream
from evfi.recordings.datasets.plain import write_plain_recording
from evfi.recordings.inspection import inspect_recording
from evfi.recordings.opening import RECORDING_FORMATS, open_recording
from file_writers.aedat4 import random_events, write_aedat4


def write_plain(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    events = EventStream.from_arrays([1, 2], [1, 2], [1, 5], [1, -1], (4, 4))
    write_plain_recording(folder, np.zeros((2, 4, 4, 3), np.uint8), [0, 10], events)
    return folder


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_recording(tmp_path / "none")
    with pytest.raises(InputError, match="no such event file"):
        open_recording(write_plain(tmp_path / "rec"), events=tmp_path / "none.npz")
    with pytest.raises(InputError, match="cannot read the frame times"):
        open_recording(tmp_path / "rec", timestamps=tmp_path / "none.txt")


def test_unknown_contents_are_described(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures/0.png")
    (tmp_path / "a.bin").write_bytes(b"\0\1\2\3")
    (tmp_path / "zero").write_bytes(b"")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\1")
    np.savez(tmp_path / "ev.npz", x=[1], y=[1], t=[1], p=[1])
    for name, message in (
        ("empty", "the folder is empty"),
        ("pictures", "unknown format; expected one of aedat4, bs-ergb, "),
        ("a.bin", "unknown format; expected one of"),
        ("zero", "the file is empty"),
        ("clip.mp4", "a video without events; pass an event file"),
        ("ev.npz", r"an event file \(npz\) without frames; give pictures or a video"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_recording(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_format_by_name(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "rec")
    assert open_recording(str(path), format="plain").format == "plain"
    with pytest.raises(ConfigError, match="unknown recording format 'hsergb'; expected one of aedat4, bs-ergb, "):
        open_recording(path, format="hsergb")
    with pytest.raises(ConfigError, match="format 'ecd' finds its files itself"):
        open_recording(path, format="ecd", events=path / "events.npz")


def test_two_layouts_in_one_folder(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "rec")
    (path / "events.npz").unlink()
    (path / "events.txt").write_text("0.000001 1 1 0\n0.000005 2 2 1\n")
    (path / "images.txt").write_text("0.0 frames/000000.png\n0.00001 frames/000001.png\n")
    with pytest.raises(InputError, match=r"could be ecd .*, or plain .*; say which with --format ecd"):
        open_recording(path)
    assert open_recording(path, format="ecd").frames.times_us.tolist() == [0, 10]


@pytest.mark.parametrize("name", ["aedat4", "bs-ergb", "ecd"])
def test_a_format_that_is_forced_on_something_else(tmp_path: Path, name: str) -> None:
    path = write_plain(tmp_path / "rec")
    with pytest.raises(InputError) as caught:
        open_recording(path, format=name)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_format_describes_itself() -> None:
    assert len({layout.name for layout in RECORDING_FORMATS}) == len(RECORDING_FORMATS)
    assert all(layout.description for layout in RECORDING_FORMATS)


def test_events_only_aedat4(tmp_path: Path) -> None:
    write_aedat4(tmp_path / "e.aedat4", events=random_events(10, 100))
    with pytest.raises(Exception, match="holds no frame stream; pass a separate folder or video of frames"):
        open_recording(tmp_path / "e.aedat4")


def test_recordings_below_a_folder_are_named_without_a_long_search(tmp_path: Path) -> None:
    write_plain(tmp_path / "root/train/one")
    with pytest.raises(
        InputError, match=r"a folder of recordings, not a recording; choose one of them, e\.g\. .*train/one$"
    ):
        open_recording(tmp_path / "root")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop/again").symlink_to(tmp_path / "loop")
    for number in range(250):
        (tmp_path / f"loop/{number:03d}").mkdir()
    write_plain(tmp_path / "loop/249/too/late")
    with pytest.raises(InputError, match="unknown format; expected one of"):
        open_recording(tmp_path / "loop")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "events.raw"
    os.mkfifo(pipe)
    write_plain(tmp_path / "rec")
    for call in (
        lambda: open_recording(pipe),
        lambda: open_event_file(pipe),
        lambda: open_recording(tmp_path / "rec", events=pipe),
        lambda: inspect_recording(pipe),
    ):
        with pytest.raises(InputError, match="expected a file or folder, found a pipe, socket or device"):
            call()
