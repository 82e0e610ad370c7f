"""`evfi convert`: between formats, with frames where they can be kept, cut in time, and refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evfi.cli import main
from evfi.events.formats import open_event_file
from evfi.events.stream import EventStream
from evfi.recordings.opening import open_recording
from file_writers.aedat4 import FRAME_STEP_US, SIZE, START_US, random_events, write_aedat4

GREY = np.random.default_rng(0).integers(0, 255, (4, SIZE[1], SIZE[0])).astype(np.uint8)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_aedat4(tmp_path / "in.aedat4", frames=GREY, events=random_events(500, 4 * FRAME_STEP_US))


def columns_of(path: Path) -> np.ndarray:
    source = open_event_file(path)
    stream = EventStream.concatenate([EventStream.empty(source.sensor_size), *source.pieces()])
    assert stream.sensor_size == SIZE
    return np.stack([stream.t, stream.x, stream.y, stream.p], 1)


def test_chain_of_all_formats(tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, expected = recording, columns_of(recording)
    for name in ("a.h5", "b.npz", "c.txt", "d.csv", "e.hdf5", "f.aedat4"):
        assert main(["convert", str(before), str(tmp_path / name)]) == 0
        assert np.array_equal(columns_of(tmp_path / name), expected)
        before = tmp_path / name
    told = capsys.readouterr().out
    assert "events   500" in told
    assert "frames are dropped: hdf5 files hold events only" in told


@pytest.mark.parametrize("name", ["out.aedat4", "out"])
@pytest.mark.parametrize("is_grey", [True, False])
def test_frames_are_kept(tmp_path: Path, name: str, is_grey: bool) -> None:
    frames = GREY if is_grey else np.stack([GREY, GREY // 2, 255 - GREY], 3)
    path = write_aedat4(tmp_path / "in.aedat4", frames=frames, events=random_events(500, 4 * FRAME_STEP_US))
    assert main(["convert", str(path), str(tmp_path / name)]) == 0
    with open_recording(path) as before, open_recording(tmp_path / name) as after:
        assert np.array_equal(after.frames.times_us, before.frames.times_us)
        assert after.is_grey == is_grey
        assert all(np.array_equal(after.frames.read(i), before.frames.read(i)) for i in range(4))
        assert np.array_equal(after.events.slice(0, 2**60).t, before.events.slice(0, 2**60).t)
        if name == "out.aedat4":
            assert np.array_equal(after.frames.exposures_us, before.frames.exposures_us)  # type: ignore[attr-defined]


def test_homography_is_kept_in_a_folder(tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "h.txt").write_text("1 0 2\n0 1 0\n0 0 1\n")
    options = ["--sensor-to-frame", str(tmp_path / "h.txt")]
    assert main(["convert", str(recording), str(tmp_path / "out"), *options]) == 0
    with open_recording(tmp_path / "out") as after:
        assert after.sensor_to_frame[0, 2] == 2
    assert main(["convert", str(recording), str(tmp_path / "out.aedat4"), *options]) == 0
    assert "homography from sensor to frames is dropped" in capsys.readouterr().out


def test_cut(tmp_path: Path, recording: Path) -> None:
    expected = columns_of(recording)
    first = expected[0, 0]
    assert main(["convert", str(recording), str(tmp_path / "o.aedat4"), "--start", "0.005", "--end", "0.025"]) == 0
    kept = expected[(expected[:, 0] >= first + 5000) & (expected[:, 0] < first + 25_000)]
    assert np.array_equal(columns_of(tmp_path / "o.aedat4"), kept)
    with open_recording(tmp_path / "o.aedat4") as after:
        assert len(after.frames) == 2


def test_existing_file_is_replaced_and_losses_are_told(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o.npz").write_text("old")
    recording.write_bytes(recording.read_bytes()[:-3000])
    assert main(["convert", str(recording), str(tmp_path / "o.npz")]) == 1
    assert "--tolerant" in capsys.readouterr().err
    assert (tmp_path / "o.npz").read_text() == "old"
    assert main(["convert", str(recording), str(tmp_path / "o.npz"), "--tolerant"]) == 0
    assert "lost     " in capsys.readouterr().out
    assert 0 < len(columns_of(tmp_path / "o.npz")) < 500


def test_refusals(tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(recording), str(tmp_path / "folder")]) == 0
    assert main(["convert", str(recording), str(tmp_path / "events.npz")]) == 0
    before = sorted(path.name for path in tmp_path.rglob("*"))
    cases: list[tuple[list[str], int, str]] = [
        (["in.aedat4", "in.aedat4"], 1, "the recording is read from it"),
        (["folder", "folder/events.npz"], 1, "the recording is read from it"),
        (["folder", "folder/new.npz"], 1, "would become part of the recording"),
        (["in.aedat4", "folder"], 1, "not empty"),
        (["in.aedat4", "o.xyz"], 2, "suffix does not name a format"),
        (["in.aedat4", "o.npz", "--to", "xyz"], 2, "invalid choice"),
        (["events.npz", "new"], 1, "a folder needs frames"),
        (["nothing.aedat4", "o.npz"], 1, "no such file"),
        (["in.aedat4", "missing/o.npz"], 1, "there is no folder"),
        (["in.aedat4", "o.npz", "--start", "9"], 2, "start must be at most "),
        (["in.aedat4", "o.npz", "--start", "0.2", "--end", "0.1"], 2, "start must be before end"),
        (["in.aedat4", "o.npz", "--start", "-1"], 2, "at least 0"),
        (["in.aedat4", "o.npz", "--events-unit", "s"], 2, "always µs"),
    ]
    capsys.readouterr()
    for arguments, status, message in cases:
        paths = [str(tmp_path / argument) if i < 2 else argument for i, argument in enumerate(arguments)]
        assert main(["convert", *paths]) == status, arguments
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_start_is_after_the_first_event(tmp_path: Path, recording: Path) -> None:
    assert main(["convert", str(recording), str(tmp_path / "o.txt"), "--end", "0.001"]) == 0
    times = columns_of(tmp_path / "o.txt")[:, 0]
    assert times[0] >= START_US
    assert times[-1] < times[0] + 1000


@pytest.mark.slow
def test_bench_script_runs_on_few_events(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts/bench_formats.py"
    command = [sys.executable, str(script), "--events", "20000", "--runs", "1", "--formats", "npz", "evt2"]
    done = subprocess.run([*command, "--output", str(tmp_path / "t.md")], capture_output=True, text=True, check=True)
    assert "| npz |" in done.stdout
    assert "| evt2 |" in (tmp_path / "t.md").read_text()
