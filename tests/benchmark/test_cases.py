"""Cases: sizes of the published benchmarks, names, and inputs."""

from __future__ import annotations

import pytest
import torch

from evfi.benchmark.cases import CASES, find_cases, make_inputs
from evfi.errors import ConfigError
from evfi.sampling.tiling import tile_grid


class TestCases:
    def test_sizes_and_tiles_of_the_published_benchmarks(self):
        """Sides as padded before enlargement, and tiles of 512x320 px with the default overlap."""
        sizes = {case.name: case.model_size(8) for case in CASES}
        assert sizes["hqf-x3"] == (240 * 3, 184 * 3)
        assert sizes["bsergb-x2"] == (976 * 2, 632 * 2)
        assert sizes["clear-motion-x2"] == (944 * 2, 720 * 2)
        grids = [tile_grid((width // 8, height // 8), (64, 40), 0.1, 8) for width, height in sizes.values()]
        assert [len(grid.views) for grid in grids] == [1, 1, 4, 25, 25]

    def test_all_are_ordered_from_small_to_large(self):
        found = find_cases(["all"])
        assert set(found) == set(CASES)
        assert [case.pixels for case in found] == sorted(case.pixels for case in CASES)
        assert [case.name for case in find_cases(["bsergb-x2", "64x32x3", "one-tile-5", "one-tile-5"])] == [
            "64x32x3",
            "one-tile-5",
            "bsergb-x2",
        ]

    def test_sizes_of_ones_own(self):
        (case,) = find_cases(["65x32x7x2"])
        assert (case.model_size(8), case.frames, case.inserted, case.reference_s) == ((144, 64), 7, 5, None)

    @pytest.mark.parametrize("name", ["", "hqf", "64x32", "64x32x2", "0x32x5", "64x32x5x0", "64x32x5x", "-1x32x5"])
    def test_what_is_no_case(self, name):
        with pytest.raises(ConfigError, match="case '"):
            find_cases([name])


class TestInputs:
    def test_pictures_and_counts(self):
        (case,) = find_cases(["61x30x4x2"])
        inputs = make_inputs(case, 6, 8)
        assert inputs.key_images.shape == (2, 3, 64, 128)
        assert inputs.event_stacks.shape == (2, 4, 6, 64, 128)
        assert inputs.key_images.abs().max() <= 1
        assert inputs.key_images.std() > 0.2
        assert torch.equal(inputs.event_stacks, inputs.event_stacks.round())
        assert 0.02 < (inputs.event_stacks != 0).float().mean() < 0.06
        assert (inputs.event_stacks > 0).any()
        assert (inputs.event_stacks < 0).any()

    def test_always_the_same(self):
        (case,) = find_cases(["64x32x3"])
        one, other, third = (make_inputs(case, 2, 8, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(one.key_images, other.key_images)
        assert torch.equal(one.event_stacks, other.event_stacks)
        assert not torch.equal(one.event_stacks, third.event_stacks)
