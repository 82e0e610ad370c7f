"""How much memory and disk a file from a stranger may take: one budget, which every reader asks.

What is packed may unpack to 64 times its size, and to 64 MiB in any case. What has to be in memory at once may take 4 GiB,
what is unpacked to disk as much as is free there. A picture has at most 64 megapixels. Sizes are checked before memory is
taken for them, and unpacking stops at the size that was promised. `EVFI_MAX_UNPACKED_GIB` raises the limits on bytes for
files that are known to be sound.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Final

from evfi.errors import ConfigError, InputError

VARIABLE: Final = "EVFI_MAX_UNPACKED_GIB"
MAX_RATIO: Final = 64
"""Unpacked over packed size. Events pack to a third or a tenth; a kilobyte of zeros made to do harm unpacks to a megabyte."""
FREE_BYTES: Final = 2**26
"""What any file may unpack to: less than the interpreter and its libraries take."""
MAX_BYTES_IN_MEMORY: Final = 2**32
MAX_PIXELS: Final = 2**26
"""Of a picture, a frame of a video, or an event sensor; twice what a camera of 8K has."""
MAX_STACKED_PIXELS: Final = 2**24
"""Of an event sensor whose events become stacks, which have its size and take 3 GiB at this limit; twice the largest sold."""


def allowed_bytes(num_packed: int, *, in_memory: bool = True) -> int:
    """How many bytes may come out of a file, or out of a part that is packed by itself.

    Args:
        num_packed: its bytes as it is stored.
        in_memory: whether they are in memory at once, rather than on disk.

    Raises:
        ConfigError: the variable that raises the limit holds no positive number.
    """
    raised = _raised_bytes()
    by_ratio = max(FREE_BYTES, MAX_RATIO * num_packed)
    return max(raised, min(by_ratio, MAX_BYTES_IN_MEMORY) if in_memory else by_ratio)


def refusal(num_found: int, num_packed: int, *, in_memory: bool = True, is_cut: bool = False) -> str:
    """What to say of bytes that are more than allowed; "" where they are not.

    Args:
        num_found: how many there are, as promised or as found.
        num_packed: bytes as they are stored.
        in_memory: as for `allowed_bytes`.
        is_cut: unpacking was stopped there, there may be more.
    """
    limit = allowed_bytes(num_packed, in_memory=in_memory)
    if num_found <= limit:
        return ""
    needed = math.ceil(num_found / 2**30) * (2 if is_cut else 1)
    found = "more" if is_cut else shown_bytes(num_found)
    return (
        f"{shown_bytes(num_packed)} may unpack to at most {shown_bytes(limit)}, found {found}; if the file is sound, set "
        f"{VARIABLE}={needed}"
    )


def check_bytes(where: str, num_found: int, num_packed: int, *, in_memory: bool = True) -> None:
    """Refuse what would take more than allowed, before memory or disk is taken for it.

    Args:
        where: what to call the file or its part.
        num_found: bytes that it promises.
        num_packed: its bytes as it is stored.
        in_memory: as for `allowed_bytes`.

    Raises:
        InputError: they are too many.
    """
    if told := refusal(num_found, num_packed, in_memory=in_memory):
        raise InputError(f"{where}: {told}")


def check_disk(where: str, num_bytes: int, folder: Path) -> None:
    """Make sure that bytes can be unpacked to a folder.

    Raises:
        InputError: less is free.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise InputError(
            f"{where}: unpacks to {shown_bytes(num_bytes)}, but only {shown_bytes(free)} are free in {folder}; set TMPDIR to "
            "a larger folder"
        )


def check_pixels(where: str, width: int, height: int, what: str = "a picture") -> None:
    """Refuse a picture, frame or sensor that is too large to be one.

    Raises:
        InputError: it has more pixels than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{where}: expected {what} of at most {MAX_PIXELS // 2**20} megapixels, found {width}×{height}; it is damaged, or "
            "too large to be read"
        )


def check_sensor(where: str, size: tuple[int, int]) -> None:
    """Refuse an event sensor that is too large for stacks of its events.

    Raises:
        InputError: it has more pixels than `MAX_STACKED_PIXELS`.
    """
    width, height = size
    if width * height > MAX_STACKED_PIXELS:
        raise InputError(
            f"{where}: expected an event sensor of at most {MAX_STACKED_PIXELS // 2**20} megapixels for interpolation, found "
            f"{width}×{height}; correct the sensor size where it is declared, or with --sensor-size"
        )


def check_variable() -> None:
    """Refuse a wrong value of the variable that raises limits, before a reader takes the error for damage of a file.

    Raises:
        ConfigError: it holds no positive number.
    """
    _raised_bytes()


def shown_bytes(num_bytes: int) -> str:
    """A number of bytes for people."""
    for name, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {name}"
    return f"{num_bytes} bytes"


def _raised_bytes() -> int:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return 0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 2**20:
        raise ConfigError(f"{VARIABLE} must be a positive number of GiB, got '{text}'; unset it, or set it to e.g. 16")
    return int(value * 2**30)
