"""Pictures and videos in and out of files.

Conventions: frames are uint8 [H, W, 3] RGB, times are int64 microseconds. PNG files hold exactly the pixels given.
Videos are read with PyAV, upright (rotation metadata is applied); `evfi.video.writer` writes them. Pictures are written
under a temporary name beside their target, so that nothing half-written is ever left behind.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from evfi.errors import InputError
from evfi.files import one_line, written_whole
from evfi.limits import MAX_PIXELS, check_pixels
from evfi.paths import is_file, open_to_read
from evfi.video.geometry import Frame, Size, frame_size

PICTURE_FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""What pictures are decoded as, whatever their names say; Pillow would start other programs for some others."""

_PICTURES: Final = f"{', '.join(PICTURE_FORMATS[:-1])} or {PICTURE_FORMATS[-1]}"
_READABLE: Final = f"frames of at most {MAX_PIXELS // 2**20} megapixels"
_DECODER_OPTIONS: Final = {"max_pixels": str(MAX_PIXELS)}
_LISTS_OF_FILES: Final = {"concat", "dash", "hls", "image2", "imf", "rtp", "rtsp", "sap", "sdp", "webm_dash_manifest"}
"""Formats that name other files or streams, which nobody asked to read."""
_MAX_PIXELS_THREADED: Final = 2**24
"""Of larger frames one is decoded at a time: each thread holds at least one frame."""

_EXACT_BILINEAR = 0x2 | 0x2000 | 0x40000
"""FFmpeg's swscale flags: bilinear, full chroma interpolation, accurate rounding. Without them reading darkens by 1."""


@cache
def _formats() -> str:
    """The formats that a video may have, as FFmpeg takes them."""
    import av

    return ",".join(sorted(av.formats_available - _LISTS_OF_FILES))


def is_grey_frame(frame: Frame) -> bool:
    """Tell whether a frame holds no colour at all (R = G = B everywhere)."""
    return bool((frame[..., 0] == frame[..., 1]).all() and (frame[..., 1] == frame[..., 2]).all())


def read_image(path: str | Path) -> Frame:
    """Read a PNG, JPEG, BMP, TIFF, WebP, PGM or PPM picture; 16-bit grey is reduced to 8 bits, transparency is dropped.

    Args:
        path: The file.

    Returns:
        uint8 [H, W, 3], RGB, upright (EXIF orientation applied).

    Raises:
        InputError: There is no such file, or it is not a readable picture.
    """
    path = Path(path)
    try:
        with open_to_read(path) as file, Image.open(file, formats=PICTURE_FORMATS) as image:
            check_pixels(str(path), *image.size)
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16") or upright.mode == "I":
                upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
            if "transparency" in upright.info:  # Pillow warns on the way from a palette straight to RGB
                upright = upright.convert("RGBA")
            return np.array(upright.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"no such picture: {path}") from None
    except PermissionError as error:
        raise InputError(f"cannot read the picture {path}: {one_line(error)}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a readable picture: expected {_PICTURES}; it may be damaged") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: expected a picture of at most {MAX_PIXELS // 2**20} megapixels, found more"
        ) from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        MemoryError,
    ) as error:  # damage asks for memory
        raise InputError(f"cannot read the picture {path}: {one_line(error)}; it may be truncated") from error


def write_png(path: str | Path, frame: Frame, *, compress_level: int = 6) -> None:
    """Write a frame as PNG, bit for bit.

    Args:
        path: The file; it is replaced where it exists.
        frame: uint8 [H, W, 3].
        compress_level: 0 (none) to 9; 1 takes a third of the time of 6.

    Raises:
        OutputError: The file cannot be written.
    """
    with written_whole(Path(path)) as partial:
        Image.fromarray(frame).save(partial, format="PNG", compress_level=compress_level)


class VideoFrames:
    """The frames of a video file, read one by one; a frame source for recordings.

    The index (times and positions of all frames) is made from the packets, without decoding. Reading in order costs
    one decoded frame per read; any other order seeks to the key picture before.

    Attributes:
        path: The file.
        times_us: int64 [N], presentation times in microseconds, strictly increasing.
        frame_rate: Mean frames per second.
        exposures_us: None, as videos do not hold exposures.
        paths: empty, as no frame has a file of its own.
    """

    exposures_us = None
    paths: tuple[Path, ...] = ()

    def __init__(self, path: str | Path) -> None:
        """Open a video and index its frames.

        Args:
            path: Any container and codec that FFmpeg reads.

        Raises:
            InputError: There is no such file, or it is not a video, or it is damaged.
        """
        import av

        self.path = Path(path)
        if not is_file(self.path):
            raise InputError(f"no such video file: {self.path}")
        self._damage: tuple[type[BaseException], ...] = (av.error.FFmpegError, ValueError)
        try:
            # absolute: FFmpeg takes what is before a colon in a relative path for a protocol
            self._container: Any = av.open(
                str(self.path.absolute()), options={**_DECODER_OPTIONS, "format_whitelist": _formats()}
            )
        except self._damage as error:
            raise InputError(f"cannot read {self.path} as a video: {one_line(error)}") from error
        try:
            self._open_stream()
        except BaseException:
            self.close()
            raise

    def _open_stream(self) -> None:
        if not self._container.streams.video:
            raise InputError(f"{self.path} has no video stream")
        self._stream: Any = self._container.streams.video[0]
        self._limit_decoder()
        try:
            self._pts, self._key_pts = self._index()
        except self._damage as error:
            raise InputError(f"{self.path} is damaged: {one_line(error)}") from error
        if not self._pts:
            raise InputError(f"{self.path} holds no frames; it may be truncated")
        if not self._stream.codec_context.width:
            raise InputError(
                f"{self.path}: expected {_READABLE}, found none that can be read; it is damaged, or too large"
            )
        self._position = {pts: index for index, pts in enumerate(self._pts)}
        ticks_per_us = Fraction(self._stream.time_base) * 1_000_000
        self.times_us: NDArray[np.int64] = np.array([round(pts * ticks_per_us) for pts in self._pts], dtype=np.int64)
        if len(self) > 1 and int(np.diff(self.times_us).min()) <= 0:
            raise InputError(f"{self.path}: two frames have the same presentation time; encode the video again")
        self._decoder: Iterator[Any] | None = None
        self._decoded_size: Size | None = None
        self._next = 0
        self._last: tuple[int, Frame] | None = None

    def _limit_decoder(self) -> None:
        """Let the decoder refuse what is too large before it takes memory, and hold few large frames at a time."""
        context = self._stream.codec_context
        check_pixels(str(self.path), context.width, context.height, "frames")
        context.options = {**context.options, **_DECODER_OPTIONS}
        context.thread_type = "AUTO"
        if context.width * context.height > _MAX_PIXELS_THREADED:
            context.thread_count = 1

    def _index(self) -> tuple[list[int], list[int]]:
        """Return presentation times (stream ticks) of all frames and of those that can be sought, both ascending."""
        pts: list[int] = []
        key_pts: list[int] = []
        packets = 0
        for packet in self._container.demux(self._stream):
            if not packet.size:
                continue
            packets += 1
            if packet.pts is None:
                raise InputError(
                    f"{self.path}: its frames have no presentation times; convert the video to an .mp4 or .mkv file"
                )
            if not packet.is_discard:
                pts.append(int(packet.pts))
            if packet.is_keyframe:
                key_pts.append(int(packet.pts))
        if self._stream.frames > packets:
            raise InputError(
                f"{self.path} is truncated: its header declares {self._stream.frames} frames, but the file holds {packets}"
            )
        return sorted(pts), sorted(key_pts)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._pts)

    @property
    def frame_rate(self) -> float:
        """Mean frames per second; of a single frame, the container's."""
        if len(self) > 1:
            return (len(self) - 1) * 1e6 / float(self.times_us[-1] - self.times_us[0])
        return float(self._stream.average_rate or 25)

    @cached_property
    def size(self) -> Size:
        """(width, height) of the upright frames."""
        return frame_size(self.read(0))

    @cached_property
    def is_grey(self) -> bool:
        """Whether the video is grey: by its pixel format, or because five frames spread over it hold no colour."""
        if str(self._stream.codec_context.pix_fmt).startswith(("gray", "mono")):
            return True
        probes = sorted({round(part * (len(self) - 1) / 4) for part in range(5)})
        return all(is_grey_frame(self.read(index)) for index in probes)

    def read(self, index: int) -> Frame:
        """Decode one frame.

        Args:
            index: 0 … N − 1.

        Returns:
            uint8 [H, W, 3].

        Raises:
            InputError: The frame cannot be decoded.
            IndexError: There is no such frame.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has frames 0 to {len(self) - 1}, got {index}")
        if self._last is None or self._last[0] != index:
            try:
                self._last = (index, self._decode(index))
            except self._damage as error:
                self._decoder = None
                is_large = getattr(error, "errno", 0) == errno.EINVAL
                reason = f"expected {_READABLE}" if is_large else one_line(error)
                raise InputError(f"{self.path} is damaged at frame {index}: {reason}") from error
        return self._last[1].copy()

    def _decode(self, index: int) -> Frame:
        wanted = self._pts[index]
        if self._decoder is None or index < self._next or self._key_picture_between(self._next, index):
            self._container.seek(wanted, stream=self._stream, backward=True, any_frame=False)
            self._decoder = self._container.decode(self._stream)
        for picture in self._decoder:
            if picture.pts is None or picture.pts < wanted:
                continue
            if picture.pts > wanted:
                break
            self._next = index + 1
            self._check_size(index, picture)
            return _upright(picture)
        self._decoder = None
        raise InputError(f"{self.path} is damaged: frame {index} cannot be decoded; it may be truncated")

    def _check_size(self, index: int, picture: Any) -> None:
        """Refuse a frame whose size differs from that of the others."""
        size = (picture.width, picture.height)
        self._decoded_size = self._decoded_size or size
        if size != self._decoded_size:
            (width, height), expected = size, "{}×{}".format(*self._decoded_size)
            raise InputError(
                f"{self.path}: expected {expected} like other frames, found {width}×{height} at frame {index}"
            )

    def _key_picture_between(self, position: int, index: int) -> bool:
        """Tell whether seeking saves decoding: a key picture lies after the next frame, up to the wanted one."""
        if position >= len(self._pts) or index <= position + 1:
            return False
        return any(self._pts[position] < pts <= self._pts[index] for pts in self._key_pts)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _upright(picture: Any) -> Frame:
    """Convert a decoded picture to RGB and turn it as its display matrix says (counter-clockwise degrees)."""
    frame: Frame = picture.reformat(format="rgb24", interpolation=_EXACT_BILINEAR).to_ndarray()
    return np.ascontiguousarray(np.rot90(frame, round(picture.rotation / 90) % 4))
