"""The outputs of a job: a video, a folder of frames, a comparison, or all of them; each is written whole or not at all.

out.mp4                     H.264 or H.265; out.mkv: lossless
FRAMES_DIR/000000.png …     every frame, bit for bit; those of the key frames are the recording's own pixels
FRAMES_DIR/timestamps.txt   the time of each in the recording, µs, one per line
out.compare.mp4             input held, events and result side by side
out.timecodes.txt           when each frame of the video is shown
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from evfi.errors import ConfigError, OutputError
from evfi.files import (
    check_folder_writable,
    check_writable,
    folder_written_whole,
    one_line,
    remove_leftovers,
)
from evfi.pipeline.comparison_video import comparison_size
from evfi.pipeline.timeline import Timeline
from evfi.video.geometry import Frame, Size
from evfi.video.picture_writer import PictureWriter
from evfi.video.timecodes import write_timecodes
from evfi.video.writer import VideoConfig, VideoWriter

TIMES_FILE: Final = "timestamps.txt"


@dataclass(frozen=True)
class Targets:
    """What is written.

    Attributes:
        video: a path ``*.mp4`` or ``*.mkv``, or None; a file, or a link to one, is replaced.
        frames_dir: a folder that does not exist, is empty, or holds the pictures of an earlier run of the same job, or None.
        compare: whether a comparison is written beside the video or the folder.
        timecodes: whether a file of the frames' times is.
        encoding: of the videos.
    """

    video: Path | None = None
    frames_dir: Path | None = None
    compare: bool = False
    timecodes: bool = False
    encoding: VideoConfig = field(default_factory=VideoConfig)

    def __post_init__(self) -> None:
        """Make sure that there is something to write to.

        Raises:
            ConfigError: there is not.
        """
        if self.video is None and self.frames_dir is None:
            raise ConfigError(
                "expected an output, got none; name a video (-o out.mp4) or a folder of frames (--frames-dir DIR)"
            )

    @property
    def main(self) -> Path:
        """What all else is named after: the video, or the folder."""
        place = self.video or self.frames_dir
        assert place is not None
        return place

    @property
    def comparison(self) -> Path | None:
        """The comparison's path, if one is written."""
        suffix = ".mp4" if self.video is None else self.video.suffix
        return self._beside(f".compare{suffix}") if self.compare else None

    @property
    def timecodes_file(self) -> Path | None:
        """The path of the file of times, if one is written."""
        return self._beside(".timecodes.txt") if self.timecodes else None

    @property
    def report(self) -> Path:
        """The report's path."""
        return self._beside(".report.html")

    @property
    def default_job(self) -> Path:
        """The job's folder, unless the user names one."""
        main = self.main.absolute()
        return main.with_name(f".{main.name}.evfi")

    @property
    def all(self) -> tuple[Path, ...]:
        """Everything that is made of the frames."""
        return tuple(self.named.values())

    @property
    def named(self) -> dict[str, Path]:
        """The same, by what they are."""
        places = {
            "the video": self.video,
            "the folder of frames": self.frames_dir,
            "the comparison": self.comparison,
            "the file of times": self.timecodes_file,
        }
        return {name: place for name, place in places.items() if place is not None}

    def _beside(self, suffix: str) -> Path:
        main = self.main.absolute()
        return main.with_name((main.stem if self.video is not None else main.name) + suffix)


class Outputs:
    """All results, written side by side.

    Use as a context manager: they get their names when the block ends without an exception.
    """

    def __init__(
        self,
        targets: Targets,
        size: Size,
        fps: float,
        *,
        is_constant: bool = True,
        may_exist: bool = False,
        earlier_frames: int = 0,
    ) -> None:
        """Check that everything can be written; nothing is created yet.

        Args:
            targets: what is written.
            size: (width, height) of the frames.
            fps: frames per second of the videos.
            is_constant: whether every frame is shown equally long.
            may_exist: whether a folder of pictures may hold something, because a later check will say more.
            earlier_frames: how many pictures of an earlier run that folder may hold; they are removed when writing begins.

        Raises:
            ConfigError: `fps` is out of range.
            OutputError: one of them cannot be written.
        """
        self.targets = targets
        self._earlier_frames = earlier_frames
        if targets.frames_dir is not None:
            check_folder_writable(targets.frames_dir, may_hold_something=may_exist or earlier_frames > 0)
        if targets.timecodes_file is not None:
            check_writable(targets.timecodes_file)

        def writer(path: Path | None, of_size: Size) -> VideoWriter | None:
            return None if path is None else VideoWriter(path, of_size, fps, targets.encoding, is_constant=is_constant)

        self._video = writer(targets.video, size)
        self._comparison = writer(targets.comparison, comparison_size(size))
        self._shown: list[int] = []

    def check_step(self, smallest_us: float) -> None:
        """Check that the video's timestamps resolve the time between frames.

        Args:
            smallest_us: the shortest time for which a frame is shown.

        Raises:
            ConfigError: that is less than the container's timestamps resolve.
        """
        if self._video is not None and smallest_us < self._video.smallest_step_us:
            raise ConfigError(
                f"frames are {smallest_us:.0f} µs apart in the video, but {self._video.path.suffix} timestamps resolve "
                f"{self._video.smallest_step_us} µs; write an .mp4, or use a lower --fps"
            )

    def check_longest(self, timeline: Timeline) -> None:
        """Make sure that a video can hold its frames for as long as they are shown.

        Raises:
            ConfigError: frames are shown for longer than the container can say.
        """
        if self._video is None:
            return
        found = timeline.too_far_apart(self._video.longest_us, self._video.in_a_row)
        if found is not None:
            spec = found[0].spec
            raise ConfigError(
                f"frames {spec.start_frame} and {spec.end_frame} of the recording, at {spec.times_us[0]} and "
                f"{spec.times_us[-1]} µs, lie too far apart: {self._video.in_a_row} frames in a row may be shown for at most "
                f"{self._video.longest_us / 3.6e9:.1f} hours in .mp4, got {found[1] / 3.6e9:.1f}; check the frame times, "
                "leave this part out (--start, --end), or write an .mkv"
            )

    def __enter__(self) -> Self:
        """Create the outputs under temporary names."""
        with ExitStack() as stack:
            for place in self.targets.all:
                remove_leftovers(place.absolute().parent, place.name.__eq__)
            for writer in (self._video, self._comparison):
                if writer is not None:
                    stack.enter_context(writer)
            self._folder = None
            if self.targets.frames_dir is not None:
                _remove_frames(self.targets.frames_dir, self._earlier_frames)
                self._folder = stack.enter_context(folder_written_whole(self.targets.frames_dir))
                self._pictures = stack.enter_context(PictureWriter(self._folder))
            self._stack = stack.pop_all()
        return self

    def write(self, frame: Frame, time_us: int, shown_us: int, comparison: Callable[[], Frame] | None = None) -> None:
        """Append a frame.

        Args:
            frame: uint8 [H, W, 3].
            time_us: its time in the recording.
            shown_us: its time in the video.
            comparison: makes its frame of the comparison; called only where one is written.

        Raises:
            OutputError: the disk refuses.
        """
        if self._video is not None:
            self._video.write(frame, shown_us)
        if self._comparison is not None:
            assert comparison is not None
            self._comparison.write(comparison(), shown_us)
        if self._folder is not None:
            self._pictures.write(frame)
            self._write_time(self._folder / TIMES_FILE, time_us)
        if self.targets.timecodes:
            self._shown.append(shown_us)

    def _write_time(self, file: Path, time_us: int) -> None:
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(f"{time_us}\n")
        except OSError as error:
            raise OutputError(f"cannot write {file}: {one_line(error)}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the results their names; after an exception, remove them."""
        self._stack.__exit__(kind, error, trace)
        if kind is None and self.targets.timecodes_file is not None:
            write_timecodes(self.targets.timecodes_file, self._shown)


def names_of_frames(number: int) -> set[str]:
    """The file names in a folder of this many frames."""
    return {f"{index:06d}.png" for index in range(number)} | {TIMES_FILE}


def _remove_frames(folder: Path, number: int) -> None:
    """Remove this many frames of an earlier run one by one, so that other files stay."""
    try:
        for name in names_of_frames(number) if number else ():
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot replace the frames in {folder}: {one_line(error)}") from error
