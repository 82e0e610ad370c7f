"""The loop over lines of numbers (`text.py`), compiled. Decimals become whole numbers by integer arithmetic alone."""

# mypy: disable-error-code="arg-type,assignment,return-value"
from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.compiled import compiled

OK: Final = 0
MALFORMED: Final = 1
FRACTION_OF_TIME: Final = 2
FRACTION_OF_PIXEL: Final = 3
POLARITY: Final = 4
TOO_LARGE: Final = 5

COUNT, MIN_T, MAX_T, UNSORTED, FLAGS, MAX_X, MAX_Y, MIN_XY, BAD_LINES, BAD_BYTES, LAST_T = range(11)
"""What is counted of a stretch, in this order."""

HAS_MINUS, HAS_ZERO, HAS_PLUS = 1, 2, 4
"""Bits of FLAGS: which polarities occur."""

NO_TIME: Final = -(2**63)
_MAX_DIGITS: Final = 18
_POWERS: Final = 10 ** np.arange(19, dtype=np.int64)
_MAX_US: Final = 2**61
_MAX_PIXEL: Final = 2**30


def new_tally() -> NDArray[np.int64]:
    """Counts before the first line."""
    tally = np.zeros(11, np.int64)
    tally[[MIN_T, MAX_T, MAX_X, MAX_Y, MIN_XY, LAST_T]] = (2**62, -(2**62), -1, -1, 0, NO_TIME)
    return tally


@compiled
def parse_lines(
    data: NDArray[np.uint8],
    slots: NDArray[np.int64],
    exponent: int,
    skip_bad: bool,
    x: NDArray[np.int32],
    y: NDArray[np.int32],
    t: NDArray[np.int64],
    p: NDArray[np.int8],
    tally: NDArray[np.int64],
) -> tuple[int, int]:
    """Parse whole lines.

    Args:
        data: the lines; the last byte must be a line feed.
        slots: what each column of a line holds: 0 to 3 for t, x, y and p, -1 for anything else.
        exponent: 10^exponent µs are one unit of time; at 0 a fraction is an error.
        skip_bad: count lines that are no events instead of stopping.
        x: columns, room for every line.
        y: rows.
        t: times in µs.
        p: polarities as they are written: -1, 0 or 1.
        tally: see `new_tally`; goes on from stretch to stretch.

    Returns:
        What is wrong (0: nothing) and where the line begins in which it is.
    """
    position, end, count = 0, len(data), 0
    values = np.zeros(4, np.int64)
    is_usual = len(slots) == 4 and slots[0] == 0 and slots[1] == 1 and slots[2] == 2 and slots[3] == 3
    last, low, high = tally[LAST_T], tally[MIN_T], tally[MAX_T]
    unsorted, flags, max_x, max_y, least = np.int64(0), np.int64(0), tally[MAX_X], tally[MAX_Y], tally[MIN_XY]
    while position < end:
        start, code = position, 0
        time, column, row, polarity, position = _usual_line(data, start, exponent) if is_usual else (0, 0, 0, 0, -1)
        if position < 0:
            code, position = _parse_line(data, start, slots, exponent, values)
            time, column, row, polarity = values[0], values[1], values[2], values[3]
        if code == 0:
            x[count], y[count], t[count], p[count] = column, row, time, polarity
            count += 1
            unsorted += time < last
            last, low, high = time, min(low, time), max(high, time)
            flags |= np.int64(1) << (polarity + 1)
            max_x, max_y, least = max(max_x, column), max(max_y, row), min(least, column, row)
        elif code > 0:
            if not skip_bad:
                return code, start
            tally[BAD_LINES] += 1
            tally[BAD_BYTES] += position - start
    tally[COUNT] += count
    tally[UNSORTED] += unsorted
    tally[FLAGS] |= flags
    tally[LAST_T], tally[MIN_T], tally[MAX_T] = last, low, high
    tally[MAX_X], tally[MAX_Y], tally[MIN_XY] = max_x, max_y, least
    return 0, end


@compiled
def _usual_line(data: NDArray[np.uint8], start: int, exponent: int) -> tuple[int, int, int, int, int]:
    """t, x, y and p of a line `t x y p` of plain numbers with one byte between, and where the next begins; -1: another kind."""
    i, time = start, np.int64(0)
    while 48 <= data[i] <= 57:
        time = time * 10 + (np.int64(data[i]) - 48)
        i += 1
    digits, power = i - start, exponent
    if data[i] == 46:
        i += 1
        point = i
        while 48 <= data[i] <= 57:
            time = time * 10 + (np.int64(data[i]) - 48)
            i += 1
        power -= i - point
        digits += i - point
    if digits == 0 or digits > _MAX_DIGITS or not (data[i] == 32 or data[i] == 9 or data[i] == 44):
        return 0, 0, 0, 0, -1
    if power != 0:
        time, problem = _whole(time, power)
        if problem == 5 or (problem == 2 and exponent == 0):
            return 0, 0, 0, 0, -1
    x, i = _usual_pixel(data, i + 1)
    if i < 0:
        return 0, 0, 0, 0, -1
    y, i = _usual_pixel(data, i + 1)
    if i < 0:
        return 0, 0, 0, 0, -1
    i += 1
    is_negative = data[i] == 45
    i += is_negative
    p = np.int64(data[i]) - 48
    if p < 0 or p > 1 or data[i + 1] != 10:
        return 0, 0, 0, 0, -1
    return time, x, y, (-p if is_negative else p), i + 2


@compiled
def _usual_pixel(data: NDArray[np.uint8], start: int) -> tuple[int, int]:
    """A column or row of a few digits, and where the byte behind it lies; -1: another kind."""
    i, value = start, np.int64(0)
    while 48 <= data[i] <= 57 and i - start < 8:
        value = value * 10 + (np.int64(data[i]) - 48)
        i += 1
    if i == start or not (data[i] == 32 or data[i] == 9 or data[i] == 44):
        return 0, -1
    return value, i


@compiled
def _parse_line(
    data: NDArray[np.uint8], start: int, slots: NDArray[np.int64], exponent: int, values: NDArray[np.int64]
) -> tuple[int, int]:
    """One line into `values` (t, x, y, p); returns what is wrong (-1: nothing there) and where the next line begins."""
    i = _skip_blanks(data, start)
    if data[i] == 10:
        return -1, i + 1
    if data[i] == 35 or data[i] == 37:  # '#', '%'
        return -1, _next_line(data, i)
    code = 0
    for column in range(len(slots)):
        if column > 0:
            before = i
            i = _skip_blanks(data, i)
            if data[i] == 44 or data[i] == 59:  # ',' or ';'
                i = _skip_blanks(data, i + 1)
            if i == before:
                return 1, _next_line(data, i)
        slot = slots[column]
        if slot < 0:
            i = _skip_field(data, i)
            continue
        mantissa, power, after = _number(data, i)
        if after == i and slot == 3:
            mantissa, after = _truth(data, i)
        if after == i:
            return 1, _next_line(data, i)
        i = after
        if slot == 0:
            power += exponent
        value, problem = mantissa, 0
        if power != 0:
            value, problem = _whole(mantissa, power)
        code = max(code, _judge(slot, value, problem, exponent))
        values[slot] = value
    i = _skip_blanks(data, i)
    if data[i] != 10:
        return 1, _next_line(data, i)
    return code, i + 1


@compiled
def _truth(data: NDArray[np.uint8], start: int) -> tuple[int, int]:
    """1 or 0 for a word that begins with t or f (True, false), and where it ends; it ends where it begins for others."""
    first = data[start] | 32  # a small letter
    if first == 116 or first == 102:
        return np.int64(first == 116), _skip_field(data, start)
    return np.int64(0), start


@compiled
def _judge(slot: int, value: int, problem: int, exponent: int) -> int:
    """What is wrong with a value of a column."""
    if problem == 5 or (slot > 0 and abs(value) > _MAX_PIXEL) or abs(value) > _MAX_US:
        return 5
    if slot == 0:
        return 2 if problem == 2 and exponent == 0 else 0
    if slot < 3:
        return 3 if problem == 2 else 0
    return 4 if problem == 2 or value < -1 or value > 1 else 0


@compiled
def _number(data: NDArray[np.uint8], start: int) -> tuple[int, int, int]:
    """A decimal number as (mantissa, power of ten, where it ends); it ends where it begins if there is none."""
    i = start
    is_negative = data[i] == 45
    if is_negative or data[i] == 43:
        i += 1
    first, mantissa, power = i, np.int64(0), 0
    while 48 <= data[i] <= 57:
        mantissa = mantissa * 10 + (np.int64(data[i]) - 48)
        i += 1
    digits = i - first
    if data[i] == 46:
        i += 1
        point = i
        while 48 <= data[i] <= 57:
            mantissa = mantissa * 10 + (np.int64(data[i]) - 48)
            i += 1
        power = point - i
        digits += i - point
    if digits == 0:
        return np.int64(0), 0, start
    if digits > _MAX_DIGITS:
        mantissa, power = _long_number(data, first, i)
    if data[i] == 101 or data[i] == 69:  # 'e', 'E'
        exponent, i = _power(data, i + 1)
        if i < 0:
            return np.int64(0), 0, start
        power += exponent
    byte = data[i]
    if byte > 32 and byte != 44 and byte != 59:
        return np.int64(0), 0, start
    return (-mantissa if is_negative else mantissa), power, i


@compiled
def _long_number(data: NDArray[np.uint8], start: int, end: int) -> tuple[int, int]:
    """Mantissa and power of ten of more digits than fit: those that tell nothing for the nearest microsecond are left out."""
    mantissa, power, used, after_point = np.int64(0), 0, 0, False
    for i in range(start, end):
        if data[i] == 46:
            after_point = True
        elif used < _MAX_DIGITS:
            mantissa = mantissa * 10 + (np.int64(data[i]) - 48)
            used += mantissa > 0
            power -= after_point
        elif not after_point:
            power += 1
    return mantissa, power


@compiled
def _power(data: NDArray[np.uint8], start: int) -> tuple[int, int]:
    """The number after an 'e', and where it ends; -1 if there is none."""
    i = start
    is_negative = data[i] == 45
    if is_negative or data[i] == 43:
        i += 1
    first, power = i, 0
    while 48 <= data[i] <= 57:
        power = min(power * 10 + np.int64(data[i]) - 48, 1000)
        i += 1
    if i == first:
        return 0, -1
    return (-power if is_negative else power), i


@compiled
def _whole(mantissa: int, power: int) -> tuple[int, int]:
    """The whole number nearest to mantissa · 10^power (half up), and what is wrong: 2 a fraction, 5 too large."""
    if mantissa == 0:
        return 0, 0
    if power >= 0:
        if power > 18 or abs(mantissa) > _MAX_US // _POWERS[power]:
            return 0, 5
        return mantissa * _POWERS[power], 0
    if power < -18:
        return 0, 2
    divisor = _POWERS[-power]
    whole = mantissa // divisor
    rest = mantissa - whole * divisor
    return whole + (2 * rest >= divisor), (2 if rest else 0)


@compiled
def _skip_blanks(data: NDArray[np.uint8], i: int) -> int:
    while data[i] == 32 or data[i] == 9 or data[i] == 13:
        i += 1
    return i


@compiled
def _skip_field(data: NDArray[np.uint8], i: int) -> int:
    while data[i] > 32 and data[i] != 44 and data[i] != 59:
        i += 1
    return i


@compiled
def _next_line(data: NDArray[np.uint8], i: int) -> int:
    while data[i] != 10:
        i += 1
    return i + 1
