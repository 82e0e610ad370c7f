"""Pictures that training scenes are painted with: textures (photographs, art) and cut-outs (pictures with alpha).

A library is loaded from a folder with `textures/` and `cutouts/`, or from one packed file (`scripts/pack_textures.py`)
that travels well to a training machine. On the device, every picture is a square with a pyramid of halved sizes, so
that a renderer can pick a level near the size at which it shows the picture and does not alias.

Conventions: uint8 [N, 3, S, S] textures, crops of the original; uint8 [M, 4, S, S] cut-outs, whole, centred, with a
transparent border, colours multiplied by alpha.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evfi.errors import InputError
from evfi.files import one_line
from evfi.limits import MAX_BYTES_IN_MEMORY
from evfi.paths import is_file, is_folder

TEXTURE_FOLDERS = ("cutouts", "textures")
"""What is looked for in a folder of pictures."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class TextureConfig:
    """How pictures become squares.

    Attributes:
        texture_size: Side of a texture at the finest level in px.
        cutout_size: Side of a cut-out at the finest level in px.
        photo_crops: Squares taken from each photograph: the first is the largest one, the others are closer views.
        num_levels: Levels of the pyramids; each halves the side.
    """

    texture_size: int = 512
    cutout_size: int = 256
    photo_crops: int = 3
    num_levels: int = 5


@dataclass(frozen=True)
class TextureLibrary:
    """Pyramids of pictures, finest level first.

    Attributes:
        photos: uint8 [N, 3, S/2^l, S/2^l] per level l, photographs.
        art: The same for drawings, patterns and rendered pictures.
        cutouts: uint8 [M, 4, S'/2^l, S'/2^l] per level, colours multiplied by alpha.
    """

    photos: tuple[Tensor, ...]
    art: tuple[Tensor, ...]
    cutouts: tuple[Tensor, ...]

    @property
    def device(self) -> torch.device:
        """Where the pictures are."""
        return self.cutouts[0].device

    def to(self, device: torch.device | str) -> TextureLibrary:
        """The same library on another device."""
        return TextureLibrary(*(tuple(x.to(device) for x in part) for part in (self.photos, self.art, self.cutouts)))


def load_textures(path: Path | str, config: TextureConfig | None = None) -> TextureLibrary:
    """Load a library from a folder with `textures/` and `cutouts/`, or from a packed `.safetensors` file.

    Raises:
        InputError: if there is no such folder or file, or it holds no texture or no cut-out.
    """
    config = config or TextureConfig()
    path = Path(path)
    photos: list[Tensor] = []
    art: list[Tensor] = []
    cutouts: list[Tensor] = []
    _check_memory(path, _names(path), config)
    with ThreadPoolExecutor() as pool:
        for name, squares in pool.map(partial(_squares, config=config), _pictures(path)):
            kind = cutouts if name.startswith("cutouts/") else photos if _is_photo(name) else art
            kind.extend(squares)
    if not (photos or art) or not cutouts:
        raise InputError(f"expected pictures in both textures/ and cutouts/ of {path}, found none in one of them")
    return build_library(photos or art, art or photos, cutouts, config.num_levels)


def _check_memory(path: Path, names: Sequence[str], config: TextureConfig) -> None:
    """Refuse more pictures than may be in memory at once; all of them become squares of one size, with a pyramid."""
    of_texture, of_cutout = (
        4 * side**2 * channels // 3 for side, channels in ((config.texture_size, 3), (config.cutout_size, 4))
    )
    needed = sum(
        of_cutout if name.startswith("cutouts/") else of_texture * (config.photo_crops if _is_photo(name) else 1)
        for name in names
    )
    if needed > MAX_BYTES_IN_MEMORY:
        raise InputError(
            f"the {len(names)} pictures of {path} take {needed / 2**30:.1f} GiB as textures; expected at most "
            f"{MAX_BYTES_IN_MEMORY // 2**30} GiB; take fewer pictures, or names that do not begin with 'photo', of which one "
            f"square is taken instead of {config.photo_crops}"
        )


def _is_photo(name: str) -> bool:
    return Path(name).stem.startswith("photo")


def _squares(entry: tuple[str, bytes], config: TextureConfig) -> tuple[str, list[Tensor]]:
    """Decode one picture file into its squares."""
    name, data = entry
    picture = _decode(name, data)
    if name.startswith("cutouts/"):
        return name, [_cutout_square(picture, config.cutout_size)]
    return name, _texture_squares(picture, config.texture_size, config.photo_crops if _is_photo(name) else 1)


def build_library(
    photos: Sequence[Tensor], art: Sequence[Tensor], cutouts: Sequence[Tensor], num_levels: int
) -> TextureLibrary:
    """Stack squares of equal size into pyramids."""
    return TextureLibrary(
        _pyramid(torch.stack(list(photos)), num_levels),
        _pyramid(torch.stack(list(art)), num_levels),
        tuple(_clear_border(level) for level in _pyramid(torch.stack(list(cutouts)), num_levels)),
    )


def pack_textures(folder: Path | str, target: Path | str) -> None:
    """Write a folder of pictures into one safetensors file, each picture's file as a uint8 tensor."""
    tensors = {name: torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in _pictures(Path(folder))}
    save_file(tensors, str(target), metadata={"names": json.dumps(sorted(tensors))})


def _pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all picture files, in the order of `_names`."""
    names = _names(path)
    if not is_file(path):
        yield from ((name, (path / name).read_bytes()) for name in names)
        return
    with _packed(path) as file:
        yield from ((name, file.get_tensor(name).numpy().tobytes()) for name in names)


def _names(path: Path) -> list[str]:
    """Names (`textures/...`, `cutouts/...`) of all picture files, sorted."""
    if is_file(path):
        with _packed(path) as file:
            return sorted(file.keys())
    if not is_folder(path):
        raise InputError(f"no texture folder or packed file at {path}; give one that holds textures/ and cutouts/")
    files = [file for kind in TEXTURE_FOLDERS for file in sorted((path / kind).glob("*"))]
    return [f"{file.parent.name}/{file.name}" for file in files if file.suffix.lower() in _SUFFIXES and is_file(file)]


@contextmanager
def _packed(path: Path) -> Iterator[Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(
            f"cannot read the packed textures {path}: {one_line(error)}; give a folder that holds textures/ and cutouts/, "
            "or a .safetensors file"
        ) from error


def _decode(name: str, data: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > _MAX_PIXELS:
            raise InputError(f"{name} has {picture.size} px, more than {_MAX_PIXELS}; scale it down")
        return picture.convert("RGBA" if name.startswith("cutouts/") else "RGB")
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a readable picture; remove or replace it") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot decode the picture {name}: {one_line(error)}; remove or replace it") from error


def _texture_squares(picture: Image.Image, size: int, count: int) -> list[Tensor]:
    """The largest centred square, and closer views along the picture's diagonal; each as uint8 [3, size, size]."""
    short = min(picture.size)
    squares = []
    for index in range(count):
        side = short if index == 0 else max(min(short, size), short // 2)
        place = 0.5 if index == 0 else (index - 0.5) / (count - 1)
        left, top = (int((extent - side) * place) for extent in picture.size)
        box = (left, top, left + side, top + side)
        square = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
        squares.append(torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous())
    return squares


def _cutout_square(picture: Image.Image, size: int) -> Tensor:
    """The whole picture in the middle of a transparent square, uint8 [4, size, size], colours times alpha."""
    inner = size - size // 16
    scale = inner / max(picture.size)
    width, height = (max(1, round(extent * scale)) for extent in picture.size)
    pixels = np.array(
        picture.convert("RGBa").resize(
            (width, height), Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR
        )
    )
    square = np.zeros((size, size, 4), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = pixels
    return torch.from_numpy(square).permute(2, 0, 1).contiguous()


def _pyramid(pictures: Tensor, num_levels: int) -> tuple[Tensor, ...]:
    """Halve uint8 [N, C, S, S] again and again by 2×2 means."""
    levels = [pictures]
    for _ in range(num_levels - 1):
        if levels[-1].shape[-1] < 16:
            break
        chunks = [F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in levels[-1].split(32)]
        levels.append(torch.cat(chunks))
    return tuple(levels)


def _clear_border(level: Tensor) -> Tensor:
    """Make the outermost pixels transparent, so that sampling clamped to the square shows nothing beyond it."""
    level = level.clone()
    level[..., 0, :] = level[..., -1, :] = 0
    level[..., :, 0] = level[..., :, -1] = 0
    return level
