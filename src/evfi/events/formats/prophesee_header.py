"""The text at the beginning of Prophesee's RAW and DAT files: lines `% keyword value`, ended by `% end` or by the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evfi.errors import InputError
from evfi.events.stream import check_sensor_size
from evfi.limits import MAX_PIXELS

_MAX_HEADER_BYTES: Final = 65536
_MAX_LINE_BYTES: Final = 4096


@dataclass(frozen=True)
class PropheseeHeader:
    """Keywords of a header.

    Attributes:
        fields: value of each keyword, in lower case; of repeated keywords the last.
        options: the parts `key=value` after the name in the `format` field, keys in lower case.
        data_start: byte at which the data begin.
        start_bytes: the first bytes of the data, at most 2.
    """

    fields: dict[str, str]
    options: dict[str, str]
    data_start: int
    start_bytes: bytes

    def sensor_size(self, path: Path) -> tuple[int, int] | None:
        """Width and height that the header declares, if it does.

        Raises:
            InputError: what it says is no size, or it says two.
        """
        told = []
        if "geometry" in self.fields:
            told.append(tuple(self.fields["geometry"].lower().split("x")))
        if "width" in self.options and "height" in self.options:
            told.append((self.options["width"], self.options["height"]))
        if "width" in self.fields and "height" in self.fields:
            told.append((self.fields["width"], self.fields["height"]))
        sizes = {_parse_size(pair, path) for pair in told}
        if len(sizes) > 1:
            shown = " and ".join(f"{width}×{height}" for width, height in sorted(sizes))
            raise InputError(f"{path}: the header declares two sensor sizes, {shown}; correct it")
        return sizes.pop() if sizes else None


def read_header(path: Path) -> PropheseeHeader | None:
    """Read the header of a file; None if it does not begin with one.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_HEADER_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    fields: dict[str, str] = {}
    start = 0
    while (line := _line_at(data, start)) is not None:
        start += len(line.encode())
        text = line[1:].strip()
        keyword, _, value = text.partition(" ")
        if keyword.lower() == "end" and not value:
            break
        if text.lower().startswith("data file containing"):
            keyword, value = "data file containing", text[len("data file containing") :]
        fields[keyword.lower()] = value.strip()
    if start == 0:
        return None
    return PropheseeHeader(fields, _format_options(fields), start, data[start : start + 2])


def _line_at(data: bytes, start: int) -> str | None:
    """The header line, with its end, that begins at a byte; None if there are data."""
    end = data.find(b"\n", start, start + _MAX_LINE_BYTES)
    if not data.startswith(b"% ", start) or end < 0:
        return None
    try:
        line = data[start : end + 1].decode()
    except UnicodeDecodeError:
        return None
    return line if line.rstrip("\r\n").replace("\t", " ").isprintable() else None


def _format_options(fields: dict[str, str]) -> dict[str, str]:
    _, *parts = fields.get("format", "").split(";")
    pairs = (part.partition("=") for part in parts)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _parse_size(pair: tuple[str, ...], path: Path) -> tuple[int, int]:
    shown = "x".join(pair)
    try:
        width, height = (int(part) for part in pair if len(part) < 10)
        return check_sensor_size((width, height))
    except (ValueError, InputError):
        raise InputError(
            f"{path}: the header's sensor size must be two positive numbers, got '{shown}'; at most {MAX_PIXELS // 2**20} "
            "megapixels are read; correct it"
        ) from None
