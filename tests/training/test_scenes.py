"""Rendered scenes: stretches of motion, parallax, sizes of objects."""

from __future__ import annotations

import torch
from torch import Tensor

from evfi.training.motion import Draw, camera_motion, inverse_homographies, life_times, nearer, smooth_paths
from evfi.training.scenes import (
    _BAR,
    SceneConfig,
    _depths,
    _kinds,
    _nearest,
    _radii,
    _sizes_and_motions,
    render_windows,
)
from evfi.training.textures import TextureLibrary

SIZE = 24


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bend(span: float) -> tuple[float, Tensor]:
    """Mean distance of many paths from straight lines, and their ranges."""
    draw, times = Draw(rng()), torch.linspace(0, 1, 33)
    paths = smooth_paths(500, 1, life_times(times, (span, span), 500, draw), draw)[:, 0]
    line = torch.stack([times, torch.ones_like(times)], 1)
    residual = paths.T - line @ torch.linalg.lstsq(line, paths.T).solution
    return float(residual.square().mean(0).sqrt().mean()), paths.amax(1) - paths.amin(1)


def test_short_stretches_are_straighter_and_as_long() -> None:
    bends = [bend(span) for span in (1.0, 0.5, 0.15)]
    assert bends[0][0] > 1.15 * bends[1][0] > 2 * bends[2][0]
    for _, ranges in bends:
        assert torch.allclose(ranges, torch.ones(500), atol=1e-3)


def test_nearer_things_move_more_by_their_depth() -> None:
    cameras = camera_motion(3, torch.linspace(0, 1, 5), torch.full((3,), 0.2), Draw(rng()))
    depth = torch.tensor([1.0, 2.0, 3.0])
    seen = nearer(cameras, depth)
    assert torch.allclose(seen[..., :2, 2], cameras[..., :2, 2] * depth[:, None, None], atol=1e-6)
    assert torch.allclose(seen[0], cameras[0])
    # apart from the translation, they are the same homographies
    back = inverse_homographies(cameras) @ seen
    assert torch.allclose(back[0] / back[0][..., 2:, 2:], torch.eye(3).expand(5, 3, 3), atol=1e-5)
    assert torch.equal(seen[..., 2, :], cameras[..., 2, :])


def test_depths_grow_from_back_to_front() -> None:
    counts = [20, 20, 7]
    scenes = torch.cat([torch.arange(count) for count in counts])
    magnitude = torch.tensor([0.01] * 18 + [0.0, 0.3])
    nearest = _nearest(SceneConfig(parallax=1.0), magnitude, Draw(rng()))
    assert nearest[-2] == 0 and nearest[-1] <= 0.5 / 0.3 and nearest.max() > 2.5
    nearest[-2] = 2.0
    depth = _depths(1.0, nearest[scenes], counts, scenes, Draw(rng()))
    assert (depth >= 1).all() and (depth <= 3).all() and depth.max() > 2
    back, middle, front = depth.split(counts)
    assert (back < middle).all() and (middle[:7] < front).all()


def test_parallax_needs_a_moving_camera_and_replaces_own_motion(library: TextureLibrary) -> None:
    def frames(**changes: object) -> Tensor:
        scenes = SceneConfig(parallax=1.0, rippling=0.0, flicker=0.0, deforming=1.0, **changes)  # type: ignore[arg-type]
        return render_windows(library, scenes, torch.linspace(0, 1, 5), 6, SIZE, rng(2)).frames

    moving = {"still_background": 0.0, "background_motion": (1e-7, 2e-7), "object_motion": (0.4, 0.5)}
    own = frames(still_background=1.0, object_motion=(0.4, 0.5))
    nothing = frames(**moving)
    assert (own.diff(dim=1)).abs().max() > 0.1
    assert (nothing.diff(dim=1)).abs().max() < 1e-3


def test_some_objects_are_small_and_fast_and_some_bars_thin() -> None:
    draw, config = Draw(rng()), SceneConfig()
    radius, magnitude = _sizes_and_motions(config, _kinds(config, 4000, draw), 256, draw)
    small_fast = (radius.amax(1) <= 2 * 0.04) & (magnitude > 0.15)
    assert 0.03 < small_fast.float().mean() < 0.08
    assert magnitude.max() > 0.45 and radius.amax(1).min() < 2 * 0.022
    bars = _radii(config, torch.full((1000,), _BAR), 256, draw)
    visible_px = bars[:, 1] * 256 - 1.2
    assert visible_px.min() < 1.1 and (visible_px < 1.5).float().mean() > 0.1 and visible_px.max() < 9.01
