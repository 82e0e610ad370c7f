"""All metrics, in the order of tables."""

from __future__ import annotations

from typing import Final

from evfi.errors import ConfigError
from evfi.evaluation.metrics import event_consistency, flip, perceptual, pixels, structure, temporal
from evfi.evaluation.metrics.base import Metric

METRICS: Final[tuple[Metric, ...]] = (
    *pixels.METRICS,
    *structure.METRICS,
    *perceptual.METRICS,
    *flip.METRICS,
    *temporal.METRICS,
    *event_consistency.METRICS,
)


def metric_named(name: str) -> Metric:
    """A metric by its name.

    Args:
        name: as in `METRICS`, e.g. ``psnr_rgb``.

    Raises:
        ConfigError: there is none of that name.
    """
    for metric in METRICS:
        if metric.name == name:
            return metric
    raise ConfigError(f"no metric is named {name!r}: choose from {', '.join(metric.name for metric in METRICS)}")


def default_metrics() -> tuple[Metric, ...]:
    """Those that are computed if nothing is asked for."""
    return tuple(metric for metric in METRICS if metric.is_default)
