"""`evfi inspect`: what it prints where, the picture, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evfi import cli
from evfi.cli.inspection_text import sparkline
from evfi.events.stream import EventStream
from evfi.recordings.datasets.plain_writer import write_plain_recording

SIZE = (32, 24)


def columns(count: int = 900) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "x": generator.integers(0, SIZE[0], count),
        "y": generator.integers(0, SIZE[1], count),
        "t": np.sort(generator.integers(0, 160_000, count)),
        "p": generator.choice([-1, 1], count),
    }


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    frames = np.random.default_rng(1).integers(0, 256, (5, SIZE[1], SIZE[0], 3), np.uint8)
    stream = EventStream.from_arrays(**columns(), sensor_size=SIZE)
    write_plain_recording(tmp_path / "rec", frames, np.arange(5) * 40_000, stream)
    return tmp_path / "rec"


@pytest.fixture
def event_file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "e.npz", **columns())
    return tmp_path / "e.npz"


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run("inspect", *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def failure(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    assert run("inspect", *arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("evfi: error: ")
    return captured.err


def values(text: str) -> dict[str, str]:
    """Lines by their label."""
    return {line[:11].strip(): line[12:] for line in text.splitlines()[:20] if line[:11].strip()}


class TestText:
    def test_recording(self, capsys: pytest.CaptureFixture[str], recording: Path) -> None:
        lines = values(printed(capsys, recording))
        assert lines["path"] == str(recording)
        assert lines["frames"] == "5, 32×24 px, colour"
        assert lines["rate"].startswith("5.")  # the events' comes last
        assert lines["events"] == "900, 32×24 px sensor"
        assert lines["gaps"] == "none"
        assert lines["overlap"].startswith("4 of 4 intervals between frames have events")

    def test_event_file(self, capsys: pytest.CaptureFixture[str], event_file: Path) -> None:
        text = printed(capsys, event_file, "--sensor-size", "32", "24")
        lines = values(text)
        assert lines["frames"].startswith("none: ")
        assert lines["events"] == "900, 32×24 px sensor"
        assert "overlap" not in lines
        assert text.rstrip().endswith("no warnings")

    def test_options_reach_the_reader(self, capsys: pytest.CaptureFixture[str], recording: Path) -> None:
        text = printed(capsys, recording, "--time-offset-us", "1000000")
        assert "do not overlap in time: frames from 1000000 to 1160000" in text

    def test_sparkline(self) -> None:
        assert sparkline([0, 1, 4, 8]) == " ▁▄█"
        assert sparkline([0.0]) == " "
        assert len(sparkline(list(range(240)))) == 60

    def test_a_terminal_without_blocks(self, event_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import io
        import sys

        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "latin-1"))
        assert run("inspect", event_file, "--sensor-size", "32", "24") == 0
        sys.stdout.flush()
        assert b"32\xd724 px sensor" in raw.getvalue()


def test_json(capsys: pytest.CaptureFixture[str], recording: Path) -> None:
    found = json.loads(printed(capsys, recording, "--json"))
    assert found["schema"] == "evfi-inspection/1"
    assert found["events"]["num_events"] == 900
    assert found["frames"]["interval_median_us"] == 40_000


class TestPicture:
    def test_recording(self, capsys: pytest.CaptureFixture[str], recording: Path, tmp_path: Path) -> None:
        printed(capsys, recording, "--picture", tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.width == 1560
            assert len(picture.convert("RGB").getcolors(2**24)) > 100
        assert not list(tmp_path.glob(".*"))

    def test_event_file(self, capsys: pytest.CaptureFixture[str], event_file: Path, tmp_path: Path) -> None:
        printed(capsys, event_file, "--sensor-size", "32", "24", "--picture", tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as picture:
            colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}
        assert any(red > 180 and blue < 160 for red, _, blue in colours)
        assert any(blue > 150 and red < 160 for red, _, blue in colours)

    def test_a_few_events_of_one_time(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        np.savez(tmp_path / "e.npz", x=[1, 2], y=[1, 2], t=[5, 5], p=[1, -1])
        printed(capsys, tmp_path / "e.npz", "--sensor-size", "24", "32", "--picture", tmp_path / "a.png")
        assert (tmp_path / "a.png").is_file()

    def test_a_sensor_like_a_thread(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        np.savez(tmp_path / "e.npz", x=[0, 0], y=[1, 5000], t=[5, 900], p=[1, -1])
        printed(capsys, tmp_path / "e.npz", "--sensor-size", "1", "60000", "--picture", tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.height < 3000

    def test_damaged_events_are_told_once(self, capsys: pytest.CaptureFixture[str], recording: Path) -> None:
        file = recording / "events.npz"
        file.write_bytes(file.read_bytes()[:-100])
        assert failure(capsys, recording).count(str(file)) == 1

    def test_damaged_frame(self, capsys: pytest.CaptureFixture[str], recording: Path, tmp_path: Path) -> None:
        (recording / "frames/000001.png").write_bytes(b"none")
        assert "000001.png" in printed(capsys, recording, "--picture", tmp_path / "a.png")
        assert (tmp_path / "a.png").is_file()

    def test_path_is_checked_first(self, capsys: pytest.CaptureFixture[str], recording: Path, tmp_path: Path) -> None:
        assert "there is no folder" in failure(capsys, recording, "--picture", tmp_path / "none/a.png")
        assert "it is a folder" in failure(capsys, recording, "--picture", self.folder(tmp_path))
        assert "must be a .png file" in failure(capsys, recording, "--picture", tmp_path / "a.gif", status=2)

    @staticmethod
    def folder(tmp_path: Path) -> Path:
        (tmp_path / "folder.png").mkdir()
        return tmp_path / "folder.png"


class TestErrors:
    def test_missing(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert "no such file or folder" in failure(capsys, tmp_path / "none")

    def test_empty_folder(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert "the folder is empty" in failure(capsys, tmp_path)

    def test_video_without_events(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_bytes(b"\0\0\0\1")
        assert "a video without events" in failure(capsys, tmp_path / "a.mp4")

    def test_event_file_of_unknown_size(self, capsys: pytest.CaptureFixture[str], event_file: Path) -> None:
        assert run("inspect", str(event_file)) == 0
        assert "does not declare its sensor size" in capsys.readouterr().out

    def test_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        failure(capsys, status=2)
        failure(capsys, "x", "--estimate-offset", "--time-offset-us", "5", status=2)
