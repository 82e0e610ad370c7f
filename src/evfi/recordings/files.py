"""The files that a recording is read from: which they are, whether they changed, and a fingerprint of what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError
from evfi.files import one_line
from evfi.fingerprints import files_of, fingerprint_of, fingerprint_of_files
from evfi.recordings.datasets.interval_files import IntervalEvents
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

_PLACES: Final = ("events", "timestamps", "sensor_to_frame")
"""Options that name files, whose content counts and not their name."""


def recording_places(recording: Recording, path: Path, options: RecordingOptions) -> list[Path]:
    """Files and folders that a recording consists of.

    Args:
        recording: the recording, opened.
        path: what it was opened from.
        options: how it was opened.
    """
    others = [place for place in (options.events, options.timestamps, options.sensor_to_frame) if place is not None]
    if isinstance(recording.events, IntervalEvents):
        others += [file for file in recording.events.files if not file.is_relative_to(path)]
    return [path, *others]


def recording_fingerprint(
    recording: Recording,
    places: Sequence[Path],
    options: RecordingOptions,
    ignored: Collection[Path] = (),
    stand_ins: Mapping[Path, Path] | None = None,
) -> str:
    """Of the files, of how they were opened, and of the frame times and the mapping of events that came out.

    Args:
        recording: the recording, opened.
        places: from `recording_places`.
        options: how it was opened.
        ignored: files and folders within them that are no part of the recording.
        stand_ins: for some of the files, others whose content counts instead.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: a file cannot be read.
    """
    settings = {name: str(value) for name, value in asdict(options).items() if name not in _PLACES}
    times = np.ascontiguousarray(recording.frames.times_us, "<i8").tobytes().hex()
    mapping = np.ascontiguousarray(recording.sensor_to_frame, "<f8").tobytes().hex()
    return fingerprint_of([fingerprint_of_files(places, ignored, stand_ins), settings, times, mapping])


class FileWatch:
    """Tells whether files changed since the watch began, by their size, time of change and place on the disk."""

    def __init__(self, places: Iterable[Path], ignored: Collection[Path] = (), pictures: Sequence[Path] = ()) -> None:
        """Remember how files are.

        Args:
            places: files, and folders with all that is in them.
            ignored: files and folders within them that may change.
            pictures: those of them that hold one frame each, in the order of frames, if there are such.

        Raises:
            InputError: a file cannot be read.
        """
        self._known = {file: _state(file) for place in places for file in files_of(place, ignored)}
        self._pictures = pictures if all(picture in self._known for picture in pictures) else ()
        self._others = [*self._known.keys() - set(self._pictures)]

    def check(self, frames: Collection[int] | None = None) -> None:
        """Look again.

        Args:
            frames: of all pictures, look only at those of these frames: a recording may have a hundred thousand of them, and
                is looked at after each window.

        Raises:
            InputError: a file is gone or changed.
        """
        files: Iterable[Path] = self._known
        if frames is not None and self._pictures:
            files = [*self._others, *(self._pictures[frame] for frame in frames)]
        for file in files:
            if _state(file) != self._known[file]:
                raise InputError(
                    f"{file} changed while it was being read; nothing made from it since was kept. Put the old file back "
                    "and run the same command again, or begin anew with --fresh"
                )


def _state(file: Path) -> tuple[int, int, int]:
    try:
        facts = file.stat()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read any more ({one_line(error)}); put it back and run the same command again"
        ) from error
    return facts.st_size, facts.st_mtime_ns, facts.st_ino
