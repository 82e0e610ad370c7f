"""Pack a folder of pictures (`textures/`, `cutouts/`) into one file for training machines.

python scripts/pack_textures.py PICTURES textures.safetensors
python scripts/pack_textures.py PICTURES textures.safetensors --max-side 720 --quality 88

Without options the files are packed as they are. With --max-side, larger pictures are scaled down to that longest side
and encoded anew as lossy WebP (cut-outs keep their alpha); the others stay as they are.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from evfi.training.textures import pack_textures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that holds textures/ and cutouts/")
    parser.add_argument("target", type=Path, help="file to write, .safetensors")
    parser.add_argument("--max-side", type=int, help="longest side of a packed picture in px (default: as it is)")
    parser.add_argument("--quality", type=int, default=88, help="of pictures scaled down, 1 to 100 (default: 88)")
    arguments = parser.parse_args()
    if arguments.max_side is None:
        pack_textures(arguments.folder, arguments.target)
    else:
        with tempfile.TemporaryDirectory() as smaller:
            shrink_pictures(arguments.folder, Path(smaller), arguments.max_side, arguments.quality)
            pack_textures(smaller, arguments.target)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB")


def shrink_pictures(folder: Path, target: Path, max_side: int, quality: int) -> None:
    """Copy a folder of pictures with none larger than `max_side`; names keep their stems, by which kinds are told."""
    for kind in ("textures", "cutouts"):
        (target / kind).mkdir()
        pictures = [file for file in sorted((folder / kind).glob("*")) if file.is_file()]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(partial(_shrink, target=target / kind, max_side=max_side, quality=quality), pictures))


def _shrink(file: Path, target: Path, max_side: int, quality: int) -> None:
    """Write one picture scaled down as WebP, or copy its file where it is small enough already."""
    with Image.open(file) as picture:
        if max(picture.size) <= max_side:
            shutil.copyfile(file, target / file.name)
            return
        smaller = picture.convert("RGBA" if target.name == "cutouts" else "RGB")
    smaller.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    smaller.save(target / f"{file.stem}.webp", "WEBP", quality=quality)


if __name__ == "__main__":
    main()
