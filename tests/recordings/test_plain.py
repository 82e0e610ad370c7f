"""The plain layout: written and read back, declared units and geometry, parts named one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evfi.errors import InputError, OutputError, RecordingError
from evfi.events.stream import EventStream
from evfi.recordings.datasets.plain import write_plain_recording
from evfi.recordings.opening import open_recording
from evfi.video.writer import VideoWriter
from file_writers.aedat4 import START_US, random_events, write_aedat4

SIZE = (16, 12)
TIMES = [0, 1000, 2000]


def make_frames(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (count, SIZE[1], SIZE[0], 3)).astype(np.uint8)


def make_events(count: int = 200, sensor: tuple[int, int] = SIZE) -> EventStream:
    rng = np.random.default_rng(1)
    columns = (rng.integers(0, high, count) for high in (*sensor, 2000))
    return EventStream.from_arrays(*columns, rng.choice([-1, 1], count), sensor)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plain_recording(tmp_path / "rec", make_frames(), TIMES, make_events())
    return tmp_path / "rec"


def declare(folder: Path, **settings: object) -> None:
    (folder / "recording.json").write_text(json.dumps(settings))


def test_round_trip(folder: Path) -> None:
    recording, frames, events = open_recording(folder), make_frames(), make_events()
    assert (recording.format, recording.is_grey, recording.warnings) == ("plain", False, ())
    assert recording.frames.times_us.tolist() == TIMES
    assert all(np.array_equal(recording.frames.read(i), frames[i]) for i in range(3))
    stream = recording.events.slice(0, 2000)
    for name in "xytp":
        assert np.array_equal(getattr(stream, name), getattr(events, name))
    assert sorted(path.name for path in folder.iterdir()) == [
        "events.npz",
        "frames",
        "recording.json",
        "timestamps.txt",
    ]
    columns = np.load(folder / "events.npz")
    assert {name: columns[name].dtype for name in columns.files} == {
        "x": np.uint16,
        "y": np.uint16,
        "t": np.int64,
        "p": np.int8,
    }


def test_streams_are_written_one_after_the_other(tmp_path: Path) -> None:
    events = make_events()
    write_plain_recording(
        tmp_path / "rec", iter(make_frames()), TIMES, (events.slice(t, t + 500) for t in range(0, 2000, 500))
    )
    assert np.array_equal(open_recording(tmp_path / "rec").events.slice(0, 2000).t, events.t)


def test_nothing_half_written(tmp_path: Path) -> None:
    def broken() -> Iterator[EventStream]:
        yield make_events()
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_plain_recording(tmp_path / "rec", make_frames(), TIMES, broken())
    with pytest.raises(InputError, match="2 frames and 3 times"):
        write_plain_recording(tmp_path / "rec", make_frames(2), TIMES, make_events())
    with pytest.raises(InputError, match="increase strictly"):
        write_plain_recording(tmp_path / "rec", make_frames(), [0, 0, 1], make_events())
    with pytest.raises(RecordingError, match="no events to write"):
        write_plain_recording(tmp_path / "rec", make_frames(), TIMES, [])
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(OutputError, match="it is not empty; choose another"):
        write_plain_recording(folder, make_frames(), TIMES, make_events())
    with pytest.raises(OutputError, match="there is no folder"):
        write_plain_recording(tmp_path / "none/rec", make_frames(), TIMES, make_events())
    (tmp_path / "empty").mkdir()
    write_plain_recording(tmp_path / "empty", make_frames(), TIMES, make_events())
    assert len(open_recording(tmp_path / "empty").frames) == 3


def test_declared_units(folder: Path) -> None:
    events = make_events()
    (folder / "timestamps.txt").write_text("# seconds\n0.0000\n0.0010\n0.0020000004\n")
    (folder / "events.npz").unlink()
    rows = np.stack([events.t * 1000, events.x, events.y, events.p], axis=1)
    np.savetxt(folder / "events.txt", rows, fmt="%d")
    with pytest.raises(InputError, match=r"timestamps.txt: expected times in whole microseconds, got 0\.001"):
        open_recording(folder)
    declare(folder, timestamps_unit="s", events_time_unit="ns")
    recording = open_recording(folder)
    assert recording.frames.times_us.tolist() == TIMES
    assert np.array_equal(recording.events.slice(0, 2000).t, events.t)


def test_other_sensor_size_scales_and_other_shape_warns(tmp_path: Path) -> None:
    write_plain_recording(tmp_path / "half", make_frames(), TIMES, make_events(sensor=(8, 6)))
    recording = open_recording(tmp_path / "half")
    assert recording.load_window(recording.plan_windows(insert=1)[0]).events.sensor_size == (8, 6)
    assert recording.warnings == ()
    write_plain_recording(tmp_path / "square", make_frames(), TIMES, make_events(sensor=(8, 8)))
    assert "sensor (8×8) and frames (16×12) differ in shape" in open_recording(tmp_path / "square").warnings[0]


def test_declared_mapping_warps(tmp_path: Path) -> None:
    write_plain_recording(tmp_path / "rec", make_frames(), TIMES, make_events(sensor=(8, 6)))
    declare(tmp_path / "rec", sensor_size=[8, 6], sensor_to_frame=[[1, 0, 4], [0, 1, 3], [0, 0, 1]])
    recording = open_recording(tmp_path / "rec")
    events = recording.load_window(recording.plan_windows(insert=1)[0]).events
    assert events.sensor_size == SIZE
    assert events.x.min() >= 4
    assert events.y.max() <= 8


def test_assumed_sensor_size_that_is_too_small(folder: Path) -> None:
    np.savez(folder / "events.npz", x=[3, 300], y=[1, 2], t=[5, 6], p=[0, 1])
    (folder / "recording.json").unlink()
    with pytest.raises(
        InputError, match=r"1 of 2 events lie outside 16×12, the size of the frames; declare the sensor"
    ):
        open_recording(folder)
    declare(folder, sensor_size=[320, 240])
    assert len(open_recording(folder).events.slice(0, 10)) == 2


def test_events_of_another_size_than_declared(folder: Path) -> None:
    (folder / "events.npz").unlink()
    (folder / "events.txt").write_text("20 20\n1 1 1 0\n2 1 1 1\n")
    with pytest.raises(InputError, match=r"says sensor size \(20, 20\), recording.json says \(16, 12\)"):
        open_recording(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a declaration in JSON"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("[]", r"expected the declaration to be an object, found \[\]"),
        (
            '{"units": "s"}',
            'unknown key "units" in the declaration; expected one of .*sensor_to_frame, timestamps_unit',
        ),
        ('{"timestamps_unit": "h"}', 'must be one of s, ms, us, ns, found "h"'),
        ('{"timestamps_unit": []}', "must be one of s, ms, us, ns"),
        ('{"sensor_size": [1, "2"]}', "a list of length 2, each a whole number"),
        ('{"sensor_size": [true, 2]}', "a list of length 2, each a whole number"),
        ('{"sensor_size": [16, 1000000000000]}', "a list of length 2, each a whole number"),
        ('{"sensor_to_frame": [[1, 0], [0, 1]]}', "a list of length 3, each a list of length 3"),
        ('{"sensor_to_frame": [[1, 0, 0], [0, 1, 0], [0, 0, 1' + "0" * 400 + "]]}", "each a number from"),
        ('{"sensor_to_frame": ' + "[" * 60 + "]" * 60 + "}", "each a list of length 3"),
        ('{"sensor_to_frame": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}', "invertible"),
    ],
)
def test_broken_declarations(folder: Path, content: str, message: str) -> None:
    (folder / "recording.json").write_text(content)
    with pytest.raises(InputError, match=message):
        open_recording(folder)


def test_named_parts(tmp_path: Path, folder: Path) -> None:
    (folder / "events.npz").rename(tmp_path / "ev.npz")
    (folder / "timestamps.txt").rename(tmp_path / "stamps.txt")
    with pytest.raises(InputError, match="the frames have no times"):
        open_recording(folder, events=tmp_path / "ev.npz")
    pictures = folder / "frames"
    recording = open_recording(pictures, events=tmp_path / "ev.npz", timestamps=tmp_path / "stamps.txt")
    assert (recording.format, len(recording.frames)) == ("plain", 3)


def test_aedat4_events_beside_frames(tmp_path: Path, folder: Path) -> None:
    (folder / "events.npz").unlink()
    (folder / "recording.json").unlink()
    (folder / "timestamps.txt").write_text("".join(f"{START_US + t}\n" for t in TIMES))
    write_aedat4(folder / "events.aedat4", events=random_events(100, 2000))
    recording = open_recording(folder)
    assert recording.format == "plain"
    assert recording.events.sensor_size == (32, 24)
    assert len(recording.events.slice(START_US, START_US + 2000)) == 100


def test_video_frames(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    folder.mkdir()
    with VideoWriter(folder / "frames.mp4", SIZE, 500) as writer:
        for frame in make_frames():
            writer.write(frame)
    np.savez(folder / "events.npz", x=[1, 2], y=[1, 2], t=[500, 1500], p=[0, 1])
    recording = open_recording(folder)
    assert recording.frames.times_us.tolist() == [0, 2000, 4000]
    assert recording.warnings[0] == "no timestamps.txt: frame times are the presentation times of frames.mp4"
    (folder / "timestamps.txt").write_text("0\n1000\n2000\n")
    with open_recording(folder) as timed:
        assert timed.frames.times_us.tolist() == TIMES
        assert timed.load_window(timed.plan_windows(insert=1)[0]).start_image.shape == (12, 16, 3)
        assert not timed.is_grey
    (folder / "timestamps.txt").write_text("0\n1000\n")
    with pytest.raises(InputError, match="found 2 times for 3 frames"):
        open_recording(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n1000\n", "found 2 times for 3 frames"),
        ("0 0\n1 1000\n2 2000\n", "line 1: expected one time, found '0 0'"),
        ("0\n1000\n1000\n", "frames 1 and 2 are at 1000 then 1000"),
        ("0\n1000\nnan\n", "finite"),
    ],
)
def test_broken_timestamps(folder: Path, text: str, message: str) -> None:
    (folder / "timestamps.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_recording(folder)


def test_frames_are_ordered_by_number(folder: Path) -> None:
    for old, new in (("000000", "f_2"), ("000001", "f_10"), ("000002", "f_1")):
        (folder / f"frames/{old}.png").rename(folder / f"frames/{new}.png")
    recording, frames = open_recording(folder), make_frames()
    assert [bool(np.array_equal(recording.frames.read(i), frames[j])) for i, j in enumerate((2, 0, 1))] == [True] * 3


def test_several_event_files_and_truncated_picture(tmp_path: Path, folder: Path) -> None:
    (folder / "events.txt").write_text("1 1 1 0\n")
    with pytest.raises(InputError, match=r"several event files \(events.npz, events.txt\); name the event file"):
        open_recording(folder)
    (folder / "events.txt").unlink()
    picture = folder / "frames/000001.png"
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(InputError, match=r"000001.png"):
        recording = open_recording(folder)
        recording.frames.read(1)


def test_no_frames(tmp_path: Path, folder: Path) -> None:
    for picture in (folder / "frames").iterdir():
        picture.unlink()
    with pytest.raises(RecordingError, match="found no picture"):
        open_recording(folder)
    Image.new("RGB", SIZE).save(folder / "frames/0.png")
    (folder / "timestamps.txt").write_text("0\n")
    with pytest.raises(RecordingError, match="at least two frames, found 1"):
        open_recording(folder)
