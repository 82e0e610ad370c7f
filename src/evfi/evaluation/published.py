"""Published results, each with its source, from `published.json`.

A row is shown beside own results only if both are of the same protocol, dataset and skip. Rows whose protocol is not
known are kept for the record and never shown beside others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Literal, TypeAlias, cast, get_args

from evfi.evaluation.protocol import Average, Truth, protocol_names
from evfi.strict_json import Keys, parse_json

FORMAT: Final = "evfi-published-results"
FORMAT_VERSION: Final = 1
UNSPECIFIED: Final = "_unspecified"
"""Ends the name of a metric whose source does not tell the variant; only rows without a protocol hold such."""

By: TypeAlias = Literal["authors", "others"]
"""Who measured: the system's own authors, or somebody else."""

_FILE: Final = "published.json"
_MAX_SKIP: Final = 1000


@dataclass(frozen=True)
class PublishedResult:
    """What one source says of one system on one dataset and skip.

    Attributes:
        system: what made the frames.
        dataset: by its usual name.
        layout: the reader of that dataset.
        skip: frames left out between two key frames.
        protocol: by name; None where it is not known which rules hold.
        truth: what was compared with; None where the source does not tell.
        average: what weighs the same in the average; None where the source does not tell.
        by: who measured.
        metrics: value by name of the metric.
        notes: what must be known with them; "" for nothing.
        source: title of the source and place in it.
        url: its address.
        year: of its publication.
    """

    system: str
    dataset: str
    layout: str
    skip: int
    protocol: str | None
    truth: Truth | None
    average: Average | None
    by: By
    metrics: dict[str, float]
    notes: str
    source: str
    url: str
    year: int


def published_results(
    protocol: str, dataset: str | None = None, skip: int | None = None, *, layout: str | None = None
) -> tuple[PublishedResult, ...]:
    """Published results that are comparable with this protocol's.

    Args:
        protocol: its name; one that is not of the package has none.
        dataset: only of this dataset.
        skip: only of this skip.
        layout: only of the dataset that this reader reads (`SequenceInfo.format`).
    """
    return tuple(
        row
        for row in all_published_results()
        if row.protocol == protocol
        and (dataset is None or row.dataset == dataset)
        and (skip is None or row.skip == skip)
        and (layout is None or row.layout == layout)
    )


@cache
def all_published_results() -> tuple[PublishedResult, ...]:
    """All rows, those without a protocol too."""
    text = (resources.files("evfi.evaluation") / _FILE).read_text(encoding="utf-8")
    return results_from_text(text, _FILE)


def results_from_text(text: str, where: str) -> tuple[PublishedResult, ...]:
    """Read rows from JSON.

    Raises:
        ConfigError: the text is not what it should be.
    """
    keys = Keys(parse_json(text, where, "list of published results"), where, "the list")
    if (found := keys.text("format")) != FORMAT:
        keys.refuse("format", f'"{FORMAT}"', found)
    if (version := keys.whole("version", 0, 10**6)) != FORMAT_VERSION:
        keys.refuse("version", str(FORMAT_VERSION), version)
    rows = tuple(row for source in keys.inners("sources") for row in _read_source(source))
    keys.finish()
    return rows


def _read_source(keys: Keys) -> list[PublishedResult]:
    source, url, year = keys.text("source"), keys.text("url"), keys.whole("year", 1990, 2100)
    rows = [_read_row(row, source, url, year) for row in keys.inners("results")]
    keys.finish()
    return rows


def _read_row(keys: Keys, source: str, url: str, year: int) -> PublishedResult:
    row = PublishedResult(
        system=keys.text("system"),
        dataset=keys.text("dataset"),
        layout=keys.name("layout"),
        skip=keys.whole("skip", 1, _MAX_SKIP),
        protocol=_choice_or_none(keys, "protocol", protocol_names()),
        truth=cast("Truth | None", _choice_or_none(keys, "truth", get_args(Truth))),
        average=cast("Average | None", _choice_or_none(keys, "average", get_args(Average))),
        by=cast(By, keys.choice("by", get_args(By))),
        metrics=_read_metrics(keys),
        notes="" if keys.take("notes") == "" else keys.text("notes"),
        source=source,
        url=url,
        year=year,
    )
    if row.protocol is not None and any(name.endswith(UNSPECIFIED) for name in row.metrics):
        keys.refuse("protocol", f"null where a metric's name ends with {UNSPECIFIED}", row.protocol)
    keys.finish()
    return row


def _choice_or_none(keys: Keys, key: str, known: tuple[str, ...]) -> str | None:
    return None if keys.take(key) is None else keys.choice(key, known)


def _read_metrics(keys: Keys) -> dict[str, float]:
    names = list(keys.table("metrics", "values by name of the metric"))
    inner = keys.inner("metrics")
    return {name: inner.number(name, -1000.0, 1000.0) for name in names}
