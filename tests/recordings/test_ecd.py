"""ECD's text layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evfi.errors import InputError, RecordingError
from evfi.recordings.opening import open_recording

SIZE = (12, 10)


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(4):
        Image.new("L", SIZE, 50 * i).save(folder / f"images/frame_{i:08d}.png")
        lines.append(f"{i * 0.0387650012:.9f} images/frame_{i:08d}.png\n")
    (folder / "images.txt").write_text("".join(lines))
    rows = [f"{0.001 * i + 0.0000004:.9f} {i % 12} {i % 10} {i % 2}\n" for i in range(1, 110)]
    (folder / "events.txt").write_text("".join(rows))
    (folder / "calib.txt").write_text("199 198 132 110 -0.36 0.15 0 0 0\n")
    return folder


def test_windows(sequence: Path) -> None:
    recording = open_recording(sequence)
    assert (recording.format, recording.is_grey, recording.frames.size) == ("ecd", True, SIZE)
    assert recording.frames.times_us.tolist() == [0, 38765, 77530, 116295]
    windows = list(recording.windows(recording.plan_windows(insert=1)))
    assert [len(w.events) for w in windows] == [38, 39, 32]
    assert windows[0].events.t[:2].tolist() == [1000, 2000]
    assert windows[1].start_image[0, 0].tolist() == [50, 50, 50]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("0.0\n", "line 1: expected 'seconds path', found '0.0'"),
        ("a images/frame_00000000.png\n", "line 1: expected one time, found 'a'"),
        ("# t path\n\n0.0 images/none.png\n", "there is no picture"),
        ("0.0 ../../secret.png\n", "points outside the folder"),
        ("0.0 /etc/hostname\n", "points outside the folder"),
        ("nan images/frame_00000000.png\n0.1 images/frame_00000001.png\n", "finite"),
        ("0.1 images/frame_00000000.png\n0.1 images/frame_00000001.png\n", "frames 0 and 1 are at 100000 then 100000"),
    ],
)
def test_broken_index(sequence: Path, index: str, message: str) -> None:
    (sequence / "images.txt").write_text(index)
    with pytest.raises(InputError, match=message):
        open_recording(sequence)


def test_too_few_frames(sequence: Path) -> None:
    (sequence / "images.txt").write_text("0.0 images/frame_00000000.png\n")
    with pytest.raises(RecordingError, match=r"at least two frames in images.txt, found 1"):
        open_recording(sequence)


def test_truncated_events(sequence: Path) -> None:
    text = (sequence / "events.txt").read_text()
    (sequence / "events.txt").write_text(text[:-4])
    with pytest.raises(InputError, match=r"events.txt: line 109: .*expected 4 columns.*may be truncated"):
        open_recording(sequence)


def test_frames_of_two_sizes(sequence: Path) -> None:
    Image.new("L", (8, 8)).save(sequence / "images/frame_00000002.png")
    recording = open_recording(sequence)
    with pytest.raises(InputError, match="expected 12×10 like the first frame, found 8×8"):
        recording.load_window(recording.plan_windows(insert=1)[1])


def test_real_sequence(shared_dir: Path) -> None:
    recording = open_recording(shared_dir / "data/recordings/slider_depth_davis240")
    first, last = recording.events.time_range_us
    assert (first, last) == (3811, 3404080)
    events = recording.events.slice(first, last + 1)
    assert (len(events), events.num_dropped) == (1_078_541, 0)
    assert (len(recording.frames), recording.is_grey, recording.frames.size) == (87, True, (240, 180))
    assert recording.frames.times_us[:3].tolist() == [0, 38766, 77531]
    window = recording.load_window(recording.plan_windows(insert=1)[5])
    assert len(window.events) == np.count_nonzero(
        (events.t >= window.spec.times_us[0]) & (events.t < window.spec.times_us[-1])
    )
