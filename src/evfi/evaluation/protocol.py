"""Evaluation protocols: which windows are scored, against which truth, at which size; as small JSON files.

A protocol is data, never code: `protocols/*.json` hold those that come with the package, and a user's own file reads the
same way. Reading is strict: an unknown, missing or doubled key or a wrong type is an error. `docs/protocols.md` explains
every field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast, get_args

from evfi.errors import ConfigError
from evfi.evaluation.systems import SizeRule
from evfi.files import one_line
from evfi.sampling.config import SamplingConfig

FORMAT: Final = "evfi-protocol"
FORMAT_VERSION: Final = 1
WINDOW_STRIDE: Final = "skip+1"

Truth: TypeAlias = Literal["raw", "vae"]
"""What frames are compared with: the true frames, or these after they passed through the model's autoencoder."""

Average: TypeAlias = Literal["frames", "windows", "sequences"]
"""What weighs the same in the average that a protocol's own tables show."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}")
_MAX_BYTES: Final = 2**18
_MAX_SKIP: Final = 1000
_MAX_FRAMES: Final = 10**6
_MAX_RATIO: Final = 10**6


@dataclass(frozen=True)
class WindowRule:
    """Where windows start.

    With `n` frames, starts are `range(first, n - (skip + 1) - tail_margin, stride)`: a window has skip + 2 frames, and at
    least `tail_margin` frames follow its last one.

    Attributes:
        first: the first window's first frame.
        stride: frames from one start to the next; "skip+1" makes windows share their key frames.
        tail_margin: frames at the end of a sequence that no window reaches.
        at_least_one: a sequence that has frames enough for a window, but not for the margin, gives its first window.
    """

    first: int = 0
    stride: int | Literal["skip+1"] = WINDOW_STRIDE
    tail_margin: int = 0
    at_least_one: bool = False


@dataclass(frozen=True)
class DropRule:
    """Which windows are left out: those with an interval between neighbouring frames whose events match one of these.

    Attributes:
        empty: there are none.
        one_polarity: all are of one polarity.
        max_ratio: there are more positive events per negative one; None does not ask.
        min_ratio: there are fewer; None does not ask.
    """

    empty: bool = False
    one_polarity: bool = False
    max_ratio: float | None = None
    min_ratio: float | None = None

    @property
    def asks(self) -> bool:
        """Whether events have to be looked at."""
        return self.empty or self.one_polarity or self.max_ratio is not None or self.min_ratio is not None


@dataclass(frozen=True)
class Unverified:
    """Something that the protocol's source did not tell.

    Attributes:
        what: which part of the protocol.
        why: what is not known, and what was chosen instead.
    """

    what: str
    why: str


@dataclass(frozen=True)
class Protocol:
    """The rules of an evaluation.

    Attributes:
        name: as on the command line.
        title: as in tables.
        description: what it does, in words.
        source: where its rules come from.
        datasets: what it was made for, for people.
        layouts: the readers of these datasets' layouts; other recordings can be evaluated too.
        skips: frames left out between two key frames; one evaluation each.
        windows: where windows start.
        drop: which of them are left out.
        size: at which size frames are scored.
        truths: what they are compared with, the protocol's own first.
        sampling: settings of `SamplingConfig` for models.
        metrics: names of the metrics of its own tables.
        average: the average of its own tables.
        unverified: what its source did not tell.
    """

    name: str
    title: str
    description: str
    source: str
    datasets: tuple[str, ...]
    layouts: tuple[str, ...]
    skips: tuple[int, ...]
    windows: WindowRule
    drop: DropRule
    size: SizeRule
    truths: tuple[Truth, ...]
    sampling: dict[str, Any]
    metrics: tuple[str, ...]
    average: Average
    unverified: tuple[Unverified, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """What its file holds: JSON's own types only."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "source": self.source,
            "datasets": list(self.datasets),
            "layouts": list(self.layouts),
            "skips": list(self.skips),
            "windows": dict(vars(self.windows)),
            "drop": dict(vars(self.drop)),
            "size": self.size,
            "truths": list(self.truths),
            "sampling": dict(self.sampling),
            "metrics": list(self.metrics),
            "average": self.average,
            "unverified": [dict(vars(entry)) for entry in self.unverified],
        }


def protocol_names() -> tuple[str, ...]:
    """Names of the protocols that come with the package, `raw` first."""
    names = {entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json")}
    return tuple(sorted(names, key=lambda name: (name != "raw", name != "vdm-evfi", name)))


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Load a protocol of the package by name, or one's own by the path of its file.

    Raises:
        ConfigError: there is no such protocol, or its file is not one.
    """
    given = str(name_or_path)
    names = protocol_names()
    if given in names:
        return _load_own(given)
    path = Path(given)
    if path.suffix.lower() != ".json" and not path.is_file():
        raise ConfigError(f"no protocol {given!r}; known are {', '.join(names)}, or give the path of a .json file")
    protocol = protocol_from_text(_read_text(path), str(path))
    if protocol.name in names and protocol != _load_own(protocol.name):
        raise ConfigError(
            f'{path}: "name" is {protocol.name!r}, but its rules differ from the protocol of that name; give it another'
        )
    return protocol


def protocol_from_text(text: str, where: str) -> Protocol:
    """Read a protocol from JSON.

    Args:
        text: the file's content.
        where: what to call the file in errors.

    Raises:
        ConfigError: it is no protocol.
    """
    try:
        data = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: expected a protocol in JSON, but {one_line(error)}") from error
    return protocol_from_dict(data, where)


def protocol_from_dict(data: object, where: str) -> Protocol:
    """Read a protocol from what `Protocol.to_dict` gives; see `protocol_from_text`."""
    keys = _Keys(data, where, "the protocol")
    if (found := keys.text("format")) != FORMAT:
        keys.refuse("format", f'"{FORMAT}"', found)
    if (version := keys.whole("version", 0, 10**6)) != FORMAT_VERSION:
        keys.refuse("version", str(FORMAT_VERSION), version)
    protocol = Protocol(
        name=keys.name("name"),
        title=keys.text("title"),
        description=keys.text("description"),
        source=keys.text("source"),
        datasets=keys.texts("datasets"),
        layouts=keys.texts("layouts"),
        skips=keys.wholes("skips", 1, _MAX_SKIP),
        windows=_read_windows(keys),
        drop=_read_drop(keys),
        size=cast(SizeRule, keys.choice("size", get_args(SizeRule))),
        truths=cast("tuple[Truth, ...]", keys.choices("truths", get_args(Truth))),
        sampling=keys.settings("sampling"),
        metrics=keys.texts("metrics"),
        average=cast(Average, keys.choice("average", get_args(Average))),
        unverified=tuple(_read_unverified(keys)),
    )
    keys.finish()
    return protocol


def _read_windows(keys: _Keys) -> WindowRule:
    inner = keys.inner("windows")
    stride = inner.take("stride")
    rule = WindowRule(
        first=inner.whole("first", 0, _MAX_FRAMES),
        stride=WINDOW_STRIDE
        if stride == WINDOW_STRIDE
        else inner.whole("stride", 1, _MAX_FRAMES, f'"{WINDOW_STRIDE}" or '),
        tail_margin=inner.whole("tail_margin", 0, _MAX_FRAMES),
        at_least_one=inner.flag("at_least_one"),
    )
    inner.finish()
    return rule


def _read_drop(keys: _Keys) -> DropRule:
    inner = keys.inner("drop")
    rule = DropRule(
        empty=inner.flag("empty"),
        one_polarity=inner.flag("one_polarity"),
        max_ratio=inner.ratio("max_ratio"),
        min_ratio=inner.ratio("min_ratio"),
    )
    inner.finish()
    if rule.max_ratio is not None and rule.min_ratio is not None and rule.max_ratio < rule.min_ratio:
        inner.refuse("max_ratio", f"at least min_ratio ({rule.min_ratio})", rule.max_ratio)
    return rule


def _read_unverified(keys: _Keys) -> Iterable[Unverified]:
    for inner in keys.inners("unverified"):
        yield Unverified(what=inner.text("what"), why=inner.text("why"))
        inner.finish()


class _Keys:
    """The keys of one JSON object, taken one by one; each error names file, key, what was expected and what was found."""

    def __init__(self, data: object, where: str, what: str) -> None:
        if not isinstance(data, dict):
            raise ConfigError(f"{where}: expected {what} to be a JSON object, found {_shown(data)}")
        self._data, self._where, self._what = data, where, what
        self._taken: set[str] = set()

    def refuse(self, key: str, expected: str, found: object) -> NoReturn:
        raise ConfigError(f'{self._where}: "{key}" of {self._what} must be {expected}, found {_shown(found)}')

    def take(self, key: str) -> Any:
        self._taken.add(key)
        if key not in self._data:
            raise ConfigError(f'{self._where}: {self._what} lacks "{key}"; see docs/protocols.md for every key')
        return self._data[key]

    def finish(self) -> None:
        if unknown := sorted(set(self._data) - self._taken):
            known = ", ".join(sorted(self._taken))
            raise ConfigError(f"{self._where}: unknown key {_shown(unknown[0])} in {self._what}; known are {known}")

    def text(self, key: str) -> str:
        value = self.take(key)
        if not isinstance(value, str) or not value.strip():
            self.refuse(key, "a text that is not empty", value)
        return value

    def name(self, key: str) -> str:
        value = self.text(key)
        if not _NAME.fullmatch(value):
            self.refuse(key, "a name of lower-case letters, digits and . _ + - (at most 64)", value)
        return value

    def flag(self, key: str) -> bool:
        value = self.take(key)
        if not isinstance(value, bool):
            self.refuse(key, "true or false", value)
        return value

    def whole(self, key: str, smallest: int, largest: int, otherwise: str = "") -> int:
        value = self.take(key)
        if type(value) is not int or not smallest <= value <= largest:
            self.refuse(key, f"{otherwise}a whole number from {smallest} to {largest}", value)
        return value

    def ratio(self, key: str) -> float | None:
        value = self.take(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 < value <= _MAX_RATIO:
            self.refuse(key, f"null or a number above 0, at most {_MAX_RATIO}", value)
        return float(value)

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        value = self.take(key)
        if value not in known:
            self.refuse(key, f"one of {', '.join(known)}", value)
        return str(value)

    def choices(self, key: str, known: tuple[str, ...]) -> tuple[str, ...]:
        values = self._list(key, f"of {', '.join(known)}")
        if not values or any(value not in known for value in values):
            self.refuse(key, f"a list of some of {', '.join(known)}", values)
        return self._unlike(key, values)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._list(key, "of texts")
        if any(not isinstance(value, str) or not value.strip() for value in values):
            self.refuse(key, "a list of texts", values)
        return self._unlike(key, values)

    def wholes(self, key: str, smallest: int, largest: int) -> tuple[int, ...]:
        values = self._list(key, "of whole numbers")
        if not values or any(type(value) is not int or not smallest <= value <= largest for value in values):
            self.refuse(key, f"a list of whole numbers from {smallest} to {largest}", values)
        return self._unlike(key, values)

    def settings(self, key: str) -> dict[str, Any]:
        value = self.take(key)
        if not isinstance(value, dict):
            self.refuse(key, "a JSON object of sampling settings", value)
        try:
            SamplingConfig.from_defaults(value)
        except ConfigError as error:
            raise ConfigError(f'{self._where}: "{key}" of {self._what}: {error}') from error
        return dict(value)

    def inner(self, key: str) -> _Keys:
        return _Keys(self.take(key), self._where, f'"{key}"')

    def inners(self, key: str) -> list[_Keys]:
        return [_Keys(value, self._where, f'an entry of "{key}"') for value in self._list(key, "of JSON objects")]

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


def _without_doubles(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _folder() -> Any:
    return resources.files("evfi.evaluation") / "protocols"


def _load_own(name: str) -> Protocol:
    text = (_folder() / f"{name}.json").read_text(encoding="utf-8")
    return protocol_from_text(text, f"{name}.json")


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the protocol {path}: {one_line(error)}") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path}: expected a protocol of at most {_MAX_BYTES // 1024} KiB, found more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected a protocol in UTF-8, but {one_line(error)}") from error
