"""Which parts of a frame the network sees at once.

Conventions: all positions are in latent pixels; a size is (width, height). Tiles all have one size and overlap; the last
of a row or column is shifted back to end at the border. Where tiles overlap their results are averaged with equal
weights. An axis that is shorter than a tile has one tile of its own length, extended at its end to what the UNet's
levels need.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evfi.errors import ConfigError
from evfi.video.geometry import Size


@dataclass(frozen=True)
class TileView:
    """One tile's place: [left, right) × [top, bottom) in latent pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def crop(self, tensor: Tensor, factor: int = 1) -> Tensor:
        """The tile's part of [..., height, width], whose pixels are `factor` times finer than latent pixels."""
        rows = slice(self.top * factor, self.bottom * factor)
        return tensor[..., rows, self.left * factor : self.right * factor]


@dataclass(frozen=True)
class TileGrid:
    """All tiles of a frame.

    Attributes:
        size: (width, height) of the latents after extension to what the tiles cover.
        tile_size: (width, height) of every tile.
        views: the tiles, row by row.
    """

    size: Size
    tile_size: Size
    views: tuple[TileView, ...]

    def crop_all(self, tensor: Tensor, factor: int = 1) -> Tensor:
        """Cut [..., height, width] into tiles [T, ..., tile_height, tile_width]."""
        return torch.stack([view.crop(tensor, factor) for view in self.views])

    def weights(self, device: torch.device) -> Tensor:
        """The weight float32 [height, width] of each tile's result at a pixel: 1 / number of tiles that cover it."""
        counts = torch.zeros(self.size[1], self.size[0], device=device)
        for view in self.views:
            view.crop(counts).add_(1.0)
        return counts.reciprocal_()

    def average(self, tiles: Tensor, weights: Tensor) -> Tensor:
        """Put tiles [T, ..., tile_height, tile_width] together to [..., height, width]; overlaps are averaged.

        Args:
            tiles: one result per tile.
            weights: what `weights` returned.
        """
        total = tiles.new_zeros(*tiles.shape[1:-2], self.size[1], self.size[0])
        for view, tile in zip(self.views, tiles, strict=True):
            view.crop(total).add_(tile)
        return total.mul_(weights)


def tile_grid(latent_size: Size, tile_size: Size, overlap: float, multiple: int) -> TileGrid:
    """Lay tiles over a frame.

    Args:
        latent_size: (width, height) of the frame's latents.
        tile_size: (width, height) of a tile in latent pixels.
        overlap: share of a tile that its neighbour covers too, in [0, 1).
        multiple: what a tile's sides must be multiples of.

    Raises:
        ConfigError: the tile's sides are no such multiples, or the overlap is out of range.
    """
    if not 0.0 <= overlap < 1.0:
        raise ConfigError(f"tile overlap must be in [0, 1), got {overlap}; try 0.1")
    if any(side < multiple or side % multiple for side in tile_size):
        raise ConfigError(
            f"a tile's sides must be multiples of {multiple} latent pixels, got {tile_size[0]}x{tile_size[1]}; "
            "change the tile size"
        )
    tile = tuple(min(side, _ceil_to(length, multiple)) for side, length in zip(tile_size, latent_size, strict=True))
    size = tuple(max(length, side) for length, side in zip(latent_size, tile, strict=True))
    lefts, tops = (tile_starts(length, side, overlap) for length, side in zip(size, tile, strict=True))
    views = tuple(TileView(left, top, left + tile[0], top + tile[1]) for top in tops for left in lefts)
    return TileGrid((size[0], size[1]), (tile[0], tile[1]), views)


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles start along an axis of `length` >= `tile`: at a regular stride, the last one ending at the border."""
    stride = max(int(tile * (1.0 - overlap)), 1)
    return [*range(0, length - tile, stride), length - tile]


def _ceil_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
