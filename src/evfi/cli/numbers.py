"""Check numbers on the command line against overflow, and quote numbers and options in messages as typed."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from evfi.errors import ConfigError

MAX_WHOLE: Final = 2**61
"""Of any whole number: times in µs within it stay inside 64 bits, wherever they are added."""
MAX_NUMBER: Final = 1e12
"""Of any other number: seconds within it are whole µs that fit."""
_SHOWN: Final = 60
_NUMBER: Final = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)


def check_numbers(command: type, arguments: Sequence[str]) -> None:
    """Refuse numbers that no option takes, before they are used; each option then checks its own range.

    Args:
        command: dataclass of the command's options.
        arguments: as the user typed them.

    Raises:
        ConfigError: a number is too large, infinite, or not a number.
    """
    kinds = dict(_number_options(command))
    option = ""
    for argument in arguments:
        name, _, typed = argument.partition("=") if argument.startswith("--") else (option, "", argument)
        option = name.removeprefix("--").replace("_", "-")
        kind = kinds.get(option)
        if kind is None or not _NUMBER.fullmatch(typed) or _is_usual(typed, kind):
            continue
        limit = (
            f"a whole number within ±2^61 (about {MAX_WHOLE:.1e})"
            if kind is int
            else f"a number within ±{MAX_NUMBER:g}"
        )
        raise ConfigError(f"--{option} must be {limit}, got '{typed[:_SHOWN]}'")


def as_typed(message: str, arguments: Sequence[str]) -> str:
    """A message that repeats numbers as they were typed, where it shows them in another way (1e+22, 1000 for 1_000)."""
    for argument in arguments:
        typed = argument.partition("=")[2] if argument.startswith("--") else argument
        if not _NUMBER.fullmatch(typed) or len(typed) > _SHOWN:
            continue
        shown = {str(_value(typed)), f"{_value(typed):g}", str(float(typed))} - {typed}
        for form in sorted(shown, key=len, reverse=True):
            message = re.sub(rf"(?<=\bgot ){re.escape(form)}(?![\w.]\w|\w)", typed, message)
    return message


def with_options(message: str, options: Mapping[str, str]) -> str:
    """A message that names options as the user types them, where it names the fields behind them.

    Args:
        message: of an error.
        options: option by field.
    """
    for field, option in options.items():
        message = re.sub(rf"(?<![-\w]){re.escape(field)}(?![-\w])", option, message)
    return message


def _is_usual(typed: str, kind: type) -> bool:
    if kind is float:
        return abs(float(typed)) <= MAX_NUMBER
    return len(typed) <= _SHOWN and abs(_value(typed)) <= MAX_WHOLE


def _value(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number_options(kind: type) -> Iterator[tuple[str, type]]:
    """The options of a dataclass that take numbers, with the type of these; those of its settings, too."""
    hints = get_type_hints(kind, include_extras=False)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _number_options(hint)
        elif found := _number_in(hint):
            yield field.name.replace("_", "-"), found


def _number_in(hint: Any) -> type | None:
    """`int` or `float` if that is what a hint asks for, perhaps several of them or none."""
    if hint in (int, float):
        return hint  # type: ignore[no-any-return]
    if get_origin(hint) in (Union, types.UnionType, tuple, Annotated):
        found = {_number_in(part) for part in get_args(hint)} - {None}
        return float if float in found else int if int in found else None
    return None
