"""Rendered training windows: determinism, ranges, edges, motion; no files needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evfi.errors import ConfigError, InputError
from evfi.events.stacks import StackConfig
from evfi.training import materials
from evfi.training.motion import Draw, camera_motion, inverse_homographies, object_motion, smooth_paths
from evfi.training.scenes import SceneConfig, render_windows
from evfi.training.synthetic import WindowConfig, _interpolate_in_time, make_batch, subframes_per_interval
from evfi.training.textures import TextureLibrary, build_library, load_textures, pack_textures

STACKS = StackConfig(normalisation="symmetric")
SIZE = 24


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def library() -> TextureLibrary:
    generator = rng(7)
    photos = [torch.randint(256, (3, 64, 64), generator=generator, dtype=torch.uint8) for _ in range(3)]
    cutouts = []
    for _ in range(2):
        cutout = torch.zeros(4, 32, 32, dtype=torch.uint8)
        cutout[:, 4:28, 8:24] = 200
        cutout[3, 4:28, 8:24] = 255
        cutouts.append(cutout)
    return build_library(photos, photos, cutouts, 3)


def render(library: TextureLibrary, config: SceneConfig, seed: int = 0, batch: int = 3, num: int = 9) -> Tensor:
    return render_windows(library, config, torch.linspace(0, 1, num), batch, SIZE, rng(seed)).frames


def test_same_seed_same_windows(library: TextureLibrary) -> None:
    def batch(seed: int) -> Tensor:
        windows = make_batch(library, WindowConfig(), STACKS, batch=2, num_frames=3, size=SIZE, generator=rng(seed))
        return torch.cat([part.flatten() for part in (windows.frames, windows.key_frames, windows.forward)])

    assert torch.equal(batch(1), batch(1))
    assert not torch.equal(batch(1), batch(2))


@pytest.mark.parametrize(("num_frames", "blur"), [(2, 0.0), (3, 1.0), (5, 0.0), (13, 1.0)])
def test_batches_have_the_right_shapes_and_ranges(library: TextureLibrary, num_frames: int, blur: float) -> None:
    config = WindowConfig(min_subframes=13, exposure_blur=blur, degraded=1.0)
    windows = make_batch(library, config, STACKS, batch=2, num_frames=num_frames, size=SIZE, generator=rng())
    assert windows.frames.shape == (2, num_frames, 3, SIZE, SIZE)
    assert windows.key_frames.shape == (2, 2, 3, SIZE, SIZE)
    assert windows.forward.shape == windows.backward.shape == (2, num_frames, 6, SIZE, SIZE)
    for part in (windows.frames, windows.key_frames, windows.forward, windows.backward):
        assert part.isfinite().all()
        assert part.abs().max() <= 1.01
    assert (windows.forward[:, 0] == 0).all()
    assert (windows.times_us.diff(dim=1) > 0).all()
    assert len(windows.events) > 0
    assert not torch.equal(windows.key_frames[:, 0], windows.frames[:, 0])


def test_clean_key_frames_are_the_frames(library: TextureLibrary) -> None:
    config = WindowConfig(min_subframes=9, degraded=0.0)
    windows = make_batch(library, config, STACKS, batch=2, num_frames=3, size=SIZE, generator=rng())
    assert torch.equal(windows.key_frames, windows.frames[:, [0, -1]])


def test_still_scenes_stand_still_and_make_no_signal_events(library: TextureLibrary) -> None:
    still = SceneConfig(still_background=1.0, still_object=1.0, flicker=0.0, deforming=0.0)
    frames = render(library, still)
    assert (frames - frames[:, :1]).abs().max() < 1e-3
    config = WindowConfig(scenes=still, min_subframes=9)
    quiet = replace(config.sensors, noise_rate_hz=(1e-9, 2e-9), leak_rate_hz=(0.0, 0.0), hot_pixels=0.0)
    windows = make_batch(
        library, replace(config, sensors=quiet), STACKS, batch=3, num_frames=3, size=SIZE, generator=rng()
    )
    assert len(windows.events) < 20


def test_motion_is_continuous(library: TextureLibrary) -> None:
    frames = render(library, SceneConfig(max_layers=3, object_motion=(0.3, 0.31)), num=65, batch=4)
    step = (frames[:, 1:] - frames[:, :-1]).abs().flatten(2).mean(2)
    total = (frames[:, -1] - frames[:, 0]).abs().flatten(1).mean(1)
    assert step.max() < 0.08
    assert (total > 3 * step.mean(1)).all()


def test_grey_scenes_are_grey(library: TextureLibrary) -> None:
    frames = render(library, SceneConfig(grey=1.0))
    assert (frames[:, :, 0] - frames[:, :, 1]).abs().max() < 0.3  # single objects keep a slight tint
    coloured = render(library, SceneConfig(grey=0.0))
    assert (coloured[:, :, 0] - coloured[:, :, 1]).abs().mean() > 3 * (frames[:, :, 0] - frames[:, :, 1]).abs().mean()


def test_inverse_homographies_invert() -> None:
    draw = Draw(rng())
    cameras = camera_motion(4, torch.linspace(0, 1, 5), torch.full((4,), 0.1), draw)
    radius = draw.uniform((4, 2), 0.1, 0.5)
    motion = object_motion(radius, torch.full((4,), 0.2), torch.ones(4) > 0, torch.linspace(0, 1, 5), 32, draw)
    matrices = cameras @ motion.matrices
    product = inverse_homographies(matrices) @ matrices
    product = product / product[..., 2:, 2:]
    assert torch.allclose(product, torch.eye(3).expand_as(product), atol=1e-4)
    origin = matrices[..., 2] / matrices[..., 2:, 2]
    scale = (inverse_homographies(matrices)[..., 2, :] * origin).sum(-1)
    assert torch.allclose(scale, torch.ones_like(scale), atol=1e-4)


def test_smooth_paths_have_unit_range_and_start_from_the_middle() -> None:
    paths = smooth_paths(50, 3, torch.linspace(0, 1, 33), Draw(rng()))
    assert torch.allclose(paths.amax(2) - paths.amin(2), torch.ones(50, 3), atol=1e-4)
    assert (paths[..., 16] == 0).all()
    assert paths.diff(dim=2).abs().max() < 0.3


@pytest.mark.parametrize("radius", [1.5, 5.0, 12.0])
def test_masks_fill_their_shape_with_soft_edges_and_a_clear_border(radius: float) -> None:
    radius_px = torch.tensor([[12.0, radius]] * 6)
    for masks in (
        materials.polygon_masks(36, radius_px, torch.arange(6) < 3, Draw(rng()), torch.device("cpu")),
        materials.blob_masks(36, radius_px, Draw(rng()), torch.device("cpu")),
    ):
        assert masks.shape == (6, 1, 36, 36)
        assert masks.min() >= 0
        assert masks.max() <= 1
        border = torch.cat([masks[..., 0, :], masks[..., -1, :], masks[..., 0], masks[..., -1]], -1)
        assert border.max() < 0.35
        assert ((masks > 0.02) & (masks < 0.98)).any()


def test_low_pass_keeps_the_mean_and_removes_what_the_screen_cannot_show() -> None:
    checks = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    pictures = checks.float().expand(2, 1, 32, 32).clone()
    filtered = materials.low_pass(pictures, torch.tensor([32.0, 8.0]))
    assert torch.equal(filtered[0, 0], checks.float())
    assert (filtered[1] - 0.5).abs().max() < 1e-6


def test_every_paint_is_a_picture(library: TextureLibrary) -> None:
    for kind in range(8):
        weights = tuple(float(index == kind) for index in range(8))
        painted = materials.paint(library, 48, torch.full((2,), 48.0), weights, Draw(rng()))
        assert painted.shape == (2, 3, 48, 48)
        assert painted.isfinite().all()
        assert painted.min() >= -0.01
        assert painted.max() <= 1.01


def test_subframe_counts() -> None:
    assert [subframes_per_interval(f, 33) for f in (2, 3, 5, 9, 13)] == [32, 16, 8, 4, 3]
    with pytest.raises(ConfigError):
        subframes_per_interval(1, 33)


def test_packed_file_and_folder_give_the_same_library(tmp_path: Path) -> None:
    for kind in ("textures", "cutouts"):
        (tmp_path / kind).mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "textures" / "photo_0.jpg")
    Image.fromarray(noise).save(tmp_path / "textures" / "art_0.jpg")
    Image.fromarray(np.dstack([noise, noise[..., :1]]), "RGBA").save(tmp_path / "cutouts" / "a.webp", lossless=True)
    pack_textures(tmp_path, tmp_path / "packed.safetensors")
    folder, packed = load_textures(tmp_path), load_textures(tmp_path / "packed.safetensors")
    for first, second in zip(folder.photos + folder.cutouts, packed.photos + packed.cutouts, strict=True):
        assert torch.equal(first, second)
    assert len(folder.photos[0]) == 3
    assert folder.cutouts[0][:, 3, 0].max() == 0
    with pytest.raises(InputError, match="textures/"):
        load_textures(tmp_path / "textures")
    with pytest.raises(InputError, match="no texture"):
        load_textures(tmp_path / "absent")


def test_events_as_from_a_video_see_only_the_output_frames() -> None:
    levels = torch.rand(2, 9, 2, 2, generator=rng())
    before = levels.clone()
    _interpolate_in_time(levels, 4, torch.tensor([False, True]))
    assert torch.equal(levels[0], before[0])
    assert torch.equal(levels[1, ::4], before[1, ::4])
    assert torch.allclose(levels[1].diff(n=2, dim=0)[[0, 1, 2, 4, 5, 6]], torch.zeros(6, 2, 2), atol=1e-6)
