"""Recordings in bags of ROS 1 and ROS 2."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evfi.errors import InputError, RecordingError
from evfi.recordings.opening import open_recording
from file_writers.rosbag import Message, compressed_image, event_arrays, event_packets, image, write_bag

SIZE = (16, 12)
START_US = 1_600_000_000_000_000
STEP_US = 40_000
NUM_FRAMES = 4


def pictures(channels: int = 3, dtype: type = np.uint8, count: int = NUM_FRAMES) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    shape = (SIZE[1], SIZE[0]) if channels == 1 else (SIZE[1], SIZE[0], channels)
    return [rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True) for _ in range(count)]


def times(count: int = NUM_FRAMES) -> list[int]:
    return [START_US + i * STEP_US for i in range(count)]


def event_messages(topic: str = "/dvs/events") -> list[Message]:
    rng = np.random.default_rng(6)
    t = START_US + np.sort(rng.integers(0, NUM_FRAMES * STEP_US, 500))
    columns = rng.integers(0, SIZE[0], 500), rng.integers(0, SIZE[1], 500), t, rng.integers(0, 2, 500)
    return list(event_arrays(*columns, SIZE, topic=topic))


def write(
    path: Path,
    frames: list[Message],
    kind: str = "ros1",
    compression: str | None = None,
    events: list[Message] | None = None,
) -> Path:
    events = event_messages() if events is None else events
    return write_bag(path, kind, sorted(events + frames, key=lambda message: message[2]), compression)


def image_messages(stored: list[np.ndarray], encoding: str, **how: object) -> list[Message]:
    return [image(pixels, encoding, time, **how) for pixels, time in zip(stored, times(len(stored)), strict=True)]


@pytest.mark.parametrize(
    ("kind", "compression"),
    [("ros1", None), ("ros1", "bz2"), ("ros2", None), ("ros2", "message"), ("mcap", None), ("mcap", "storage")],
)
def test_frames_and_events_come_back_from_every_container(tmp_path: Path, kind: str, compression: str | None) -> None:
    stored = pictures()
    path = write(tmp_path / "bag", image_messages(stored, "rgb8"), kind, compression)
    with open_recording(path) as recording:
        assert recording.format == "rosbag"
        assert recording.frames.size == recording.events.sensor_size == SIZE
        assert recording.frames.times_us.tolist() == times()
        assert not recording.is_grey
        assert recording.warnings == ()
        for index in (3, 0, 2, 1):
            np.testing.assert_array_equal(recording.frames.read(index), stored[index])
        window = recording.load_window(recording.plan_windows(insert=1)[1])
        assert window.events.t.min() >= times()[1]


@pytest.mark.parametrize(
    ("encoding", "channels", "order"),
    [
        ("mono8", 1, (0, 0, 0)),
        ("8UC1", 1, (0, 0, 0)),
        ("rgb8", 3, (0, 1, 2)),
        ("bgr8", 3, (2, 1, 0)),
        ("8UC3", 3, (2, 1, 0)),
        ("rgba8", 4, (0, 1, 2)),
        ("bgra8", 4, (2, 1, 0)),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_channels_come_in_their_order(
    tmp_path: Path, encoding: str, channels: int, order: tuple[int, ...], padding: int
) -> None:
    stored = pictures(channels)
    with open_recording(write(tmp_path / "a.bag", image_messages(stored, encoding, padding=padding))) as recording:
        expected = stored[2].reshape(SIZE[1], SIZE[0], channels)[..., list(order)]
        np.testing.assert_array_equal(recording.frames.read(2), expected)
        assert recording.is_grey == (channels == 1)


@pytest.mark.parametrize(("encoding", "channels"), [("mono16", 1), ("bgr16", 3)])
@pytest.mark.parametrize("is_big", [False, True])
def test_deep_pictures_are_scaled_with_a_note(tmp_path: Path, encoding: str, channels: int, is_big: bool) -> None:
    stored = pictures(channels, np.uint16)
    path = write(tmp_path / "a.bag", image_messages(stored, encoding, is_big=is_big, padding=2))
    with open_recording(path) as recording:
        expected = np.rint(stored[1].reshape(SIZE[1], SIZE[0], channels) / 257.0)[..., ::-1]
        np.testing.assert_array_equal(recording.frames.read(1), np.broadcast_to(expected, (SIZE[1], SIZE[0], 3)))
        assert any("16 bits" in warning for warning in recording.warnings)


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_pictures_are_interpolated(tmp_path: Path, order: str) -> None:
    """A plane of each colour that grows linearly comes back exactly, away from the edges."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    scene = np.stack([10 + 4 * x + 2 * y, 200 - 6 * x - 2 * y, 30 + 2 * x + 8 * y], axis=2).astype(np.uint8)
    mosaic = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for place, letter in enumerate(order):
        rows, columns = np.s_[place // 2 :: 2], np.s_[place % 2 :: 2]
        mosaic[rows, columns] = scene[rows, columns, "rgb".index(letter)]
    path = write(tmp_path / "a.bag", image_messages([mosaic, mosaic], f"bayer_{order}8"))
    with open_recording(path) as recording:
        np.testing.assert_array_equal(recording.frames.read(0)[1:-1, 1:-1], scene[1:-1, 1:-1])


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_compressed_pictures_are_read(tmp_path: Path, file_format: str) -> None:
    stored = [np.full((SIZE[1], SIZE[0], 3), (200, 100 + i, 50), np.uint8) for i in range(NUM_FRAMES)]
    frames = []
    for pixels, time in zip(stored, times(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, file_format)
        frames.append(compressed_image(buffer.getvalue(), time))
    with open_recording(write(tmp_path / "bag", frames, "mcap")) as recording:
        difference = recording.frames.read(3).astype(int) - stored[3]
        assert np.abs(difference).max() <= (0 if file_format == "PNG" else 3)


def test_frames_beside_the_events_are_taken_and_others_named(tmp_path: Path) -> None:
    wanted, other = pictures(), pictures(1)
    frames = image_messages(wanted, "rgb8", topic="/rig/image_raw") + image_messages(other, "mono8")
    frames += image_messages(other, "mono8", topic="/rig/dvs_rendering")
    path = write(tmp_path / "a.bag", frames, events=event_messages("/rig/events"))
    with open_recording(path) as recording:
        np.testing.assert_array_equal(recording.frames.read(0), wanted[0])
        assert any("'/dvs/image_raw'" in warning for warning in recording.warnings)


def test_events_on_the_cameras_clock_lie_on_the_frames_clock(tmp_path: Path) -> None:
    t = np.arange(0, NUM_FRAMES * STEP_US, 100)
    zeros = np.zeros(len(t), np.int64)
    packets = list(event_packets(zeros, zeros, t, zeros, SIZE, "evt3", ros_minus_camera_us=START_US))
    with open_recording(write(tmp_path / "a.bag", image_messages(pictures(), "rgb8"), events=packets)) as recording:
        assert recording.events.time_range_us == (START_US, START_US + t[-1])


def test_frames_whose_time_does_not_grow_are_left_out_and_counted(tmp_path: Path) -> None:
    stored = pictures(count=5)
    stamps = [0, 1, 1, 0, 2]
    frames = [image(p, "rgb8", START_US + s * STEP_US) for p, s in zip(stored, stamps, strict=True)]
    path = write_bag(tmp_path / "a.bag", "ros1", event_messages() + frames)
    with open_recording(path) as recording:
        assert len(recording.frames) == 3
        np.testing.assert_array_equal(recording.frames.read(2), stored[4])
        assert any("2 frames were left out" in warning for warning in recording.warnings)


def test_a_bag_without_frames_is_an_event_file(tmp_path: Path) -> None:
    for kind in ("ros1", "ros2"):
        path = write(tmp_path / kind, [], kind)
        with pytest.raises(InputError, match=r"an event file \(rosbag\) without frames; give pictures or a video"):
            open_recording(path)
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "times.txt").write_text("\n".join(map(str, times())))
    with open_recording(folder, events=path, timestamps=tmp_path / "times.txt") as recording:
        assert len(recording.events.slice(START_US, START_US + 10 * STEP_US)) == 500


def test_a_bag_without_events_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bag", image_messages(pictures(), "rgb8"), events=[])
    with pytest.raises(RecordingError, match=r"no event topic .*/dvs/image_raw"):
        open_recording(path)

    events = write(tmp_path / "b.bag", [])
    with open_recording(path, events=events) as recording:
        assert recording.events.report.num_events == 500
        assert len(recording.frames) == NUM_FRAMES


def test_other_versions_and_damaged_headers_are_named(tmp_path: Path) -> None:
    for content, expected in (
        (b"#ROSBAG V1.2\n" + bytes(5000), "found 'ROSBAG V1.2'"),
        (b"#ROSBAG V2.0\n" + bytes(5000), "its header"),
        (b"\x89MCAP0\r\n" + bytes(5000), "no topic"),
    ):
        (tmp_path / "a.bag").write_bytes(content)
        with pytest.raises((InputError, RecordingError), match=expected):
            open_recording(tmp_path / "a.bag", tolerant=True, format="rosbag")


@pytest.mark.parametrize(
    ("problem", "expected"),
    [("short", "has only"), ("step", "bytes per row"), ("size", "same size"), ("encoding", "'yuv422'"), ("png", "PNG")],
)
def test_bad_pictures_are_refused_and_left_out_when_asked(tmp_path: Path, problem: str, expected: str) -> None:
    frames = image_messages(pictures(), "rgb8")
    topic, kind, time, data = frames[2]
    if problem == "short":
        data = data.replace((16 * 12 * 3).to_bytes(4, "little"), (100).to_bytes(4, "little"))[: -16 * 12 * 3 + 100]
    elif problem == "step":
        data = data.replace((48).to_bytes(4, "little"), (47).to_bytes(4, "little"))
    elif problem == "size":
        data = image(np.zeros((5, 5, 3), np.uint8), "rgb8", times()[2])[3]
    elif problem == "encoding":
        data = image(np.zeros((12, 16, 2), np.uint8), "yuv422", times()[2])[3]
    else:
        frames = [compressed_image(b"\x89PNG\r\n\x1a\n no picture", t, topic=topic) for t in times()]
        with pytest.raises(InputError, match=expected):
            open_recording(write(tmp_path / "a.bag", frames))
        return
    frames[2] = (topic, kind, time, data)
    path = write(tmp_path / "a.bag", frames)
    with pytest.raises(InputError, match=expected):
        open_recording(path)
    with open_recording(path, tolerant=True) as recording:
        assert len(recording.frames) == 3
        assert any("frames: damaged" in warning for warning in recording.warnings)


def test_a_bag_cut_between_frames_is_read_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bag", image_messages(pictures(), "rgb8"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 5])
    with pytest.raises(InputError, match="--tolerant"):
        open_recording(path)
    with open_recording(path, tolerant=True) as recording:
        assert 2 <= len(recording.frames) < NUM_FRAMES
        np.testing.assert_array_equal(recording.frames.read(0), pictures()[0])


def test_a_real_bag_of_events_only_is_explained(shared_dir: Path) -> None:
    for name in ("event_camera_codecs_evt3.bag", "event_camera_codecs.mcap", "ros2_evt3"):
        with pytest.raises(InputError, match=r"an event file \(rosbag\) without frames"):
            open_recording(shared_dir / "data" / "recordings" / name)
