"""Events in an HDF5 file as an event source."""

from __future__ import annotations

from pathlib import Path

from evfi.events.file_options import EventFileOptions
from evfi.events.formats.event_table import CHUNK_EVENTS, open_table
from evfi.events.formats.hdf5.container import Hdf5File
from evfi.events.formats.hdf5.layouts import find_layout
from evfi.events.source import EventSource


def open_hdf5(path: Path, options: EventFileOptions, *, chunk_events: int = CHUNK_EVENTS) -> EventSource:
    """Open an HDF5 file of events in any layout that `layouts` knows.

    Args:
        path: the file.
        options: what the file leaves open.
        chunk_events: about how many events are read at a time.

    Raises:
        InputError: the file is of no known layout, damaged or truncated, or its content lies elsewhere.
        RecordingError: it holds no events.
        ConfigError: another unit of time than the layout's own is declared.
    """
    file = Hdf5File(path)
    try:
        return open_table(file, find_layout(file, tolerant=options.tolerant), options, chunk_events=chunk_events)
    except BaseException:
        file.close()
        raise
