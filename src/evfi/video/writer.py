"""Frames into video files.

==========  ==================  =========================================================================
codec       container           what it is for
==========  ==================  =========================================================================
h264        .mp4 (default),     plays everywhere: yuv420p, BT.709, limited range, index at the front
            .mkv
h265        .mp4, .mkv          the same in a smaller file that fewer players take
ffv1        .mkv (default)      lossless: the frames' own RGB values, every frame on its own, with checksums
==========  ==================  =========================================================================

Conventions: frames are uint8 [H, W, 3] RGB. The frames of a video have a constant rate, or each its own time, which
.mp4 holds to 1/90000 s (so that a frame may stay for hours) and .mkv to 1 ms. The same frames give the same file, byte
for byte, however many processors there are: encoders get a fixed number of threads (their results depend on it),
containers neither dates nor random numbers.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

import numpy as np

from evfi.errors import ConfigError, OutputError
from evfi.files import check_writable, one_line, written_whole
from evfi.video.geometry import Frame, Size, frame_size

VideoCodec = Literal["h264", "h265", "ffv1"]
EncoderSpeed = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]

DEFAULT_QUALITY: Final[dict[str, int]] = {"h264": 16, "h265": 18}
"""Constant rate factors at which nothing of the compression is seen."""

_ENCODERS: Final[dict[str, str]] = {"h264": "libx264", "h265": "libx265", "ffv1": "ffv1"}
_FORMATS: Final = {".mp4": "mp4", ".mkv": "matroska"}
_DEFAULT_CODECS: Final[dict[str, VideoCodec]] = {".mp4": "h264", ".mkv": "ffv1"}
_MEDIUM: Final[EncoderSpeed] = "medium"

_THREADS: Final[dict[str, int]] = {"h264": 8, "h265": 1, "ffv1": 4}
_X264_SETTINGS: Final = "cpu-independent=1"
"""The same result on every kind of processor. Without it, code for AVX-512 even lets it depend on memory not set."""
_X265_SETTINGS: Final = "log-level=none:info=0:pools=4:frame-threads=2"
"""Silent; no note of the processor's kind in the file; a fixed number of threads."""

_TIME_BASES: Final = {".mp4": Fraction(1, 90_000), ".mkv": Fraction(1, 1_000_000)}
"""For frames of their own times; what writes .mkv rounds them once more, to 1 ms."""
_SMALLEST_STEPS_US: Final = {".mp4": 12, ".mkv": 1000}
_MP4_LONGEST_US: Final = (2**31 - 1) / 90_000 * 1e6
"""Between the times at which two frames are stored and shown in .mp4: 6.6 hours; frames are stored in another order."""
_REORDERED: Final = 8
_REORDERED_WHEN_SLOW: Final = 20
"""Frames in a row that encoders put in another order, at most."""
_SLOW: Final[tuple[EncoderSpeed, ...]] = ("slower", "veryslow", "placebo")
_BT709: Final = 1
_RGB_MATRIX: Final = 0
_LIMITED_RANGE: Final = 1
_FULL_RANGE: Final = 2
_EXACT_AREA: Final = 0x20 | 0x40000 | 0x80000
"""FFmpeg's swscale flags: averaging, accurate rounding, the same result on every kind of processor."""
_H265_SMALLEST: Final = 16


@dataclass(frozen=True)
class VideoConfig:
    """How a video is encoded.

    Attributes:
        codec: video codec; by default h264 in .mp4, and ffv1, which is lossless, in .mkv.
        quality: constant rate factor of h264 and h265, 0 to 51, lower is better; by default 16 for h264 and 18 for h265.
        encoder_speed: speed of the h264 and h265 encoders; slower makes smaller files.
    """

    codec: VideoCodec | None = None
    quality: int | None = None
    encoder_speed: EncoderSpeed = _MEDIUM

    def __post_init__(self) -> None:
        """Check what can be checked without a file's name.

        Raises:
            ConfigError: A setting is out of range or does not go with the codec.
        """
        if self.codec is not None and self.codec not in _ENCODERS:
            raise ConfigError(f"codec must be one of {', '.join(_ENCODERS)}, got {self.codec!r}")
        if self.quality is not None and not 0 <= self.quality <= 51:
            raise ConfigError(f"video quality must be 0 to 51 (lower is better), got {self.quality}; try 16")
        if self.encoder_speed not in get_args(EncoderSpeed):
            allowed = ", ".join(get_args(EncoderSpeed))
            raise ConfigError(f"encoder speed must be one of {allowed}, got {self.encoder_speed!r}")
        self._check_for(self.codec)

    def codec_in(self, path: Path) -> VideoCodec:
        """The codec of a file: the one asked for, or the container's default.

        Args:
            path: Named ``*.mp4`` or ``*.mkv``.

        Raises:
            OutputError: It has another name.
            ConfigError: The codec does not go into this container, or the settings do not go with the codec.
        """
        suffix = path.suffix.lower()
        if suffix not in _FORMATS:
            raise OutputError(
                f"a video is written as .mp4 or .mkv (lossless), got {path.name!r}; "
                f"name it {path.stem}.mp4 or {path.stem}.mkv"
            )
        codec = self.codec or _DEFAULT_CODECS[suffix]
        if codec == "ffv1" and suffix == ".mp4":
            raise ConfigError(f"codec ffv1 needs an .mkv file, got {path.name!r}; name it {path.stem}.mkv")
        self._check_for(codec)
        return codec

    def _check_for(self, codec: VideoCodec | None) -> None:
        if codec != "ffv1":
            return
        for name, is_set in (("quality", self.quality is not None), ("encoder speed", self.encoder_speed != _MEDIUM)):
            if is_set:
                raise ConfigError(
                    f"codec ffv1 (the default in .mkv) is lossless and has no {name}; "
                    "remove that option, or choose codec h264 or h265"
                )


class VideoWriter:
    """Write frames into a video.

    Use as a context manager: the file appears under its name when the block ends without an exception. H.264 and H.265
    need even sides here; an odd picture gets its last row or column twice. FFV1 keeps every size.

    Attributes:
        path: The target.
        size: (width, height) of the frames.
        codec: What the frames are encoded as.
        smallest_step_us: How near to each other the container allows two frames' own times to be, µs.
        longest_us: How long the container allows some frames in a row to be shown, µs.
        in_a_row: How many frames that concerns.
    """

    def __init__(
        self, path: str | Path, size: Size, fps: float, config: VideoConfig | None = None, *, is_constant: bool = True
    ) -> None:
        """Check the settings and that the file can be written; nothing is created yet.

        Args:
            path: The target, named ``*.mp4`` or ``*.mkv``; it is replaced where it exists.
            size: (width, height) of the frames.
            fps: Frames per second at playback; where each frame has its own time, that for which the last is shown.
            config: Codec and quality.
            is_constant: Show frame number i at i / `fps`; otherwise each frame at the time given with it.

        Raises:
            OutputError: The file cannot be written.
            ConfigError: `fps` is out of range, or the codec does not go with the container, the settings or the size.
        """
        self.path = Path(path)
        self._config = config or VideoConfig()
        self.codec: VideoCodec = self._config.codec_in(self.path)
        self._rate = Fraction(fps).limit_denominator(1001) if 0 < fps <= 1000 else Fraction(0)
        if not self._rate:
            raise ConfigError(f"fps must be above 0 and at most 1000, got {fps:g}")
        _check_encoder(self.codec, size)
        check_writable(self.path)
        self.size = size
        self._suffix = self.path.suffix.lower()
        self.smallest_step_us = _SMALLEST_STEPS_US[self._suffix]
        self.longest_us = _MP4_LONGEST_US if self._suffix == ".mp4" else math.inf
        self.in_a_row = _REORDERED_WHEN_SLOW if self._config.encoder_speed in _SLOW else _REORDERED
        self._is_constant = is_constant
        self._time_base = 1 / self._rate if is_constant else _TIME_BASES[self._suffix]
        self._last_duration = round(1 / self._rate / self._time_base)
        self._count = 0
        self._last_us = -1

    def __enter__(self) -> Self:
        """Open the temporary file."""
        import av

        self._failures: tuple[type[BaseException], ...] = (av.error.FFmpegError,)
        self._whole = written_whole(self.path)
        partial = self._whole.__enter__()
        try:
            format_name = _FORMATS[self._suffix]
            self._container: Any = av.open(str(partial), "w", format=format_name, options=self._muxer_options())
            self._stream: Any = self._container.add_stream(
                _ENCODERS[self.codec], rate=self._rate, options=_encoder_options(self.codec, self._config, self.size)
            )
            self._set_up_encoder()
        except BaseException as error:
            self._whole.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _muxer_options(self) -> dict[str, str]:
        options = {"fflags": "+bitexact"}  # no date, no random number, no version
        if self._suffix == ".mp4":
            options["movflags"] = "+faststart"
            if not self._is_constant:
                options["movie_timescale"] = str(self._time_base.denominator)
        return options

    def _set_up_encoder(self) -> None:
        context = self._stream.codec_context
        context.time_base = self._time_base
        context.thread_type = "FRAME" if self.codec == "h264" else "SLICE"
        context.thread_count = _THREADS[self.codec]
        context.color_primaries = context.color_trc = _BT709
        if self.codec == "ffv1":
            self._stream.width, self._stream.height = self.size
            self._stream.pix_fmt = "bgr0"
            context.colorspace, context.color_range = _RGB_MATRIX, _FULL_RANGE
            return
        self._stream.width, self._stream.height = (side + side % 2 for side in self.size)
        self._stream.pix_fmt = "yuv420p"
        context.colorspace, context.color_range = _BT709, _LIMITED_RANGE
        if self.codec == "h265" and self._suffix == ".mp4":
            context.codec_tag = "hvc1"  # Apple's players refuse FFmpeg's default, hev1

    def write(self, frame: Frame, shown_us: int | None = None) -> None:
        """Append one frame.

        Args:
            frame: uint8 [H, W, 3] of the writer's size.
            shown_us: When it is shown, µs from the video's beginning: 0 for the first frame, later for each further
                one. Not used at a constant rate.

        Raises:
            OutputError: The frame has another size, its time is too near to the one before for the container, or the
                encoder or the disk refuses.
            ValueError: Each frame has its own time, and this one's is missing or not after the one before.
        """
        if frame_size(frame) != self.size:
            raise OutputError(f"the video {self.path} has frames of {self.size}, got one of {frame_size(frame)}")
        picture = _rgb_picture(frame) if self.codec == "ffv1" else _yuv_picture(frame)
        picture.pts = self._count if self._is_constant else self._own_time(shown_us)
        picture.time_base = self._time_base
        self._count += 1
        self._encode(picture)

    def _own_time(self, shown_us: int | None) -> int:
        """Check a frame's time and turn it into ticks."""
        if shown_us is None or shown_us <= self._last_us or (self._count == 0 and shown_us != 0):
            raise ValueError(
                f"frame times must start at 0 and increase, got {shown_us} for frame {self._count} "
                f"after {self._last_us}"
            )
        if self._count and shown_us - self._last_us < self.smallest_step_us:
            raise OutputError(
                f"cannot write {self.path}: frame {self._count} is shown {shown_us - self._last_us} µs after the one "
                f"before, and {self._suffix} needs {self.smallest_step_us} µs between them; "
                "slow the video down further, or give it a constant rate"
            )
        self._last_us = int(shown_us)
        return round(self._last_us / (self._time_base * 1_000_000))

    def _encode(self, picture: Any) -> None:
        try:
            for packet in self._stream.encode(picture):
                packet.duration = self._last_duration  # the others' follow from the frames after them
                self._container.mux(packet)
        except self._failures as error:
            raise OutputError(f"cannot write {self.path}: {one_line(error)}") from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish the file and give it its name; after an exception, remove it."""
        try:
            if error is None:
                self._finish()
            else:
                with suppress(*self._failures):
                    self._container.close()
        except BaseException as failure:
            self._whole.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._whole.__exit__(kind, error, traceback)

    def _finish(self) -> None:
        try:
            if not self._count:
                raise ValueError(f"the video {self.path} got no frame")
            self._encode(None)
        except BaseException:
            with suppress(*self._failures):
                self._container.close()
            raise
        try:
            self._container.close()
        except self._failures as error:
            raise OutputError(f"cannot write {self.path}: {one_line(error)}") from error


def _check_encoder(codec: VideoCodec, size: Size) -> None:
    """Raise if there is no encoder, which is up to who built PyAV, or if it takes no frames of this size."""
    import av

    if _ENCODERS[codec] not in av.codecs_available:
        raise ConfigError(
            f"codec {codec} needs the encoder {_ENCODERS[codec]}, which this installation of PyAV does not have; "
            "install PyAV's own wheel (pip install av), or choose another codec"
        )
    if codec == "h265" and min(side + side % 2 for side in size) < _H265_SMALLEST:
        raise ConfigError(
            f"codec h265 takes frames of at least {_H265_SMALLEST}×{_H265_SMALLEST} pixels, got {size[0]}×{size[1]}; "
            "choose codec h264"
        )


def _encoder_options(codec: VideoCodec, config: VideoConfig, size: Size) -> dict[str, str]:
    if codec == "ffv1":
        slices = 4 if min(size) > 1 else 1
        return {"level": "3", "g": "1", "coder": "1", "context": "1", "slicecrc": "1", "slices": str(slices)}
    quality = DEFAULT_QUALITY[codec] if config.quality is None else config.quality
    options = {"crf": str(quality), "preset": config.encoder_speed}
    return options | ({"x264-params": _X264_SETTINGS} if codec == "h264" else {"x265-params": _X265_SETTINGS})


def _rgb_picture(frame: Frame) -> Any:
    """The same values in the byte order that FFV1 takes."""
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="bgr0")


def _yuv_picture(frame: Frame) -> Any:
    """BT.709 of limited range with chroma at half the resolution; odd sides made even."""
    import av

    height, width = frame.shape[:2]
    even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return picture.reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation=_EXACT_AREA
    )
