"""JSON files that may come from strangers: read within limits, every key once, every value of its declared kind.

Errors are of one line and name the file, the key, what was expected and what was found. They are `ConfigError`s where the
caller asks for no other class.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from evfi import kinds
from evfi.errors import ConfigError, EvfiError
from evfi.files import one_line
from evfi.kinds import Kind
from evfi.paths import open_to_read
from evfi.plain_json import loads

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}")


def read_text(path: Path, max_bytes: int, what: str, error: type[EvfiError] = ConfigError) -> str:
    """Read a small text file.

    Args:
        path: the file.
        max_bytes: how large it may be.
        what: what it should be, for errors, e.g. "protocol".
        error: the class of error.

    Raises:
        EvfiError: of class `error`: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open_to_read(path) as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError as reason:
        raise error(f"expected the {what} {path}; there is no such file") from reason
    except (OSError, ValueError) as reason:
        raise error(f"cannot read the {what} {path}: {one_line(reason)}; name a text file") from reason
    if len(content) > max_bytes:
        raise error(f"{path}: expected a {what} of at most {max_bytes // 1024} KiB, found more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"{path}: expected a {what} in UTF-8, but {one_line(reason)}") from reason


def parse_json(text: str, where: str, what: str, error: type[EvfiError] = ConfigError) -> Any:
    """Read JSON; see `evfi.plain_json.loads`.

    Args:
        text: what the file holds.
        where: what to call the file in errors.
        what: what it should be, for errors.
        error: the class of error.

    Raises:
        EvfiError: of class `error`: it is not that.
    """
    try:
        return loads(text)
    except ValueError as reason:
        raise error(f"{where}: expected a {what} in JSON, but {one_line(reason)}") from reason


class Keys:
    """The keys of one object of JSON or YAML, taken one by one.

    Args:
        data: what was read.
        where: what to call the file in errors.
        what: what to call the object.
        error: the class of error.

    Raises:
        EvfiError: of class `error`: it is no object; so do all methods whose key is missing or holds something else.
    """

    def __init__(self, data: object, where: str, what: str, error: type[EvfiError] = ConfigError) -> None:
        if not isinstance(data, dict):
            raise error(f"{where}: expected {what} to be an object, found {shown(data)}")
        self._data, self._where, self._what, self._error = data, where, what, error
        self._known: set[str] = set()

    def place(self, key: str) -> str:
        """Where a key stands, for errors."""
        return f'{self._where}: "{key}" of {self._what}'

    def refuse(self, key: str, expected: str, found: object) -> NoReturn:
        """Say that a key's value is not what it must be."""
        raise self._error(f"{self.place(key)} must be {expected}, found {shown(found)}")

    def take(self, key: str) -> Any:
        """A key's value, of any type; from now on the key is known."""
        self._known.add(key)
        if key not in self._data:
            raise self._error(f'{self._where}: {self._what} lacks "{key}"; add it')
        return self._data[key]

    def of(self, key: str, kind: Kind, otherwise: str = "") -> Any:
        """A key's value, of a declared kind; `otherwise` says what else the caller would have taken."""
        value = self.take(key)
        if not kind.fits(value):
            self.refuse(key, otherwise + kind.says, value)
        return value

    def declared(self, declared: Mapping[str, Kind], required: Collection[str] = ()) -> dict[str, Any]:
        """The values of all declared keys that are there; those in `required` must be."""
        self._known |= declared.keys()
        return {key: self.of(key, kind) for key, kind in declared.items() if key in required or key in self._data}

    def finish(self) -> None:
        """Make sure that there are no other keys than the known."""
        if unknown := sorted(set(self._data) - self._known):
            known = ", ".join(sorted(self._known))
            raise self._error(
                f"{self._where}: unknown key {shown(unknown[0])} in {self._what}; expected one of {known}"
            )

    def text(self, key: str) -> str:
        """A text that is not blank."""
        return str(self.of(key, kinds.text()))

    def name(self, key: str) -> str:
        """A name as it is typed on the command line."""
        value = self.text(key)
        if not _NAME.fullmatch(value):
            self.refuse(key, "a name of lower-case letters, digits and . _ + - (at most 64)", value)
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        return bool(self.of(key, kinds.FLAG))

    def whole(self, key: str, smallest: int, largest: int, otherwise: str = "") -> int:
        """A whole number in a range; `otherwise` as for `of`."""
        return int(self.of(key, kinds.whole(smallest, largest), otherwise))

    def number(self, key: str, smallest: float, largest: float, otherwise: str = "") -> float:
        """A number in a range; `otherwise` as for `of`."""
        return float(self.of(key, kinds.number(smallest, largest), otherwise))

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        """One of some words."""
        return str(self.of(key, kinds.word(*known)))

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
            self.refuse(key, "a list of strings", values)
        return self._unlike(key, values)

    def wholes(self, key: str, smallest: int, largest: int) -> tuple[int, ...]:
        """A list of at least one whole number in a range, each once."""
        values = self._list(key, "of whole numbers")
        if not values or any(type(value) is not int or not smallest <= value <= largest for value in values):
            self.refuse(key, f"a list of whole numbers from {smallest} to {largest}", values)
        return self._unlike(key, values)

    def table(self, key: str, of_what: str) -> dict[str, Any]:
        """An object whose keys the caller checks."""
        value = self.take(key)
        if not isinstance(value, dict):
            self.refuse(key, f"an object of {of_what}", value)
        return value

    def inner(self, key: str) -> Keys:
        """The keys of an object in this one."""
        return Keys(self.take(key), self._where, f'"{key}"', self._error)

    def inners(self, key: str) -> list[Keys]:
        """The keys of each object of a list in this one."""
        values, what = self._list(key, "of objects"), f'an entry of "{key}"'
        return [Keys(value, self._where, what, self._error) for value in values]

    def _list(self, key: str, of_what: str) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list):
            self.refuse(key, f"a list {of_what}", value)
        return value

    def _unlike(self, key: str, values: list[Any]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            self.refuse(key, "a list without duplicates", values)
        return tuple(values)


def shown(value: object) -> str:
    """A value as JSON, short, for errors."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
