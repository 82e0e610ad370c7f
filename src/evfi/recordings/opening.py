"""`open_recording`: finds the reader that a path's content calls for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evfi.errors import ConfigError, InputError
from evfi.events.formats import EVENT_FORMATS
from evfi.recordings.datasets import aedat4, bsergb, ecd, plain
from evfi.recordings.recording import Recording


@dataclass(frozen=True)
class RecordingFormat:
    """One layout of recordings.

    Attributes:
        name: what `format` calls it.
        description: what such a recording looks like.
        recognises: whether an existing path is one, told from its content.
        open: opens it.
    """

    name: str
    description: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path], Recording]


RECORDING_FORMATS: Final = (
    RecordingFormat(aedat4.NAME, aedat4.DESCRIPTION, aedat4.recognises, aedat4.open_recording),
    RecordingFormat(bsergb.NAME, bsergb.DESCRIPTION, bsergb.recognises, bsergb.open_recording),
    RecordingFormat(ecd.NAME, ecd.DESCRIPTION, ecd.recognises, ecd.open_recording),
    RecordingFormat(plain.NAME, plain.DESCRIPTION, plain.recognises, plain.open_recording),
)


def open_recording(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    events: str | os.PathLike[str] | None = None,
    timestamps: str | os.PathLike[str] | None = None,
) -> Recording:
    """Open a recording: key frames and events of one scene.

    Args:
        path: a file or folder of any layout in `RECORDING_FORMATS`; or frames alone (a folder of pictures, a video) if
            `events` is given.
        format: name of the layout; None finds it out from the content.
        events: an event file, where the frames lie elsewhere.
        timestamps: a file of one time per frame in µs, likewise.

    Raises:
        InputError: the path is missing, of an unknown or ambiguous layout, damaged or truncated.
        RecordingError: it holds fewer than two frames or no events, or the two do not overlap in time.
        ConfigError: `format` is unknown, or contradicts `events` or `timestamps`.
    """
    try:
        return _open(
            Path(path),
            format,
            None if events is None else Path(events),
            None if timestamps is None else Path(timestamps),
        )
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def _open(path: Path, format: str | None, events: Path | None, timestamps: Path | None) -> Recording:  # noqa: A002
    known = {layout.name: layout for layout in RECORDING_FORMATS}
    if format is not None and format not in known:
        raise ConfigError(f"unknown recording format '{format}'; known are {', '.join(known)}")
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if events is not None or timestamps is not None:
        if format not in (None, plain.NAME):
            raise ConfigError(f"format '{format}' finds its files itself; leave out events and timestamps")
        return plain.open_recording(path, events, timestamps)
    return (known[format] if format is not None else _recognised(path)).open(path)


def _recognised(path: Path) -> RecordingFormat:
    claims = [layout for layout in RECORDING_FORMATS if layout.recognises(path)]
    if len(claims) > 1:
        names = " and ".join(layout.name for layout in claims)
        raise InputError(f"{path}: could be {names}; name its format")
    if not claims:
        raise InputError(f"{path}: {_describe_unknown(path)}")
    return claims[0]


def _describe_unknown(path: Path) -> str:
    if path.is_file():
        if path.stat().st_size == 0:
            return "the file is empty; copy or record it again"
        if plain.is_video(path):
            return "a video without events; name an event file besides, or make events with `evfi simulate`"
        for event_format in EVENT_FORMATS:
            if event_format.recognises(path):
                return f"an event file ({event_format.name}) without frames; open the frames and name this as events"
    elif not any(path.iterdir()):
        return "the folder is empty"
    known = "; ".join(layout.description for layout in RECORDING_FORMATS)
    return f"unknown format; expected {known}"
