"""`results.json`: the results of an evaluation, in a diff-friendly layout.

One JSON object with the fields of `EvaluationResults`, behind `format` and `format_version`. Every record of a list stands
on a line of its own. A value that is not defined is null; NaN and infinity are never written and never read. Reading is
strict, for files come from strangers: unknown, missing or doubled keys, other types and references to nothing are errors.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from reprlib import Repr
from sys import intern
from types import NoneType, UnionType
from typing import Any, BinaryIO, Final, TypeAlias, get_args, get_origin, get_type_hints

from evfi.errors import ConfigError, InputError
from evfi.evaluation.results import FORMAT, FORMAT_VERSION, EvaluationResults, Score
from evfi.evaluation.results_checks import fault_of
from evfi.files import one_line, written_whole
from evfi.paths import is_file
from evfi.plain_json import loads

MAX_BYTES: Final = 2**28
"""Larger files are not read: 256 MiB hold about two million scores."""

_LARGEST_WHOLE: Final = 2**63
_RECORD_LISTS: Final = ("sequences", "systems", "metrics", "windows", "timings", "scores")

_Reader: TypeAlias = Callable[[Any], Any]
"""Gives the Python value of a JSON value, or raises `_UnexpectedError`."""


def write_results(path: str | Path, results: EvaluationResults) -> None:
    """Write `results.json`, whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        results: their NaN become null.

    Raises:
        ConfigError: they do not fit together, or hold what JSON cannot.
        OutputError: the file cannot be written.
    """
    if fault := fault_of(results):
        raise ConfigError(f"cannot write results: {fault}")
    with written_whole(Path(path)) as partial, partial.open("wb") as stream:
        try:
            _write(stream, results)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"cannot write results: {one_line(error)}; expected what JSON can hold") from error


def read_results(path: str | Path) -> EvaluationResults:
    """Read `results.json`.

    Args:
        path: the file.

    Returns:
        What was written; tuples within `settings`, `protocol` and `environment` come back as lists.

    Raises:
        InputError: it is missing, too large, no JSON, of another format or version, or not as `write_results` writes.
    """
    path = Path(path)
    try:
        content = loads(_read_text(path))
        _check_format(content)
        results: EvaluationResults = _reader_of(EvaluationResults)(content)
    except _UnexpectedError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"cannot read {path}: line {error.lineno}, column {error.colno}: no JSON ({error.msg})"
        ) from error
    except ValueError as error:  # keys given twice, numbers that JSON does not know, brackets nested by the thousand
        raise InputError(f"cannot read {path}: {one_line(error)}") from error
    if fault := fault_of(results):
        raise InputError(f"cannot read {path}: {fault}")
    return results


def _write(stream: BinaryIO, results: EvaluationResults) -> None:
    stream.write(f'{{\n"format": {_json(FORMAT)},\n"format_version": {FORMAT_VERSION}'.encode())
    for field in dataclasses.fields(results):
        value = getattr(results, field.name)
        stream.write(f",\n{_json(field.name)}: ".encode())
        if field.name not in _RECORD_LISTS:
            stream.write(_encoded(_json(value, indent=1)))
            continue
        separator = "[\n"
        for record in value:
            stream.write(_encoded(separator + _json(_as_dict(record))))
            separator = ",\n"
        stream.write(b"\n]" if value else b"[]")
    stream.write(b"\n}\n")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def _encoded(text: str) -> bytes:
    """UTF-8; halves of letters, which file names may hold, become JSON's own escapes."""
    return text.encode("utf-8", "backslashreplace")


def _as_dict(record: Any) -> dict[str, Any]:
    """Fields of a record, in order; NaN among a score's values becomes None."""
    fields = dict(vars(record))
    if isinstance(record, Score):
        fields["values"] = [None if value is None or math.isnan(value) else float(value) for value in record.values]
    return fields


def _read_text(path: Path) -> str:
    try:
        if not is_file(path):
            raise InputError(f"cannot read {path}: there is no such file; name a results.json")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"cannot read {path}: expected at most {MAX_BYTES} bytes, found more; evaluate in parts")
        return content.decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: byte {error.start}: expected UTF-8; is it a results.json?") from error


class _UnexpectedError(Exception):
    """Something else than expected; whoever looked for it adds where.

    Args:
        expected: in words.
        found: the value.
    """

    def __init__(self, expected: str, found: Any):
        super().__init__(expected)
        self.where: list[str] = []
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        where = "".join(reversed(self.where)).lstrip(".")
        return f"{where + ': ' if where else ''}expected {self.expected}, found {_short(self.found)}"


def _short(value: Any) -> str:
    shortened = Repr()
    shortened.maxstring = 120
    return shortened.repr(value)


def _check_format(content: Any) -> None:
    """Take the first two keys off."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _UnexpectedError(f'an object with "format": "{FORMAT}"', content)
    del content["format"]
    version = content.pop("format_version", None)
    if type(version) is not int or version != FORMAT_VERSION:
        raise _UnexpectedError(f"format_version {FORMAT_VERSION}, which this version of evfi reads", version)


@cache
def _reader_of(hint: Any) -> _Reader:
    """The reader for an annotation, of those that results have."""
    if hint in _SIMPLE_READERS:
        return _SIMPLE_READERS[hint]
    if dataclasses.is_dataclass(hint):
        return _record_reader(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType and NoneType in arguments:
        return _optional_reader(_reader_of(next(argument for argument in arguments if argument is not NoneType)))
    if origin is tuple and arguments[-1] is Ellipsis:
        return _list_reader(_reader_of(arguments[0]))
    if origin is tuple and len(set(arguments)) == 1:
        return _list_reader(_reader_of(arguments[0]), len(arguments))
    if origin is dict:
        return _dict_reader(_reader_of(arguments[1]))
    raise TypeError(f"no reader for {hint}")


def _record_reader(cls: Any) -> _Reader:
    hints = get_type_hints(cls)
    readers = [(field.name, _reader_of(hints[field.name])) for field in dataclasses.fields(cls)]
    names = {name for name, _ in readers}

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _UnexpectedError("an object", value)
        if value.keys() != names:
            raise _UnexpectedError(f"the keys {', '.join(sorted(names))}", _difference(value.keys(), names))
        fields = {}
        for name, reader in readers:
            try:
                fields[name] = reader(value[name])
            except _UnexpectedError as error:
                error.where.append(f".{name}")
                raise
        return cls(**fields)

    return read


def _difference(found: Any, expected: set[str]) -> str:
    unknown, missing = sorted(found - expected), sorted(expected - found)
    return f"unknown: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"


def _list_reader(reader: _Reader, length: int | None = None) -> _Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or length not in (None, len(value)):
            raise _UnexpectedError("a list" if length is None else f"a list of {length}", value)
        number = 0
        items = []
        try:
            for number, item in enumerate(value):  # noqa: B007 - told where the error is
                items.append(reader(item))
        except _UnexpectedError as error:
            error.where.append(f"[{number}]")
            raise
        return tuple(items)

    return read


def _dict_reader(reader: _Reader) -> _Reader:
    def read(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _UnexpectedError("an object", value)
        return {name: reader(item) for name, item in value.items()}

    return read


def _optional_reader(reader: _Reader) -> _Reader:
    def read(value: Any) -> Any:
        return None if value is None else reader(value)

    return read


def _read_text_value(value: Any) -> str:
    if type(value) is not str:
        raise _UnexpectedError("a text", value)
    return intern(value)


def _read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _UnexpectedError("true or false", value)
    return value


def _read_whole(value: Any) -> int:
    if type(value) is not int or not -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
        raise _UnexpectedError("a whole number of 64 bits", value)
    return value


def _read_real(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) < _LARGEST_WHOLE:
        return float(value)
    raise _UnexpectedError("a finite number", value)


def _read_any(value: Any) -> Any:
    """Any JSON value, as it is; numbers must be finite."""
    if type(value) is dict:
        for item in value.values():
            _read_any(item)
    elif type(value) is list:
        for item in value:
            _read_any(item)
    elif type(value) is float and not math.isfinite(value):
        raise _UnexpectedError("a finite number", value)
    return value


_SIMPLE_READERS: Final[dict[Any, _Reader]] = {
    str: _read_text_value,
    bool: _read_flag,
    int: _read_whole,
    float: _read_real,
    Any: _read_any,
}
