"""Pictures and videos survive the way through files, and damage is named."""

from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from moving_pictures import mean_difference, moving_frames, write_video
from PIL import Image

from evfi.errors import InputError
from evfi.video.io import VideoFrames, read_image, write_png


def test_png_is_bit_exact(tmp_path: Path):
    frame = np.random.default_rng(1).integers(0, 256, (33, 21, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", frame)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), frame)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["L", "I;16", "P", "RGBA", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, kind: str):
    values = np.tile(np.array([[0, 255]], dtype=np.uint8), (4, 3))
    image = (
        Image.fromarray(values.astype(np.uint16) * 257)
        if kind == "I;16"
        else Image.fromarray(np.repeat(values[..., None], 3, -1)).convert(kind)
    )
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(values[..., None], 3, axis=-1))


def test_picture_is_turned_upright(tmp_path: Path):
    image = Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (6, 4, 3)


def test_bad_pictures_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="no such picture"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match=r"text\.png is not a readable picture: expected PNG, JPEG, .* or PPM"):
        read_image(tmp_path / "text.png")
    write_png(tmp_path / "whole.png", np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4000])
    with pytest.raises(InputError, match=r"half\.png"):
        read_image(tmp_path / "half.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="not a regular file"):
        read_image(tmp_path / "pipe.png")  # opening it would wait for ever


@pytest.mark.parametrize("fps", [25.0, 29.97, 60, 7.5])
def test_video_round_trip(tmp_path: Path, fps: float):
    frames = moving_frames(30)
    with VideoFrames(write_video(tmp_path / "a.mp4", frames, fps)) as video:
        assert len(video) == 30
        assert video.size == (64, 48)
        assert not video.is_grey
        assert video.frame_rate == pytest.approx(fps, rel=1e-4)
        rate = Fraction(fps).limit_denominator(1001)
        np.testing.assert_array_equal(video.times_us, [round(index * 1_000_000 / rate) for index in range(30)])
        for index in (0, 1, 2, 29, 3, 3, 17, 18):
            read = video.read(index)
            assert mean_difference(read, frames[index]) < 4
            assert abs(read.mean() - frames[index].mean()) < 0.7


def test_grey_stays_grey(tmp_path: Path):
    with VideoFrames(write_video(tmp_path / "a.mp4", moving_frames(4, grey=True))) as video:
        assert video.is_grey
        frame = video.read(2)
    assert (frame == frame[..., :1]).all()


def test_black_beginning_does_not_make_a_video_grey(tmp_path: Path):
    frames = [np.zeros((48, 64, 3), dtype=np.uint8)] * 3 + moving_frames(5)
    with VideoFrames(write_video(tmp_path / "a.mp4", frames)) as video:
        assert not video.is_grey


def test_rotation_in_the_container_is_applied(tmp_path: Path):
    frames = moving_frames(2)
    content = bytearray(write_video(tmp_path / "a.mp4", frames).read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one, unit = 0x10000, 0x40000000
    turned = [0, one, 0, -one, 0, 0, 48 * one, 0, unit]  # a phone's portrait mark: display it turned clockwise by 90
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    (tmp_path / "turned.mp4").write_bytes(content)
    with VideoFrames(tmp_path / "turned.mp4") as video:
        assert video.size == (48, 64)
        assert mean_difference(video.read(0), np.rot90(frames[0], -1)) < 4


def test_many_key_pictures_are_sought(tmp_path: Path):
    frames = moving_frames(40)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    with VideoFrames(tmp_path / "a.mkv") as video:
        assert len(video) == 40
        for index in (33, 2, 38, 39, 11, 10):
            errors = [mean_difference(video.read(index), frame) for frame in frames]
            assert int(np.argmin(errors)) == index


def test_bad_videos_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="no such video"):
        VideoFrames(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("not a video at all" * 50)
    with pytest.raises(InputError, match=r"cannot read .*text\.mp4"):
        VideoFrames(tmp_path / "text.mp4")
    whole = write_video(tmp_path / "whole.mp4", moving_frames(40)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: int(len(whole) * 0.7)])
    with pytest.raises(InputError, match="truncated"), VideoFrames(tmp_path / "half.mp4") as video:
        for index in range(len(video)):
            video.read(index)


def test_frames_outside_the_video_do_not_exist(tmp_path: Path):
    with VideoFrames(write_video(tmp_path / "a.mp4", moving_frames(3))) as video, pytest.raises(IndexError):
        video.read(3)


def test_pictures_that_claim_too_much(tmp_path: Path) -> None:
    content = bytearray(png_of(np.zeros((4, 4, 3), np.uint8), tmp_path))
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "claims.png").write_bytes(content)
    with pytest.raises(InputError, match=r"at most 64 megapixels, found (30000×30000|more)"):
        read_image(tmp_path / "claims.png")


def png_of(frame: np.ndarray, folder: Path) -> bytes:
    write_png(folder / "whole.png", frame)
    return (folder / "whole.png").read_bytes()


@pytest.mark.parametrize("content", ["ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"])
def test_a_list_of_other_files_is_no_video(tmp_path: Path, content: str):
    """What it names was not asked for, and may be a pipe, from which reading never ends."""
    write_video(tmp_path / "real.mp4", moving_frames(3))
    (tmp_path / "list.mp4").write_text(content.format("real.mp4"))
    with pytest.raises(InputError, match=r"cannot read .*list\.mp4 as a video"):
        VideoFrames(tmp_path / "list.mp4")


@pytest.mark.parametrize("transparent", [3, b"\x00\x80\xff"])
def test_palettes_with_transparency(tmp_path: Path, transparent: int | bytes, recwarn: pytest.WarningsRecorder):
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) % 4, "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    picture.save(tmp_path / "a.png", transparency=transparent)
    assert read_image(tmp_path / "a.png")[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]
    assert not recwarn
