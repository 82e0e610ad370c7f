"""The settings of sampling: every default is written here, once.

Settings that no longer exist are still read from files, where they stand for good (`without_retired`); whoever gives one is
told what replaces it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args

from evfi.errors import ConfigError
from evfi.video.geometry import SizeMode

SolverName = Literal["euler", "dpmpp_2m", "adams_bashforth"]
"""The solvers by name, see `evfi.sampling.solvers`."""


ENCODED_AT_ONCE: Final = 4
"""Tiles per call of the autoencoder: a tile of 512x320 px takes about 0.5 GiB in float32, and more at once is not faster."""

PIXELS_VERSION: Final = 3
"""Raised whenever the same model, settings and input give other pixels by more than rounding.

It is part of what jobs and evaluations know their frames by, so that frames of two versions never mix.
"""

_log = logging.getLogger(__name__)


class RetiredSetting(NamedTuple):
    """A setting that no longer exists.

    Attributes:
        since: the version without it.
        instead: what replaces it, in words.
    """

    since: str
    instead: str


_REFINER_INSTEAD: Final = "the refiner does its work, and refinement = false (--no-refinement) switches that off"
RETIRED_SETTINGS: Final[Mapping[str, RetiredSetting]] = MappingProxyType(
    {
        "detail_restoration": RetiredSetting("0.1.0", _REFINER_INSTEAD),
        "texture_restoration": RetiredSetting("0.1.0", _REFINER_INSTEAD),
    }
)
"""Settings of earlier versions: without effect in files, refused from whoever gives them."""


def without_retired(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings read from a file, without those that no longer exist; a warning names these, once per process.

    Args:
        settings: by name.
    """
    if found := tuple(sorted(RETIRED_SETTINGS.keys() & settings.keys())):
        _warn_of_retired(found)
    return {name: value for name, value in settings.items() if name not in RETIRED_SETTINGS}


@cache
def _warn_of_retired(names: tuple[str, ...]) -> None:
    for name in names:
        retired = RETIRED_SETTINGS[name]
        _log.warning(
            "sampling setting %s, read from a file, has no effect since version %s: %s",
            name,
            retired.since,
            retired.instead,
        )


def refuse_retired(names: Iterable[str]) -> None:
    """Say of settings that were given and no longer exist what replaces them.

    Raises:
        ConfigError: there is one.
    """
    for name in names:
        if name in RETIRED_SETTINGS:
            retired = RETIRED_SETTINGS[name]
            raise ConfigError(
                f"sampling setting {name} was removed in version {retired.since}; leave it out: {retired.instead}"
            )


@dataclass(frozen=True)
class SamplingConfig:
    """How one window is sampled.

    Attributes:
        num_inference_steps: denoising steps; more is slower and, up to a point, better.
        tile_width: width of a tile in pixels of the upscaled frame.
        tile_height: height of a tile in pixels of the upscaled frame.
        tile_overlap: share of a tile that its neighbour covers too, in [0, 0.9].
        upscale: whole factor by which frames are enlarged before sampling; helps with fine or fast motion.
        min_guidance_scale: guidance at a pass's first frame (1 is none).
        max_guidance_scale: guidance at a pass's last frame; linear between.
        guidance_start: the place from which on guidance acts, 0 the first step and 1 the last; other steps are not guided.
        guidance_end: the place up to which guidance acts.
        s_churn: noise added during sampling (Karras et al. 2022); 0 samples deterministically from the first noise.
        solver: ``euler``, or the second-order ``dpmpp_2m`` or ``adams_bashforth``, which need s_churn 0.
        reuse_interval: compute the networks' deep features every so many steps and reuse them in between; 1 never reuses.
        fps: frame rate given to the network as a condition.
        motion_bucket_id: amount of motion given to the network as a condition.
        noise_aug_strength: standard deviation of the noise added to the key images, which range over [-1, 1].
        controlnet_scale: strength of the events' influence.
        reinjection_until_step: noise is re-injected in the steps before this one; 0 disables it.
        num_reinjections: how often such a step is renoised and denoised again.
        decode_chunk_size: frames decoded at once; a temporal decoder sees no further than its chunk.
        size_mode: how to handle sizes that the autoencoder cannot take: ``pad`` and crop back, or ``resize``.
        batch_size: most tiles × directions × guidance halves in one network call; has no effect on the result.
        two_sided: sample from both key frames at once; otherwise from the first only, for comparison.
        refinement: run the refiner, which warps key frames to where the diffusion model's frames and the events place
            things; has no effect for a model without one.
        diffusion: run the diffusion model; otherwise the refiner works from key frames and events only, which is far faster.
    """

    num_inference_steps: int = 25
    tile_width: int = 512
    tile_height: int = 320
    tile_overlap: float = 0.1
    upscale: int = 1
    min_guidance_scale: float = 1.0
    max_guidance_scale: float = 3.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    s_churn: float = 0.5
    solver: SolverName = "euler"
    reuse_interval: int = 1
    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02
    controlnet_scale: float = 1.0
    reinjection_until_step: int = 0
    num_reinjections: int = 0
    decode_chunk_size: int = 2
    size_mode: SizeMode = "pad"
    batch_size: int = 8
    two_sided: bool = True
    refinement: bool = True
    diffusion: bool = True

    def __new__(cls, *_: Any, **given: Any) -> SamplingConfig:
        """Make one that the generated `__init__` fills; it would not say of a retired setting what replaces it.

        Raises:
            ConfigError: a setting no longer exists.
        """
        refuse_retired(given)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ConfigError: a value has the wrong type or is out of range.
        """
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name), field.default))
        for name, (smallest, largest) in _RANGES.items():
            value = getattr(self, name)
            if not smallest <= value <= largest:
                raise ConfigError(f"{name} must be from {smallest:g} to {largest:g}, got {_shown(value)}")
        if self.max_guidance_scale < self.min_guidance_scale:
            raise ConfigError(
                f"max_guidance_scale must be at least min_guidance_scale ({self.min_guidance_scale}), "
                f"got {self.max_guidance_scale}"
            )
        if not 0.0 <= self.guidance_start <= self.guidance_end <= 1.0:
            raise ConfigError(
                "guidance_start and guidance_end must be in order in [0, 1], "
                f"got {self.guidance_start} and {self.guidance_end}"
            )
        for name, words in (("size_mode", get_args(SizeMode)), ("solver", get_args(SolverName))):
            if getattr(self, name) not in words:
                raise ConfigError(f"{name} must be one of {', '.join(words)}, got {_shown(getattr(self, name))}")
        if self.solver != "euler" and self.s_churn > 0.0:
            raise ConfigError(
                f"solver {self.solver} needs s_churn 0, got {self.s_churn}; set s_churn 0 or solver euler"
            )
        if not (self.refinement or self.diffusion):
            raise ConfigError(
                "refinement and diffusion are both off (preset warp leaves diffusion out), so nothing would generate frames; "
                "keep one of them on"
            )

    @classmethod
    def from_defaults(cls, defaults: Mapping[str, Any], **overrides: Any) -> SamplingConfig:
        """Combine a model's own defaults with what the user asked for.

        Args:
            defaults: settings that a model brings (`ModelBundle.sampling`); retired ones are left out with a warning.
            **overrides: settings that take precedence; None leaves the default.

        Raises:
            ConfigError: a key is unknown or a value is out of range; an override is retired.
        """
        refuse_retired(overrides)
        given = {**without_retired(defaults), **{name: value for name, value in overrides.items() if value is not None}}
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(f"unknown sampling setting {', '.join(unknown)}; expected one of {', '.join(known)}")
        return cls(**given)

    @property
    def is_guided(self) -> bool:
        """Whether the unconditional prediction is needed at all."""
        return not self.min_guidance_scale == self.max_guidance_scale == 1.0


MAX_GUIDANCE: Final = 100.0
_MAX_STEPS: Final = 1000  # as many noise levels as the networks are trained with
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "num_inference_steps": (1, _MAX_STEPS),
    "tile_width": (8, 2**16),
    "tile_height": (8, 2**16),
    "tile_overlap": (0.0, 0.9),
    "upscale": (1, 8),
    "min_guidance_scale": (0.0, MAX_GUIDANCE),
    "max_guidance_scale": (0.0, MAX_GUIDANCE),
    "s_churn": (0.0, 1000.0),
    "reuse_interval": (1, _MAX_STEPS),
    "fps": (1, 1000),
    "motion_bucket_id": (0, 1000),
    "noise_aug_strength": (0.0, 10.0),
    "controlnet_scale": (0.0, 100.0),
    "reinjection_until_step": (0, _MAX_STEPS),
    "num_reinjections": (0, 100),
    "decode_chunk_size": (1, 1000),
    "batch_size": (1, 4096),
}
"""The least and the largest value of each number: beyond what is of use, and before what takes memory or time without end."""


def _checked(name: str, value: Any, default: Any) -> Any:
    """The value in its default's type; whole numbers pass as floats, nothing else is converted."""
    wanted = type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < _LARGEST else math.inf
    if type(value) is not wanted:
        raise ConfigError(f"{name} must be {_TYPE_NAMES[wanted]}, got {_shown(value)}")
    if wanted is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, got {value}")
    return value


def _shown(value: Any) -> str:
    """A value, short; Python writes no whole number of thousands of digits."""
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return "a larger number" if value > 0 else "a smaller number"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


_LARGEST: Final = 10**100
_MAX_SHOWN: Final = 60
_TYPE_NAMES: dict[type, str] = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
