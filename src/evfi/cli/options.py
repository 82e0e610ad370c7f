"""Command-line options from the settings' dataclasses."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import tyro

from evfi.cli.help_texts import default_of, described_attributes, option_rules
from evfi.cli.numbers import as_typed, check_numbers, with_options
from evfi.cli.unknown_options import unknown_options
from evfi.errors import ConfigError
from evfi.sampling.config import MAX_GUIDANCE, RETIRED_SETTINGS, SamplingConfig, refuse_retired
from evfi.sampling.presets import PRESETS, PresetName, refuse_without_effect

Command = TypeVar("Command")

_SHORT_NAMES: Final = {"num_inference_steps": "steps", "fps": "conditioning_fps"}
"""Fields whose option has another name: a shorter one, or because `--fps` is the video's."""


def parse(command: type[Command], name: str, arguments: Sequence[str], *, for_experts: bool = False) -> Command:
    """Parse a command's arguments; on --help the program ends.

    Args:
        command: Dataclass of the command's options; its docstring is the help.
        name: What the user calls it.
        arguments: Those after the name.
        for_experts: Every flag can also be given in its negative, and None for what may be absent.

    Raises:
        ConfigError: The usage is wrong, or a value is out of its setting's range.
    """
    plain = () if for_experts else (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.PositionalMetavarFromFieldName)
    complaints = io.StringIO()
    check_numbers(command, arguments)
    try:
        with contextlib.redirect_stderr(complaints):
            parsed, unknown = tyro.cli(
                command,
                prog=f"evfi {name}",
                args=list(arguments),
                config=(*markers, *plain),
                registry=option_rules(),
                return_unknown_args=True,
            )
    except SystemExit as ended:
        refusal = _find_config_error(ended)
        if refusal is not None:
            raise ConfigError(as_typed(str(refusal), arguments)) from None
        if ended.code == 0:  # --help
            raise
        refuse_retired(_retired_among(arguments))
        raise ConfigError(f"{_first_complaint(complaints.getvalue())}; see `evfi {name} --help`") from None
    if unknown:
        refuse_retired(_retired_among(arguments))
        raise ConfigError(f"{unknown_options(command, unknown)}; see `evfi {name} --help`")
    return parsed


def _retired_among(arguments: Sequence[str]) -> list[str]:
    """The retired settings whose options were given, on or off."""
    words = [word.partition("=")[0].replace("_", "-") for word in arguments]
    return [name for name in RETIRED_SETTINGS for prefix in ("--", "--no-") if prefix + name.replace("_", "-") in words]


def _first_complaint(text: str) -> str:
    """What the parser says in a box of several lines, in one: its first paragraph."""
    lines = [line.strip(" │╭╰╮╯") for line in text.splitlines()[1:]]  # after the title
    text_lines = itertools.dropwhile(_is_rule, lines)
    paragraph = list(itertools.takewhile(lambda line: not _is_rule(line), text_lines))
    if paragraph and paragraph[0].startswith("Missing from"):  # what follows is the argument's help
        paragraph = paragraph[:2]
    complaint = " ".join(paragraph).rstrip(".") or "wrong usage"
    return complaint[0].lower() + complaint[1:]


def _is_rule(line: str) -> bool:
    return set(line) <= set("─-")


def _find_config_error(error: BaseException | None) -> ConfigError | None:
    """The settings' own complaint, if it is what made the parser give up."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__context__
    return error


def make_sampling_options() -> type:
    """A dataclass with one option per field of `SamplingConfig`; each is None unless given, which leaves the model's own.

    What is on by default becomes a flag that turns it off: `refinement` is `--no-refinement`.
    """
    texts, types = described_attributes(SamplingConfig), get_type_hints(SamplingConfig)
    options: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(SamplingConfig):
        if field.default is True:
            help_text = f"do not {texts[field.name]}"
            options.append((f"no_{field.name}", Annotated[bool, tyro.conf.arg(help=help_text)], False))
        else:
            optional: Any = types[field.name] | None
            hint = tyro.conf.arg(help=texts[field.name], help_behavior_hint=partial(_default_hint, field.name))
            kind = Annotated[optional, hint]
            options.append((_SHORT_NAMES.get(field.name, field.name), kind, None))
    return dataclasses.make_dataclass("SamplingOptions", options, frozen=True)


def _default_hint(setting: str, label: str) -> str:
    return default_of(setting)  # found only when the help is shown


def sampling_overrides(options: Any, preset: PresetName, others: Iterable[str] = ()) -> dict[str, Any]:
    """The settings of `SamplingConfig` that were given.

    Args:
        options: An object of the class that `make_sampling_options` makes.
        preset: The preset that was given.
        others: Further options of the diffusion model that were given.

    Raises:
        ConfigError: One of them is out of range, or has no effect with the preset.
    """
    long_names = {short: name for name, short in _SHORT_NAMES.items()}
    given: dict[str, Any] = {}
    for name, value in vars(options).items():
        if name.startswith("no_"):
            given.update({name.removeprefix("no_"): False} if value else {})
        elif value is not None:
            given[long_names.get(name, name)] = value
    # the model's own settings are not known yet: those that go with anything stand in
    anything = {"min_guidance_scale": 0.0, "max_guidance_scale": MAX_GUIDANCE, "s_churn": 0.0}
    diffusion = PRESETS[preset].get("diffusion", True)
    try:
        config = SamplingConfig.from_defaults({**anything, "diffusion": diffusion}, **given)
    except ConfigError as error:
        names = {long_names.get(option, option): f"--{option.replace('_', '-')}" for option in vars(options)}
        raise ConfigError(with_options(str(error), names)) from error
    switches = [name for name, value in vars(options).items() if value is not None and value is not False]
    refuse_without_effect(config.diffusion, ["--" + name.replace("_", "-") for name in (*switches, *others)])
    return given
