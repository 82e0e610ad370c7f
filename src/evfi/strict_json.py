"""Small JSON files that are read strictly: every key is known, is there once, and has its type.

Errors are `ConfigError`s of one line that name the file, the key, what was expected and what was found.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, NoReturn

from evfi.errors import ConfigError
from evfi.files import one_line

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}")


def read_text(path: Path, max_bytes: int, what: str) -> str:
    """Read a small text file.

    Args:
        path: the file.
        max_bytes: how large it may be.
        what: what it should be, for errors, e.g. "protocol".

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {one_line(error)}") from error
    if len(content) > max_bytes:
        raise ConfigError(f"{path}: expected a {what} of at most {max_bytes // 1024} KiB, found more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected a {what} in UTF-8, but {one_line(error)}") from error


def parse_json(text: str, where: str, what: str) -> Any:
    """Read JSON in which no key stands twice and every number is one.

    Raises:
        ConfigError: it is not that.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: expected a {what} in JSON, but {one_line(error)}") from error


class Keys:
    """The keys of one JSON object, taken one by one.

    Args:
        data: what was read.
        where: what to call the file in errors.
        what: what to call the object.

    Raises:
        ConfigError: it is no object; so do all methods whose key is missing or holds something else.
    """

    def __init__(self, data: object, where: str, what: str) -> None:
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: expected {what} to be a JSON object, found {_shown(data)}")
        self._data, self._where, self._what = data, where, what
        self._taken: set[str] = set()

    def place(self, key: str) -> str:
        """Where a key stands, for errors."""
        return f'{self._where}: "{key}" of {self._what}'

    def refuse(self, key: str, expected: str, found: object) -> NoReturn:
        """Say that a key's value is not what it must be."""
        raise ConfigError(f"{self.place(key)} must be {expected}, found {_shown(found)}")

    def take(self, key: str) -> Any:
        """A key's value, of any type; from now on the key is known."""
        self._taken.add(key)
        if key not in self._data:
            raise ConfigError(f'{self._where}: {self._what} lacks "{key}"; add it')
        return self._data[key]

    def finish(self) -> None:
        """Make sure that there are no other keys than those taken."""
        if unknown := sorted(set(self._data) - self._taken):
            known = ", ".join(sorted(self._taken))
            raise ConfigError(f"{self._where}: unknown key {_shown(unknown[0])} in {self._what}; known are {known}")

    def text(self, key: str) -> str:
        """A text that is not blank."""
        value = self.take(key)
        if not isinstance(value, str) or not value.strip():
            self.refuse(key, "a text that is not empty", value)
        return value

    def name(self, key: str) -> str:
        """A name as it is typed on the command line."""
        value = self.text(key)
        if not _NAME.fullmatch(value):
            self.refuse(key, "a name of lower-case letters, digits and . _ + - (at most 64)", value)
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            self.refuse(key, "true or false", value)
        return value

    def whole(self, key: str, smallest: int, largest: int, otherwise: str = "") -> int:
        """A whole number in a range; `otherwise` tells what else the caller would have taken."""
        value = self.take(key)
        if type(value) is not int or not smallest <= value <= largest:
            self.refuse(key, f"{otherwise}a whole number from {smallest} to {largest}", value)
        return value

    def number(self, key: str, smallest: float, largest: float, otherwise: str = "") -> float:
        """A number in a range; `otherwise` as for `whole`."""
        value = self.take(key)
        if type(value) not in (int, float) or not smallest <= value <= largest:
            self.refuse(key, f"{otherwise}a number from {smallest:g} to {largest:g}", value)
        return float(value)

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        """One of some words."""
        value = self.take(key)
        if value not in known:
            self.refuse(key, f"one of {', '.join(known)}", value)
        return str(value)

    def choices(self, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
        """A list of at least one of some words, each once."""
        values = self._list(key, f"of {', '.join(known)}")
        if not values or any(value not in known for value in values):
            self.refuse(key, f"a list of some of {', '.join(known)}", values)
        return self._unlike(key, values)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of different texts that are not blank; it may be empty."""
        values = self._list(key, "of texts")
        if any(not isinstance(value, str) or not value.strip() for value in values):
            self.refuse(key, "a list of texts", values)
        return self._unlike(key, values)

    def wholes(self, key: str, smallest: int, largest: int) -> tuple[int, ...]:
        """A list of at least one whole number in a range, each once."""
        values = self._list(key, "of whole numbers")
        if not values or any(type(value) is not int or not smallest <= value <= largest for value in values):
            self.refuse(key, f"a list of whole numbers from {smallest} to {largest}", values)
        return self._unlike(key, values)

    def table(self, key: str, of_what: str) -> dict[str, Any]:
        """A JSON object whose keys the caller checks."""
        value = self.take(key)
        if not isinstance(value, dict):
            self.refuse(key, f"a JSON object of {of_what}", value)
        return value

    def inner(self, key: str) -> Keys:
        """The keys of an object in this one."""
        return Keys(self.take(key), self._where, f'"{key}"')

    def inners(self, key: str) -> list[Keys]:
        """The keys of each object of a list in this one."""
        return [Keys(value, self._where, f'an entry of "{key}"') for value in self._list(key, "of JSON objects")]

    def _list(self, key: str, of_what: str) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list):
            self.refuse(key, f"a list {of_what}", value)
        return value

    def _unlike(self, key: str, values: list[Any]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            self.refuse(key, "a list without doubles", values)
        return tuple(values)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
