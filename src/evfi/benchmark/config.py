"""The settings of a benchmark and their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from evfi.engine.memory import parse_memory
from evfi.errors import ConfigError


@dataclass(frozen=True)
class BenchmarkConfig:
    """What is measured.

    Attributes:
        steps: denoising steps; by default the preset's, or else the model's own.
        runs: number of timed windows; the median is shown.
        warmup: number of windows before the timed ones, at least 1; the first ends the cold start.
        seconds_per_row: start no further timed window once those of a row have taken this many seconds.
        plain_steps: let the plain engine make only so many steps and extrapolate its seconds; others make as many in their
            first window, which is compared with it. Presets other than exact are then not run with the plain engine.
        max_memory: limit of GPU memory for the fast engine, such as 8GiB; by default what is free.
    """

    steps: int | None = None
    runs: int = 3
    warmup: int = 1
    seconds_per_row: float = 60.0
    plain_steps: int | None = None
    max_memory: str | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a value is out of range.
        """
        least = {"steps": 1, "runs": 1, "warmup": 1, "plain_steps": 2}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ConfigError(f"{name} must be at least {smallest}, got {value}")
        if self.max_memory is not None:
            parse_memory(self.max_memory)
        if not self.seconds_per_row > 0:
            raise ConfigError(f"seconds_per_row must be above 0, got {self.seconds_per_row}")
