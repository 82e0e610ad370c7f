from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evfi.errors import ConfigError
from evfi.sampling.tiling import tile_grid, tile_starts

LENGTHS = st.integers(1, 90)
TILES = st.sampled_from([8, 16, 24, 40])
OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 0.999])


@settings(deadline=None)
@given(width=LENGTHS, height=LENGTHS, tile_width=TILES, tile_height=TILES, overlap=OVERLAPS)
def test_tiles_cover_the_frame_with_weights_that_sum_to_one(
    width: int, height: int, tile_width: int, tile_height: int, overlap: float
) -> None:
    grid = tile_grid((width, height), (tile_width, tile_height), overlap, 8)
    weights = grid.weights(torch.device("cpu"))
    total = torch.zeros(grid.size[1], grid.size[0])
    for view in grid.views:
        part = view.crop(total)
        assert part.shape == (grid.tile_size[1], grid.tile_size[0])
        part += view.crop(weights)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-4)
    assert all(side % 8 == 0 for side in grid.tile_size)
    assert grid.size[0] >= width
    assert grid.size[1] >= height
    assert len(set(grid.views)) == len(grid.views)


def test_averaging_the_tiles_of_a_picture_gives_the_picture() -> None:
    grid = tile_grid((37, 21), (16, 8), 0.25, 8)
    picture = torch.randn(2, 3, 21, 37)
    tiles = grid.crop_all(picture)
    assert tiles.shape == (len(grid.views), 2, 3, 8, 16)
    torch.testing.assert_close(grid.average(tiles, grid.weights(picture.device)), picture)


def test_overlaps_have_equal_weights() -> None:
    grid = tile_grid((24, 8), (16, 8), 0.0, 8)
    tiles = torch.stack([torch.zeros(8, 16), torch.ones(8, 16)])
    row = grid.average(tiles, grid.weights(tiles.device))[0]
    assert row.tolist() == [0.0] * 8 + [0.5] * 8 + [1.0] * 8


def test_the_last_tile_is_shifted_back_to_the_border() -> None:
    assert tile_starts(121, 64, 0.1) == [0, 57]
    assert tile_starts(78, 40, 0.1) == [0, 36, 38]
    assert tile_starts(64, 64, 0.1) == [0]


def test_tiles_go_row_by_row() -> None:
    grid = tile_grid((24, 24), (16, 16), 0.5, 8)
    assert [(view.left, view.top) for view in grid.views] == [(0, 0), (8, 0), (0, 8), (8, 8)]


def test_a_small_frame_is_one_tile_of_its_own_size() -> None:
    grid = tile_grid((21, 70), (64, 64), 0.1, 8)
    assert grid.tile_size == (24, 64)
    assert grid.size == (24, 70)
    assert [(view.left, view.top) for view in grid.views] == [(0, 0), (0, 6)]


def test_pixels_are_finer_than_latents() -> None:
    grid = tile_grid((16, 16), (8, 8), 0.0, 8)
    picture = torch.arange(64 * 64.0).view(64, 64)
    assert torch.equal(grid.views[3].crop(picture, 4), picture[32:, 32:])


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        ((20, 16), 0.1, "multiples of 8 latent pixels, got 20x16"),
        ((0, 16), 0.1, "multiples of 8"),
        ((16, 16), 1.0, r"overlap must be in \[0, 1\), got 1.0; try 0.1"),
        ((16, 16), -0.1, "overlap must be in"),
    ],
)
def test_impossible_tiles_are_errors(tile: tuple[int, int], overlap: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tile_grid((64, 64), tile, overlap, 8)
