"""Event files: one module per format, recognised by content, opened as an `EventSource`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evfi.errors import ConfigError, InputError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.aedat4 import is_aedat4, open_aedat4
from evfi.events.formats.dat import is_dat, open_dat
from evfi.events.formats.es import is_es, open_es
from evfi.events.formats.hdf5 import is_hdf5, open_hdf5
from evfi.events.formats.npz import is_npz, open_npz
from evfi.events.formats.prophesee_raw import is_prophesee_raw, open_prophesee_raw
from evfi.events.formats.refusals import advice_for
from evfi.events.formats.rosbag import is_rosbag, open_rosbag
from evfi.events.formats.text import is_text, open_text
from evfi.events.source import EventSource
from evfi.paths import check_name


@dataclass(frozen=True)
class EventFormat:
    """One format of event files.

    Attributes:
        name: how messages call it.
        description: what such a file looks like.
        recognises: whether an existing, non-empty file is of this format, told from its content.
        open: opens it, given what such a file may leave open.
        may_be_folder: whether a folder may be of this format, too; `recognises` is asked of folders then.
    """

    name: str
    description: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path, EventFileOptions], EventSource]
    may_be_folder: bool = False


EVENT_FORMATS: Final = (
    EventFormat("aedat4", "AEDAT4 (.aedat4)", is_aedat4, open_aedat4),
    EventFormat("npz", "NumPy .npz with members x, y, t, p", is_npz, open_npz),
    EventFormat("prophesee-raw", "Prophesee RAW, EVT2, EVT2.1 or EVT3 (.raw)", is_prophesee_raw, open_prophesee_raw),
    EventFormat("dat", "Prophesee DAT (.dat)", is_dat, open_dat),
    EventFormat("hdf5", "HDF5 of Prophesee, DSEC, event_utils, v2e or MVSEC (.h5, .hdf5)", is_hdf5, open_hdf5),
    EventFormat("rosbag", "ROS bag (.bag, .db3, .mcap, or the folder of a ROS 2 bag)", is_rosbag, open_rosbag, True),
    EventFormat("es", "ES, event stream 2.x of change events (.es)", is_es, open_es),
    EventFormat("text", "text lines 't x y p' (.txt, .csv)", is_text, open_text),
)


def open_event_file(
    path: str | os.PathLike[str],
    options: EventFileOptions | None = None,
    *,
    format: str | None = None,  # noqa: A002
) -> EventSource:
    """Open an event file of any format that is known.

    Args:
        path: the file.
        options: what the file may leave open.
        format: name of its format; None tells it from the content.

    Raises:
        InputError: the file is missing, empty, of an unknown or ambiguous format, or damaged.
        RecordingError: it holds no events.
        ConfigError: `format` is unknown.
    """
    try:
        return find_event_format(Path(path), format).open(Path(path), options or EventFileOptions())
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def find_event_format(path: Path, format: str | None = None) -> EventFormat:  # noqa: A002
    """The format of an event file, told from its content; or the one named.

    Raises:
        InputError: the file is missing, empty, or of an unknown or ambiguous format.
        ConfigError: `format` is unknown.
    """
    known = {event_format.name: event_format for event_format in EVENT_FORMATS}
    if format is not None and format not in known:
        raise ConfigError(f"unknown event file format '{format}'; expected one of {', '.join(known)}")
    check_name(path)
    if not path.exists():
        raise InputError(f"no such event file: {path}")
    check_is_stored(path)
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy or export it again")
    if format is not None:
        return known[format]
    claims = claims_to(path)
    if len(claims) > 1:
        names = ", or ".join(f"{event_format.name} ({event_format.description})" for event_format in claims)
        raise InputError(f"{path}: could be {names}; say which with --format {claims[0].name}")
    if not claims:
        if advice := advice_for(path):
            raise InputError(f"{path}: {advice}")
        raise InputError(f"{path}: unknown format of event file; expected one of {', '.join(known)} (docs/formats.md)")
    return claims[0]


def check_is_stored(path: Path) -> None:
    """Refuse pipes, devices and sockets, which would be waited for without end.

    Raises:
        InputError: an existing path is neither a file nor a folder.
    """
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: expected a file or folder, found a pipe, socket or device; save its data to a file")


def claims_to(path: Path) -> list[EventFormat]:
    """The formats that an existing file or folder could be of."""
    if not (path.is_file() or path.is_dir()):
        return []
    asked = [event_format for event_format in EVENT_FORMATS if event_format.may_be_folder or path.is_file()]
    return [event_format for event_format in asked if event_format.recognises(path)]
