"""What a reader knows of its file, and what it found wrong in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadReport:
    """Facts about an event file and counts of what was unusual or unusable; nothing is left out in silence.

    Attributes:
        format: name of the format and, where it has several, of its encoding, e.g. "prophesee-raw evt3".
        convention: in one line: unit and origin of time, code of polarity, orientation, scale of coordinates.
        num_events: all events that the file holds, before any is left out; None where only reading all of it tells.
        num_triggers: external triggers.
        num_unknown: words, records or messages that are of no known kind and were passed over.
        num_clock_wraps: how often the camera's clock began again from zero (times go on).
        num_unsorted: events that are earlier than the one before them in the file.
        num_lost_bytes: bytes that could not be read and were given up (only where the user allowed it).
        notes: what else the user should know, one line each.
    """

    format: str
    convention: str = ""
    num_events: int | None = None
    num_triggers: int = 0
    num_unknown: int = 0
    num_clock_wraps: int = 0
    num_unsorted: int = 0
    num_lost_bytes: int = 0
    notes: tuple[str, ...] = ()

    def warnings(self) -> tuple[str, ...]:
        """What the user should know, one line each."""
        lines = list(self.notes)
        if self.num_lost_bytes:
            lines.append(f"{self.num_lost_bytes} bytes of events could not be read and are lost; copy or record again")
        if self.num_unknown:
            lines.append(f"{self.num_unknown} words or messages of unknown kind were skipped")
        if self.num_unsorted:
            lines.append(f"{self.num_unsorted} events are earlier than the one before them; they were sorted by time")
        return tuple(lines)
