"""How a text file lays out its events, read off its first lines."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.file_options import TimeUnit
from evfi.events.formats.columns import match_columns
from evfi.events.stream import MAX_SIDE

GZIP_MAGIC: Final = b"\x1f\x8b"
_HEAD_BYTES: Final = 2**16
_MAX_HEAD_LINES: Final = 1000
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_TRUTH: Final = {"true": 1.0, "false": 0.0}
_COMMENTS: Final = ("#", "%")
_UNITS: Final[dict[str, TimeUnit]] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), "ns"),
}
_UNIT_IN_NAME: Final = re.compile(r"^(.*?)\s*(?:[\[(]\s*([^\])]+?)\s*[\])]|_([^_\W]+))$")
_ORDERS: Final = ("txyp", "xytp", "xypt", "txpy", "tpxy", "pxyt")
_MIN_LINES_TO_JUDGE: Final = 100  # with fewer, times out of order do not tell that columns are
_MAX_SIDE: Final = 2**15


@dataclass(frozen=True)
class TextLayout:
    """How a text file lays out its events.

    Attributes:
        columns: position of t, x, y and p.
        num_columns: columns per line.
        data_start: byte at which the first event's line begins (of the unpacked file).
        sensor_size: (width, height) if the file says it.
        time_unit: unit of the times if a header says it.
        head: values of the first lines [N, num_columns]; NaN where a field is no number.
        notes: what is a guess.
    """

    columns: tuple[int, int, int, int]
    num_columns: int
    data_start: int
    sensor_size: tuple[int, int] | None
    time_unit: TimeUnit | None
    head: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def find_layout(path: Path) -> TextLayout | None:
    """Read a text file's layout off its first lines; None if they are not lines of events.

    Raises:
        InputError: the file cannot be read, or its header names the columns wrongly.
        RecordingError: it holds a header and nothing else.
    """
    head = _read_head(path)
    if b"\0" in head:
        return None
    names: list[str] | None = None
    size: tuple[int, int] | None = None
    position = len(_BYTE_ORDER_MARK) if head.startswith(_BYTE_ORDER_MARK) else 0
    head, before = head[position:], position
    for raw in head.splitlines(keepends=True):
        line = raw.decode("utf-8", "replace").strip()
        fields = split_fields(line)
        values = _numbers(fields)
        if not line or line.startswith(_COMMENTS):
            if names is None and size is None and (told := _names_in_comment(line)):
                names = told
        elif values is None and names is None and len(fields) >= 4:
            names = fields
        elif values is not None and len(fields) == 2 and size is None:
            size = _sensor_size(values, path)
        elif sum(value is not None for value in map(_number, fields)) >= 4:
            return _layout(path, head[position - before :], len(fields), names, size, position)
        else:
            return None
        position += len(raw)
    if len(head) < _HEAD_BYTES and (size or (names and _are_columns(names))):
        raise RecordingError(f"{path}: holds no events after its header; record again or give another file")
    return None


def split_fields(line: str) -> list[str]:
    """The fields of a line: apart by blanks, or by a comma or semicolon with or without blanks."""
    fields = re.split(r"\s*[,;]\s*|\s+", line.strip())
    return fields if re.search("[,;]", line) else [field for field in fields if field]


def _layout(
    path: Path, rest: bytes, num_columns: int, names: list[str] | None, size: tuple[int, int] | None, start: int
) -> TextLayout | None:
    lines = rest.splitlines()[:-1] if len(rest.splitlines()) > 1 else rest.splitlines()
    rows = [split_fields(line.decode("utf-8", "replace")) for line in lines[:_MAX_HEAD_LINES]]
    numbers = [[_number(field) for field in row] for row in rows if len(row) == num_columns]
    head = np.array([[np.nan if value is None else value for value in row] for row in numbers], np.float64)
    if names is None or (len(names) != num_columns and num_columns == 4):
        if num_columns != 4:
            return None
        order, notes = _order_of(head, path)
        return TextLayout(_places(order), 4, start, size, None, head, notes)
    if len(names) != num_columns:
        raise InputError(
            f"{path}: its header names {len(names)} columns ({', '.join(names)[:80]}), its lines have {num_columns}; "
            "correct the header"
        )
    plain, unit = _without_units(names)
    matched = match_columns(plain, f"{path} (header)")
    t, x, y, p = (plain.index(matched[column]) for column in "txyp")
    return TextLayout((t, x, y, p), num_columns, start, size, unit, head)


def _order_of(head: NDArray[np.float64], path: Path) -> tuple[str, tuple[str, ...]]:
    """The order of four columns without names: t x y p, unless only another one makes sense."""
    fitting = [order for order in _ORDERS if _fits(head, order, must_grow=True)]
    is_likely = _fits(head, "txyp", must_grow=len(head) >= _MIN_LINES_TO_JUDGE)
    if is_likely or len(fitting) != 1:
        return "txyp", ()
    told = " ".join(fitting[0])
    return fitting[0], (f"{path.name}: columns are read as {told}: as t x y p they make no sense",)


def _fits(head: NDArray[np.float64], order: str, *, must_grow: bool) -> bool:
    t, x, y, p = (head[:, order.index(name)] for name in "txyp")
    are_pixels = all(
        bool((side >= 0).all() and (side < _MAX_SIDE).all() and (np.floor(side) == side).all()) for side in (x, y)
    )
    return bool(are_pixels and np.isin(p, (-1, 0, 1)).all() and (not must_grow or (np.diff(t) >= 0).all()))


def _places(order: str) -> tuple[int, int, int, int]:
    t, x, y, p = (order.index(name) for name in "txyp")
    return t, x, y, p


def _without_units(names: list[str]) -> tuple[list[str], TimeUnit | None]:
    """Names without the unit in brackets or behind an underscore, and the unit of the one that is a time's."""
    plain, unit = [], None
    for name in names:
        found = _UNIT_IN_NAME.match(name.strip().strip("\"'"))
        told = _UNITS.get((found.group(2) or found.group(3) or "").lower()) if found else None
        plain.append(found.group(1) if found and told else name.strip().strip("\"'"))
        unit = told or unit
    return plain, unit


def _names_in_comment(line: str) -> list[str] | None:
    """Names of columns in a comment such as `# t x y p`."""
    fields = split_fields(line.lstrip("#% "))
    return fields if _are_columns(fields) else None


def _are_columns(names: list[str]) -> bool:
    try:
        match_columns(_without_units(names)[0], "")
    except InputError:
        return False
    return True


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if head.startswith(GZIP_MAGIC):  # as much of it as there is: it may be cut off
            return zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        return head
    except zlib.error as error:
        raise InputError(f"{path}: damaged gzip file ({' '.join(str(error).split())}); copy it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _numbers(fields: list[str]) -> list[float] | None:
    values = [_number(field) for field in fields]
    return None if None in values else [value for value in values if value is not None]


def _number(field: str) -> float | None:
    if field.lower() in _TRUTH:
        return _TRUTH[field.lower()]
    try:
        return float(field)
    except ValueError:
        return None


def _sensor_size(values: list[float], path: Path) -> tuple[int, int]:
    width, height = values
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE) or width != int(width) or height != int(height):
        raise InputError(f"{path}: the first line gives no sensor size: expected two positive integers, got {values}")
    return int(width), int(height)
