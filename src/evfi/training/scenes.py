"""Moving scenes, rendered in batches: a background and layers of objects under continuous non-linear motion.

All parameters are drawn on the CPU from one generator; the pictures are warped and composited on the library's device.
Layer l of all scenes that have one is drawn at once: one homography and one wave per sub-frame map screen pixels to
the object's picture, which is sampled once for all sub-frames. Scenes are ordered by their number of layers, most
first, so that those with at least l layers are a prefix and compositing works on views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.training import materials
from evfi.training.materials import Tone
from evfi.training.motion import (
    Draw,
    camera_motion,
    inverse_homographies,
    life_times,
    nearer,
    object_motion,
    upload,
    waves,
)
from evfi.training.textures import TextureLibrary

_BACKGROUND_SPAN = 1.6  # the background's picture covers [-span, span]; beyond, it is mirrored
_SUPERSAMPLING = 1.5
_GAMMA = 2.2
_CUTOUT, _BAR, _POLYGON, _BLOB = range(4)
_LUMINANCE = (0.2126, 0.7152, 0.0722)


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like. Probabilities unless said otherwise; motion is a fraction of the frame's side per window.

    Attributes:
        max_layers: Most moving objects in a scene (at least one).
        max_clutter: Most still objects that are part of a background.
        still_background: The camera stands still.
        still_object: An object stands still.
        background_motion: Range of the pan of a moving camera.
        parallax: The objects of a scene with a moving camera do not move on their own, but stand at several depths.
        depth: Range of the factors by which objects in front move more than the background where there is parallax.
        parallax_motion: Those factors are smaller where an object would move more than this; beyond, neither exposures nor
            events are well sampled by the sub-frames.
        object_motion: Range of an object's motion relative to the camera.
        object_radius: Range of an object's half size, as a fraction of the frame's side.
        small_fast: An object is small and fast, like a ball or a bird.
        small_fast_motion: Range of its motion.
        small_fast_radius: Range of its half size.
        bar_width_px: Range of a thin bar's width in px.
        cutout: An object is a cut-out.
        bar: An object is a thin bar.
        deforming: An object deforms.
        rippling: A moving background deforms.
        grey: A scene has no colours.
        dark: A scene is dim.
        low_contrast: A scene's tones are compressed around one grey level, as in haze, so that few events come.
        contrast: Range of the tones that a scene of low contrast keeps, as a fraction of all.
        flicker: The light changes during the window.
        log_eps: Range of the dark level added to linear intensity before the logarithm.
    """

    max_layers: int = 8
    max_clutter: int = 6
    still_background: float = 0.5
    still_object: float = 0.12
    background_motion: tuple[float, float] = (0.006, 0.3)
    parallax: float = 0.35
    depth: tuple[float, float] = (1.0, 3.0)
    parallax_motion: float = 0.5
    object_motion: tuple[float, float] = (0.01, 0.4)
    object_radius: tuple[float, float] = (0.04, 0.4)
    small_fast: float = 0.05
    small_fast_motion: tuple[float, float] = (0.15, 0.5)
    small_fast_radius: tuple[float, float] = (0.02, 0.04)
    bar_width_px: tuple[float, float] = (1.0, 9.0)
    cutout: float = 0.5
    bar: float = 0.1
    deforming: float = 0.3
    rippling: float = 0.15
    grey: float = 0.25
    dark: float = 0.12
    low_contrast: float = 0.1
    contrast: tuple[float, float] = (0.15, 0.5)
    flicker: float = 0.1
    log_eps: tuple[float, float] = (0.003, 0.05)


@dataclass(frozen=True)
class RenderedScenes:
    """Scenes at all sub-frame times, the ones with most objects first.

    Attributes:
        frames: sRGB in [0, 1], float32 [B, T, 3, H, W] (a view).
        log_intensity: Natural log of linear luminance plus a dark level, float32 [B, T, H, W].
    """

    frames: Tensor
    log_intensity: Tensor


def render_windows(
    library: TextureLibrary,
    config: SceneConfig,
    times: Tensor,
    batch: int,
    size: int,
    generator: torch.Generator,
    span: tuple[float, float] = (1.0, 1.0),
) -> RenderedScenes:
    """Render a batch of moving scenes.

    Args:
        library: Pictures; its device renders.
        config: What scenes look like.
        times: Sub-frame times, float [T] on the CPU; 0 and 1 are the window's ends, slightly outside is allowed.
        batch: Number of scenes B.
        size: Side of the square frames in px.
        generator: CPU generator that all randomness comes from.
        span: Range of the share of its motion's life that a window shows; the smaller, the more linear the motion.
    """
    draw = Draw(generator)
    life = life_times(times, span, batch, draw)
    still = draw.chance((batch,), config.still_background)
    magnitude = draw.log_uniform((batch,), *config.background_motion) * ~still
    cameras = camera_motion(batch, life, magnitude, draw)
    nearest = _nearest(config, magnitude, draw)
    looks = _scene_tones(config, batch, draw)
    canvas = _render_background(library, config, cameras, magnitude, looks, life, size, draw)
    counts = _counts(batch, config.max_layers, 1, draw)
    for layer in _render_objects(library, config, cameras, nearest, looks, counts, life, size, draw):
        canvas[: len(layer)].mul_(1 - layer[:, 3:]).add_(layer[:, :3])
    _change_tones(canvas, config, life, draw)
    canvas.clamp_(0.0, 1.0)
    log_eps = upload(draw.log_uniform((batch, 1, 1, 1), *config.log_eps), library.device)
    return RenderedScenes(canvas.transpose(1, 2), torch.log(_luminance(canvas) + log_eps))


def _counts(batch: int, most: int, least: int, draw: Draw) -> list[int]:
    """Number of scenes that have a layer 0, 1, ...: few layers are more likely than many."""
    wanted = least + (draw.uniform((batch,), 0.0, 1.0) ** 1.5 * (most + 1 - least)).long()
    return [int((wanted > layer).sum()) for layer in range(int(wanted.max()))]


def _scene_tones(config: SceneConfig, count: int, draw: Draw) -> Tone:
    """One look per scene: grey or coloured, dim or bright, soft or hard."""
    dark = draw.chance((count,), config.dark)
    level = torch.where(dark, draw.uniform((count,), 0.25, 0.6), draw.uniform((count,), 0.75, 1.1))
    tint = draw.uniform((count, 3), 0.9, 1.1)
    grey = draw.chance((count,), config.grey)
    saturation = torch.where(grey, 0.0, draw.uniform((count,), 0.5, 1.3))
    offset = draw.uniform((count,), 0.0, 0.12) * draw.chance((count,), 0.4)
    gamma = draw.log_uniform((count,), 0.7, 1.4)
    return Tone(gamma, level[:, None] * (1 - offset[:, None]) * tint, offset, saturation)


def _varied(looks: Tone, draw: Draw) -> Tone:
    """Looks varied for single objects."""
    count = len(looks.gamma)
    own_level = draw.uniform((count, 1), 0.6, 1.15) * draw.uniform((count, 3), 0.9, 1.1)
    gamma = looks.gamma * draw.log_uniform((count,), 0.8, 1.25)
    return Tone(gamma, looks.gain * own_level, looks.offset, looks.saturation)


def _render_background(
    library: TextureLibrary,
    config: SceneConfig,
    cameras: Tensor,
    magnitude: Tensor,
    looks: Tone,
    life: Tensor,
    size: int,
    draw: Draw,
) -> Tensor:
    """Backgrounds seen by moving cameras: float32 [B, 3, T, H, W]."""
    count = len(cameras)
    side = int(size * _BACKGROUND_SPAN * _SUPERSAMPLING)
    screen_px = torch.full((count,), float(side))
    pictures = looks.apply(materials.paint(library, side, screen_px, materials.BACKGROUND_WEIGHTS, draw))
    _paste_clutter(pictures, library, config, looks, size, draw)
    inverse = inverse_homographies(cameras)
    to_picture = torch.diag(torch.tensor([1 / _BACKGROUND_SPAN, 1 / _BACKGROUND_SPAN, 1.0]))
    rippling = draw.chance((count,), config.rippling) & (magnitude > 0)
    wave = waves(rippling, life - life[:, life.shape[1] // 2, None], torch.ones(count, 1), draw)
    return _warp(pictures, to_picture @ inverse, wave, size, "reflection")


def _paste_clutter(
    pictures: Tensor, library: TextureLibrary, config: SceneConfig, looks: Tone, size: int, draw: Draw
) -> None:
    """Paste still objects into background pictures [B, 3, S, S], in place; most into the last scenes."""
    batch, side = len(pictures), pictures.shape[-1]
    counts = _counts(batch, config.max_clutter, 0, draw)
    scenes = torch.cat([torch.arange(batch - count, batch) for count in [0, *counts]])
    if len(scenes) == 0:
        return
    still = torch.zeros(len(scenes))
    kinds = _kinds(config, len(scenes), draw)
    radius = _radii(config, kinds, size, draw) / _BACKGROUND_SPAN
    motion = object_motion(radius, still, still > 0, torch.zeros(1), side, draw)
    sprites = _sprites(library, motion.radius_px / _SUPERSAMPLING, kinds, _varied(looks[scenes], draw), size, draw)
    inverse = inverse_homographies(motion.matrices)
    parts = (part.split(counts) for part in (sprites, inverse, motion.wave))
    for count, sprite, matrix, wave in zip(counts, *parts, strict=True):
        layer = _warp(sprite, matrix, wave, side, "border").squeeze(2)
        pictures[batch - count :].mul_(1 - layer[:, 3:]).add_(layer[:, :3])


def _render_objects(
    library: TextureLibrary,
    config: SceneConfig,
    cameras: Tensor,
    nearest: Tensor,
    looks: Tone,
    counts: list[int],
    life: Tensor,
    size: int,
    draw: Draw,
) -> Iterator[Tensor]:
    """Layers of moving objects from back to front: colours times alpha and alpha, [counts[l], 4, T, H, W]."""
    scenes = torch.cat([torch.arange(count) for count in counts])
    kinds = _kinds(config, len(scenes), draw)
    radius, magnitude = _sizes_and_motions(config, kinds, size, draw)
    deforming = draw.chance((len(scenes),), config.deforming)
    parallax = nearest[scenes] > 0
    motion = object_motion(radius, magnitude * ~parallax, deforming, life[scenes], size, draw)
    sprites = _sprites(library, motion.radius_px, kinds, _varied(looks[scenes], draw), size, draw)
    depth = torch.where(parallax, _depths(config.depth[0], nearest[scenes], counts, scenes, draw), 1.0)
    inverse = inverse_homographies(nearer(cameras[scenes], depth) @ motion.matrices)
    parts = (part.split(counts) for part in (sprites, inverse, motion.wave))
    for sprite, matrix, wave in zip(*parts, strict=True):
        yield _warp(sprite, matrix, wave, size, "border")


def _kinds(config: SceneConfig, count: int, draw: Draw) -> Tensor:
    """Kinds of objects (`_CUTOUT`, `_BAR`, `_POLYGON`, `_BLOB`), int64 [count]."""
    shape = 1 - config.cutout - config.bar
    return draw.choice(count, (config.cutout, config.bar, shape * 0.45, shape * 0.55))


def _sizes_and_motions(config: SceneConfig, kinds: Tensor, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """Half sizes in frame coordinates [N, 2] and ranges of motion [N] of objects."""
    count = len(kinds)
    radius = _radii(config, kinds, size, draw)
    magnitude = draw.log_uniform((count,), *config.object_motion)
    moving = ~draw.chance((count,), config.still_object)
    small = draw.chance((count,), config.small_fast)
    small_radius = 2 * draw.log_uniform((count, 1), *config.small_fast_radius)
    # a bar is as thin as it was; only its length shrinks
    radius = torch.where(small[:, None], small_radius.minimum(radius), radius)
    return radius, moving * torch.where(small, draw.log_uniform((count,), *config.small_fast_motion), magnitude)


def _nearest(config: SceneConfig, magnitude: Tensor, draw: Draw) -> Tensor:
    """Largest factor of the camera's translation in each scene [B], given its pan; 0 where objects move on their own."""
    count = len(magnitude)
    most = (config.parallax_motion / magnitude.clamp_min(1e-6)).clamp_min(config.depth[0])
    nearest = draw.uniform((count,), *config.depth).minimum(most)
    return nearest * (draw.chance((count,), config.parallax) & (magnitude > 0))


def _depths(farthest: float, nearest: Tensor, counts: list[int], scenes: Tensor, draw: Draw) -> Tensor:
    """Factors of the camera's translation, growing from back to front within each scene: float [N]."""
    layer = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    position = (layer + draw.uniform((len(scenes),), 0.0, 1.0)) / torch.bincount(scenes)[scenes]
    return farthest + (nearest - farthest) * position


def _radii(config: SceneConfig, kinds: Tensor, size: int, draw: Draw) -> Tensor:
    """Half-widths and half-heights of objects in frame coordinates, float [N, 2]."""
    count = len(kinds)
    radius = 2 * draw.log_uniform((count,), *config.object_radius)
    aspect = draw.log_uniform((count,), 0.35, 1.0)
    aspect = torch.where(kinds == _CUTOUT, aspect**0.2, aspect)
    bar_width = draw.log_uniform((count,), *config.bar_width_px) + materials.MASK_BORDER_PX
    bar_width = (bar_width / size).minimum(radius)
    width = torch.where(kinds == _BAR, radius * draw.uniform((count,), 0.8, 1.6), radius)
    return torch.stack([width, torch.where(kinds == _BAR, bar_width, radius * aspect)], 1)


def _sprites(library: TextureLibrary, radius_px: Tensor, kinds: Tensor, tone: Tone, size: int, draw: Draw) -> Tensor:
    """Pictures of objects, colours times alpha: float32 [n, 4, S, S]."""
    side = int(size * _SUPERSAMPLING)
    out = torch.empty((len(kinds), 4, side, side), device=library.device)
    cutouts = (kinds == _CUTOUT).nonzero().squeeze(1)
    if len(cutouts):
        cut = materials.cutout_pictures(library, side, 2 * radius_px[cutouts].amax(1), draw)
        alpha = cut[:, 3:]
        colour = tone[cutouts].apply(cut[:, :3] / alpha.clamp_min(1 / 255))
        out[upload(cutouts, library.device)] = torch.cat([colour * alpha, alpha], 1)
    shapes = (kinds != _CUTOUT).nonzero().squeeze(1)
    if len(shapes):
        alpha = _shape_masks(side, radius_px[shapes], kinds[shapes], draw, library.device)
        paint = materials.paint(library, side, 2 * radius_px[shapes].amin(1), materials.SHAPE_WEIGHTS, draw)
        out[upload(shapes, library.device)] = torch.cat([tone[shapes].apply(paint) * alpha, alpha], 1)
    return out


def _shape_masks(side: int, radius_px: Tensor, kinds: Tensor, draw: Draw, device: torch.device) -> Tensor:
    """Soft-edged masks of bars, polygons and blobs: float32 [n, 1, S, S]."""
    boxes = (kinds == _BAR) | draw.chance((len(kinds),), 0.3)
    polygons = materials.polygon_masks(side, radius_px, boxes, draw, device)
    blobs = materials.blob_masks(side, radius_px, draw, device)
    return torch.where(upload(kinds == _BLOB, device).view(-1, 1, 1, 1), blobs, polygons)


def _warp(pictures: Tensor, inverse: Tensor, wave: Tensor, size: int, padding: str) -> Tensor:
    """Show pictures on the screen at all times.

    Args:
        pictures: float32 [n, C, S, S].
        inverse: Screen-to-picture homographies, [n, T, 3, 3], with w = 1 at the object's centre.
        wave: (amplitude, frequency, phase) for x and y, [n, 6, T].
        size: Side of the frame in px.
        padding: How `grid_sample` continues a picture beyond its border.

    Returns:
        float32 [n, C, T, size, size].
    """
    device = pictures.device
    count, num_times = inverse.shape[:2]
    # one transfer: [n, T, 15, 1, 1]
    packed = upload(torch.cat([inverse.flatten(2), wave.transpose(1, 2)], 2), device)[..., None, None]
    h = packed.unbind(2)
    x = (torch.arange(size, device=device) * 2 + 1) / size - 1
    y = x[:, None]
    w = (h[6] * x + (h[7] * y + h[8])).clamp_min_(0.05)
    grid = torch.empty((count, num_times, size, size, 2), device=device)
    u, v = grid.unbind(-1)
    torch.div(h[0] * x + (h[1] * y + h[2]), w, out=u)
    torch.div(h[3] * x + (h[4] * y + h[5]), w, out=v)
    if bool((wave[:, 0] != 0).any()):
        u += h[9] * torch.sin(h[10] * v + h[11])
        v += h[12] * torch.sin(h[13] * u + h[14])
    flat = grid.view(count, num_times * size, size, 2)
    shown = F.grid_sample(pictures, flat, mode="bilinear", padding_mode=padding, align_corners=False)
    return shown.view(count, -1, num_times, size, size)


def _change_tones(canvas: Tensor, config: SceneConfig, life: Tensor, draw: Draw) -> None:
    """Take contrast from some scenes and let the light change in some, in place; [B, 3, T, H, W]."""
    count = len(canvas)
    hazy = draw.chance((count, 1), config.low_contrast)
    contrast = torch.where(hazy, draw.uniform((count, 1), *config.contrast), 1.0)
    haze = draw.uniform((count, 1), 0.15, 0.85) * (1 - contrast)
    strength = draw.uniform((count, 1), -0.15, 0.15) * draw.chance((count, 1), config.flicker)
    speed, phase = draw.uniform((count, 1), 1.0, 12.0), draw.uniform((count, 1), 0.0, 6.28)
    gain = 1 + strength * torch.sin(speed * life + phase)
    changes = upload(torch.stack([gain * contrast, gain * haze]), canvas.device)[:, :, None, :, None, None]
    if bool((strength != 0).any() | hazy.any()):
        canvas.mul_(changes[0]).add_(changes[1])


def _luminance(canvas: Tensor) -> Tensor:
    """Linear luminance of sRGB [B, 3, ...] (approximated by a power of 2.2): [B, ...]."""
    red, green, blue = (canvas[:, channel] ** _GAMMA * weight for channel, weight in enumerate(_LUMINANCE))
    return red.add_(green).add_(blue)
