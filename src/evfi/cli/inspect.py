"""`evfi inspect`: show what a recording contains, and its problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from evfi.cli.inspection_text import describe_inspection
from evfi.cli.options import parse
from evfi.cli.terminal import print_json, print_lines
from evfi.errors import ConfigError
from evfi.guard import Written, check_places
from evfi.recordings.files import reads_named
from evfi.recordings.inspection import inspect_subject
from evfi.recordings.options import RecordingOptions
from evfi.recordings.subject import open_subject, subject_reads


@dataclass(frozen=True)
class InspectCommand:
    """Show what a recording or an event file contains, and its problems.

        evfi inspect street.aedat4 --picture street.png

    Attributes:
        recording: a file or folder of any layout, or an event file without frames.
        json: print JSON instead of text; docs/inspect.md describes it.
        picture: a PNG file to write: frames with events over them, and the event rate over time. An existing file, or a link
            to one, is replaced, unless it is an input.
        reading: what the input files leave out or state wrongly.
    """

    recording: tyro.conf.Positional[Path]
    json: bool = False
    picture: Path | None = None
    reading: Annotated[RecordingOptions, tyro.conf.arg(name="input")] = field(default_factory=RecordingOptions)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `inspect`.
    """
    command = parse(InspectCommand, "inspect", arguments)
    if command.picture is not None:
        if command.picture.suffix.lower() != ".png":
            raise ConfigError(f"the picture must be a .png file, got '{command.picture}'")
        written = [Written(command.picture, "the picture")]
        check_places(written, reads_named(command.recording, command.reading))
    with open_subject(command.recording, command.reading) as subject:
        if command.picture is not None:
            check_places(written, subject_reads(subject))
        inspection = inspect_subject(subject)
        if command.picture is not None:
            from evfi.recordings.inspection_picture import write_picture

            write_picture(command.picture, subject, inspection)
    if command.json:
        print_json(inspection.as_json(), indent=2)
    else:
        print_lines(*describe_inspection(inspection))
