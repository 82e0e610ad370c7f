"""What training scenes are made of: painted squares, shapes with soft edges, cut-outs.

Pictures are float32 in [0, 1] (sRGB), made on the library's device; what they show is drawn on the CPU. A picture of
side S that will be shown smaller than S is low-passed to its size on screen, so that sampling it does not alias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evfi.training.motion import Draw
from evfi.training.textures import TextureLibrary
from evfi.video.geometry import LUMA

_PAINTS = ("photo", "art", "noise", "stripes", "checks", "text", "gradient", "flat")
BACKGROUND_WEIGHTS = (0.60, 0.12, 0.07, 0.04, 0.04, 0.04, 0.05, 0.04)
SHAPE_WEIGHTS = (0.34, 0.12, 0.10, 0.10, 0.08, 0.08, 0.08, 0.10)
_NUM_PLANES = 6
MASK_BORDER_PX = 1.2  # a mask is narrower than twice its radius by so much, so that its soft edge ends inside


@dataclass(frozen=True)
class Tone:
    """Photometric changes, one entry per picture: out = saturate(gain · picture^gamma) + offset, each float [N, ...].

    Attributes:
        gamma: Exponent [N].
        gain: Per colour [N, 3].
        offset: Added to all colours [N].
        saturation: 1 keeps colours, 0 makes grey [N].
    """

    gamma: Tensor
    gain: Tensor
    offset: Tensor
    saturation: Tensor

    def apply(self, pictures: Tensor) -> Tensor:
        """Change float [N, 3, H, W] in [0, 1]; stays in [0, 1]."""
        device = pictures.device
        gamma, offset, saturation = (
            value.to(device, non_blocking=True).view(-1, 1, 1, 1)
            for value in (self.gamma, self.offset, self.saturation)
        )
        toned = pictures.clamp(1e-4, 1.0) ** gamma * self.gain.to(device, non_blocking=True)[..., None, None]
        luma = torch.tensor(LUMA, device=device).view(1, 3, 1, 1)
        grey = (toned * luma).sum(1, keepdim=True)
        return (grey + saturation * (toned - grey) + offset).clamp(0.0, 1.0)

    def __getitem__(self, index: Tensor) -> Tone:
        return Tone(self.gamma[index], self.gain[index], self.offset[index], self.saturation[index])


def paint(library: TextureLibrary, side: int, screen_px: Tensor, weights: tuple[float, ...], draw: Draw) -> Tensor:
    """Paint squares with crops of pictures and with patterns.

    Args:
        library: Pictures to crop from.
        side: Side S in px.
        screen_px: Side at which each square will be shown, float [N]; larger than S means that it is magnified.
        weights: Weight of each kind of paint.
        draw: Random source.

    Returns:
        float32 [N, 3, S, S] in [0, 1].
    """
    kinds = draw.choice(len(screen_px), weights)
    out = torch.empty((len(screen_px), 3, side, side), device=library.device)
    for kind, name in enumerate(_PAINTS):
        chosen = (kinds == kind).nonzero().squeeze(1)
        if len(chosen):
            out[chosen.to(library.device, non_blocking=True)] = _PAINTERS[name](library, side, len(chosen), draw)
    return low_pass(out, screen_px)


def low_pass(pictures: Tensor, screen_px: Tensor) -> Tensor:
    """Remove detail finer than the screen shows, by powers of two; [N, C, S, S], in place."""
    side = pictures.shape[-1]
    octaves = torch.log2(side / screen_px.clamp_min(2.0)).floor().clamp(0, math.log2(side) - 1).long()
    for octave in octaves.unique().tolist():
        if octave == 0:
            continue
        chosen = (octaves == octave).nonzero().squeeze(1).to(pictures.device, non_blocking=True)
        small = F.adaptive_avg_pool2d(pictures[chosen], max(2, side >> octave))
        pictures[chosen] = F.interpolate(small, size=(side, side), mode="bilinear")
    return pictures


def crop_pictures(pyramid: tuple[Tensor, ...], side: int, count: int, draw: Draw, smallest: float = 0.35) -> Tensor:
    """Random crops of random pictures, flipped and turned a little: float32 [count, 3, side, side].

    Each crop is taken from the level of the pyramid that has one to two texels per pixel.
    """
    device = pyramid[0].device
    source = draw.integers((count,), len(pyramid[0]))
    fraction = draw.log_uniform((count,), smallest, 1.0)
    angle = draw.normal((count,)) * 0.08
    flip = torch.where(draw.chance((count,), 0.5), -1.0, 1.0)
    middle = draw.uniform((count, 2), -1.0, 1.0) * (1 - fraction)[:, None]
    rows = (
        torch.stack([fraction * angle.cos() * flip, -fraction * angle.sin(), middle[:, 0]], 1),
        torch.stack([fraction * angle.sin() * flip, fraction * angle.cos(), middle[:, 1]], 1),
    )
    theta = torch.stack(rows, 1)
    texels = fraction * pyramid[0].shape[-1] / side
    levels = torch.log2(texels).floor().clamp(0, len(pyramid) - 1).long()
    out = torch.empty((count, 3, side, side), device=device)
    for level in levels.unique().tolist():
        chosen = (levels == level).nonzero().squeeze(1)
        pictures = pyramid[level][source[chosen].to(device, non_blocking=True)].float() / 255
        grid = F.affine_grid(
            theta[chosen].to(device, non_blocking=True), [len(chosen), 3, side, side], align_corners=False
        )
        sampled = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        out[chosen.to(device, non_blocking=True)] = sampled
    return out


def _paint_photo(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    return crop_pictures(library.photos, side, count, draw)


def _paint_art(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    return crop_pictures(library.art, side, count, draw)


def _two_colours(mask: Tensor, draw: Draw) -> Tensor:
    """Mix two random colours by a mask [N, 1, S, S] in [0, 1]."""
    colours = draw.uniform((2, len(mask), 3, 1, 1), 0.0, 1.0).to(mask.device, non_blocking=True)
    return torch.lerp(colours[0], colours[1], mask)


def _plane(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates of pixel centres in [-1, 1]: x [S], y [S, 1]."""
    axis = (torch.arange(side, device=device) * 2 + 1) / side - 1
    return axis, axis[:, None]


def _oriented(side: int, count: int, draw: Draw, device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates along and across a random direction per picture, each [N, 1, S, S]."""
    angle = draw.uniform((count, 1, 1, 1), 0.0, 2 * math.pi)
    cos, sin = angle.cos().to(device, non_blocking=True), angle.sin().to(device, non_blocking=True)
    x, y = _plane(side, device)
    return cos * x + sin * y, cos * y - sin * x


def _paint_noise(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    """Clouds: octaves of smooth noise whose strength falls with frequency."""
    roughness = draw.uniform((count, 1, 1, 1), 0.4, 1.0)
    total = torch.zeros((count, 3, side, side), device=library.device)
    for octave in range(5):
        cells = 3 << octave
        grid = (draw.normal((count, 3, cells, cells)) * roughness**octave).to(library.device, non_blocking=True)
        total += F.interpolate(grid, size=(side, side), mode="bicubic")
    mean = draw.uniform((count, 3, 1, 1), 0.2, 0.8).to(library.device, non_blocking=True)
    return (mean + total * draw.uniform((count, 1, 1, 1), 0.05, 0.25).to(library.device, non_blocking=True)).clamp(0, 1)


def _paint_stripes(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    along, _ = _oriented(side, count, draw, library.device)
    frequency = draw.log_uniform((count, 1, 1, 1), 3.0, 50.0).to(library.device, non_blocking=True)
    sharpness = draw.log_uniform((count, 1, 1, 1), 1.0, 20.0).to(library.device, non_blocking=True)
    return _two_colours(torch.sigmoid(sharpness * torch.sin(frequency * along)), draw)


def _paint_checks(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    along, across = _oriented(side, count, draw, library.device)
    frequency = draw.log_uniform((count, 1, 1, 1), 4.0, 30.0).to(library.device, non_blocking=True)
    product = torch.sin(frequency * along) * torch.sin(frequency * across)
    return _two_colours(torch.sigmoid(20.0 * product), draw)


def _paint_text(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    """Lines of random glyph-like blocks with gaps between letters, words and lines."""
    rows, columns = 12, 24
    glyphs = draw.chance((count, rows, columns, 5, 3), 0.55).float()
    words = draw.chance((count, rows, columns, 1, 1), 0.8).float()
    blocks = F.pad(glyphs * words, (0, 1, 0, 2))
    page = blocks.permute(0, 1, 3, 2, 4).reshape(count, 1, rows * 7, columns * 4).to(library.device, non_blocking=True)
    ink = F.interpolate(page, size=(side, side), mode="bilinear")
    crop = draw.log_uniform((count, 1, 1), 0.4, 1.0) * torch.eye(2, 3)
    grid = F.affine_grid(crop.to(library.device, non_blocking=True), [count, 1, side, side], align_corners=False)
    return _two_colours(F.grid_sample(ink, grid, padding_mode="reflection", align_corners=False), draw)


def _paint_gradient(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    """Slow changes of colour in two directions."""
    corners = draw.uniform((count, 3, 2, 2), 0.0, 1.0).to(library.device, non_blocking=True)
    return F.interpolate(corners, size=(side, side), mode="bilinear", align_corners=True)


def _paint_flat(library: TextureLibrary, side: int, count: int, draw: Draw) -> Tensor:
    colour = draw.uniform((count, 3, 1, 1), 0.0, 1.0) ** draw.uniform((count, 1, 1, 1), 0.5, 3.0)
    return colour.to(library.device, non_blocking=True).expand(-1, -1, side, side)


_PAINTERS = {
    "photo": _paint_photo,
    "art": _paint_art,
    "noise": _paint_noise,
    "stripes": _paint_stripes,
    "checks": _paint_checks,
    "text": _paint_text,
    "gradient": _paint_gradient,
    "flat": _paint_flat,
}


def polygon_masks(side: int, radius_px: Tensor, boxes: Tensor, draw: Draw, device: torch.device) -> Tensor:
    """Convex polygons, or rectangles where `boxes` says so, with edges one screen pixel soft.

    Args:
        side: Side S in px.
        radius_px: Half-width and half-height on screen, float [N, 2].
        boxes: bool [N].
        draw: Random source.
        device: Where to make them.

    Returns:
        Coverage float32 [N, 1, S, S], zero at the border.
    """
    count = len(radius_px)
    turn = (torch.arange(_NUM_PLANES) + draw.uniform((count, _NUM_PLANES), -0.4, 0.4)) / _NUM_PLANES
    right = (torch.arange(_NUM_PLANES) % 4 / 4).expand(count, -1)
    angle = 2 * math.pi * torch.where(boxes[:, None], right, turn)
    distance = torch.where(boxes[:, None], 0.92, draw.uniform((count, _NUM_PLANES), 0.45, 0.85))
    normal = torch.stack([angle.cos(), angle.sin()], -1)
    per_px = (normal / radius_px[:, None]).norm(dim=-1)
    distance = torch.minimum(distance, 1 - MASK_BORDER_PX / 2 * per_px)
    planes = torch.cat([normal, distance[..., None]], -1) / per_px[..., None]
    nx, ny, d = (part[..., None, None].to(device, non_blocking=True) for part in planes.unbind(-1))
    x, y = _plane(side, device)
    outside = (nx * x + (ny * y - d)).amax(1, keepdim=True)
    return (0.5 - outside).clamp(0.0, 1.0)


def blob_masks(side: int, radius_px: Tensor, draw: Draw, device: torch.device) -> Tensor:
    """Ellipses, wobbly blobs and some rings with edges one screen pixel soft: float32 [N, 1, S, S], 0 at the border."""
    count = len(radius_px)
    mean_px = radius_px.amin(1).view(-1, 1, 1).to(device, non_blocking=True)
    x, y = _plane(side, device)
    radius, angle = torch.sqrt(x * x + y * y), torch.atan2(y, x.expand(side, side))
    wobble = draw.uniform((count, 1), 0.0, 0.12) * draw.chance((count, 1), 0.6)
    outline = torch.ones((count, side, side), device=device)
    for order in range(2, 6):
        strength = (wobble * draw.normal((count, 1)) * 2 / order).view(-1, 1, 1).to(device, non_blocking=True)
        phase = draw.uniform((count, 1, 1), 0.0, 2 * math.pi).to(device, non_blocking=True)
        outline += strength * torch.cos(order * angle + phase)
    outline = torch.minimum(outline * 0.8, 1 - MASK_BORDER_PX / 2 / mean_px.clamp_min(1.0)).clamp_min(0.2)
    mask = ((outline - radius) * mean_px + 0.5).clamp(0.0, 1.0)
    hole = (draw.uniform((count, 1, 1), 0.3, 0.7) * draw.chance((count, 1, 1), 0.12)).to(device, non_blocking=True)
    inside = torch.where(hole > 0, ((outline * hole - radius) * mean_px + 0.5).clamp(0.0, 1.0), 0.0)
    return (mask - inside).clamp_min(0.0).unsqueeze(1)


def cutout_pictures(library: TextureLibrary, side: int, screen_px: Tensor, draw: Draw) -> Tensor:
    """Random cut-outs, some mirrored, colours times alpha: float32 [N, 4, S, S]."""
    pyramid, device = library.cutouts, library.device
    source = draw.integers((len(screen_px),), len(pyramid[0]))
    mirrored = draw.chance((len(screen_px),), 0.5)
    texels = pyramid[0].shape[-1] / screen_px.clamp(2.0, side)
    levels = torch.log2(texels).floor().clamp(0, len(pyramid) - 1).long()
    out = torch.empty((len(screen_px), 4, side, side), device=device)
    for level in levels.unique().tolist():
        chosen = (levels == level).nonzero().squeeze(1)
        pictures = pyramid[level][source[chosen].to(device, non_blocking=True)].float() / 255
        pictures = torch.where(
            mirrored[chosen].view(-1, 1, 1, 1).to(device, non_blocking=True), pictures.flip(-1), pictures
        )
        out[chosen.to(device, non_blocking=True)] = F.interpolate(pictures, size=(side, side), mode="bilinear")
    return out
