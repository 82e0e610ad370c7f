"""Compiled loops of `evfi.engine.cpu_layers`: what lies between convolutions and products, float32, on a CPU.

Activations come as [S, R, C]: sets of rows that statistics are taken over, rows, channels.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from evfi.compiled import compiled
from evfi.engine.winograd_loops import Array, Vector, at_least, constant, fused, groups, lanes_of, load, store

_LOG2_E: Final = 1.4426950408889634
_LN2: Final = (0.693359375, -2.12194440e-4)
"""ln 2 as a sum whose first part is exact in few bits."""
_EXP: Final = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""Coefficients of exp on [-ln 2 / 2, ln 2 / 2] from the Cephes library."""
_EXP_LARGEST: Final = 87.0
_ROUNDING: Final = 1.5 * 2.0**23
"""Added to a small float32, it leaves no room for digits behind the point."""

_ROWS_AT_ONCE: Final = 32
"""Rows that are summed up in float32; more are summed up in float64."""


@compiled
def channel_sums(values: Array, offset: Array, sums: Any) -> None:
    """Sums of values + offset and of their squares over the rows of a set.

    Args:
        values: [S, R, C].
        offset: [C].
        sums: float64 [S, 2, C], the result.
    """
    sets, rows, channels = values.shape
    total, squares = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for number in range(sets):
        sums[number] = 0.0
        for start in range(0, rows, _ROWS_AT_ONCE):
            total[:] = 0.0
            squares[:] = 0.0
            for row in range(start, min(start + _ROWS_AT_ONCE, rows)):
                for channel in range(channels):
                    value = values[number, row, channel] + offset[channel]
                    total[channel] += value
                    squares[channel] += value * value
            for channel in range(channels):
                sums[number, 0, channel] += total[channel]
                sums[number, 1, channel] += squares[channel]


@compiled
def coefficients(sums: Any, rows: int, num_groups: int, eps: float, norm: Array, offset: Array, made: Array) -> None:
    """Turn sums into what a value is multiplied by and what is added then.

    Args:
        sums: float64 [S, 2, C], from `channel_sums`.
        rows: rows of a set.
        num_groups: groups of channels that share statistics.
        eps: added to the variance.
        norm: [2, C], scale and shift.
        offset: [C], added to values first.
        made: [S, 2, C], the result.
    """
    width = sums.shape[2] // num_groups
    for number in range(len(sums)):
        for group in range(num_groups):
            first, last = group * width, (group + 1) * width
            mean = sums[number, 0, first:last].sum() / (rows * width)
            variance = sums[number, 1, first:last].sum() / (rows * width) - mean * mean
            inverse = 1.0 / np.sqrt(max(variance, 0.0) + eps)
            for channel in range(first, last):
                scale = inverse * norm[0, channel]
                made[number, 0, channel] = scale
                made[number, 1, channel] = norm[1, channel] + (offset[channel] - mean) * scale


@compiled
def scale_rows(values: Array, factors: Array, target: Array, column: int, silu: bool) -> None:
    """factor · value + summand, and x · sigmoid(x) of it.

    Args:
        values: [S, R, C], C a multiple of 16.
        factors: [S, 2, C], from `coefficients`, of this source's channels.
        target: [S, R, D], the result's channels are `column` to `column` + C.
        column: where they begin.
        silu: whether x · sigmoid(x) follows.
    """
    sets, rows, channels = values.shape
    for number in range(sets):
        source = values.ctypes.data + 4 * number * rows * channels
        place = target.ctypes.data + 4 * (number * rows * target.shape[2] + column)
        factor = factors.ctypes.data + 8 * number * channels
        for row in range(rows):
            _scale_row(source + 4 * row * channels, factor, place + 4 * row * target.shape[2], channels, silu)


@compiled
def add_rows(base: Array, change: Array, scale: float, offset: Array) -> None:
    """base + scale · (change + offset), rows [R, C], written over `change`."""
    rows, channels = base.shape
    factor = np.float32(scale)
    for row in range(rows):
        for channel in range(channels):
            change[row, channel] = base[row, channel] + factor * (change[row, channel] + offset[channel])


@intrinsic
def _scale_row(context: Any, source: Any, factor: Any, target: Any, channels: Any, silu: Any) -> Any:
    """One row of `scale_rows`, given by addresses."""
    del context

    def generate(context: Any, build: Any, signature: Any, values: Any) -> Any:
        source, factor, target, channels, silu = values
        with groups(build, channels) as channel:
            scale, shift = load(build, factor, channel), load(build, factor, build.add(channel, channels))
            value = fused(build, shift, scale, load(build, source, channel))
            with build.if_else(silu) as (active, linear):
                with active:
                    store(build, _silu(build, value), target, channel)
                with linear:
                    store(build, value, target, channel)
        return context.get_dummy_value()

    return types.void(source, factor, target, channels, silu), generate


def _silu(build: Any, value: Vector) -> Vector:
    return build.fdiv(value, build.fadd(constant(1.0), _exp(build, build.fneg(value))))


def _exp(build: Any, value: Vector) -> Vector:
    """exp to 1e-7, of values in ±87; others are clamped."""
    low = at_least(build, value, constant(-_EXP_LARGEST))
    value = build.fneg(at_least(build, build.fneg(low), constant(-_EXP_LARGEST)))
    power = build.fsub(build.fadd(build.fmul(value, constant(_LOG2_E)), constant(_ROUNDING)), constant(_ROUNDING))
    rest = fused(build, fused(build, value, constant(-_LN2[0]), power), constant(-_LN2[1]), power)
    made = constant(_EXP[0])
    for coefficient in _EXP[1:]:
        made = fused(build, constant(coefficient), made, rest)
    made = fused(build, build.fadd(rest, constant(1.0)), made, build.fmul(rest, rest))
    whole = lanes_of(ir.IntType(32))
    exponent = build.add(build.fptosi(power, whole), ir.Constant(whole, [127] * whole.count))
    return build.fmul(made, build.bitcast(build.shl(exponent, ir.Constant(whole, [23] * whole.count)), value.type))
