"""Compiled loops of `evfi.engine.winograd`: the transforms before and after its products.

Everything is float32 in groups of 16 channels, which is one AVX-512 register; narrower machines take several. The transforms
are written as vector instructions rather than left to a compiler's vectoriser, which gives up on so many rows at once.

Conventions: instructions take addresses, and distances in floats. A tile is 4 x 4 pixels of the output, made of 6 x 6
pixels of the input, and holds 6 x 6 values per channel between. Tile rows are counted over all pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from evfi.compiled import compiled

LANES: Final = 16
NEAR: Final = 0.625
FAR: Final = 1.5
"""The points are 0, ±near, ±far and infinity; with these the error is half of that with ±1 and ±2."""

Vector: TypeAlias = Any
Array: TypeAlias = NDArray[np.float32]
_INT = ir.IntType(64)
_LANES = ir.VectorType(ir.FloatType(), LANES)
_FUSED: Final = ("contract",)
"""A product and the sum that takes it may become one instruction."""


@compiled
def gather(pictures: Array, row: Array, tiles: Array, first: int, size: tuple[int, int], shift: int) -> None:
    """Transform rows of tiles.

    Args:
        pictures: [N, h, w, C].
        row: [6, 4 * tiles in a row + 2, C], memory to work in.
        tiles: [T, 36, C], the result, whole rows of tiles.
        first: the first row of tiles, counted over all pictures.
        size: (rows, columns) of tiles in a picture.
        shift: 1 where every pixel counts twice along each side, else 0.
    """
    channels, width = pictures.shape[3], pictures.shape[2] << shift
    height = pictures.shape[1] << shift
    row[:, 0] = 0.0
    row[:, width + 1 :] = 0.0
    for number in range(len(tiles) // size[1]):
        picture, place = divmod(first + number, size[0])
        for line in range(6):
            y = 4 * place + line - 1
            if y < 0 or y >= height:
                row[line, 1 : width + 1] = 0.0
            elif shift == 0:
                row[line, 1 : width + 1] = pictures[picture, y]
            else:
                for x in range(width):
                    row[line, x + 1] = pictures[picture, y >> 1, x >> 1]
        for column in range(size[1]):
            source = row.ctypes.data + 16 * column * channels
            target = tiles.ctypes.data + 144 * (number * size[1] + column) * channels
            _transform_tile(source, row.shape[1] * channels, target, channels)


@compiled
def scatter(
    tiles: Array, bias: Array, base: Array, pictures: Array, first: int, size: tuple[int, int], relu: bool
) -> None:
    """Bring transformed rows of tiles back, and finish them.

    Args:
        tiles: [T, 36, K], whole rows of tiles.
        bias: [K], added.
        base: [N, h, w, K], added; nothing is added where it is empty.
        pictures: [N, h, w, K], the result.
        first: as of `gather`.
        size: as of `gather`.
        relu: max(x, 0) follows.
    """
    _, height, width, channels = pictures.shape
    for number in range(len(tiles) // size[1]):
        picture, place = divmod(first + number, size[0])
        for column in range(size[1]):
            source = tiles.ctypes.data + 144 * (number * size[1] + column) * channels
            offset = 4 * (((picture * height) + 4 * place) * width + 4 * column) * channels
            other = base.ctypes.data + offset if base.size else 0
            rows, columns = min(height - 4 * place, 4), min(width - 4 * column, 4)
            target = pictures.ctypes.data + offset
            _restore_tile(source, bias.ctypes.data, other, target, width * channels, channels, rows, columns, relu)


@intrinsic
def _transform_tile(context: Any, source: Any, line: Any, target: Any, channels: Any) -> Any:
    """6 x 6 pixels at `source`, rows `line` floats apart, to 36 values per channel at `target`."""
    del context

    def generate(context: Any, build: Any, signature: Any, values: Any) -> Any:
        source, line, target, channels = values
        with groups(build, channels) as channel:
            columns = []
            for x in range(6):
                places = [_sum(build, channel, _times(build, line, y), _times(build, channels, x)) for y in range(6)]
                columns.append(_transformed(build, [load(build, source, place) for place in places]))
            for y in range(6):
                for x, value in enumerate(_transformed(build, [column[y] for column in columns])):
                    store(build, value, target, _sum(build, channel, _times(build, channels, 6 * y + x)))
        return context.get_dummy_value()

    return types.void(source, line, target, channels), generate


@intrinsic
def _restore_tile(
    context: Any,
    source: Any,
    bias: Any,
    base: Any,
    target: Any,
    line: Any,
    channels: Any,
    rows: Any,
    columns: Any,
    relu: Any,
) -> Any:
    """36 values per channel at `source` to the first rows and columns of 4 x 4 pixels at `target`."""
    del context

    def generate(context: Any, build: Any, signature: Any, values: Any) -> Any:
        source, bias, base, target, line, channels, rows, columns, relu = values
        low = build.select(relu, constant(0.0), constant(-math.inf))
        with groups(build, channels) as channel:
            made = []
            for x in range(6):
                places = [_sum(build, channel, _times(build, channels, 6 * y + x)) for y in range(6)]
                made.append(_restored(build, [load(build, source, place) for place in places]))
            shift = load(build, bias, channel)
            for y in range(4):
                with build.if_then(build.icmp_signed("<", _INT(y), rows), likely=True):
                    for x, value in enumerate(_restored(build, [column[y] for column in made])):
                        place = _sum(build, channel, _times(build, line, y), _times(build, channels, x))
                        with build.if_then(build.icmp_signed("<", _INT(x), columns), likely=True):
                            _finish(build, build.fadd(value, shift), base, target, place, low)
        return context.get_dummy_value()

    return types.void(source, bias, base, target, line, channels, rows, columns, relu), generate


def _finish(build: Any, value: Vector, base: Any, target: Any, place: Any, low: Vector) -> None:
    """Write a value, at least `low`, after what lies at `base` is added if there is anything."""
    with build.if_else(build.icmp_signed("!=", base, _INT(0))) as (added, alone):
        with added:
            store(build, at_least(build, build.fadd(value, load(build, base, place)), low), target, place)
        with alone:
            store(build, at_least(build, value, low), target, place)


def _transformed(build: Any, values: Sequence[Vector]) -> list[Vector]:
    """Six values of a row as values at the six points."""
    near, far = NEAR**2, FAR**2
    made = [_plus(build, _plus(build, values[4], -near - far, values[2]), near * far, values[0])]
    for point, square in ((NEAR, far), (FAR, near)):
        even, odd = _plus(build, values[4], -square, values[2]), _plus(build, values[3], -square, values[1])
        made += [_plus(build, even, point, odd), _plus(build, even, -point, odd)]
    return [*made, _plus(build, _plus(build, values[5], -near - far, values[3]), near * far, values[1])]


def _restored(build: Any, values: Sequence[Vector]) -> list[Vector]:
    """Values at the six points as four values of a row."""
    sums = [build.fadd(values[place], values[place + 1]) for place in (1, 3)]
    differences = [build.fsub(values[place], values[place + 1]) for place in (1, 3)]
    zero = build.fadd(values[0], build.fadd(*sums))
    one = _plus(build, build.fmul(constant(NEAR), differences[0]), FAR, differences[1])
    two = _plus(build, build.fmul(constant(NEAR**2), sums[0]), FAR**2, sums[1])
    three = _plus(build, _plus(build, values[5], NEAR**3, differences[0]), FAR**3, differences[1])
    return [zero, one, two, three]


def _plus(build: Any, value: Vector, factor: float, other: Vector) -> Vector:
    return fused(build, value, constant(factor), other)


def fused(build: Any, value: Vector, factor: Vector, other: Vector) -> Vector:
    """value + factor · other, rounded once where the processor can."""
    return build.fadd(value, build.fmul(factor, other, flags=_FUSED), flags=_FUSED)


def at_least(build: Any, value: Vector, low: Vector) -> Vector:
    """The greater of the two; a value that is no number stays so."""
    return build.select(build.fcmp_ordered("<", value, low), low, value)


def constant(value: float) -> Vector:
    """The same value in each lane."""
    return ir.Constant(_LANES, [value] * LANES)


def lanes_of(kind: Any) -> Any:
    """The type of as many values of a type as there are lanes."""
    return ir.VectorType(kind, LANES)


def _times(build: Any, distance: Any, factor: int) -> Any:
    return build.mul(distance, _INT(factor))


def _sum(build: Any, *offsets: Any) -> Any:
    total = offsets[0]
    for offset in offsets[1:]:
        total = build.add(total, offset)
    return total


@contextmanager
def groups(build: Any, channels: Any) -> Iterator[Any]:
    """A loop over groups of channels: the first channel of each."""
    with cgutils.for_range_slice(build, _INT(0), channels, _INT(LANES), _INT) as (channel, _):
        yield channel


def _pointer(build: Any, address: Any, offset: Any) -> Any:
    return build.inttoptr(build.add(address, _times(build, offset, 4)), _LANES.as_pointer())


def load(build: Any, address: Any, offset: Any) -> Vector:
    """16 floats, `offset` floats after an address."""
    return build.load(_pointer(build, address, offset), align=4)


def store(build: Any, value: Vector, address: Any, offset: Any) -> None:
    """Write 16 floats, `offset` floats after an address."""
    build.store(value, _pointer(build, address, offset), align=4)
