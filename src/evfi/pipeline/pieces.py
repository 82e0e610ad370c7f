"""Split a window's work into pieces that a network handles well, coarse to fine.

A network is trained for so many frames between two others. Where more are wanted, some of them are made first, evenly over
the window; they then bound shorter windows of their own, and so on:

    key . . . . . . . . . . . . . . . key        15 frames wanted, at most 7 at a time
    key               x               key        first one in the middle,
    key x x x x x x x | x x x x x x x key        then seven on either side

Every piece is kept as it is done, so that none is ever made twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from evfi.recordings.planning import Times, WindowSpec

PieceKey = tuple[int, tuple[int, ...]]
"""A window's index and the way down to one of its pieces; () is the whole window's first piece."""

_INDEX_BITS: Final = 32
"""A window has fewer than 2^32 pieces at each level, and a recording fewer windows."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece: two frames that bound it, and times between them at which frames are made in one go.

    Attributes:
        window: the whole window.
        path: the way down to this piece.
        times_us: its own times, int64 [F], with both borders.
        parts: the pieces that its frames bound in turn; empty where nothing is left to make.
    """

    window: WindowSpec
    path: tuple[int, ...]
    times_us: Times
    parts: tuple[Piece, ...] = ()

    @property
    def key(self) -> PieceKey:
        """What tells this piece from all others of a recording."""
        return self.window.index, self.path

    @property
    def spec(self) -> WindowSpec:
        """The piece as a window of its own; its index, and so its noise, is its own, too."""
        number = self.window.index + 1
        for part in self.path:
            number = (number << _INDEX_BITS) + part + 1
        return replace(self.window, index=number - 1, times_us=self.times_us)

    def all(self) -> Iterator[Piece]:
        """This piece and all below it, each before those that it bounds."""
        yield self
        for part in self.parts:
            yield from part.all()


def piece_of(spec: WindowSpec, most: int) -> Piece:
    """Cut a window into pieces.

    Args:
        spec: the window.
        most: frames that the network makes at a time, at least 1.
    """
    return _piece(spec, (), spec.times_us, most)


def _piece(spec: WindowSpec, path: tuple[int, ...], times_us: Times, most: int) -> Piece:
    intervals = len(times_us) - 1
    if intervals <= most + 1:
        return Piece(spec, path, times_us)
    pieces = min(most + 1, -(-intervals // (most + 1)))
    borders = np.arange(pieces + 1) * intervals // pieces
    parts = tuple(
        _piece(spec, (*path, number), times_us[borders[number] : borders[number + 1] + 1], most)
        for number in range(pieces)
        if borders[number + 1] - borders[number] > 1
    )
    return Piece(spec, path, times_us[borders], parts)
