"""Crop frames before scoring, for protocols that do so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evfi.evaluation.metrics.base import ScoredWindow
from evfi.evaluation.protocol import Crop
from evfi.events.stream import EventStream
from evfi.recordings.alignment import scale_mapping, shifted_mapping, warp_events

Box = tuple[int, int, int, int]


def cropped(window: ScoredWindow, crop: Crop | None) -> ScoredWindow:
    """The part of a window that a protocol scores: frames, ground truth, regions and events.

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
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    grid = (
        max(1, round(size[0] * events.sensor_size[0] / frame_size[0])),
        max(1, round(size[1] * events.sensor_size[1] / frame_size[1])),
    )
    to_box = shifted_mapping(scale_mapping(events.sensor_size, frame_size), (-left, -top))
    return warp_events(events, scale_mapping(size, grid) @ to_box, grid)
