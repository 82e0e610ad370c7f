"""How the events' pixels lie on the frames' pixels.

Coordinates are continuous: pixel i covers [i, i + 1), so its centre is i + 0.5. An event's pixel centre is rectified
where the recording has a map for that, then moved by a homography into the frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi.errors import InputError
from evfi.events.stream import EventStream
from evfi.plain_json import loads
from evfi.strict_json import read_text

Matrix = NDArray[np.float64]
RectificationMap = NDArray[np.float32]

_SCALE_TOLERANCE_PX: Final = 0.01  # a mapping that is off by less at every corner of the frame counts as a pure scale
_MIN_COARSENING: Final = 1.2  # a sensor pixel that is so many frame pixels wide calls for a coarser grid
_MAX_BYTES: Final = 2**16
_MAX_ELEMENT: Final = 1e9
_NEAR: Final = 10.0  # a sensor none of which is mapped within so many frame sizes of the frame is mapped wrongly
_NUM_PROBES: Final = 9


def scale_mapping(sensor_size: tuple[int, int], frame_size: tuple[int, int]) -> Matrix:
    """The mapping of a sensor that covers exactly the frame's field of view, float64 [3, 3]."""
    return np.diag([frame_size[0] / sensor_size[0], frame_size[1] / sensor_size[1], 1.0])


def shifted_mapping(mapping: Matrix, shift_px: tuple[float, float]) -> Matrix:
    """The mapping followed by a shift (dx, dy) in frame pixels; a shift of zero leaves it as it is."""
    shift = np.eye(3)
    shift[:2, 2] = shift_px
    shifted: Matrix = shift @ mapping
    return shifted


def event_grid(mapping: Matrix, sensor_size: tuple[int, int], frame_size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the grid over the frame on which mapped events lie as densely as they do on the sensor.

    That is the frame's own where a sensor pixel is no larger than a frame pixel (or little larger); a coarser one where it
    is, because events that are scattered over finer pixels would leave most of them empty.
    """
    centre = np.array(sensor_size) / 2
    moved = _transform(mapping, centre + np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, -0.5], [0.0, 0.5]]))
    sides = [float(np.linalg.norm(moved[1] - moved[0])), float(np.linalg.norm(moved[3] - moved[2]))]
    pixel = (sides[0] * sides[1]) ** 0.5  # side of a sensor pixel in frame pixels
    if not pixel > _MIN_COARSENING:  # also where the centre lies behind the camera
        return frame_size
    return max(1, round(frame_size[0] / pixel)), max(1, round(frame_size[1] / pixel))


def covers_frame(mapping: Matrix, sensor_size: tuple[int, int], frame_size: tuple[int, int]) -> bool:
    """Whether the mapping is the pure scale under which the sensor's corners are the frame's corners."""
    width, height = sensor_size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    expected = corners * (np.array(frame_size) / np.array(sensor_size))
    return bool(np.all(np.abs(_transform(mapping, corners) - expected) < _SCALE_TOLERANCE_PX))


def warp_events(
    events: EventStream, mapping: Matrix, frame_size: tuple[int, int], rectification: RectificationMap | None = None
) -> EventStream:
    """Move events to the frame pixels on which their pixel centres fall; those outside are dropped and counted.

    Args:
        events: on the sensor's pixels.
        mapping: homography from (rectified) event to frame coordinates.
        frame_size: (width, height) of the frame.
        rectification: applied before the mapping, see `Recording`.
    """
    if rectification is None:
        centres = np.stack([events.x, events.y], axis=1).astype(np.float64) + 0.5  # [N, 2]
    else:
        centres = rectification[events.y, events.x].astype(np.float64)
    pixels = np.floor(_transform(mapping, centres))
    pixels[~np.isfinite(pixels).all(axis=1)] = -1  # behind the camera or at infinity: outside
    warped = EventStream.from_arrays(pixels[:, 0], pixels[:, 1], events.t, events.p, frame_size, on_outside="drop")
    num_dropped = events.num_dropped + warped.num_dropped
    return EventStream(warped.x, warped.y, warped.t, warped.p, warped.sensor_size, num_dropped)


def _transform(mapping: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    homogeneous = points @ mapping[:, :2].T + mapping[:, 2]  # [N, 3]
    depth = np.where(homogeneous[:, 2:] > 0, homogeneous[:, 2:], np.nan)
    moved: NDArray[np.float64] = homogeneous[:, :2] / depth
    return moved


def checked_mapping(mapping: Matrix) -> Matrix:
    """The mapping as an invertible matrix with a positive last element.

    Raises:
        InputError: it is none, or has elements beyond ±1e9.
    """
    matrix = np.asarray(mapping, np.float64)
    if np.isfinite(matrix).all() and (np.abs(matrix) > _MAX_ELEMENT).any():
        raise InputError(
            f"sensor_to_frame must have elements within ±{_MAX_ELEMENT:g}, got {matrix.tolist()}; "
            "scale it so that the last is 1"
        )
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError(f"sensor_to_frame must be an invertible 3×3 matrix, got {np.asarray(mapping).tolist()}")
    return -matrix if matrix[2, 2] < 0 else matrix


def check_reach(
    mapping: Matrix,
    sensor_size: tuple[int, int],
    frame_size: tuple[int, int],
    rectification: RectificationMap | None = None,
) -> None:
    """Refuse a mapping that moves the whole sensor far away from the frame.

    Args:
        mapping: from `checked_mapping`.
        sensor_size: (width, height) of the sensor.
        frame_size: (width, height) of the frame.
        rectification: applied before the mapping, see `Recording`.

    Raises:
        InputError: no part of the sensor comes within ten frame sizes of the frame.
    """
    x, y = (np.linspace(0, side - 1, _NUM_PROBES).astype(int) for side in sensor_size)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    points = grid + 0.5 if rectification is None else rectification[grid[:, 1], grid[:, 0]].astype(np.float64)
    from_middle = np.abs(_transform(mapping, points) - np.array(frame_size) / 2) / np.array(frame_size)
    if not (from_middle <= _NEAR).all(axis=1).any():
        raise InputError(
            f"sensor_to_frame moves all of the {sensor_size[0]}×{sensor_size[1]} sensor far out of the "
            f"{frame_size[0]}×{frame_size[1]} frame; check that it maps from events to frames, in pixels: {mapping.tolist()}"
        )


def checked_rectification(rectification: RectificationMap, sensor_size: tuple[int, int]) -> RectificationMap:
    """The map as float32.

    Raises:
        InputError: it does not fit the sensor.
    """
    width, height = sensor_size
    if rectification.shape != (height, width, 2):
        raise InputError(
            f"a rectification map of a {width}×{height} sensor must have shape ({height}, {width}, 2), "
            f"got {rectification.shape}"
        )
    return rectification.astype(np.float32, copy=False)


def read_homography(path: Path) -> Matrix:
    """Read a homography: nine numbers, row by row, as text or JSON (nested or not).

    Raises:
        InputError: the file is missing or holds something else, or the matrix is not invertible.
    """
    text = read_text(path, _MAX_BYTES, "homography", InputError)
    try:
        content = loads(text) if text.lstrip().startswith("[") else text.replace(",", " ").split()
        return checked_mapping(np.array(content, np.float64).reshape(3, 3))
    except (ValueError, TypeError, OverflowError):
        raise InputError(
            f"{path}: expected nine numbers, the rows of a homography; found '{text[:40].strip()}'"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
