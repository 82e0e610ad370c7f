"""Evaluation protocols: which windows are scored, against which ground truth, at which size; as small JSON files.

A protocol is data, never code: `protocols/*.json` hold those that come with the package, and a user's own file reads the
same way. Reading is strict: an unknown, missing or doubled key or a wrong type is an error. `docs/protocols.md` explains
every field.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from evfi.errors import ConfigError, RecordingError
from evfi.evaluation.systems import SizeRule
from evfi.paths import is_file
from evfi.sampling.config import SamplingConfig, without_retired
from evfi.strict_json import Keys, parse_json, read_text

FORMAT: Final = "evfi-protocol"
FORMAT_VERSION: Final = 1
WINDOW_STRIDE: Final = "skip+1"

Truth: TypeAlias = Literal["raw", "vae"]
"""What frames are compared with: the true frames, or these after they passed through the model's autoencoder."""

Average: TypeAlias = Literal["frames", "windows", "sequences"]
"""What weighs the same in the average that a protocol's own tables show."""

TailAfter: TypeAlias = Literal["last", "first"]
"""The frame of a window after which frames are counted that no window may reach."""

_MAX_BYTES: Final = 2**18
_MAX_SKIP: Final = 1000
_MAX_FRAMES: Final = 10**6
_MAX_CROP: Final = 1024
_MIN_RATIO: Final = 1e-6


@dataclass(frozen=True)
class WindowRule:
    """Where windows start.

    A window that starts at frame `i` has the frames `i` to `i + skip + 1`; windows start at `first`, `first + stride` and
    so on, as long as all their frames exist and `tail_margin` frames follow.

    Attributes:
        first: the first window's first frame.
        stride: frames from one start to the next; "skip+1" makes windows share their key frames.
        tail_margin: frames that must follow.
        tail_after: what they follow: the window's last frame, or its first.
        at_least_one: a sequence that has frames enough for a window, but not for the margin, gives its first window.
    """

    first: int = 0
    stride: int | Literal["skip+1"] = WINDOW_STRIDE
    tail_margin: int = 0
    tail_after: TailAfter = "last"
    at_least_one: bool = False

    def frames_needed(self, skip: int, *, with_margin: bool = True) -> int:
        """Frames from a window's first on that must exist for it."""
        if not with_margin:
            return skip + 2
        if self.tail_after == "last":
            return skip + 2 + self.tail_margin
        return max(skip + 2, 1 + self.tail_margin)


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
class Crop:
    """The part of frames that is scored: the middle, of sides `(side // multiple - fewer) * multiple`.

    An odd rest leaves one pixel more at the right and at the bottom.

    Attributes:
        multiple: what the sides are multiples of, px.
        fewer: how many multiples less than fit.
    """

    multiple: int
    fewer: int

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the part, right and bottom exclusive, in a frame of (width, height).

        Raises:
            RecordingError: nothing is left.
        """
        width, height = ((side // self.multiple - self.fewer) * self.multiple for side in size)
        if width <= 0 or height <= 0:
            raise RecordingError(
                f"frames of {size[0]}×{size[1]} px are too small for the protocol's crop, which needs at least "
                f"{(self.fewer + 1) * self.multiple} px per side; choose another protocol"
            )
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return left, top, left + width, top + height


@dataclass(frozen=True)
class Remark:
    """Something about a protocol that must be known with its numbers.

    Attributes:
        what: which part of the protocol.
        why: what is not known or differs, and what is done instead.
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
        crop: which part of them; None is all.
        truths: what they are compared with, the protocol's own first.
        sampling: settings of `SamplingConfig` for models.
        metrics: names of the metrics of its own tables.
        average: the average of its own tables.
        deviations: what its source does and is not done here.
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
    crop: Crop | None
    truths: tuple[Truth, ...]
    sampling: dict[str, Any]
    metrics: tuple[str, ...]
    average: Average
    deviations: tuple[Remark, ...]
    unverified: tuple[Remark, ...]

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
            "crop": None if self.crop is None else dict(vars(self.crop)),
            "truths": list(self.truths),
            "sampling": dict(self.sampling),
            "metrics": list(self.metrics),
            "average": self.average,
            "deviations": [dict(vars(entry)) for entry in self.deviations],
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
    if path.suffix.lower() != ".json" and not is_file(path):
        raise ConfigError(f"no protocol {given!r}; known are {', '.join(names)}, or give the path of a .json file")
    protocol = protocol_from_text(read_text(path, _MAX_BYTES, "protocol"), str(path))
    if protocol.name in names and protocol != _load_own(protocol.name):
        raise ConfigError(
            f'{path}: "name" is {protocol.name!r}, but it differs from the protocol of that name; give it another'
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
    return protocol_from_dict(parse_json(text, where, "protocol"), where)


def protocol_from_dict(data: object, where: str) -> Protocol:
    """Read a protocol from what `Protocol.to_dict` gives; see `protocol_from_text`."""
    keys = Keys(data, where, "the protocol")
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
        crop=_read_crop(keys),
        truths=cast("tuple[Truth, ...]", keys.choices("truths", get_args(Truth))),
        sampling=_read_sampling(keys),
        metrics=keys.texts("metrics"),
        average=cast(Average, keys.choice("average", get_args(Average))),
        deviations=tuple(_read_remarks(keys, "deviations")),
        unverified=tuple(_read_remarks(keys, "unverified")),
    )
    keys.finish()
    return protocol


def _read_windows(keys: Keys) -> WindowRule:
    inner = keys.inner("windows")
    stride = inner.take("stride")
    rule = WindowRule(
        first=inner.whole("first", 0, _MAX_FRAMES),
        stride=WINDOW_STRIDE
        if stride == WINDOW_STRIDE
        else inner.whole("stride", 1, _MAX_FRAMES, f'"{WINDOW_STRIDE}" or '),
        tail_margin=inner.whole("tail_margin", 0, _MAX_FRAMES),
        tail_after=cast(TailAfter, inner.choice("tail_after", get_args(TailAfter))),
        at_least_one=inner.flag("at_least_one"),
    )
    inner.finish()
    return rule


def _read_drop(keys: Keys) -> DropRule:
    inner = keys.inner("drop")
    rule = DropRule(
        empty=inner.flag("empty"),
        one_polarity=inner.flag("one_polarity"),
        max_ratio=_read_ratio(inner, "max_ratio"),
        min_ratio=_read_ratio(inner, "min_ratio"),
    )
    inner.finish()
    if rule.max_ratio is not None and rule.min_ratio is not None and rule.max_ratio < rule.min_ratio:
        inner.refuse("max_ratio", f"at least min_ratio ({rule.min_ratio})", rule.max_ratio)
    return rule


def _read_ratio(keys: Keys, key: str) -> float | None:
    return None if keys.take(key) is None else keys.number(key, _MIN_RATIO, 1 / _MIN_RATIO, "null or ")


def _read_crop(keys: Keys) -> Crop | None:
    if keys.take("crop") is None:
        return None
    inner = keys.inner("crop")
    crop = Crop(multiple=inner.whole("multiple", 1, _MAX_CROP), fewer=inner.whole("fewer", 0, _MAX_CROP))
    inner.finish()
    return crop


def _read_sampling(keys: Keys) -> dict[str, Any]:
    settings = without_retired(keys.table("sampling", "sampling settings"))
    try:
        SamplingConfig.from_defaults(settings)
    except ConfigError as error:
        raise ConfigError(f"{keys.place('sampling')}: {error}") from error
    return settings


def _read_remarks(keys: Keys, key: str) -> Iterable[Remark]:
    for inner in keys.inners(key):
        yield Remark(what=inner.text("what"), why=inner.text("why"))
        inner.finish()


def _folder() -> Any:
    return resources.files("evfi.evaluation") / "protocols"


def _load_own(name: str) -> Protocol:
    text = (_folder() / f"{name}.json").read_text(encoding="utf-8")
    return protocol_from_text(text, f"{name}.json")
