"""JSON that makes a careless reader end with a traceback: nested too deep, numbers that are too large, no UTF-8."""

from __future__ import annotations

from typing import Final

HOSTILE_JSON: Final[dict[str, bytes]] = {
    "lists nested deep": b"[" * 100_000,
    "objects nested deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "whole number of many digits": b'{"format": %s}' % (b"9" * 5_000),
    "number beyond floats": b"1e999",
    "not a number": b"NaN",
    "no UTF-8": b'"\xff\xfe"',
    "key given twice": b'{"a": 1, "a": 2}',
    "list": b"[1, 2]",
    "number": b"5",
    "null": b"null",
    "nothing": b"",
}
