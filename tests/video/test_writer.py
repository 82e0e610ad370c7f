"""Videos hold what was written: pixels or their look, times, and the same bytes wherever they are written."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from moving_pictures import mean_difference, moving_frames, write_video

from evfi.errors import ConfigError, OutputError
from evfi.video.io import VideoFrames
from evfi.video.writer import VideoConfig, VideoWriter

KINDS = [("h264", ".mp4"), ("h265", ".mp4"), ("ffv1", ".mkv"), ("h264", ".mkv"), ("h265", ".mkv")]


def noise(count: int, width: int, height: int) -> list[np.ndarray]:
    return list(np.random.default_rng(5).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("codec", "name", "tag"), [("h264", "h264", "avc1"), ("h265", "hevc", "hvc1")])
def test_video_plays_everywhere(tmp_path: Path, codec: str, name: str, tag: str):
    path = write_video(tmp_path / "a.mp4", moving_frames(3, 65, 47), config=VideoConfig(codec=codec))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.codec_tag, context.pix_fmt) == (name, tag, "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert (stream.width, stream.height) == (66, 48)


@pytest.mark.parametrize(("path", "name"), [("a.mp4", "h264"), ("a.mkv", "ffv1"), ("a.MKV", "ffv1")])
def test_container_tells_the_codec(tmp_path: Path, path: str, name: str):
    write_video(tmp_path / path, moving_frames(2))
    with av.open(str(tmp_path / path)) as container:
        assert container.streams.video[0].codec_context.name == name


@pytest.mark.parametrize("config", [VideoConfig(codec="h264"), VideoConfig(codec="h265")])
def test_mkv_holds_the_other_codecs_too(tmp_path: Path, config: VideoConfig):
    frames = moving_frames(12)
    with VideoFrames(write_video(tmp_path / "a.mkv", frames, config=config)) as video:
        assert len(video) == 12
        assert all(mean_difference(video.read(index), frames[index]) < 4 for index in range(12))


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_odd_sides_repeat_the_last_row_and_column(tmp_path: Path, codec: str):
    frames = moving_frames(2, 65, 47)
    with VideoFrames(write_video(tmp_path / "a.mp4", frames, config=VideoConfig(codec=codec))) as video:
        read = video.read(0)
    assert mean_difference(read[:47, :65], frames[0]) < 4
    assert mean_difference(read[46], read[47]) < 3


@pytest.mark.parametrize("size", [(64, 48), (65, 47), (346, 260), (33, 2), (3, 3), (1, 1), (1, 40)])
def test_mkv_is_lossless(tmp_path: Path, size: tuple[int, int]):
    frames = noise(4, *size)
    with VideoFrames(write_video(tmp_path / "a.mkv", frames)) as video:
        assert video.size == size
        for index in (0, 1, 2, 3, 1):
            np.testing.assert_array_equal(video.read(index), frames[index])


def test_lossless_values_of_all_colours(tmp_path: Path):
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    with VideoFrames(write_video(tmp_path / "a.mkv", [colours])) as video:
        np.testing.assert_array_equal(video.read(0), colours)


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
def test_quality_and_speed_change_the_size(tmp_path: Path, codec: str, suffix: str):
    if codec == "ffv1":
        return
    frames = moving_frames(6)

    def size(**settings: object) -> int:
        return len(write_video(tmp_path / f"a{suffix}", frames, config=VideoConfig(codec, **settings)).read_bytes())

    assert size(quality=35) < size() < size(quality=4)
    assert size() == size(quality=16 if codec == "h264" else 18)
    assert size(encoder_speed="ultrafast") != size()


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
@pytest.mark.parametrize("typical_us", [40_000, 400_000, 4_000])
def test_every_frame_has_its_time(tmp_path: Path, codec: str, suffix: str, typical_us: int):
    frames = moving_frames(30)
    steps = np.random.default_rng(3).integers(typical_us // 2, 2 * typical_us, 29)
    shown = [0, *np.cumsum(steps).tolist()]
    path = tmp_path / f"a{suffix}"
    with VideoWriter(path, (64, 48), 25, VideoConfig(codec), is_constant=False) as writer:
        for frame, shown_us in zip(frames, shown, strict=True):
            writer.write(frame, shown_us)
    tolerance = 6 if suffix == ".mp4" else 500
    with VideoFrames(path) as video:
        assert np.abs(video.times_us - shown).max() <= tolerance
        for index in (0, 17, 29):
            assert int(np.argmin([mean_difference(video.read(index), frame) for frame in frames])) == index
    with av.open(str(path)) as container:
        assert container.start_time == 0
        assert abs(container.duration - (shown[-1] + 40_000)) <= 2 * tolerance


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
@pytest.mark.parametrize("fps", [25, 29.97, 240])
def test_constant_rate(tmp_path: Path, codec: str, suffix: str, fps: float):
    path = write_video(tmp_path / f"a{suffix}", moving_frames(24), fps, VideoConfig(codec))
    tolerance = 0.5 if suffix == ".mp4" else 500
    with VideoFrames(path) as video:
        assert np.abs(video.times_us - np.arange(24) * 1e6 / fps).max() <= tolerance
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(24e6 / fps, abs=1000)


def test_hours_between_frames(tmp_path: Path):
    shown = [number * 1_500_000_000 for number in range(6)]
    with VideoWriter(tmp_path / "a.mp4", (32, 32), 25, is_constant=False) as writer:
        for frame, shown_us in zip(moving_frames(6, 32, 32), shown, strict=True):
            writer.write(frame, shown_us)
    with VideoFrames(tmp_path / "a.mp4") as video:
        np.testing.assert_array_equal(video.times_us, shown)


@pytest.mark.parametrize(
    ("codec", "speed"), [("h264", "medium"), ("h265", "medium"), ("h264", "placebo"), ("h265", "placebo")]
)
def test_frames_as_far_apart_as_the_container_allows(tmp_path: Path, codec: str, speed: str):
    """Encoders put some frames in another order, and .mp4 holds only so much between the two places of a frame."""
    frames = [moving_frames(1)[0]] * 50  # pictures that change are put in another order less far
    writer = VideoWriter(tmp_path / "a.mp4", (64, 48), 25, VideoConfig(codec, encoder_speed=speed), is_constant=False)
    step = int(writer.longest_us / writer.in_a_row)
    with writer:
        for index, frame in enumerate(frames):
            writer.write(frame, index * step)
    with VideoFrames(writer.path) as video:
        assert np.abs(video.times_us - step * np.arange(50)).max() <= 6


@pytest.mark.parametrize("shown", [[None], [5], [-1], [0, None], [0, 0], [0, 90, 80]])
def test_times_that_do_not_increase_are_a_mistake(tmp_path: Path, shown: list[int | None]):
    writer = VideoWriter(tmp_path / "a.mp4", (64, 48), 25, is_constant=False)
    with pytest.raises(ValueError, match="start at 0 and increase"), writer:
        for frame, shown_us in zip(moving_frames(len(shown)), shown, strict=True):
            writer.write(frame, shown_us)
    assert not list(tmp_path.iterdir())


def test_times_too_near_for_the_container_are_named(tmp_path: Path):
    frame = moving_frames(1)[0]
    with (
        pytest.raises(OutputError, match=r"frame 1 is shown 400 µs after .* \.mkv needs 1000 µs"),
        VideoWriter(tmp_path / "a.mkv", (64, 48), 25, is_constant=False) as writer,
    ):
        writer.write(frame, 0)
        writer.write(frame, 400)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
def test_times_as_near_as_the_container_allows(tmp_path: Path, codec: str, suffix: str):
    writer = VideoWriter(tmp_path / f"a{suffix}", (64, 48), 25, VideoConfig(codec), is_constant=False)
    with writer:
        for index, frame in enumerate(moving_frames(20)):
            writer.write(frame, index * writer.smallest_step_us)
    with VideoFrames(writer.path) as video:
        assert len(video) == 20


_WRITE_ALL = """
import os, sys
cores, folder = int(sys.argv[1]), sys.argv[2]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from moving_pictures import moving_frames, write_video
from evfi.video.writer import VideoConfig
import numpy as np
grain = np.random.default_rng(0).integers(-8, 9, (14, 132, 178, 3))
frames = [(frame + some).clip(0, 255).astype(np.uint8) for frame, some in zip(moving_frames(14, 178, 132), grain)]
for codec, suffix in (("h264", ".mp4"), ("h265", ".mp4"), ("ffv1", ".mkv"), ("h264", ".mkv")):
    write_video(Path(folder) / f"{codec}{suffix}", frames, config=VideoConfig(codec))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
def test_same_bytes_on_any_number_of_processors(tmp_path: Path):
    found = []
    for cores, fill in ((1, 85), (2, 170)):  # also whatever is in memory that was not set
        folder = tmp_path / str(cores)
        folder.mkdir()
        arguments = [sys.executable, "-c", _WRITE_ALL, str(cores), str(folder), str(Path(__file__).parent)]
        environment = os.environ | {"MALLOC_PERTURB_": str(fill)}
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == ""
        found.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_encoders_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for codec, suffix in KINDS:
        write_video(tmp_path / f"a{suffix}", moving_frames(3), config=VideoConfig(codec))
    assert capfd.readouterr() == ("", "")


def test_failed_video_leaves_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError, match="stop"), VideoWriter(tmp_path / "a.mp4", (64, 48), 25) as writer:
        writer.write(moving_frames(1)[0])
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())


def test_failed_video_keeps_what_was_there(tmp_path: Path):
    (tmp_path / "a.mp4").write_text("older")
    with pytest.raises(OutputError, match="frames of"), VideoWriter(tmp_path / "a.mp4", (64, 48), 25) as writer:
        writer.write(moving_frames(1, 32, 32)[0])
    assert (tmp_path / "a.mp4").read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 1


def test_video_without_frames_is_a_mistake(tmp_path: Path):
    with pytest.raises(ValueError, match="got no frame"), VideoWriter(tmp_path / "a.mp4", (64, 48), 25):
        pass
    assert not list(tmp_path.iterdir())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the operating system refuse to make files larger, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
def test_full_disk_is_named_and_leaves_nothing(tmp_path: Path, codec: str, suffix: str):
    frames, path = noise(6, 160, 128), tmp_path / f"a{suffix}"
    whole = len(write_video(path, frames, config=VideoConfig(codec)).read_bytes())
    path.unlink()
    for room in (1, whole // 2, whole - 1):  # refused while frames come, and at the end
        with pytest.raises(OutputError, match=f"cannot write .*a{suffix}: "), largest_file(room):
            write_video(path, frames, config=VideoConfig(codec))
        assert not list(tmp_path.iterdir())


def test_failure_while_closing_does_not_hide_the_first(tmp_path: Path):
    path = tmp_path / "a.mp4"
    with (
        pytest.raises(RuntimeError, match="stop"),
        largest_file(1),
        VideoWriter(path, (64, 48), 25, VideoConfig(encoder_speed="ultrafast")) as writer,
    ):
        writer.write(moving_frames(1)[0])
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())


def test_unwritable_targets_are_named_at_once(tmp_path: Path):
    with pytest.raises(OutputError, match="there is no folder"):
        VideoWriter(tmp_path / "no" / "a.mp4", (64, 48), 25)
    with pytest.raises(OutputError, match=r"name it a\.mp4 or a\.mkv"):
        VideoWriter(tmp_path / "a.avi", (64, 48), 25)
    for fps in (0, -1, 1001, float("nan"), 1e-9):
        with pytest.raises(ConfigError, match="fps"):
            VideoWriter(tmp_path / "a.mp4", (64, 48), fps)


def test_settings_that_do_not_go_together_are_named_at_once(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"needs an \.mkv file.*name it a\.mkv"):
        VideoWriter(tmp_path / "a.mp4", (64, 48), 25, VideoConfig(codec="ffv1"))
    with pytest.raises(ConfigError, match=r"ffv1 .* has no quality"):
        VideoWriter(tmp_path / "a.mkv", (64, 48), 25, VideoConfig(quality=16))
    with pytest.raises(ConfigError, match=r"ffv1 .* has no encoder speed"):
        VideoWriter(tmp_path / "a.mkv", (64, 48), 25, VideoConfig(encoder_speed="slow"))
    with pytest.raises(ConfigError, match="at least 16×16 pixels, got 14×40"):
        VideoWriter(tmp_path / "a.mp4", (14, 40), 25, VideoConfig(codec="h265"))
    VideoWriter(tmp_path / "a.mp4", (15, 40), 25, VideoConfig(codec="h265"))


def test_missing_encoder_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx265"})
    with pytest.raises(ConfigError, match="needs the encoder libx265, which this installation of PyAV does not have"):
        VideoWriter(tmp_path / "a.mp4", (64, 48), 25, VideoConfig(codec="h265"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": "av1"}, "codec must be one of h264, h265, ffv1, got 'av1'"),
        ({"quality": -1}, "video quality must be 0 to 51"),
        ({"quality": 52}, "got 52"),
        ({"codec": "ffv1", "quality": 3}, "is lossless and has no quality"),
        ({"codec": "ffv1", "encoder_speed": "fast"}, "has no encoder speed"),
        ({"encoder_speed": "warp"}, "encoder speed must be one of ultrafast, .*, got 'warp'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        VideoConfig(**settings)
