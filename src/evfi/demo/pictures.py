"""The demo's output: one frame in five versions, and the video."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.demo.comparison import Comparison
from evfi.demo.sheet import Picture, label_row, magnify, outline, stack_rows
from evfi.events.render import render_events
from evfi.video.geometry import Size, frame_size, resize_frame

_VIDEO_SCALE: Final = 1.5
_BOX_SHARE: Final = 0.45
_NUM_PANELS: Final = 5


def draw_sheet(comparison: Comparison, name: str) -> Picture:
    """Key frame, events, ours, blending and ground truth of the middle frame; below, the part with most motion enlarged.

    Args:
        comparison: What to show.
        name: What to call ours.

    Returns:
        uint8 [H, W, 3].
    """
    index = _middle_inserted(comparison)
    truth = comparison.demo.truth[index]
    panels = [
        comparison.demo.truth[index // comparison.stride * comparison.stride],
        _events_around(comparison, index),
        comparison.ours[index],
        comparison.blended[index],
        truth,
    ]
    ours, blending = (comparison.scores(frames) for frames in (comparison.ours, comparison.blended))
    titles = ("key frame before", "events", name, "linear blending", "ground truth")
    notes = (
        "what the camera saw",
        "what happened next",
        f"moving parts {ours.moving:.1f} dB",
        f"moving parts {blending.moving:.1f} dB",
        f"{index % comparison.stride} of {comparison.insert} frames between",
    )
    box = _liveliest_box(comparison.moving(index), comparison.blended[index], truth)
    size = (truth.shape[1], truth.shape[0])
    whole = label_row([outline(panel, box) for panel in panels], titles, notes)
    return stack_rows([whole, label_row([magnify(panel, box, size) for panel in panels])])


def draw_video(comparison: Comparison, name: str) -> list[Picture]:
    """Key frames, events and our frames side by side, one picture per frame.

    Args:
        comparison: What to show.
        name: What to call ours.

    Returns:
        Pictures uint8 [H, W, 3] of one size.
    """
    pictures = []
    size = _panel_size(frame_size(comparison.ours[0]))
    for index, ours in enumerate(comparison.ours):
        key = comparison.demo.truth[index // comparison.stride * comparison.stride]
        panels = [resize_frame(panel, size) for panel in (key, _events_around(comparison, index), ours)]
        pictures.append(label_row(panels, ("camera", "event camera", name)))
    return pictures


def sheet_size(size: Size) -> Size:
    """(width, height) of `draw_sheet` for frames of a size."""
    panels, words = [np.zeros((size[1], size[0], 3), np.uint8)] * _NUM_PANELS, [""] * _NUM_PANELS
    return frame_size(stack_rows([label_row(panels, words, words), label_row(panels)]))


def video_size(size: Size) -> Size:
    """(width, height) of `draw_video` for frames of a size."""
    width, height = _panel_size(size)
    panel = np.zeros((height, width, 3), np.uint8)
    return frame_size(label_row([panel] * 3, [""] * 3))


def _panel_size(size: Size) -> Size:
    return round(size[0] * _VIDEO_SCALE), round(size[1] * _VIDEO_SCALE)


def _middle_inserted(comparison: Comparison) -> int:
    """The middle frame of the window in the middle."""
    windows = (len(comparison.ours) - 1) // comparison.stride
    return windows // 2 * comparison.stride + comparison.stride // 2


def _events_around(comparison: Comparison, index: int) -> Picture:
    """Events from half an interval before a frame to half an interval after it."""
    times = comparison.demo.times_us
    half = int(times[1] - times[0]) // 2 + 1
    at = int(times[index])
    return render_events(comparison.demo.events.slice(at - half, at + half), saturation=2)


def _liveliest_box(moving: NDArray[np.bool_], blended: Picture, truth: Picture) -> tuple[int, int, int, int]:
    """The part where blending is furthest from the ground truth: (left, top, right, bottom), of the picture's shape."""
    height, width = moving.shape
    rows, columns = round(height * _BOX_SHARE), round(width * _BOX_SHARE)
    wrong = np.abs(blended.astype(np.int64) - truth).sum(axis=-1) * moving
    total = np.zeros((height + 1, width + 1), dtype=np.int64)
    total[1:, 1:] = wrong.cumsum(axis=0).cumsum(axis=1)
    sums = total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(left), int(top), int(left) + columns, int(top) + rows
