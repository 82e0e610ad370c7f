"""What is inspected: a recording, or the events alone where there are no frames that can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.file_options import EventFileOptions
from evfi.events.filters import FilteredEvents
from evfi.events.formats import claims_to, open_event_file
from evfi.events.source import EventSource
from evfi.guard import Read
from evfi.paths import is_file
from evfi.recordings.datasets import plain
from evfi.recordings.files import reads_named, recording_reads
from evfi.recordings.opening import RECORDING_FORMATS, open_recording
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording

_EVENT_FOLDERS: Final = ("", "events")
_MAX_CANDIDATES: Final = 100


@dataclass(frozen=True, eq=False)
class Subject:
    """A path, opened as far as it can be.

    Attributes:
        path: what was opened.
        recording: frames and events; None where the frames are missing or cannot be read.
        events: the events.
        problem: why there is no recording; None where there is one.
        notes: what could not be had although it should, one line each.
        options: what the user said.
    """

    path: Path
    recording: Recording | None
    events: EventSource
    problem: str | None
    notes: tuple[str, ...]
    options: RecordingOptions

    def close(self) -> None:
        """Close the files."""
        if self.recording is not None:
            self.recording.close()
        else:
            self.events.close()

    def __enter__(self) -> Subject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_subject(path: Path, options: RecordingOptions) -> Subject:
    """Open a recording of any layout, or the events of one whose frames are missing or damaged, or an event file.

    Args:
        path: a file or folder.
        options: what the files leave open.

    Raises:
        InputError: neither frames nor events can be read.
        RecordingError: there are no events.
        ConfigError: a setting is unknown, out of range, or contradicts another.
    """
    try:
        recording, notes = _recording(path, options)
    except (InputError, RecordingError) as problem:
        if options.timestamps is not None or options.sensor_to_frame is not None:  # frames were asked for
            raise
        events = _events_alone(path, options, problem)
        notes = (f"the frames cannot be read: {problem}",) if _has_frames(path, problem) else ()
        return Subject(path, None, events, str(problem), notes, options)
    return Subject(path, recording, recording.events, None, notes, options)


def subject_reads(subject: Subject) -> list[Read]:
    """All that a subject is read from, for `evfi.guard`."""
    named = reads_named(subject.path, subject.options)
    return named if subject.recording is None else [*named, *recording_reads(subject.recording)]


def _recording(path: Path, options: RecordingOptions) -> tuple[Recording, tuple[str, ...]]:
    """The recording, and why it is not aligned as asked for."""
    try:
        return open_recording(path, options, must_overlap=False), ()
    except RecordingError as problem:
        if not (options.estimate_offset or options.estimate_shift):
            raise
        as_it_is = replace(options, estimate_offset=False, estimate_shift=False)
        return open_recording(path, as_it_is, must_overlap=False), (str(problem),)


def _has_frames(path: Path, problem: EvfiError) -> bool:
    """Whether a path that is no recording should have been one, rather than an event file."""
    if not _is_event_file(path):
        return True
    return isinstance(problem, InputError) and any(layout.recognises(path) for layout in RECORDING_FORMATS)


def _events_alone(path: Path, options: RecordingOptions, problem: EvfiError) -> EventSource:
    """The events of a path that is no recording.

    Raises:
        EvfiError: the given problem, where it is not clear which file they are in; or they cannot be read either.
    """
    try:
        candidates = _event_files(path, options)
        if len(candidates) != 1:
            raise problem
        try:
            return _filtered(open_event_file(candidates[0], _event_options(path, options)), options)
        except (InputError, RecordingError) as error:
            if candidates[0] == path or str(error) in str(problem):
                raise
            raise InputError(f"{problem}; the events alone cannot be read either: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def _event_options(path: Path, options: RecordingOptions) -> EventFileOptions:
    """What is known of the events of a path that is no recording; a plain folder may say it."""
    try:
        return plain.declared_event_options(path, options)
    except InputError:
        return options.for_events()


def _event_files(path: Path, options: RecordingOptions) -> list[Path]:
    if options.events is not None:
        return [options.events] if options.events.exists() else []
    if _is_event_file(path):
        return [path]
    if not path.is_dir():
        return []
    folders = [path / name for name in _EVENT_FOLDERS if (path / name).is_dir()]
    found = [file for folder in folders for file in sorted(folder.iterdir())]
    return [file for file in found[:_MAX_CANDIDATES] if is_file(file) and _is_event_file(file)]


def _is_event_file(path: Path) -> bool:
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return False
    return bool(claims_to(path))


def _filtered(events: EventSource, options: RecordingOptions) -> EventSource:
    if not options.remove_hot_pixels and options.background_filter_us is None:
        return events
    return FilteredEvents(events, options.remove_hot_pixels, options.background_filter_us)
