"""The plain layout: frames, events and times side by side; what `write_plain_recording` writes.

    frames/            pictures in the order of the numbers in their names; or a video frames.mp4 (.mkv, .avi, …)
    events.npz         or events.aedat4, events.txt, events.csv: any event file that `events.formats` knows
    timestamps.txt     one time per frame; may be missing beside a video, whose own times are then used
    recording.json     optional: declares what the files leave open, see `Declaration`

Conventions: one clock for frames and events; times are whole µs where no other unit is declared. The sensor has the
frames' size where neither the event file nor recording.json says another, and shows the frames' field of view where
no `sensor_to_frame` is declared. Frames, events and timestamps may also be named one by one, wherever they lie.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from evfi.errors import InputError, RecordingError
from evfi.events.file_options import TIME_UNITS, EventFileOptions, TimeUnit
from evfi.events.formats import open_event_file
from evfi.events.source import EventSource
from evfi.events.stream import MAX_SIDE
from evfi.kinds import ANYTHING, Kind, listed, number, whole, word
from evfi.paths import is_file
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.datasets.plain_writer import FORMAT_MARK, write_plain_recording
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import FrameSource, Recording
from evfi.recordings.retiming import RetimedFrames
from evfi.recordings.timestamps import read_timestamps
from evfi.strict_json import Keys, parse_json, read_text
from evfi.video.io import VideoFrames

__all__ = ["DESCRIPTION", "NAME", "Declaration", "is_video", "open_recording", "recognises", "write_plain_recording"]

NAME: Final = "plain"
DESCRIPTION: Final = "a folder with frames/ (or frames.mp4), an event file events.*, and timestamps.txt"
VIDEO_SUFFIXES: Final = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v")

_MAX_JSON_BYTES: Final = 2**20
_DECLARED: Final[dict[str, Kind]] = {
    "timestamps_unit": word(*TIME_UNITS),
    "events_time_unit": word(*TIME_UNITS),
    "sensor_size": listed(whole(1, MAX_SIDE), 2, 2),
    "sensor_to_frame": listed(listed(number(-1e9, 1e9), 3, 3), 3, 3),
}
_MAX_ASPECT_DIFFERENCE: Final = 0.02


@dataclass(frozen=True)
class Declaration:
    """The content of recording.json; every key is optional.

    Attributes:
        timestamps_unit: unit of timestamps.txt: "s", "ms", "us" or "ns".
        events_time_unit: unit of the event file's times; by default what the file says or its values look like.
        sensor_size: (width, height) of the event sensor.
        sensor_to_frame: homography from event to frame coordinates, three rows of three numbers; pixel i covers [i, i + 1).
    """

    timestamps_unit: TimeUnit = "us"
    events_time_unit: TimeUnit | None = None
    sensor_size: tuple[int, int] | None = None
    sensor_to_frame: tuple[tuple[float, ...], ...] | None = None


def recognises(path: Path) -> bool:
    """Whether the folder holds frames and one event file under their names."""
    return path.is_dir() and _find_frames(path) is not None and bool(_find_event_files(path))


def is_video(path: Path) -> bool:
    """Whether the path is a file named like a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open a recording in plain layout, or one whose parts are named.

    Args:
        path: the folder; or a folder of pictures, or a video.
        options: `events` and `timestamps` name those files where they are not in the folder under their usual names.

    Raises:
        InputError: a part is missing, damaged, or contradicts another.
        RecordingError: there is nothing to interpolate.
    """
    where = _find_frames(path)
    if where is None:
        raise InputError(f"{path}: expected pictures, a folder frames/ or a video frames.mp4; found none of them")
    declaration = path / "recording.json" if path.is_dir() else path.parent / "recording.json"
    declared = _read_declaration(declaration)
    warnings: list[str] = []
    frames = _open_frames(where, options.timestamps or _beside(path, "timestamps.txt"), declared, warnings)
    if len(frames) < 2:
        raise RecordingError(f"{path}: expected at least two frames, found {len(frames)}")
    source = _open_events(options.events or _only_event_file(path), declared, options, frames.size)
    if declared.sensor_to_frame is None:
        mapping = scale_mapping(source.sensor_size, frames.size)
        warnings += _warn_of_aspect(source.sensor_size, frames.size)
    else:
        mapping = np.array(declared.sensor_to_frame, np.float64)
    beside = () if path.is_dir() or not declaration.is_file() else (declaration,)
    return Recording(path, NAME, frames, source, mapping, tuple(warnings), places=beside)


def _find_frames(path: Path) -> Path | None:
    """The folder of pictures or the video that a path stands for."""
    if path.is_file():
        return path
    if not path.is_dir():
        return None
    if (path / "frames").is_dir():
        return path / "frames"
    videos = [path / f"frames{suffix}" for suffix in VIDEO_SUFFIXES if (path / f"frames{suffix}").is_file()]
    if videos:
        return videos[0]
    return path if find_pictures(path) else None


def _find_event_files(path: Path) -> list[Path]:
    folder = path if path.is_dir() else path.parent
    return sorted(file for file in folder.glob("events.*") if is_file(file))


def _only_event_file(path: Path) -> Path:
    found = _find_event_files(path) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    problem = f"several event files ({', '.join(file.name for file in found)})" if found else "no file events.*"
    raise InputError(f"{path}: found {problem}; name the event file to read")


def _beside(path: Path, name: str) -> Path | None:
    file = path / name
    return file if path.is_dir() and file.is_file() else None


def _open_frames(where: Path, timestamps: Path | None, declared: Declaration, warnings: list[str]) -> FrameSource:
    if where.is_dir():
        pictures = find_pictures(where)
        if not pictures:
            raise RecordingError(f"{where}: expected at least two frames, found no picture")
        if timestamps is None:
            raise InputError(f"{where}: the frames have no times; write one time per frame (µs) to timestamps.txt")
        times = read_timestamps(timestamps, declared.timestamps_unit, num_frames=len(pictures))
        warnings += _warn_of_gaps(pictures)
        return PictureFrames(pictures, times)
    video = VideoFrames(where)
    if timestamps is None:
        warnings.append(f"no timestamps.txt: frame times are the presentation times of {where.name}")
        return video
    try:
        return RetimedFrames(video, read_timestamps(timestamps, declared.timestamps_unit, num_frames=len(video)))
    except BaseException:
        video.close()
        raise


def _warn_of_gaps(pictures: list[Path]) -> list[str]:
    """A warning where the numbers of pictures leave some out that others do not."""
    numbers = [int(found[-1]) for picture in pictures if (found := re.findall(r"\d+", picture.stem))]
    steps = np.diff(np.array(numbers, np.float64))
    if len(numbers) < len(pictures) or len(steps) < 2 or (steps <= np.median(steps)).all():
        return []
    after = pictures[int(np.argmax(steps > np.median(steps)))].name
    return [f"picture numbers are missing, the first after {after}: if frames were lost, check the frame times, too"]


def declared_event_options(folder: Path, options: RecordingOptions) -> EventFileOptions:
    """What the user, or else a folder's recording.json, says of its event file.

    Raises:
        InputError: recording.json is damaged.
    """
    return _event_options(_read_declaration(folder / "recording.json"), options)


def _event_options(declared: Declaration, user: RecordingOptions) -> EventFileOptions:
    unit = user.events_unit or declared.events_time_unit
    return replace(user.for_events(declared.sensor_size), time_unit=unit)


def _open_events(path: Path, declared: Declaration, user: RecordingOptions, frame_size: tuple[int, int]) -> EventSource:
    options = _event_options(declared, user)
    if options.sensor_size is None:
        options = replace(options, sensor_size=frame_size, size_is_assumed=True)
    source = open_event_file(path, options)
    if declared.sensor_size is not None and source.sensor_size != declared.sensor_size:
        raise InputError(
            f"{path}: the file says sensor size {source.sensor_size}, recording.json says {declared.sensor_size}; "
            "correct recording.json"
        )
    return source


def _warn_of_aspect(sensor_size: tuple[int, int], frame_size: tuple[int, int]) -> list[str]:
    ratio = (sensor_size[0] / sensor_size[1]) / (frame_size[0] / frame_size[1])
    if abs(ratio - 1) <= _MAX_ASPECT_DIFFERENCE:
        return []
    sensor, frame = (f"{width}×{height}" for width, height in (sensor_size, frame_size))
    return [
        f"sensor ({sensor}) and frames ({frame}) differ in shape; if they do not show the same field of view, "
        'declare "sensor_to_frame" in recording.json'
    ]


def _read_declaration(path: Path) -> Declaration:
    if not path.is_file():
        return Declaration()
    what = "declaration"
    content = parse_json(read_text(path, _MAX_JSON_BYTES, what, InputError), str(path), what, InputError)
    keys = Keys(content, str(path), f"the {what}", InputError)
    keys.declared(dict.fromkeys(FORMAT_MARK, ANYTHING))
    declared = keys.declared(_DECLARED)
    keys.finish()
    return Declaration(**{key: _tuples(value) for key, value in declared.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
