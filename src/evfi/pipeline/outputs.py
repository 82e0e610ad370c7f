"""Where a job's frames go: a video, a folder of pictures, or both; each appears whole or not at all.

out.mp4                     H.264
FRAMES_DIR/000000.png …     every frame, bit for bit; those of the key frames are the recording's own pixels
FRAMES_DIR/timestamps.txt   the time of each, µs, one per line
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from evfi.errors import ConfigError
from evfi.files import check_folder_writable, folder_written_whole
from evfi.video.geometry import Frame, Size
from evfi.video.io import VideoWriter, write_png


class Outputs:
    """A video and a folder of pictures, written side by side.

    Use as a context manager: both get their names when the block ends without an exception.

    Attributes:
        video: The video's path, or None.
        frames_dir: The pictures' folder, or None.
    """

    def __init__(self, video: str | Path | None, frames_dir: str | Path | None, size: Size, fps: float) -> None:
        """Check that both can be written; nothing is created yet.

        Args:
            video: A path ``*.mp4``, or None.
            frames_dir: A folder that does not exist or is empty, or None.
            size: (width, height) of the frames.
            fps: Frames per second of the video.

        Raises:
            ConfigError: There is nothing to write to, or `fps` is out of range.
            OutputError: One of them cannot be written.
        """
        if video is None and frames_dir is None:
            raise ConfigError(
                "there is nothing to write to: name a video (-o out.mp4) or a folder of frames (--frames-dir DIR)"
            )
        if frames_dir is not None:
            check_folder_writable(frames_dir)
        self.video = None if video is None else Path(video)
        self.frames_dir = None if frames_dir is None else Path(frames_dir)
        self._writer = None if video is None else VideoWriter(video, size, fps)
        self._count = 0

    def __enter__(self) -> Self:
        """Create what is written to, under temporary names."""
        with ExitStack() as stack:
            if self._writer is not None:
                stack.enter_context(self._writer)
            self._folder = (
                None if self.frames_dir is None else stack.enter_context(folder_written_whole(self.frames_dir))
            )
            self._stack = stack.pop_all()
        return self

    def write(self, frame: Frame, time_us: int) -> None:
        """Append a frame.

        Args:
            frame: uint8 [H, W, 3].
            time_us: Its time in the recording.

        Raises:
            OutputError: The disk refuses.
        """
        if self._writer is not None:
            self._writer.write(frame)
        if self._folder is not None:
            write_png(self._folder / f"{self._count:06d}.png", frame)
            with (self._folder / "timestamps.txt").open("a", encoding="utf-8") as file:
                file.write(f"{time_us}\n")
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the results their names; after an exception, remove them."""
        self._stack.__exit__(kind, error, trace)
