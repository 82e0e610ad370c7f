"""Metrics of how close frames are to the ground truth, each defined exactly.

`base` says what a metric is given and what it returns, `registry` lists all of them; every other file holds metrics of one
kind.
"""

from evfi.evaluation.metrics.pixels import psnr
from evfi.evaluation.metrics.regions import moving_pixels, regions_of

__all__ = ["moving_pixels", "psnr", "regions_of"]
