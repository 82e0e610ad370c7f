"""Build HTML and SVG; everything that is not `Html` is escaped.

Names come from files of strangers; no text reaches the page any other way.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import Final

_VOID: Final = frozenset({"br", "hr", "img", "meta", "wbr"})
_CONTROLS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNDEFINED: Final = "–"
MINUS: Final = "−"


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """A value as markup: markup stays, everything else is text and is escaped.

    Control characters, also those that turn the direction of writing, and halves of surrogate pairs are replaced.
    """
    if isinstance(value, Html):
        return value
    if isinstance(value, float):
        return Html(f"{value:.2f}".rstrip("0").rstrip("."))
    clean = _CONTROLS.sub("\ufffd", str(value)).encode("utf-8", "replace").decode("utf-8")
    return Html(html.escape(clean, quote=True))


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other, with text between them; None is left out."""
    return Html(escaped(between).join(escaped(part) for part in parts if part is not None))


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """One element.

    Args:
        tag: its name.
        *children: markup or text; None is left out.
        **attributes: `class_` is class, `stroke_width` is stroke-width; None is left out, True is an attribute without
            value.
    """
    names = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    inside = "".join(
        f" {name}" if value is True else f' {name}="{escaped(value)}"' for name, value in names if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{inside}>")
    return Html(f"<{tag}{inside}>{joined(children)}</{tag}>")


def number(value: float | None, decimals: int, sign: bool = False) -> str:
    """Format a number; a dash for None."""
    if value is None or math.isnan(value):
        return _UNDEFINED
    shown = f"{abs(value):,.{decimals}f}".replace(",", "\u2009")
    is_zero = not any(digit in "123456789" for digit in shown)
    return ((MINUS if value < 0 else "+" if sign else "") if not is_zero else "") + shown


def ends(interval: tuple[float, float] | None, decimals: int, sign: bool = False) -> str:
    """Format an interval; empty for None."""
    if interval is None:
        return ""
    return f"[{number(interval[0], decimals, sign)}, {number(interval[1], decimals, sign)}]"


def counted(count: int, noun: str) -> str:
    """A count with its noun: 1 window, 2 windows."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
