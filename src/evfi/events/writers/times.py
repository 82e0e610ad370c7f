"""What formats without a declared unit of time can hold."""

from __future__ import annotations

from typing import Final

from evfi.errors import InputError
from evfi.events.stream import EventStream

_MAX_TIME_US: Final = 10**17
"""Readers take larger whole numbers for nanoseconds since 1970."""


def check_microseconds_can_be_told(piece: EventStream) -> None:
    """Make sure that whole numbers will be read as microseconds.

    Raises:
        InputError: they would not.
    """
    if len(piece) and max(abs(int(piece.t[0])), abs(int(piece.t[-1]))) >= _MAX_TIME_US:
        raise InputError(
            f"times of {piece.t[-1]} µs would be read back as nanoseconds; write AEDAT4 or HDF5, which say their unit"
        )
