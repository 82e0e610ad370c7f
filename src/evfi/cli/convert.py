"""`evfi convert`: convert a recording or an event file to another format."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from evfi.cli.options import parse
from evfi.cli.terminal import print_lines
from evfi.events.report import ReadReport
from evfi.recordings.convert import Conversion, Target, check_conversion, convert
from evfi.recordings.files import reads_named
from evfi.recordings.options import RecordingOptions
from evfi.recordings.subject import open_subject

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertCommand:
    """Convert a recording's events to another format; AEDAT4 files and folders keep the frames too.

        evfi convert street.raw street.aedat4

    Attributes:
        recording: a recording of any layout, or an event file.
        output: the file to write; its suffix sets the format: .aedat4, .h5 or .hdf5, .npz, .txt or .csv. An existing file, or
            a link to one, is replaced, unless it is an input. A name without a suffix is a folder to make, with frames,
            events and times.
        to: the format, if the suffix does not set it.
        start: where to begin, in seconds after the first event.
        end: where to stop, in seconds after the first event.
        reading: what the input files leave out or state wrongly.
    """

    recording: tyro.conf.Positional[Path]
    output: tyro.conf.Positional[Path]
    to: Target | None = None
    start: float | None = None
    end: float | None = None
    reading: Annotated[RecordingOptions, tyro.conf.arg(name="input")] = field(default_factory=RecordingOptions)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `convert`.
    """
    command = parse(ConvertCommand, "convert", arguments)
    check_conversion(command.output, command.to, reads_named(command.recording, command.reading))
    with open_subject(command.recording, command.reading) as subject:
        told = subject.recording.warnings if subject.recording is not None else subject.events.report.warnings()
        for warning in (*subject.notes, *told):
            _log.warning("%s", warning)
        conversion = convert(subject, command.output, command.to, start=command.start, end=command.end)
        report = subject.events.report  # some counts grow while events are read
    print_lines(*describe(conversion, report))


def describe(conversion: Conversion, report: ReadReport) -> list[str]:
    """A conversion's summary for people, line by line."""
    first, last = conversion.time_range_us
    lines = [
        f"read     {report.format}",
        f"events   {conversion.num_events}, {(last - first) / 1e6:.6f} s, from {first} to {last} µs",
    ]
    if conversion.num_frames:
        lines.append(f"frames   {conversion.num_frames}")
    if conversion.num_dropped:
        lines.append(f"dropped  {conversion.num_dropped} events outside the sensor or their interval, or filtered")
    if report.num_unsorted:
        lines.append(f"sorted   {report.num_unsorted} events were earlier than the one before them")
    if report.num_lost_bytes:
        lines.append(f"lost     {report.num_lost_bytes} bytes could not be read")
    lines += [f"note     {note}" for note in conversion.notes]
    return [*lines, f"written  {conversion.output} ({conversion.target})"]
