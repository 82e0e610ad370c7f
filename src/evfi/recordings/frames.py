"""Key frames that lie as picture files in a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from evfi.errors import InputError
from evfi.paths import is_file
from evfi.recordings.recording import FrameSourceDefaults, Image, Times
from evfi.video.io import is_grey_frame, read_image

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
_NUM_GREY_PROBES: Final = 5


class PictureFrames(FrameSourceDefaults):
    """Frames in picture files, read one by one.

    Args:
        paths: one file per frame, in order.
        times_us: time of each frame in whole µs.
        exposures_us: start and end of each frame's exposure in whole µs [N, 2], where they are known.
    """

    def __init__(self, paths: Sequence[Path], times_us: ArrayLike, exposures_us: ArrayLike | None = None):
        self.paths = tuple(paths)
        self.times_us: Times = np.asarray(times_us, np.int64)
        self.exposures_us: Times | None = None if exposures_us is None else np.asarray(exposures_us, np.int64)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame, which all others must have."""
        height, width = read_image(self.paths[0]).shape[:2]
        return int(width), int(height)

    @cached_property
    def is_grey(self) -> bool:
        """Whether frames spread over the sequence hold no colour."""
        probes = sorted({round(i) for i in np.linspace(0, len(self) - 1, _NUM_GREY_PROBES)})
        return all(is_grey_frame(self.read(i)) for i in probes)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB.

        Raises:
            InputError: the file is missing, damaged, or has another size than the first.
        """
        image = read_image(self.paths[index])
        height, width = image.shape[:2]
        if (width, height) != self.size:
            raise InputError(
                f"{self.paths[index]}: expected {self.size[0]}×{self.size[1]} like the first frame, "
                f"found {width}×{height}; all frames of a recording must have the same size"
            )
        return image


def find_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names (frame_2 before frame_10)."""
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and is_file(path)]
    return sorted(pictures, key=_natural_key)


def _natural_key(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
