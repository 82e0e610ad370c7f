"""What a value that was read from a file may be: kinds and ranges, declared as data and checked without converting anything.

A kind says itself in words, so that one message serves all: "... must be a whole number from 1 to 16, found "6"".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

MAX_TEXT: Final = 4096
"""Letters of a text, where nothing else is declared."""


class Kind(NamedTuple):
    """What values are allowed.

    Attributes:
        says: it in words that follow "must be".
        fits: whether a value is one; never raises, whatever the value is.
    """

    says: str
    fits: Callable[[object], bool]


ANYTHING: Final = Kind("anything", lambda value: True)
FLAG: Final = Kind("true or false", lambda value: isinstance(value, bool))
NOTHING: Final = Kind("null", lambda value: value is None)


def whole(smallest: int, largest: int) -> Kind:
    """Whole numbers in a range, both ends included; true and false are none."""
    says = f"the whole number {smallest}" if smallest == largest else f"a whole number from {smallest} to {largest}"
    return Kind(says, lambda value: type(value) is int and smallest <= value <= largest)


def number(smallest: float, largest: float) -> Kind:
    """Numbers in a range, both ends included; not-a-number, true and false are none."""
    return Kind(
        f"a number from {smallest:g} to {largest:g}",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and smallest <= value <= largest,
    )


def word(*known: str) -> Kind:
    """One of some words."""
    return Kind(f"one of {', '.join(known)}", lambda value: isinstance(value, str) and value in known)


def text(most: int = MAX_TEXT, *, empty: bool = False) -> Kind:
    """Text of at most so many letters that can be written as UTF-8; blank text only where `empty` allows it."""

    def fits(value: object) -> bool:
        return isinstance(value, str) and len(value) <= most and _encodable(value) and (empty or bool(value.strip()))

    return Kind(f"a {'' if empty else 'non-empty '}string of at most {most} characters", fits)


def listed(of: Kind, fewest: int, most: int) -> Kind:
    """Lists of so many values of one kind."""
    amount = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return Kind(
        f"a list of length {amount}, each {of.says}",
        lambda value: isinstance(value, list) and fewest <= len(value) <= most and all(of.fits(item) for item in value),
    )


def table(of: Kind, of_what: str, most: int) -> Kind:
    """Objects with at most so many keys, whatever they are called, whose values are of one kind."""
    return Kind(
        f"an object of at most {most} {of_what}, each {of.says}",
        lambda value: isinstance(value, dict) and len(value) <= most and all(of.fits(item) for item in value.values()),
    )


def either(*kinds: Kind) -> Kind:
    """Values of any of some kinds."""
    return Kind(" or ".join(kind.says for kind in kinds), lambda value: any(kind.fits(value) for kind in kinds))


def _encodable(value: str) -> bool:
    """Whether no halves of letters (surrogates) are in a text; files cannot hold them."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)
