"""What formats without a declared unit of time can hold."""

from __future__ import annotations

from evfi.errors import InputError
from evfi.events.stream import EventStream


def check_times_within(piece: EventStream, limit_us: int, why: str) -> None:
    """Make sure that times will be read back as they are.

    Args:
        piece: events in order of time.
        limit_us: no time may reach it.
        why: what happens to larger ones.

    Raises:
        InputError: a time is too large.
    """
    if len(piece) and max(abs(int(piece.t[0])), abs(int(piece.t[-1]))) >= limit_us:
        raise InputError(f"times of {piece.t[-1]} µs {why}; write AEDAT4 or HDF5, which hold them exactly")
