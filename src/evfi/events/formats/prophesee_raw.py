"""Prophesee RAW files: a text header and the words that the sensor sent, in EVT2, EVT2.1 or EVT3.

Facts: docs.prophesee.ai, "RAW File Format" and "Encoding Formats"; what old headers leave out follows from `system_ID` as
in OpenEB (Apache-2.0). Times are µs of the sensor's clock, continued beyond its wraps, not shifted to begin at zero; x
runs right and y down; polarity 1 is brighter.

EVT2.1 words come in two orders. Each word is a head (kind, time, x, y) and a mask; IMX636 and older sensors send the head
first ("legacy"), GenX320 sends one little-endian word of 64 bits, so the mask comes first ("little"). The header declares it
as `endianness`, or old headers by their `system_ID`. Since a wrong order gives plausible garbage, the words are looked at,
too: if they only make sense in the other order, that one is taken, with a note where the header says otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.file_options import EventFileOptions
from evfi.events.formats.prophesee_header import PropheseeHeader, read_header
from evfi.events.formats.word_file import CHUNK_EVENTS, WordFile, open_words
from evfi.events.source import EventSource

ENCODINGS: Final = ("EVT2", "EVT21", "EVT3")
CONVENTION: Final = "times in µs of the sensor's clock; x right, y down; polarity 1 = brighter"
_VERSIONS: Final = {"2.0": "EVT2", "2": "EVT2", "2.1": "EVT21", "3.0": "EVT3", "3": "EVT3"}
_RAW_KEYWORDS: Final = ("evt", "format", "plugin_name", "system_id", "camera_integrator_name", "integrator_name")
_VGA: Final = (640, 480)
_HD: Final = (1280, 720)
_SYSTEMS: Final = {
    **dict.fromkeys((0x15, 0x17, 0x97, 0x19, 0x99, 0x1D, 0x21, 0xA1), (_VGA, "EVT2")),  # Gen3
    **dict.fromkeys((0x1C, 0x23, 0x22, 0xA2, 0x29), (_VGA, "EVT2")),  # Gen3.1
    0x28: (_VGA, "EVT3"),
    **dict.fromkeys((0x1A, 0x1F, 0x27), (_HD, "EVT2")),  # Gen4, Gen4.1
    **dict.fromkeys((0x1E, 0x2E, 0x30, 0x31, 0x32), (_HD, "EVT3")),  # Gen4, Gen4.1, IMX636
}
_FIRST_LITTLE_SYSTEM: Final = 0x37
_MAX_WORDS_LOOKED_AT: Final = 2**16
_EVT21_KINDS: Final = (0, 1, 8, 10, 14, 15)


def is_prophesee_raw(path: Path) -> bool:
    """Whether the file begins with the header of a RAW file."""
    try:
        header = read_header(path)
    except InputError:
        return False
    return header is not None and _is_raw(header)


def open_prophesee_raw(path: Path, options: EventFileOptions, *, chunk_events: int = CHUNK_EVENTS) -> EventSource:
    """Open a RAW file.

    Args:
        path: the file.
        options: what the header leaves open: the sensor's size. A declared one goes before that of the camera's number,
            an assumed one does not.
        chunk_events: about how many events are decoded and kept as one chunk.

    Raises:
        InputError: it is no RAW file, its encoding is unknown, or it is damaged or truncated.
        RecordingError: it holds no events.
        ConfigError: another unit of time than its own is declared.
    """
    header = read_header(path)
    if header is None or not _is_raw(header):
        raise InputError(f"{path}: expected a Prophesee RAW header ('% evt 3.0', '% format EVT3;…'), found none")
    encoding = _encoding(header, path)
    size = header.sensor_size(path)
    is_declared = options.sensor_size is not None and not options.size_is_assumed
    is_implied = size is None and not is_declared
    if is_implied:
        size = _SYSTEMS.get(_system(header), (None, ""))[0]
    file = replace(_word_file(path, header, encoding, size), size_is_implied=is_implied)
    return open_words(file, options, chunk_events=chunk_events)


def _is_raw(header: PropheseeHeader) -> bool:
    return any(key in header.fields for key in _RAW_KEYWORDS) and "data file containing" not in header.fields


def _encoding(header: PropheseeHeader, path: Path) -> str:
    """The encoding that the header names, or that the camera uses if it names none."""
    if "format" in header.fields:
        told = header.fields["format"].split(";")[0].strip()
        encoding = told.upper().replace("EVT2.1", "EVT21")
    elif "evt" in header.fields:
        told = header.fields["evt"]
        encoding = _VERSIONS.get(told, told)
    else:
        encoding = told = _SYSTEMS.get(_system(header), (None, "none"))[1]
    if encoding not in ENCODINGS:
        raise InputError(
            f"{path}: the header must name encoding EVT2, EVT21 or EVT3, found '{told}'; export the "
            "recording as one of these with the camera's software"
        )
    return encoding


def _system(header: PropheseeHeader) -> int:
    """Number of the camera system; -1 where it is not declared or not Prophesee's."""
    integrators = [value for key, value in header.fields.items() if key.endswith("integrator_name")]
    number = header.fields.get("system_id", "")
    is_own = all(name == "Prophesee" for name in integrators)
    return int(number) if is_own and number.isdecimal() and len(number) < 10 else -1


def _word_file(path: Path, header: PropheseeHeader, encoding: str, size: tuple[int, int] | None) -> WordFile:
    from evfi.events.formats.evt2_words import decode_evt2
    from evfi.events.formats.evt_words import decode_evt3

    start = header.data_start
    if encoding == "EVT3":
        return WordFile(
            path, "prophesee-raw evt3", CONVENTION, np.dtype("<u2"), decode_evt3, start, size, clock_period_us=2**24
        )
    if encoding == "EVT2":
        return WordFile(
            path, "prophesee-raw evt2", CONVENTION, np.dtype("<u4"), decode_evt2, start, size, clock_period_us=2**34
        )
    return _evt21_file(path, header, size)


def _evt21_file(path: Path, header: PropheseeHeader, size: tuple[int, int] | None) -> WordFile:
    from evfi.events.formats.evt2_words import decode_evt21_legacy, decode_evt21_little

    told = header.options.get("endianness") or header.fields.get("endianness")
    expected = _expected_order(told, _system(header))
    order = _order_of_words(path, header.data_start, expected)
    notes: tuple[str, ...] = ()
    if told and order != expected:
        notes = (f"the header of {path.name} declares word order '{told}', but its words only make sense as '{order}'",)
    decode = decode_evt21_little if order == "little" else decode_evt21_legacy
    name = f"prophesee-raw evt2.1 {order}"
    return WordFile(
        path, name, CONVENTION, np.dtype("<u8"), decode, header.data_start, size, notes, clock_period_us=2**34
    )


def _expected_order(told: str | None, system: int) -> str:
    """Word order of EVT2.1, "little" or "legacy", that the header declares or the camera uses."""
    if told:
        return "legacy" if told.lower() == "legacy" else "little"
    return "legacy" if 0 < system < _FIRST_LITTLE_SYSTEM else "little"


def _order_of_words(path: Path, data_start: int, expected: str) -> str:
    """The order expected, unless the first words can only be of the other one."""
    halves = np.fromfile(path, "<u4", 2 * _MAX_WORDS_LOOKED_AT, offset=data_start)
    halves = halves[: len(halves) // 2 * 2].reshape(-1, 2)
    heads = {"legacy": halves[:, 0], "little": halves[:, 1]}
    other = "little" if expected == "legacy" else "legacy"
    return other if _makes_sense(heads[other]) and not _makes_sense(heads[expected]) else expected


def _makes_sense(heads: NDArray[np.uint32]) -> bool:
    """Whether all kinds of words are known, and some carry the time."""
    kinds = heads >> 28
    return bool(np.isin(kinds, _EVT21_KINDS).all() and (kinds == 8).any())
