"""Recognise the results of an earlier run before they are replaced; anything else stays.

What the user names (`-o`) is replaced in any case. A folder of pictures is emptied only of the pictures that the job's note of
results lists. A comparison and a file of times, whose names the user did not choose, are replaced if the note lists them
or if their content says that they are such.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evfi.errors import EvfiError, OutputError
from evfi.files import entry_of
from evfi.fingerprints import fingerprint_of_files
from evfi.guard import Written, check_possible
from evfi.pipeline.comparison_video import comparison_size
from evfi.pipeline.job_folder import JobFolder
from evfi.pipeline.outputs import TIMES_FILE, Targets, names_of_frames
from evfi.pipeline.timeline import Timeline
from evfi.recordings.planning import Times
from evfi.video.geometry import Size
from evfi.video.io import VideoFrames
from evfi.video.timecodes import timecodes_text


class EarlierResults:
    """The record of a job's results."""

    def __init__(self, folder: JobFolder, timeline: Timeline, size: Size) -> None:
        """Read the job's note of results.

        Args:
            folder: the job's.
            timeline: of the video to be written.
            size: (width, height) of its frames.

        Raises:
            OutputError: the note cannot be read.
        """
        self._timeline, self._size = timeline, size
        self.entries = folder.results()
        self.problems = folder.results_problems()
        self.known: Mapping[Path, Mapping[str, Any]] = known_results(folder)

    def check(self, targets: Targets) -> None:
        """Check that existing comparison and timecode files are earlier results.

        Raises:
            OutputError: it is not, or cannot be replaced.
        """
        found = (
            (targets.comparison, "the comparison", self._is_comparison),
            (targets.timecodes_file, "the file of times", self._is_timecodes),
        )
        for path, name, is_one in found:
            if path is not None:
                is_ours = entry_of(path) in self.known or is_one(path)
                check_possible(Written(path, name, is_ours=is_ours, is_named=False))

    def frames_in(self, folder: Path | None) -> int:
        """How many pictures of an earlier run are, or may be, in a folder; 0 where it is missing or empty.

        Raises:
            OutputError: it holds something else.
        """
        if folder is None or not folder.is_dir() or not any(folder.iterdir()):
            return 0
        number = self._number_known(folder)
        if number is None:
            raise OutputError(
                f"cannot write into {folder}: it is not empty, and its contents were not written by an earlier run of this "
                "job; choose another folder or empty it"
            )
        names = names_of_frames(number)
        for entry in sorted(folder.iterdir()):
            if entry.name not in names or entry.is_symlink() or not entry.is_file():
                raise OutputError(
                    f"cannot replace the frames in {folder}: it holds {entry.name}, which is not one of them; move it away, "
                    "or choose another folder"
                )
        return number

    def _number_known(self, folder: Path) -> int | None:
        entry = self.known.get(entry_of(folder))
        if entry is not None and isinstance(entry.get("frames"), int):
            return int(entry["frames"])
        if entry is not None and fingerprint_of_files([folder]) == entry.get("content"):
            return len(
                _times_in(folder).splitlines()
            )  # a note of before numbers were noted, and nothing was changed since
        if (entry is not None or self.problems) and holds_video_frames(folder, self._timeline.times_us):
            return len(self._timeline.times_us)
        return None

    def _is_comparison(self, path: Path) -> bool:
        if path.is_symlink() or not path.is_file():
            return False
        size = comparison_size(self._size)
        try:
            with VideoFrames(path) as video:
                return video.size in (
                    size,
                    (size[0] + size[0] % 2, size[1] + size[1] % 2),
                )  # some codecs need even sides
        except EvfiError:
            return False

    def _is_timecodes(self, path: Path) -> bool:
        """Whether a file has just the times that would be written; there is nothing to lose then."""
        try:
            return not path.is_symlink() and path.read_text("ascii") == timecodes_text(self._timeline.shown_us())
        except (OSError, ValueError):
            return False


def known_results(folder: JobFolder) -> dict[Path, Mapping[str, Any]]:
    """The results that a job's note lists, by their places.

    Args:
        folder: the job's; it need not be held.

    Raises:
        OutputError: the note cannot be read.
    """
    return {entry_of(folder.place_of(name)): entry for name, entry in folder.results().items()}


def holds_video_frames(folder: Path, times_us: Times) -> bool:
    """Whether a folder holds just the pictures of a video whose frames have these times.

    Args:
        folder: a folder of pictures, or none.
        times_us: time of each frame of the video, int64 [N].
    """
    try:
        found = {entry.name for entry in folder.iterdir()}
    except OSError:
        return False
    expected = "".join(f"{time}\n" for time in times_us)
    return found == names_of_frames(len(times_us)) and _times_in(folder) == expected


def _times_in(folder: Path) -> str:
    try:
        return (folder / TIMES_FILE).read_text("utf-8", "replace")
    except OSError:
        return ""
