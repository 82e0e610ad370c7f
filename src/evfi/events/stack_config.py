"""What defines the event representation of a model, without the code that makes it (`evfi.events.stacks`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evfi.errors import ConfigError

Normalisation = Literal["released", "symmetric"]

MIN_EVENTS = 5
"""An interval with fewer events has an all-zero stack."""


@dataclass(frozen=True)
class StackConfig:
    """All that defines the event representation; saved in and read back from every checkpoint.

    Attributes:
        num_channels: K, the number of channels per interval.
        normalisation: how counts become values in [-1, 1]; see `evfi.events.stacks`.
        count_cap: the count that ``symmetric`` maps to 1 (unused by ``released``).
    """

    num_channels: int = 6
    normalisation: Normalisation = "released"
    count_cap: int = 15

    def __post_init__(self) -> None:
        if not 1 <= self.num_channels <= 16:
            raise ConfigError(f"event stacks need 1 to 16 channels, got {self.num_channels}; published models use 6")
        if self.normalisation not in ("released", "symmetric"):
            raise ConfigError(f"stack normalisation must be released or symmetric, got {self.normalisation!r}")
        if self.count_cap < 1:
            raise ConfigError(f"stack count_cap must be at least 1, got {self.count_cap}; try 15")
