"""Event files: one module per format, recognised by content, opened as an `EventSource`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evfi.errors import InputError
from evfi.events.formats.aedat4 import is_aedat4, open_aedat4
from evfi.events.formats.columns import EventFileOptions
from evfi.events.formats.npz import is_npz, open_npz
from evfi.events.formats.text import is_text, open_text
from evfi.events.source import EventSource


@dataclass(frozen=True)
class EventFormat:
    """One format of event files.

    Attributes:
        name: how messages call it.
        description: what such a file looks like.
        recognises: whether an existing, non-empty file is of this format, told from its content.
        open: opens it, given what such a file may leave open.
    """

    name: str
    description: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, EventFileOptions], EventSource]


EVENT_FORMATS: Final = (
    EventFormat("aedat4", "AEDAT4 (.aedat4)", is_aedat4, open_aedat4),
    EventFormat("npz", "NumPy .npz with members x, y, t, p", is_npz, open_npz),
    EventFormat("text", "text lines 't x y p' (.txt, .csv)", is_text, open_text),
)


def open_event_file(path: Path, options: EventFileOptions | None = None) -> EventSource:
    """Open an event file of any format that is known.

    Args:
        path: the file.
        options: what the file may leave open.

    Raises:
        InputError: the file is missing, empty, of an unknown format, or damaged.
        RecordingError: it holds no events.
    """
    if not path.is_file():
        raise InputError(f"no such event file: {path}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy or export it again")
    for event_format in EVENT_FORMATS:
        if event_format.recognises(path):
            return event_format.open(path, options or EventFileOptions())
    known = "; ".join(event_format.description for event_format in EVENT_FORMATS)
    raise InputError(f"{path}: unknown format of event file; known are {known}")
