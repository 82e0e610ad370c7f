"""YAML from strangers, read within limits of size, depth and number of values.

The library builds values recursively, which ends the process where brackets are nested by the thousand, and follows aliases
and merge keys without an end. Here only its stream of events is used, which is flat, and values are built from it one by one:

- nothing is nested deeper than `MAX_DEPTH`;
- a file has at most `MAX_VALUES` values, where what an alias stands for counts each time;
- scalars are null, true, false, whole and decimal numbers as YAML 1.2 writes them, and text; nothing is a date, base 60, or an
  object of Python;
- keys are text, as written, and none is there twice; `<<` merges mappings;
- OpenCV's files are read, whose first line is `%YAML:1.0` and whose matrices are mappings tagged `!!opencv-matrix`. Other tags
  that name no plain type are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from evfi.errors import InputError
from evfi.files import one_line
from evfi.plain_json import MAX_DEPTH
from evfi.strict_json import read_text

MAX_VALUES: Final = 2**19
_MAX_NUMBER: Final = 64  # letters: longer ones are no measurements

_OPENCV_HEADER: Final = re.compile(r"\A%YAML:[0-9.]+[ \t]*(?=[\r\n]|\Z)")
_WHOLE: Final = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_DECIMAL: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_CONSTANTS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_YAML: Final = "tag:yaml.org,2002:"
_SCALARS: Final[dict[str, tuple[type, ...]]] = {
    f"{_YAML}null": (type(None),),
    f"{_YAML}bool": (bool,),
    f"{_YAML}int": (int,),
    f"{_YAML}float": (int, float),
}
_TEXT_TAGS: Final = (f"{_YAML}str", "!")
_LIST_TAGS: Final = (f"{_YAML}seq", "!")
_MAPPING_TAGS: Final = (f"{_YAML}map", f"{_YAML}opencv-matrix", "!")
_MERGE: Final = object()


def read_yaml(path: Path, max_bytes: int, what: str, cure: str) -> Any:
    """Read a YAML file of one document.

    Args:
        path: the file.
        max_bytes: how large it may be.
        what: what it should be, for errors, with its article.
        cure: what to do where it is not that, for errors.

    Returns:
        None, bool, int, float, str, and lists and dicts (with keys of text) of these. Parts that the file repeats by aliases
        are one object.

    Raises:
        InputError: it cannot be read, is too large, or is not that.
    """
    try:
        return parse_yaml(read_text(path, max_bytes, what, InputError))
    except ValueError as error:
        raise InputError(f"{path}: expected {what} in YAML, but {one_line(error)}; {cure}") from None


def parse_yaml(text: str) -> Any:
    """Read YAML of one document; see `read_yaml`.

    Raises:
        ValueError: it is no YAML, or not within the limits; the message names the line.
    """
    import yaml

    try:
        builder = _Builder()
        for event in _events(_OPENCV_HEADER.sub("", text, count=1)):
            builder.take(event)
        return builder.root
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{place}{' '.join(str(error.problem or error.context).split())[:200]}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(one_line(error)[:200]) from None


def _events(text: str) -> Iterator[Any]:
    import yaml

    yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class _Open:
    """A list or mapping whose end has not been seen yet."""

    def __init__(self, event: Any, is_mapping: bool, before: int) -> None:
        self.is_mapping, self.anchor, self.line, self.before = is_mapping, event.anchor, _line(event), before
        self.items: list[Any] = []  # of a mapping: keys and values in turn

    @property
    def wants_key(self) -> bool:
        return self.is_mapping and len(self.items) % 2 == 0

    def value(self) -> Any:
        return _mapping(self.items, self.line) if self.is_mapping else self.items


class _Builder:
    """Values from the events of one document."""

    def __init__(self) -> None:
        self.root: Any = None
        self._documents = 0
        self._open: list[_Open] = []
        self._anchored: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def take(self, event: Any) -> None:
        """Go on by one event."""
        match type(event).__name__:
            case "ScalarEvent":
                self._begin(event)
                self._add(_key(event) if self._wants_key() else _scalar(event), event.anchor, self._count - 1)
            case "AliasEvent":
                self._alias(event)
            case "SequenceStartEvent":
                self._collection(event, is_mapping=False)
            case "MappingStartEvent":
                self._collection(event, is_mapping=True)
            case "SequenceEndEvent" | "MappingEndEvent":
                done = self._open.pop()
                self._add(done.value(), done.anchor, done.before)
            case "DocumentStartEvent":
                self._documents += 1
                if self._documents > 1:
                    _refuse(event, "there is a second document; one is expected")

    def _wants_key(self) -> bool:
        return bool(self._open) and self._open[-1].wants_key

    def _begin(self, event: Any, values: int = 1) -> None:
        """Count a value; what its anchor stood for before is gone, so that no value holds itself."""
        self._count += values
        if self._count > MAX_VALUES:
            _refuse(event, f"there are more than {MAX_VALUES} values, counting what aliases stand for")
        self._anchored.pop(event.anchor, None)

    def _add(self, value: Any, anchor: str | None, before: int) -> None:
        """Put a finished value in its place; `before` is how many values were there before it and its parts."""
        if self._open:
            self._open[-1].items.append(value)
        else:
            self.root = value
        if anchor is not None:
            self._anchored[anchor] = ("<<" if value is _MERGE else value, self._count - before)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        if name not in self._anchored:
            _refuse(event, f"the alias *{name[:40]} refers to no value that is complete before it")
        value, size = self._anchored[name]
        if self._wants_key() and not isinstance(value, str):
            _refuse(event, "a key must be a string")
        self._count += size
        if self._count > MAX_VALUES:
            _refuse(event, f"there are more than {MAX_VALUES} values, counting what aliases stand for")
        self._add(value, None, self._count)

    def _collection(self, event: Any, is_mapping: bool) -> None:
        allowed = _MAPPING_TAGS if is_mapping else _LIST_TAGS
        if event.tag is not None and event.tag not in allowed:
            _refuse_tag(event)
        if self._wants_key():
            _refuse(event, "a key must be a string")
        if len(self._open) >= MAX_DEPTH:
            _refuse(event, f"values are nested more than {MAX_DEPTH} deep")
        self._begin(event)
        self._open.append(_Open(event, is_mapping, self._count - 1))


def _mapping(items: list[Any], line: int) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: list[Any] = []
    for key, value in zip(items[::2], items[1::2], strict=True):
        if key is _MERGE:
            merged += value if isinstance(value, list) else [value]
        elif key in own:
            raise ValueError(f"line {line}: duplicate key {key[:40]!r}")
        else:
            own[key] = value
    for other in merged:  # own keys first, then those of the earlier mapping
        if not isinstance(other, dict):
            raise ValueError(f"line {line}: << must merge mappings")
        for key, value in other.items():
            own.setdefault(key, value)
    return own


def _key(event: Any) -> Any:
    """A key as it is written, whatever it looks like."""
    if event.tag is None and event.implicit[0] and event.value == "<<":
        return _MERGE
    if event.tag is not None and event.tag not in _TEXT_TAGS and event.tag not in _SCALARS:
        _refuse_tag(event)
    return event.value


def _scalar(event: Any) -> Any:
    if event.tag is None:
        return _plain(event) if event.implicit[0] else event.value
    if event.tag in _TEXT_TAGS:
        return event.value
    if event.tag not in _SCALARS:
        _refuse_tag(event)
    value = _plain(event)
    if type(value) not in _SCALARS[event.tag]:
        _refuse(event, f"{event.value[:40]!r} does not match its tag")
    return float(value) if isinstance(value, int) and float in _SCALARS[event.tag] else value


def _plain(event: Any) -> bool | int | float | str | None:
    """What text without quotes means."""
    text: str = event.value
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    is_whole = _WHOLE.fullmatch(text) is not None
    if not is_whole and _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if not is_whole and not _DECIMAL.fullmatch(text):
        return text
    if len(text) > _MAX_NUMBER:
        _refuse(event, f"a number has {len(text)} characters, at most {_MAX_NUMBER} are allowed")
    if not is_whole:
        return float(text)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _refuse(event: Any, why: str) -> NoReturn:
    raise ValueError(f"line {_line(event)}: {why}")


def _refuse_tag(event: Any) -> NoReturn:
    _refuse(event, f"the tag {event.tag[:80]!r} does not name a plain type")
