"""Convert events to another format, with frames if the target can hold them.

    AEDAT4, HDF5, NPZ, text   events; AEDAT4 takes the frames, too
    folder                    a recording in the plain layout, with its frames

Events pass piece by piece, frames one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from evfi.errors import ConfigError, RecordingError
from evfi.events.source import EventSource
from evfi.events.stream import EventStream
from evfi.events.writers import WritableFrame, WrittenEvents, find_writer, write_events
from evfi.guard import Read, Written, check_places
from evfi.paths import is_folder
from evfi.recordings.alignment import scale_mapping
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.recordings.recording import Recording
from evfi.recordings.subject import Subject, subject_reads

Target = Literal["aedat4", "hdf5", "npz", "text", "folder"]

_MAX_SECONDS: Final = 1e12


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote.

    Attributes:
        output: the file or folder.
        target: its format.
        num_events: events written.
        num_dropped: events that the reader had to leave out of what was asked for; with a cut, also some around it.
        time_range_us: times of the first and the last event written.
        num_frames: frames written.
        notes: what was not kept, one line each.
    """

    output: Path
    target: str
    num_events: int
    num_dropped: int
    time_range_us: tuple[int, int]
    num_frames: int
    notes: tuple[str, ...]


def check_conversion(output: Path, target: Target | None, read: Sequence[Read]) -> str:
    """Find the target's format, and make sure that it can be written and takes the place of nothing that is read.

    Args:
        output: what is written.
        target: its format; None tells it from the output's suffix.
        read: what is read.

    Raises:
        ConfigError: the format is unknown.
        OutputError: the output cannot be written, or is what is read or would become part of it.
    """
    as_folder = target == "folder" or (target is None and (is_folder(output) or not output.suffix))
    name = "folder" if as_folder else find_writer(output, target).name
    written = Written(output, "the output", "folder" if as_folder else "file")
    check_places([written], [replace(one, looks_for=None) for one in read])  # it may be what any reader looks for
    return name


def convert(
    subject: Subject,
    output: Path,
    target: Target | None = None,
    *,
    start: float | None = None,
    end: float | None = None,
) -> Conversion:
    """Write a recording or an event file in another format.

    Args:
        subject: what to read.
        output: the file, which is replaced where it exists (a link itself, not what it points to), or the folder, which must
            not exist or be empty.
        target: its format; None tells it from the suffix of `output`, a folder where there is none.
        start: seconds after the first event at which to begin.
        end: seconds after the first event at which to stop.

    Raises:
        ConfigError: the target is unknown, or start and end are impossible.
        OutputError: the output cannot be written, or is what is read or would become part of it.
        InputError: reading fails, or the events do not fit the format.
        RecordingError: nothing is left to write.
    """
    name = check_conversion(output, target, subject_reads(subject))
    cut = _Cut.of(subject.events, start, end)
    recording = subject.recording
    if name == "folder" and recording is None:
        raise RecordingError(f"{subject.problem}; a folder needs frames: name a file to write only the events")
    if name == "aedat4" and subject.notes and recording is None:
        raise RecordingError(f"{subject.problem}; to write only the events, name a .h5, .npz, .txt or .csv file")
    if recording is not None and name in ("aedat4", "folder"):
        return _with_frames(recording, cut, output, name)
    written = write_events(output, subject.events, name, pieces=cut.pieces(subject.events))
    notes = () if recording is None else (f"frames are dropped: {name} files hold events only",)
    return _summary(output, name, written, 0, notes)


@dataclass(frozen=True)
class _Cut:
    """The time to keep, in µs; the end is not part of it."""

    start_us: int
    end_us: int

    @classmethod
    def of(cls, events: EventSource, start: float | None, end: float | None) -> _Cut:
        for option, value in (("start", start), ("end", end)):
            if value is not None and not 0 <= value < _MAX_SECONDS:
                raise ConfigError(f"{option} must be seconds after the first event, at least 0, got {value}")
        if start is not None and end is not None and start >= end:
            raise ConfigError(f"start must be before end, got {start} and {end} seconds")
        first, last = events.time_range_us
        start_us = first if start is None else first + round(start * 1e6)
        if start_us > last:
            raise ConfigError(
                f"start must be at most {(last - first) / 1e6:.6f} seconds, the time from the first event to the "
                f"last, got {start}"
            )
        return cls(start_us, last + 1 if end is None else first + round(end * 1e6))

    def pieces(self, events: EventSource) -> Iterator[EventStream]:
        """The source's pieces within the cut."""
        for piece in events.pieces():
            if len(piece) and piece.t[0] >= self.end_us:
                return
            if not len(piece) or piece.t[-1] < self.start_us:
                continue
            part = piece.slice(self.start_us, self.end_us)
            yield EventStream(part.x, part.y, part.t, part.p, part.sensor_size, piece.num_dropped)


def _with_frames(recording: Recording, cut: _Cut, output: Path, name: str) -> Conversion:
    times = recording.frames.times_us
    is_whole = cut == _Cut.of(recording.events, None, None)
    kept = [i for i, time in enumerate(times.tolist()) if is_whole or cut.start_us <= time < cut.end_us]
    is_scaled = np.allclose(
        recording.sensor_to_frame, scale_mapping(recording.events.sensor_size, recording.frames.size), atol=1e-9
    )
    notes = [] if recording.rectification is None else ["the sensor's rectification is dropped"]
    pieces = cut.pieces(recording.events)
    if name == "aedat4":
        if not is_scaled:
            notes.append("the homography from sensor to frames is dropped: AEDAT4 cannot store it")
        frames = _writable_frames(recording, kept)
        written = write_events(
            output, recording.events, name, pieces=pieces, frames=frames, frame_size=recording.frames.size
        )
    else:
        if len(kept) < 2:
            raise RecordingError(
                f"{recording.path}: {len(kept)} frames lie between start and end; a folder needs at least 2"
            )
        written = WrittenEvents()
        mapping = None if is_scaled else recording.sensor_to_frame
        images = (recording.frames.read(i) for i in kept)
        write_plain_recording(output, images, times[kept], written.counted(pieces), mapping)
    return _summary(output, name, written, len(kept), tuple(notes))


def _writable_frames(recording: Recording, kept: list[int]) -> Iterator[WritableFrame]:
    """Frames with their exposure; one of no length where it is unknown, or where the user moved the frames' times."""
    exposures, times = recording.frames.exposures_us, recording.frames.times_us
    for i in kept:
        image = recording.frames.read(i)
        start, end = (int(times[i]),) * 2 if exposures is None else (int(side) for side in exposures[i])
        if start + (end - start) // 2 != times[i]:
            start = end = int(times[i])
        yield WritableFrame(start, end, image[..., 0] if recording.is_grey else image)


def _summary(output: Path, name: str, written: WrittenEvents, num_frames: int, notes: tuple[str, ...]) -> Conversion:
    assert written.time_range_us is not None
    return Conversion(output, name, written.num_events, written.num_dropped, written.time_range_us, num_frames, notes)
