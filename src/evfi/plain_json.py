"""The one reader of JSON: text and files, within limits of size and nesting, whoever wrote them.

What cannot be read is a `ValueError` (or an `OSError`), never an error of too deep a recursion or of memory.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Final, NoReturn

from evfi.paths import read_bytes

MAX_DEPTH: Final = 64
"""How deep lists and objects may be nested; what reads them further on may recurse."""

_BESIDE_BRACKETS: Final = re.compile(r'(?:[^\[\]{}"]++|"(?:[^"\\]++|\\.)*+"?)++', re.DOTALL)  # texts as a whole


def loads(text: str | bytes, *, finite: bool = True) -> Any:
    """Read JSON without duplicate keys in which every number is finite and nothing is nested deeper than `MAX_DEPTH`.

    Args:
        text: UTF-8 where it is bytes.
        finite: False lets NaN and infinity pass, which Python writes.

    Raises:
        ValueError: it is not that.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    _check_nesting(text)
    checks: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite_number} if finite else {}
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, **checks)
    except RecursionError:  # brackets that do not match
        raise ValueError("values are nested too deep") from None


def read_json(file: Path, max_bytes: int) -> Any:
    """Read a JSON file; see `loads` and `evfi.paths.read_bytes`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, no ordinary file, or no such JSON.
    """
    return loads(read_bytes(file, max_bytes))


def _check_nesting(text: str) -> None:
    """Refuse deep nesting before the library's parser, which recurses, sees it."""
    brackets = _BESIDE_BRACKETS.sub("", text).replace("{", "[").replace("}", "]")
    for _ in range(MAX_DEPTH):  # the innermost pairs go, level by level
        if "[]" not in brackets:
            break
        brackets = brackets.replace("[]", "")
    if "[]" in brackets or brackets.count("[") > MAX_DEPTH:
        raise ValueError(f"values are nested more than {MAX_DEPTH} deep")


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"duplicate key {name[:40]!r}")
            seen.add(name)
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
