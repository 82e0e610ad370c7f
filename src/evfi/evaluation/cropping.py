"""Scoring only a part of the frames, where a protocol does so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evfi.evaluation.metrics.base import ScoredWindow
from evfi.evaluation.protocol import Crop
from evfi.events.stream import EventStream

Box = tuple[int, int, int, int]


def cropped(window: ScoredWindow, crop: Crop | None) -> ScoredWindow:
    """The part of a window that a protocol scores: frames, truth, regions and events.

    Args:
        window: the whole.
        crop: which part; None gives the window itself.

    Raises:
        RecordingError: nothing is left.
    """
    if crop is None:
        return window
    height, width = window.frames.shape[1:3]
    box = crop.box((width, height))
    left, top, right, bottom = box
    part = np.s_[:, top:bottom, left:right]
    events = None if window.events is None else crop_events(window.events, (width, height), box)
    return replace(
        window,
        frames=window.frames[part],
        truth=window.truth[part],
        regions={name: mask[part] for name, mask in window.regions.items()},
        events=events if events is not None and len(events) else None,
    )


def crop_events(events: EventStream, frame_size: tuple[int, int], box: Box) -> EventStream:
    """The events whose pixels' centres lie in a box, on a grid that covers the box; sides are rounded to whole pixels.

    Args:
        events: on a grid that covers the whole frame.
        frame_size: (width, height) of the frame, px.
        box: (left, top, right, bottom) in the frame, px.
    """
    x, width, inside_x = _cropped_axis(events.x, events.sensor_size[0], frame_size[0], box[0], box[2])
    y, height, inside_y = _cropped_axis(events.y, events.sensor_size[1], frame_size[1], box[1], box[3])
    inside = inside_x & inside_y
    return EventStream(x[inside], y[inside], events.t[inside], events.p[inside], (width, height))


def _cropped_axis(
    places: NDArray[np.int32], grid: int, frame: int, start: int, end: int
) -> tuple[NDArray[np.int32], int, NDArray[np.bool_]]:
    """Places on the new grid, its side, and which of them are on it."""
    side = max(1, round((end - start) * grid / frame))
    moved = ((places + 0.5) * (frame / grid) - start) * (side / (end - start))
    inside: NDArray[np.bool_] = (moved >= 0) & (moved < side)
    return np.floor(moved).astype(np.int32), side, inside
