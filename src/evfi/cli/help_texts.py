"""Help texts of options, from the docstrings of the settings' dataclasses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from evfi.sampling.config import SamplingConfig

_NO_DEFAULT = ("None", "False", "")
"""Defaults that say nothing: the text says what happens without the option."""


def described_attributes(kind: type) -> dict[str, str]:
    """The `Attributes:` section of a dataclass's docstring: a text per name, in one line each, without marks of code."""
    section = (kind.__doc__ or "").partition("Attributes:")[2]
    entries = re.findall(r"^ +(\w+): (.*(?:\n(?!\s*\w+: ).+)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.replace("`", "").split()) for name, text in entries}


def option_rules() -> tyro.constructors.ConstructorRegistry:
    """How dataclasses become options: their help is the docstring's, and names a default only where there is one."""
    registry = tyro.constructors.ConstructorRegistry()
    registry.struct_rule(_options_of)
    return registry


def default_of(setting: str) -> str:
    """The default of a setting of sampling: that of the models in question, where they differ from each other."""
    ours, published = (settings.get(setting) for settings in _defaults_of_models())
    if ours == published:
        return f"(default: {ours})"
    return f"(default: {ours} for evfi-tiny, {published} for vdm-evfi)"


def _options_of(info: tyro.constructors.StructTypeInfo) -> tyro.constructors.StructConstructorSpec | None:
    kind: Any = info.type
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return None
    return tyro.constructors.StructConstructorSpec(instantiate=kind, fields=tuple(_fields_of(kind, info.default)))


def _fields_of(kind: Any, default: Any) -> Iterator[tyro.constructors.StructFieldSpec]:
    texts, hints = described_attributes(kind), get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        named, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        marks = (tyro.conf.arg(help_behavior_hint=_named_default), *more)  # what was there wins
        quiet: Any = Annotated[(named, *marks)]
        yield tyro.constructors.StructFieldSpec(
            field.name, quiet, _default_of_field(field, kind, default), texts.get(field.name)
        )


def _default_of_field(field: dataclasses.Field[Any], kind: type, default: Any) -> Any:
    if isinstance(default, kind):
        return getattr(default, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING_NONPROP


def _named_default(label: str) -> str:
    return "" if label in _NO_DEFAULT else f"(default: {label})"


@cache
def _defaults_of_models() -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of evfi-tiny and of vdm-evfi."""
    from evfi.models.facts import packaged_sampling
    from evfi.models.registry import MODELS

    plain = {field.name: field.default for field in dataclasses.fields(SamplingConfig)}
    return {**plain, **packaged_sampling("evfi-tiny")}, {**plain, **MODELS["vdm-evfi"].sampling}
