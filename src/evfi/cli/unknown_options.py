"""Messages for unknown options, with a suggestion where possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import tyro

_SHOWN: Final = 200
_ALIKE: Final = 0.7

_OF_VDM_EVFI: Final = {
    "--event-scale": ((), "leave it out: the reader of each dataset knows the scale of its coordinates"),
    "--num-frames": (("--insert", "--skips"), "use {}, which counts the inserted frames only, two fewer"),
    "--rescale-factor": (("--upscale",), "use {}"),
    "--width": (("--upscale",), "leave it out: the size is read from the frames"),
    "--height": (("--upscale",), "leave it out: the size is read from the frames"),
}
"""Options of the published repository, the options that a command must have one of for the hint, and the hint."""


def unknown_options(command: type, words: Sequence[str]) -> str:
    """A complaint about words that no option takes.

    Args:
        command: dataclass of the command's options.
        words: as the user typed them.
    """
    known = [*_options_of(command), "--help"]
    hints = [hint for word in words if word.startswith("--") and (hint := _hint(_named(word), known))]
    shown = " ".join(words)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return "; ".join([f"unrecognized options: {shown}", *dict.fromkeys(hints)])


def _named(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _hint(name: str, known: Collection[str]) -> str:
    if name in _OF_VDM_EVFI:
        instead, text = _OF_VDM_EVFI[name]
        there = [option for option in instead if option in known]
        if there or not instead:
            return f"{name}: {text.format(' or '.join(there))}"
    if name in known:  # the options of all subcommands are known here
        return f"{name} is an option of another subcommand"
    close = get_close_matches(name, known, n=1, cutoff=_ALIKE)
    return f"perhaps {close[0]}" if close else ""


def _options_of(kind: Any) -> Iterator[str]:
    """The long names of a dataclass's options, those of its settings and of its subcommands among them."""
    for field in dataclasses.fields(kind):
        hint = get_type_hints(kind, include_extras=True)[field.name]
        named, *more = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        nested = [part for part in (named, *map(_plain, get_args(named))) if dataclasses.is_dataclass(part)]
        for part in nested:
            yield from _options_of(part)
        if not nested and not any(mark is tyro.conf.Positional for mark in more):
            yield "--" + field.name.replace("_", "-")
        for mark in more:
            yield from (alias for alias in getattr(mark, "aliases", None) or () if alias.startswith("--"))


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
