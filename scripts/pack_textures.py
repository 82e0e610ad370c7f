"""Pack a folder of pictures (`textures/`, `cutouts/`) into one file for training machines.

python scripts/pack_textures.py PICTURES textures.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from evfi.training.textures import pack_textures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that holds textures/ and cutouts/")
    parser.add_argument("target", type=Path, help="file to write, .safetensors")
    arguments = parser.parse_args()
    pack_textures(arguments.folder, arguments.target)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
