"""BS-ERGB's layout: its conventions, and what breaks them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evfi.errors import InputError, RecordingError
from evfi.events.stacks import StackConfig, event_stacks
from evfi.recordings.datasets import bsergb
from evfi.recordings.opening import open_recording

SIZE = (40, 30)
TIMES = np.array([1_000_000, 1_033_333, 1_066_666, 1_099_999, 1_133_332, 1_166_665], np.int64)
NUM_EVENTS = 600


def write_events(path: Path, start: int, end: int, **columns: NDArray[np.integer]) -> None:
    rng = np.random.default_rng(start)
    defaults = {
        "x": rng.integers(0, (SIZE[0] - 1) * 32, NUM_EVENTS).astype(np.uint16),
        "y": rng.integers(0, (SIZE[1] - 1) * 32, NUM_EVENTS).astype(np.uint16),
        "timestamp": np.sort(rng.integers(start, end, NUM_EVENTS)).astype(np.uint32),
        "polarity": rng.integers(0, 2, NUM_EVENTS).astype(np.uint8),
    }
    np.savez(path, **{**defaults, **columns})


def write_timestamps(folder: Path, times: NDArray[np.int64]) -> None:
    (folder / "images/timestamp.txt").write_text("".join(f"{time}\n" for time in times) + "\n")


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    folder = tmp_path / "seq"
    (folder / "images").mkdir(parents=True)
    (folder / "events").mkdir()
    for i in range(len(TIMES)):
        Image.new("RGB", SIZE, (i, 0, 0)).save(folder / f"images/{i:06d}.png")
    write_timestamps(folder, TIMES)
    for i in range(len(TIMES) - 1):
        write_events(folder / f"events/{i:06d}.npz", TIMES[i], TIMES[i + 1])
    return folder


def test_windows_hold_their_intervals(sequence: Path) -> None:
    recording = open_recording(sequence)
    assert (recording.format, len(recording.frames), recording.events.sensor_size) == ("bs-ergb", 6, SIZE)
    assert recording.frames.times_us.tolist() == TIMES.tolist()
    for window in recording.windows(recording.plan_windows(insert=1)):
        assert len(window.events) == NUM_EVENTS
        assert window.start_image[0, 0, 0] == window.spec.start_frame
    assert len(recording.load_window(recording.plan_windows(insert=3, skip=2)[1]).events) == 2 * NUM_EVENTS


def test_subpixels_are_rounded_half_to_even_and_wrapped_ones_dropped(sequence: Path) -> None:
    x = np.full(NUM_EVENTS, 320, np.uint16)
    x[:5] = [65534, 16, 48, 40 * 32 - 17, 40 * 32 - 16]  # -2/32, 0.5, 1.5, 39.47, 39.5 px
    times = TIMES[0] + np.arange(NUM_EVENTS, dtype=np.uint32)
    write_events(sequence / "events/000000.npz", TIMES[0], TIMES[1], x=x, timestamp=times)
    window = open_recording(sequence)
    events = window.read_events(int(TIMES[0]), int(TIMES[1]))
    assert events.x[:4].tolist() == [0, 2, 39, 10]
    assert events.num_dropped == 2


def test_events_at_the_edges_belong_to_one_window(sequence: Path) -> None:
    times = np.linspace(TIMES[0], TIMES[1], NUM_EVENTS).astype(np.uint32)  # the last one at the next frame's time
    write_events(sequence / "events/000000.npz", TIMES[0], TIMES[1], timestamp=times)
    recording = open_recording(sequence)
    counts = [len(w.events) for w in recording.windows(recording.plan_windows(insert=1))]
    assert counts == [NUM_EVENTS - 1, NUM_EVENTS + 1, NUM_EVENTS, NUM_EVENTS, NUM_EVENTS]


def test_empty_event_files_are_fine(sequence: Path) -> None:
    empty = np.zeros(0)
    for i in (0, 2):
        write_events(sequence / f"events/{i:06d}.npz", 0, 1, x=empty, y=empty, timestamp=empty, polarity=empty)
    recording = open_recording(sequence)
    assert [len(w.events) for w in recording.windows(recording.plan_windows(insert=1))] == [0, 600, 0, 600, 600]
    assert recording.warnings == ("windows between key frames without any event: 1 at the start of 5",)


@pytest.mark.parametrize(
    ("lines", "num_wrong"),
    [
        ({0: 500_000}, 1),  # too early: the interval is long and its events fill a part
        ({0: 2_000_000}, 1),  # later than the next
        ({0: 100, 1: 200}, 2),
        ({0: 100, 1: 33_433, 2: 66_766}, 3),
    ],
)
def test_wrong_first_lines_are_named(sequence: Path, lines: dict[int, int], num_wrong: int) -> None:
    times = TIMES.copy()
    times[list(lines)] = list(lines.values())
    write_timestamps(sequence, times)
    with pytest.raises(InputError, match=rf"first {num_wrong} line\(s\) of timestamp.txt disagree with the event"):
        open_recording(sequence)


def test_files_numbered_by_their_end_frame(sequence: Path) -> None:
    for i in range(1, 5):
        write_events(sequence / f"events/{i:06d}.npz", TIMES[i - 1], TIMES[i])
    with pytest.raises(InputError, match="fits frames 0 and 1: files seem to be numbered by their end frame"):
        open_recording(sequence)


def test_other_clock_and_wrong_place(sequence: Path) -> None:
    write_events(sequence / "events/000002.npz", TIMES[4], TIMES[5])
    with pytest.raises(InputError, match=r"000002.npz: expected events between frames 2 and 3.*fits frames 4 and 5"):
        open_recording(sequence)
    for i in range(5):
        write_events(sequence / f"events/{i:06d}.npz", 10 * TIMES[i], 10 * TIMES[i + 1])
    with pytest.raises(InputError, match=r"fits no two frames; check that timestamp.txt belongs"):
        open_recording(sequence)


def test_whole_pixels_are_another_convention(sequence: Path) -> None:
    for i in range(5):
        columns = {name: np.random.default_rng(0).integers(0, 30, NUM_EVENTS).astype(np.uint16) for name in "xy"}
        write_events(sequence / f"events/{i:06d}.npz", TIMES[i], TIMES[i + 1], **columns)
    with pytest.raises(InputError, match="seem to be whole pixels"):
        open_recording(sequence, format=bsergb.NAME)
    assert open_recording(sequence).format == "clear-motion"


def test_larger_scale_is_another_convention(sequence: Path) -> None:
    x = np.random.default_rng(0).integers(0, SIZE[0] * 128, NUM_EVENTS).astype(np.uint16)
    write_events(sequence / "events/000000.npz", TIMES[0], TIMES[1], x=x)
    with pytest.raises(InputError, match="do not seem to be 1/32 px"):
        open_recording(sequence)


def test_missing_files(sequence: Path) -> None:
    (sequence / "events/000002.npz").unlink()
    with pytest.raises(InputError, match=r"expected events/000002.npz, found 000003.npz in its place"):
        open_recording(sequence)
    (sequence / "events/000003.npz").rename(sequence / "events/000002.npz")
    (sequence / "events/000004.npz").unlink()
    with pytest.raises(InputError, match="one event file fewer than images, found 6 images and 3 event files"):
        open_recording(sequence)
    (sequence / "images/000005.png").unlink()
    with pytest.raises(InputError, match="found 6 times for 5 frames"):
        open_recording(sequence)


def test_damaged_event_file(sequence: Path) -> None:
    path = sequence / "events/000001.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"000001.npz: damaged or truncated .npz"):
        open_recording(sequence)


def test_float_coordinates_are_another_dataset(sequence: Path) -> None:
    for i in range(5):
        columns = {name: np.full(NUM_EVENTS, 3.5, np.float32) for name in "xy"}
        write_events(sequence / f"events/{i:06d}.npz", TIMES[i], TIMES[i + 1], **columns)  # type: ignore[arg-type]
    assert not bsergb.recognises(sequence)
    with pytest.raises(InputError, match="must be integers, found float32"):
        open_recording(sequence, format=bsergb.NAME)


def test_all_event_files_empty(sequence: Path) -> None:
    empty = np.zeros(0)
    for i in range(5):
        write_events(sequence / f"events/{i:06d}.npz", 0, 1, x=empty, y=empty, timestamp=empty, polarity=empty)
    with pytest.raises(RecordingError, match="all event files are empty"):
        open_recording(sequence, format=bsergb.NAME)


def test_events_reproduce_the_reference_stacks(shared_dir: Path) -> None:
    """The reference leaves out the very last event of a window; otherwise every level is equal."""
    recording = open_recording(shared_dir / "golden/bsergb_mini/seq_00")
    reference = np.load(shared_dir / "golden/bsergb_mini_conditioning.npz")
    counts = [len(w.events) for w in recording.windows(recording.plan_windows(insert=1))]
    assert counts == [1500, 1700, 1900, 2100, 2300, 2500]
    for name in reference.files:
        match = re.fullmatch(r"skip(\d+)_scale(\d+)_idx(\d+)\.events_forward", name)
        if match is None:
            continue
        skip, scale, first = (int(group) for group in match.groups())
        times = recording.frames.times_us[first : first + skip + 2]
        events = recording.read_events(int(times[0]), int(times[-1]))
        seen = events.slice(int(times[0]), int(events.t[-1]))
        for stacks, direction in zip(
            event_stacks(seen, times, (104 * scale, 80 * scale), StackConfig()), ("forward", "backward"), strict=True
        ):
            expected = reference[name.replace("forward", direction)]
            assert np.array_equal(np.rint((stacks.numpy() + 1) * 127), expected), name
