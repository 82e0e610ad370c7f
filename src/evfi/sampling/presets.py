"""Presets: groups of settings that trade closeness to the published sampling for speed, as a table of data.

What each costs is measured by scripts/measure_presets.py; see docs/speed.md.
"""

from __future__ import annotations

from collections.abc import Mapping
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
