"""Presets: groups of settings that trade closeness to the published sampling for speed, as a table of data.

What each costs is measured by scripts/measure_presets.py; see docs/speed.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from evfi.errors import ConfigError
from evfi.sampling.config import SamplingConfig

PresetName = Literal["exact", "balanced", "fast", "warp"]
"""The presets by name, from the slowest to the fastest."""

PRESETS: Final[Mapping[PresetName, Mapping[str, Any]]] = MappingProxyType(
    {
        "exact": MappingProxyType({}),
        "balanced": MappingProxyType(
            {"num_inference_steps": 16, "solver": "adams_bashforth", "s_churn": 0.0},
        ),
        "fast": MappingProxyType(
            {
                "num_inference_steps": 12,
                "solver": "adams_bashforth",
                "s_churn": 0.0,
                "guidance_start": 0.4,
            }
        ),
        "warp": MappingProxyType({"diffusion": False}),
    }
)
"""What each preset changes of a model's own settings.

With `warp`, the refiner works from events and key frames alone, far faster.
"""

_SWITCHES: Final = ("diffusion", "refinement", "no_diffusion", "no_refinement")
"""The only settings that have an effect where the diffusion model is left out."""


def with_preset(defaults: Mapping[str, Any], preset: PresetName) -> dict[str, Any]:
    """A model's own settings with a preset over them.

    A model that makes do with the preset's steps, or fewer, is left as it is: there is nothing to save, and settings that
    suit many steps do not suit few. A preset without steps of its own applies to every model.

    Args:
        defaults: settings that a model brings; what it leaves out is `SamplingConfig`'s.
        preset: the preset.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(get_args(PresetName))}, got {preset!r}")
    changes = PRESETS[preset]
    steps = SamplingConfig.from_defaults(defaults).num_inference_steps
    if steps <= changes.get("num_inference_steps", 0):
        return dict(defaults)
    return {**defaults, **changes}


def chosen_config(
    defaults: Mapping[str, Any],
    preset: PresetName,
    given: Mapping[str, Any],
    *,
    base: Mapping[str, Any] | None = None,
) -> SamplingConfig:
    """A model's own settings, under a preset, under single settings.

    Args:
        defaults: settings that a model brings.
        preset: the preset.
        given: single settings of the user.
        base: settings between the preset's and the user's.

    Raises:
        ConfigError: a setting is unknown, out of range, or would have no effect.
    """
    config = SamplingConfig.from_defaults({**with_preset(defaults, preset), **(base or {})}, **given)
    refuse_without_effect(config.diffusion, given)
    return config


def refuse_without_effect(diffusion: bool, given: Iterable[str]) -> None:
    """Refuse settings of the diffusion model where it is left out.

    Args:
        diffusion: whether it is run.
        given: the settings that the user gave, as the user calls them.

    Raises:
        ConfigError: one has no effect.
    """
    idle = [name for name in given if name.lstrip("-").replace("-", "_") not in _SWITCHES]
    if idle and not diffusion:
        names = ", ".join(idle)
        raise ConfigError(
            f"{names}: no effect without the diffusion model, which preset warp (or diffusion = false, --no-diffusion) "
            f"turns off; remove {names}, or choose another preset"
        )
