"""Commands and what users name: names that the system refuses, links that lead nowhere, pipes, and what a kill left."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from evfi.cli import dispatch
from evfi.video.writer import VideoWriter
from killed import killed_while_writing
from stand_ins import HEIGHT, WIDTH, key_frames
from test_cli import failure, run, write_recording

LONG = "x" * 300


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a recording, a video and a circular link."""
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "r")
    with VideoWriter(tmp_path / "v.mp4", (WIDTH, HEIGHT), 25) as writer:
        for frame in key_frames():
            writer.write(frame)
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        f"convert r {LONG}.npz",
        f"convert r {LONG}",
        "convert r loop",
        f"convert {LONG} o.npz",
        "convert loop o.npz",
        f"simulate {LONG} -o o",
        "simulate loop -o o",
        f"simulate v.mp4 -o {LONG}",
        "simulate v.mp4 -o loop",
        f"demo -o {LONG}",
        "demo -o loop",
        "demo -o d --model ~nobody-of-this-name/x",
        f"inspect {LONG}",
        f"inspect r --picture {LONG}.png",
        f"inspect r --sensor-to-frame {LONG}",
        f"interpolate r -o o.mp4 --times {LONG}",
        f"interpolate r -o o.mp4 --frames-dir {LONG}",
        "interpolate r -o o.mp4 --frames-dir loop",
        "interpolate r -o o.mp4 --job loop",
        f"interpolate r -o o.mp4 --job {LONG}",
        "interpolate r -o o.mp4 --model ~nobody-of-this-name/x",
        f"interpolate r -o o.mp4 --model {LONG}",
        "interpolate r -o o.mp4 --model loop",
        f"evaluate r -o {LONG}",
        "evaluate r -o loop",
        f"evaluate r -o e --results a={LONG}",
        "evaluate r -o e --results a=loop",
        f"evaluate --compare {LONG} loop",
        f"evaluate r -o e --protocol {LONG}",
        f"train base --textures r --output {LONG}",
        f"train base --textures {LONG} --output t",
        f"train base --textures r --output t --init {LONG}",
        "benchmark --json loop",
    ],
)
def test_names_that_the_system_refuses_are_told_in_one_line(place, command, capfd):
    assert run(*command.split()) in (dispatch.FAILED, dispatch.USAGE) or command.startswith("inspect r --sensor")
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert len(told) < 1200
    assert {path.name for path in place.iterdir()} - {"d"} == {"loop", "r", "v.mp4"}


def test_a_cache_of_a_user_that_does_not_exist(place, monkeypatch, capsys):
    monkeypatch.setenv("EVFI_CACHE", "~nobody-of-this-name/x")
    assert "set EVFI_CACHE to a folder" in failure(capsys, "convert", "r", "o.npz", status=dispatch.USAGE)


@pytest.mark.parametrize("target", ["self", LONG, "../loop"])
def test_links_that_lead_nowhere_in_a_recording(place, target, capsys):
    for name in ("self", "frames/self.png", "self.npz"):
        (place / "r" / name).symlink_to(target)
    assert run("convert", "r", "o.npz") == 0
    assert run("inspect", "r", "--picture", "o.png") == 0
    assert (place / "o.npz").is_file()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "interpolate r/frames --events r/events.npz --timestamps f -o o.mp4",
            "the frame times",
        ),
        ("interpolate r -o o.mp4 --times f", "the output times"),
        ("interpolate r -o o.mp4 --sensor-to-frame f", "the homography"),
    ],
)
def test_pipes_are_not_waited_for(place, command, told, in_time, capsys):
    os.mkfifo(place / "f")
    assert run(*command.split()) in (dispatch.FAILED, dispatch.USAGE)
    assert f"cannot read {told} f: it is not a regular file; name a text file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("o.npz", "convert r o.npz"),
        ("copy", "convert r copy"),
        ("o.png", "inspect r --picture o.png"),
        ("sim", "simulate v.mp4 -o sim --keep-every 2"),
        ("e/results.json", "evaluate r -o e --skips 1 --baseline linear --preset warp --metrics psnr_rgb"),
    ],
)
def test_the_next_run_removes_what_a_kill_left(place, target, command, capsys):
    if command.startswith("evaluate"):
        assert run(*command.split()) == 0
    killed_while_writing(place / target)
    assert list(place.rglob(".evfi-*.part"))
    assert run(*command.split()) == 0
    assert not list(place.rglob(".evfi-*.part"))


class TestErrorsOfTheSystem:
    def fail(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def run(_: object) -> None:
            raise error

        monkeypatch.setattr(dispatch, "import_module", lambda _: SimpleNamespace(run=run))

    def test_one_line_with_the_path(self, monkeypatch, capsys):
        self.fail(monkeypatch, OSError(5, "Input/output error", "a\x1b.mp4"))
        assert failure(capsys, "convert") == "evfi: error: cannot use a\\x1b.mp4: Input/output error"
        self.fail(monkeypatch, OSError(5, "Input/output error"))
        assert failure(capsys, "convert") == "evfi: error: Input/output error"

    @pytest.mark.parametrize(
        "error", [OSError("of a library"), ValueError("a bug"), KeyError(1), RuntimeError("a bug")]
    )
    def test_bugs_keep_their_traceback(self, monkeypatch, error):
        self.fail(monkeypatch, error)
        with pytest.raises(type(error)):
            run("convert")

    def test_a_current_folder_that_was_removed(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        for arguments in (("inspect", "/r"), ("--help",)):
            assert "the current folder no longer exists; change to another" in failure(capsys, *arguments)
