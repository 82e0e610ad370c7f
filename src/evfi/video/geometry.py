"""Bringing frames to a size that a network accepts, and results back to the size they came in.

Conventions: frames are uint8 [H, W, 3] RGB; a size is (width, height) in pixels. The order of things is always
*original* --fit--> *fitted* (sides are multiples of what the network needs) --upscale--> *model* size.

Two ways to fit, both of which the method's description names:

- ``pad`` (better): the picture is extended at its right and lower border and cropped back, so that no pixel is
  resampled and pixel coordinates, also those of events, stay what they are.
- ``resize``: both sides are floored to the multiple by Lanczos resampling. It reproduces the published code.

Resampling is Pillow's: Lanczos for fitting and for going back, bicubic (Pillow's default for RGB) for upscaling.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError

Frame = NDArray[np.uint8]
"""A picture: uint8 [H, W, 3], RGB."""

LUMA: Final = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a picture's brightness (BT.601)."""

Size = tuple[int, int]
"""Width and height in pixels."""

SizeMode = Literal["pad", "resize"]
PaddingMode = Literal["replicate", "reflect"]
Resampling = Literal["NEAREST", "BICUBIC", "LANCZOS"]

_NUMPY_PADDING: dict[str, Literal["edge", "symmetric"]] = {"replicate": "edge", "reflect": "symmetric"}


def frame_size(frame: Frame) -> Size:
    """Return (width, height) of a frame."""
    return int(frame.shape[1]), int(frame.shape[0])


def resize_frame(frame: Frame, size: Size, resampling: Resampling = "LANCZOS") -> Frame:
    """Resample a frame; the same frame is returned where it has the size already.

    Args:
        frame: uint8 [H, W, 3].
        size: Wanted (width, height).
        resampling: Pillow's filter.

    Returns:
        uint8 [height, width, 3].
    """
    if frame_size(frame) == size:
        return frame
    from PIL import Image

    return np.array(Image.fromarray(frame).resize(size, Image.Resampling[resampling]))


@dataclass(frozen=True)
class FrameGeometry:
    """How frames of one size become the network's input, and how its results come back.

    Attributes:
        original_size: (width, height) of the frames as they come.
        multiple: Both sides of the fitted size are multiples of it.
        mode: ``pad`` extends right and below; ``resize`` floors both sides by Lanczos resampling.
        upscale: Whole factor from the fitted to the model size.
        padding: What ``pad`` extends with: ``replicate`` the border pixels, or ``reflect`` the picture at its border
            (the border pixel itself included, so that one row more is never a jump).
    """

    original_size: Size
    multiple: int
    mode: SizeMode = "pad"
    upscale: int = 1
    padding: PaddingMode = "replicate"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A setting is out of range, or the frame is too small to be floored.
        """
        for name in ("multiple", "upscale"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {getattr(self, name)}")
        if self.mode not in ("pad", "resize"):
            raise ConfigError(f"size mode must be 'pad' or 'resize', got {self.mode!r}")
        if self.padding not in _NUMPY_PADDING:
            raise ConfigError(f"padding must be 'replicate' or 'reflect', got {self.padding!r}")
        width, height = self.original_size
        smallest = self.multiple if self.mode == "resize" else 1
        if min(width, height) < smallest:
            raise ConfigError(
                f"frames must be at least {smallest}x{smallest} pixels for size mode {self.mode!r}, "
                f"got {width}x{height}; use size mode 'pad'"
            )

    @cached_property
    def fitted_size(self) -> Size:
        """(width, height) after fitting, before upscaling."""
        width, height = self.original_size
        extra = self.multiple - 1 if self.mode == "pad" else 0
        return (width + extra) // self.multiple * self.multiple, (height + extra) // self.multiple * self.multiple

    @cached_property
    def model_size(self) -> Size:
        """(width, height) of what the network sees."""
        width, height = self.fitted_size
        return width * self.upscale, height * self.upscale

    @cached_property
    def content_size(self) -> Size:
        """(width, height) of the upper left part of the model's picture that shows the original picture.

        Event stacks are resized to it and then extended by zeros (no events) to the model size.
        """
        if self.mode == "resize":
            return self.model_size
        width, height = self.original_size
        return width * self.upscale, height * self.upscale

    @cached_property
    def model_padding(self) -> tuple[int, int, int, int]:
        """(left, right, top, bottom) from content size to model size, in `torch.nn.functional.pad`'s order."""
        return 0, self.model_size[0] - self.content_size[0], 0, self.model_size[1] - self.content_size[1]

    def fit(self, frame: Frame) -> Frame:
        """Bring a frame of the original size to the fitted size.

        Args:
            frame: uint8 [H, W, 3] of the original size.

        Returns:
            uint8 frame of the fitted size.

        Raises:
            ConfigError: The frame has another size.
        """
        self._check_size(frame, self.original_size)
        if self.mode == "resize":
            return resize_frame(frame, self.fitted_size)
        width, height = self.original_size
        right, bottom = self.fitted_size[0] - width, self.fitted_size[1] - height
        if not right and not bottom:
            return frame
        return np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode=_NUMPY_PADDING[self.padding])

    def to_model(self, frame: Frame) -> Frame:
        """Bring a frame of the original size to the model size: fit, then bicubic upscaling.

        Args:
            frame: uint8 [H, W, 3] of the original size.

        Returns:
            uint8 frame of the model size.
        """
        return resize_frame(self.fit(frame), self.model_size, "BICUBIC")

    def to_original(self, frame: Frame) -> Frame:
        """Bring a result of the model size back to the original size: crop what was padded, then Lanczos.

        Args:
            frame: uint8 frame of the model size.

        Returns:
            uint8 frame of the original size.
        """
        self._check_size(frame, self.model_size)
        width, height = self.content_size
        return resize_frame(frame[:height, :width], self.original_size)

    @staticmethod
    def _check_size(frame: Frame, size: Size) -> None:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ConfigError(f"a frame must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")
        if frame_size(frame) != size:
            found = frame_size(frame)
            raise ConfigError(
                f"expected a frame of {size[0]}x{size[1]} pixels, got {found[0]}x{found[1]}; "
                "all frames of a recording must have the same size"
            )
