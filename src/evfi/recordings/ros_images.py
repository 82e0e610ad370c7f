"""Pictures in messages `sensor_msgs/Image` and `sensor_msgs/CompressedImage`.

16-bit pictures are scaled to 8 bits by 255/65535. Bayer pictures are interpolated bilinearly; the name of a Bayer encoding
gives the first two pixels of the first row and the first two of the second, e.g. `bayer_rggb8`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from evfi.events.formats.bag_parts import BagMessage, Topic, shown
from evfi.events.formats.ros_messages import Fields
from evfi.limits import MAX_PIXELS
from evfi.recordings.recording import Image

IMAGE_TYPES: Final = ("sensor_msgs/Image", "sensor_msgs/CompressedImage")

_COMPRESSED: Final = "compressed"
_CHANNELS: Final = {  # which stored channels are R, G, B
    "mono8": (1, (0, 0, 0)),
    "8uc1": (1, (0, 0, 0)),
    "mono16": (1, (0, 0, 0)),
    "16uc1": (1, (0, 0, 0)),
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "8uc3": (3, (2, 1, 0)),
    "rgb16": (3, (0, 1, 2)),
    "bgr16": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "8uc4": (4, (2, 1, 0)),
}
_BAYER: Final = {f"bayer_{order}{bits}": order for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}


@dataclass(frozen=True, slots=True)
class ImageMessage:
    """A picture that is not decoded yet.

    Attributes:
        stamp_ns: time of the header in ns.
        size: (width, height).
        encoding: its encoding in small letters, or "compressed".
        is_big: whether 16-bit numbers are big-endian.
        step: bytes per row.
        data: the pixels, or a compressed file.
    """

    stamp_ns: int
    size: tuple[int, int]
    encoding: str
    is_big: bool
    step: int
    data: memoryview

    @property
    def is_deep(self) -> bool:
        """Whether it has 16 bits per channel."""
        return self.encoding.endswith("16") or self.encoding.startswith("16")


def parse_image(message: BagMessage, topic: Topic) -> ImageMessage:
    """Take a message apart and check that it can hold what it says.

    Raises:
        ValueError: it is damaged, or of an encoding that is not known.
    """
    fields = Fields(message.data, is_cdr=topic.is_cdr)
    stamp = fields.stamp_ns()
    if topic.type == IMAGE_TYPES[1]:
        fields.text()
        data = fields.content()
        with _open_picture(data) as picture:
            return ImageMessage(stamp, _checked_size(*picture.size), _COMPRESSED, False, 0, data)
    height, width = fields.number("I"), fields.number("I")
    encoding = fields.text().lower()
    is_big = bool(fields.number("B"))
    image = ImageMessage(stamp, _checked_size(width, height), encoding, is_big, fields.number("I"), fields.content())
    if encoding not in _CHANNELS and encoding not in _BAYER:
        known = ", ".join((*_CHANNELS, *_BAYER))
        raise ValueError(f"pictures in encoding '{shown(encoding)}' cannot be read; supported are {known}")
    row = width * _num_channels(encoding) * (2 if image.is_deep else 1)
    if image.step < row or len(image.data) < image.step * (height - 1) + row:
        raise ValueError(
            f"a picture of {width}×{height} in {encoding} with {image.step} bytes per row has only {len(image.data)} bytes"
        )
    return image


def to_rgb(image: ImageMessage) -> Image:
    """The picture as uint8 [H, W, 3] RGB.

    Raises:
        ValueError: it is damaged.
    """
    if image.encoding == _COMPRESSED:
        return _read_compressed(image)
    width, height = image.size
    dtype = np.dtype((">" if image.is_big else "<") + "u2") if image.is_deep else np.dtype(np.uint8)
    channels = _num_channels(image.encoding)
    strides = (image.step, channels * dtype.itemsize, dtype.itemsize)
    pixels: NDArray[Any] = np.ndarray((height, width, channels), dtype, image.data, strides=strides)
    if image.is_deep:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.encoding in _BAYER:
        return _interpolate_bayer(pixels[..., 0], _BAYER[image.encoding])
    return np.ascontiguousarray(pixels[..., list(_CHANNELS[image.encoding][1])])


def _num_channels(encoding: str) -> int:
    return _CHANNELS[encoding][0] if encoding in _CHANNELS else 1


def _checked_size(width: int, height: int) -> tuple[int, int]:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError(f"a picture of {width}×{height} pixels cannot be read")
    return width, height


def _open_picture(data: memoryview) -> Picture.Image:
    try:
        return Picture.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except (OSError, SyntaxError, Picture.DecompressionBombError) as error:
        raise ValueError(f"not a readable PNG or JPEG picture ({' '.join(str(error).split())[:80]})") from None


def _read_compressed(image: ImageMessage) -> Image:
    try:
        with _open_picture(image.data) as picture:
            deep = picture.mode.startswith("I")
            pixels = np.asarray(picture) if deep else np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Picture.DecompressionBombError) as error:
        raise ValueError(f"a damaged picture ({' '.join(str(error).split())[:80]})") from None
    if not deep:
        return pixels
    grey = ((pixels.astype(np.int32) + 128) // 257).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _interpolate_bayer(mosaic: NDArray[np.uint8], order: str) -> Image:
    """Each missing colour is the mean of its nearest neighbours of that colour, weighted bilinearly."""
    height, width = mosaic.shape
    rgb = np.empty((height, width, 3), np.uint8)
    for channel, letter in enumerate("rgb"):
        known = np.zeros((height, width), np.float32)
        for place, colour in enumerate(order):
            if colour == letter:
                known[place // 2 :: 2, place % 2 :: 2] = 1
        total, weight = _smooth(mosaic * known), _smooth(known)
        mean = total / np.maximum(weight, np.float32(1e-6))
        rgb[..., channel] = np.where(known > 0, mosaic, np.rint(mean))
    return rgb


def _smooth(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted by 1 2 1 in both directions; nothing lies outside."""
    padded = np.pad(values, 1)
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    result: NDArray[np.float32] = rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]
    return result
