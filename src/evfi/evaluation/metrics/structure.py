"""Structural similarity."""

from __future__ import annotations

from evfi.evaluation.metrics.base import Metric

METRICS: tuple[Metric, ...] = ()
