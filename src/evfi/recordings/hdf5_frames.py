"""Key frames that lie in an HDF5 file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.formats.columns import to_microseconds
from evfi.events.formats.hdf5.container import Hdf5File, one_line_errors
from evfi.limits import check_pixels
from evfi.recordings.recording import FrameSourceDefaults, Image, Times
from evfi.video.io import is_grey_frame

_MAX_CHANNELS: Final = 4
_NUM_GREY_PROBES: Final = 5


class Hdf5Frames(FrameSourceDefaults):
    """Frames of an HDF5 file, read one by one; closing them closes the file.

    Args:
        file: the file.
        times_us: time of each frame in µs, int64 [N].
        fetch: reads frame i: uint8 [H, W] or [H, W, 3].
        is_bgr: frames of three channels are blue first.
    """

    def __init__(self, file: Hdf5File, times_us: Times, fetch: Callable[[int], NDArray[Any]], *, is_bgr: bool = False):
        self._file, self._fetch, self._is_bgr = file, fetch, is_bgr
        self.times_us = times_us

    def __len__(self) -> int:
        return len(self.times_us)

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame, which all others must have."""
        height, width = self._checked(0).shape[:2]
        return int(width), int(height)

    @cached_property
    def is_grey(self) -> bool:
        """Whether frames spread over the file hold no colour."""
        probes = sorted({round(i) for i in np.linspace(0, len(self) - 1, _NUM_GREY_PROBES)})
        return all(is_grey_frame(self.read(i)) for i in probes)

    def read(self, index: int) -> Image:
        """Frame `index` as uint8 [H, W, 3] RGB.

        Raises:
            InputError: it is damaged, or has another size than the first.
        """
        image = self._checked(index)
        if (image.shape[1], image.shape[0]) != self.size:
            raise InputError(
                f"{self._file.path}: frame {index} is {image.shape[1]}×{image.shape[0]}, the first {self.size[0]}×"
                f"{self.size[1]}; all frames of a recording must have the same size"
            )
        if image.ndim == 2 or image.shape[2] == 1:
            return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        return np.ascontiguousarray(image[..., ::-1] if self._is_bgr else image)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _checked(self, index: int) -> Image:
        with one_line_errors(self._file.path, f"frame {index} cannot be read"):
            image = self._fetch(index)
        shape_fits = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
        if image.dtype != np.uint8 or not shape_fits:
            raise InputError(
                f"{self._file.path}: frame {index} must be uint8 [H, W] or [H, W, 3], found {image.dtype} {list(image.shape)}"
            )
        return image


def checked_picture(file: Hdf5File, name: str, *, is_stack: bool = False) -> Any:
    """The dataset of one picture, or of a stack of pictures [N, H, W], that are small enough to be read.

    Raises:
        InputError: it is missing or no picture, or pictures are too large.
    """
    dataset = file.required(name)
    has_channels = not is_stack and dataset.ndim == 3 and dataset.shape[2] <= _MAX_CHANNELS
    if not (dataset.ndim == (3 if is_stack else 2) or has_channels) or min(dataset.shape) == 0:
        raise InputError(
            f"{file.path}: dataset '{name}' must hold a picture, found {dataset.dtype} {list(dataset.shape)}"
        )
    height, width = dataset.shape[1:3] if is_stack else dataset.shape[:2]
    check_pixels(f"{file.path}: dataset '{name}'", width, height)
    return dataset


def increasing_times(file: Hdf5File, seconds: NDArray[Any]) -> tuple[Times, NDArray[np.int64], list[str]]:
    """Times of frames in µs without those that do not increase.

    Args:
        file: for messages.
        seconds: time of each frame in s.

    Returns:
        The times that are kept, the frames' numbers, and what the user should know.
    """
    times = to_microseconds(np.asarray(seconds, np.float64), "s", f"{file.path}: frames")
    before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(times)[:-1]])
    kept = np.flatnonzero(times > before)
    left_out = np.flatnonzero(times <= before)
    notes = []
    if len(left_out):
        which = ", ".join(str(number) for number in left_out[:5])
        notes.append(
            f"{len(left_out)} frames were left out: their times are not later than the frame before's ({which})"
        )
    return times[kept], kept, notes
