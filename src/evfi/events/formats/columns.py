"""What column-wise event files leave open: units of time, polarity conventions, names of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.file_options import TimeUnit
from evfi.events.source import EventChunk
from evfi.events.stream import PolarityConvention

COLUMN_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "timestamp", "timestamps", "time"),
    "p": ("p", "ps", "polarity", "polarities", "pol"),
}
_MIN_EPOCH_NS = 1e17  # nanoseconds: 1973; microseconds: the year 5138
_US_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}


def tell_time_unit(values: NDArray[Any], where: str) -> tuple[TimeUnit, str | None]:
    """Tell the unit of a file's times from their values.

    Fractions are seconds. Whole numbers are microseconds, unless they are so large that only nanoseconds since 1970 make
    sense of them.

    Args:
        values: some of the file's times, in its own unit.
        where: what to call the file.

    Returns:
        The unit, and a note for the user where it is a guess.
    """
    if values.dtype.kind == "f" and (np.rint(values) != values).any():
        return "s", None
    if len(values) and float(np.abs(values.astype(np.float64)).max()) >= _MIN_EPOCH_NS:
        return "ns", f"{where}: times are read as nanoseconds since 1970"
    return "us", None


def to_microseconds(values: NDArray[Any], unit: TimeUnit, where: str) -> NDArray[np.int64]:
    """Convert times to whole microseconds, rounded to the nearest.

    Args:
        values: integer or floating point times [N].
        unit: their unit. Microseconds must be whole: fractions there mean that the unit is another one.
        where: what to call the file in errors.

    Raises:
        InputError: a value is not finite, too large, or a fraction of a microsecond.
    """
    if values.dtype.kind not in "iuf":
        raise InputError(f"{where}: times must be numbers, got {values.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{where}: times must be finite, got {values[~np.isfinite(values)][0]}")
    if unit == "us" and values.dtype.kind == "f" and (np.rint(values) != values).any():
        found = values[np.rint(values) != values][0]
        raise InputError(
            f"{where}: expected times in whole microseconds, got {found}; if they are seconds, declare it "
            '(recording.json: "events_time_unit" or "timestamps_unit": "s")'
        )
    limit = 2.0**61 / _US_PER_UNIT.get(unit, 1e-3)
    if len(values) and not max(abs(float(values.max())), abs(float(values.min()))) < limit:
        raise InputError(f"{where}: times in {unit} are too large (up to {values.max()}); check their unit")
    return _scaled(values, unit)


def _scaled(values: NDArray[Any], unit: TimeUnit) -> NDArray[np.int64]:
    if unit == "ns":
        if values.dtype.kind == "f":
            return np.rint(values / 1000).astype(np.int64)
        rounded: NDArray[np.int64] = (values // 1000).astype(np.int64) + (values % 1000 >= 500)  # no sum that overflows
        return rounded
    factor = _US_PER_UNIT[unit]
    if values.dtype.kind == "f":
        return np.rint(values.astype(np.float64) * factor).astype(np.int64)
    return values.astype(np.int64) * factor


def polarity_convention(values: NDArray[Any], where: str) -> PolarityConvention:
    """Tell from the values whether polarities are 0/1 or -1/+1; files that hold +1 only mean the same in both.

    Raises:
        InputError: the values fit neither.
    """
    if values.dtype.kind == "b":
        return "binary"
    found = np.unique(values)
    if np.isin(found, [-1, 1]).all():
        return "signed"
    if np.isin(found, [0, 1]).all():
        return "binary"
    shown = ", ".join(str(value) for value in found[:5])
    raise InputError(f"{where}: polarities must be 0 and 1, or -1 and 1; found {shown}")


def match_columns(names: list[str], where: str) -> dict[str, str]:
    """Find which of a file's columns are x, y, t and p.

    Returns:
        The file's name of each of "x", "y", "t", "p".

    Raises:
        InputError: one is missing or there are two for one.
    """
    chosen = {}
    for column, accepted in COLUMN_NAMES.items():
        hits = [name for name in names if name.strip().lower() in accepted]
        if len(hits) != 1:
            problem = "two columns" if hits else "no column"
            raise InputError(
                f"{where}: {problem} for {column} (accepted: {', '.join(accepted)}); "
                f"found {', '.join(names) or 'no columns'}"
            )
        chosen[column] = hits[0]
    return chosen


def chunk_of_columns(
    x: NDArray[Any],
    y: NDArray[Any],
    t: NDArray[np.int64],
    p: NDArray[Any],
    sensor_size: tuple[int, int],
    where: str,
    *,
    size_is_assumed: bool = False,
) -> EventChunk:
    """Check a file's columns (whole pixels, µs, polarity of either convention) and make events of them.

    Raises:
        InputError: they cannot be events of this sensor; the message begins with `where`.
    """
    convention = polarity_convention(p, where)
    try:
        chunk = EventChunk.from_arrays(x, y, t, p, sensor_size, polarity=convention)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if size_is_assumed and len(chunk.dropped_us):
        width, height = sensor_size
        raise InputError(
            f"{where}: {len(chunk.dropped_us)} of {len(t)} events lie outside {width}×{height}, the size of the frames; "
            'declare the sensor: "sensor_size": [width, height] in recording.json'
        )
    return chunk
