"""Events to pictures that people look at.

Convention: brighter (+1) is drawn in red, darker (−1) in blue, as the field mostly does; the strength of the colour grows
with the number of events on a pixel. Where both happened, the sign of their sum wins.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import ConfigError
from evfi.events.stream import EventStream

POSITIVE_COLOUR: Final = (214, 39, 40)
NEGATIVE_COLOUR: Final = (31, 92, 180)
WHITE: Final = (255, 255, 255)


def render_events(
    events: EventStream,
    *,
    size: tuple[int, int] | None = None,
    over: NDArray[np.uint8] | None = None,
    saturation: float = 3.0,
) -> NDArray[np.uint8]:
    """Draw a slice of events as a picture.

    Args:
        events: What to draw; pass `events.slice(start_us, end_us)` for a part.
        size: (width, height) of the picture; None takes that of `over`, else the sensor's. Events go to the nearest
            pixel.
        over: A frame uint8 [H, W, 3] to draw on, lightened; None draws on white.
        saturation: Events per pixel from which on the full colour is used.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ConfigError: `saturation` is not positive, or `over` has another size than `size`.
    """
    if not saturation > 0:
        raise ConfigError(f"saturation must be positive, got {saturation}; try 3")
    if over is not None and size is not None and (over.shape[1], over.shape[0]) != size:
        raise ConfigError(f"expected a frame of size {size} to draw on, got {(over.shape[1], over.shape[0])}")
    if size is None:
        size = events.sensor_size if over is None else (over.shape[1], over.shape[0])
    counts = _signed_counts(events, size)
    strength = np.clip(np.abs(counts) / saturation, 0.0, 1.0)[..., None]
    strength = np.where(strength > 0, 0.35 + 0.65 * strength, 0.0)  # a single event must be seen, too
    colour = np.where(counts[..., None] > 0, np.array(POSITIVE_COLOUR), np.array(NEGATIVE_COLOUR))
    ground = np.full((*counts.shape, 3), WHITE) if over is None else 127.0 + 0.5 * over
    return np.rint(ground * (1 - strength) + colour * strength).astype(np.uint8)


def _signed_counts(events: EventStream, size: tuple[int, int]) -> NDArray[np.int64]:
    """Sum of polarities per pixel of a picture that covers the sensor's field of view, int64 [height, width]."""
    width, height = size
    column = events.x.astype(np.int64) * width // events.sensor_size[0]
    row = events.y.astype(np.int64) * height // events.sensor_size[1]
    counts = np.zeros(height * width, dtype=np.int64)
    np.add.at(counts, row * width + column, events.p.astype(np.int64))
    return counts.reshape(height, width)
