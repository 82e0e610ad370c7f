"""The files that a recording is read from: which they are, whether they changed, and a fingerprint of what they say."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from evfi.errors import InputError
from evfi.files import one_line
from evfi.fingerprints import files_of, fingerprint_of, fingerprint_of_files
from evfi.guard import Read
from evfi.paths import is_folder
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

_LOOKED_FOR: Final = re.compile(
    r"(frames|events?|images|imgs|input|gt|blur|shape|frame_info|timestamps?|recording|metadata|visual_rgb|rgb-evs.*"
    r"|exposure_(start|end)|images_corrected|events_aligned|processed_(images|events)|calibration|cam_to_cam"
    r"|.*_calibration|(.*_)?events_left|(.*_)?images_rectified_left|.*image_(exposure_)?timestamps(_left)?)(\..*)?"
    r"|.*\.(png|jpe?g|bmp|tiff?|webp|pgm|ppm|npz|h5|hdf5|aedat4?|raw|dat|bag|db3|mcap|es|csv|ya?ml|json)"
)
"""Names, in small letters, under which some reader looks for a part of a recording."""

_PLACES: Final = ("events", "timestamps", "sensor_to_frame")
"""Options that name files, whose content counts and not their name."""


def is_looked_for(name: str) -> bool:
    """Whether readers look for something of this name directly in a recording's folder, so that it would change what is read.

    Args:
        name: of a file or folder.
    """
    return _LOOKED_FOR.fullmatch(name.lower()) is not None


def recording_reads(recording: Recording) -> list[Read]:
    """All that a recording is read from, for `evfi.guard`.

    Args:
        recording: opened by `evfi.recordings.opening`, or made of sources that say what they read.
    """
    video = recording.frames.path
    places = dict.fromkeys((*recording.places, *([] if video is None else [video]), *recording.frames.paths))
    folders = [place for place in places if is_folder(place)]
    return [
        Read(place, "the recording", is_looked_for)
        for place in places
        if place in recording.places or not any(place.is_relative_to(folder) for folder in folders)
    ]


def reads_named(path: Path, options: RecordingOptions) -> list[Read]:
    """What a user names to be read, for `evfi.guard`; what else belongs to it is known once it is open.

    Args:
        path: a recording or an event file.
        options: how it shall be opened.
    """
    named = {
        "the event file": options.events,
        "the file of frame times": options.timestamps,
        "the homography": options.sensor_to_frame,
    }
    others = [Read(place, name) for name, place in named.items() if place is not None]
    return [*others, Read(path, "the recording", is_looked_for)]


def recording_fingerprint(
    recording: Recording,
    options: RecordingOptions,
    ignored: Collection[Path] = (),
    stand_ins: Mapping[Path, Path] | None = None,
    places: Sequence[Path] | None = None,
) -> str:
    """Of the files, of how they were opened, and of the frame times and the mapping of events that came out.

    Args:
        recording: the recording, opened.
        options: how it was opened.
        ignored: files and folders within them that are no part of the recording.
        stand_ins: for some of the files, others whose content counts instead.
        places: what counts in place of the recording's own files, where it was made from those.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: a file cannot be read.
    """
    settings = {name: str(value) for name, value in asdict(options).items() if name not in _PLACES}
    times = np.ascontiguousarray(recording.frames.times_us, "<i8").tobytes().hex()
    mapping = np.ascontiguousarray(recording.sensor_to_frame, "<f8").tobytes().hex()
    return fingerprint_of(
        [
            fingerprint_of_files(recording.places if places is None else places, ignored, stand_ins),
            settings,
            times,
            mapping,
        ]
    )


class FileWatch:
    """Tells whether files changed since the watch began, by their size, time of change and place on the disk."""

    def __init__(
        self,
        places: Iterable[Path],
        ignored: Collection[Path] = (),
        pictures: Sequence[Path] = (),
        otherwise: str = "or start over with --fresh",
    ) -> None:
        """Remember how files are.

        Args:
            places: files, and folders with all that is in them.
            ignored: files and folders within them that may change.
            pictures: those of them that hold one frame each, in the order of frames, if there are such.
            otherwise: what to do if the original file is not put back.

        Raises:
            InputError: a file cannot be read.
        """
        self._known = {file: _state(file) for place in places for file in files_of(place, ignored)}
        self._pictures = pictures if all(picture in self._known for picture in pictures) else ()
        self._others = [*self._known.keys() - set(self._pictures)]
        self._otherwise = otherwise

    @property
    def digest(self) -> str:
        """Of the sizes and times of change of all files; equal in every process, also on other machines that see the files."""
        return fingerprint_of([[str(file), *state[:2]] for file, state in sorted(self._known.items())])

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
                raise InputError(f"{file} {self.advice()}")

    def advice(self) -> str:
        """What to say of a file that changed."""
        return (
            "changed while it was being read; nothing made from it since was kept. Put the original file back and run the same "
            f"command again, {self._otherwise}"
        )


def _state(file: Path) -> tuple[int, int, int]:
    try:
        facts = file.stat()
    except OSError as error:
        raise InputError(
            f"{file} can no longer be read ({one_line(error)}); put it back and run the same command again"
        ) from error
    return facts.st_size, facts.st_mtime_ns, facts.st_ino
