"""Events to text: a line `W H` with the sensor's size, then lines `t x y p`, t in whole µs, p 0 or 1.

Names that end in .csv get commas in place of blanks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from evfi.events.stream import EventStream
from evfi.events.writers.times import check_times_within

_MAX_EXACT: Final = 2**53
"""Many readers take numbers as 64-bit floats."""
_LINES_AT_ONCE: Final = 2**17


def write_text(path: Path, sensor_size: tuple[int, int], start_us: int, pieces: Iterator[EventStream]) -> None:
    """Write a text file.

    Args:
        path: the file.
        sensor_size: (width, height).
        start_us: unused; other formats need it.
        pieces: the events in order of time.

    Raises:
        InputError: times are so large that readers would round them.
    """
    mark = "," if ".csv" in [suffix.lower() for suffix in path.suffixes] else " "
    line = mark.join(["%d"] * 4) + "\n"
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(f"{sensor_size[0]}{mark}{sensor_size[1]}\n")
        for piece in pieces:
            check_times_within(piece, _MAX_EXACT, "would not be read back exactly")
            for first in range(0, len(piece), _LINES_AT_ONCE):
                part = slice(first, first + _LINES_AT_ONCE)
                columns = (piece.t[part], piece.x[part], piece.y[part], (piece.p[part] > 0).astype(int))
                rows = zip(*(column.tolist() for column in columns), strict=True)
                file.write("".join([line % row for row in rows]))
