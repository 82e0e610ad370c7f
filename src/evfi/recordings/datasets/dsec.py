"""DSEC's layout (Gehrig et al., RA-L 2021): one sequence per folder, as unpacked or sorted into subfolders.

    events/left/events.h5, rectify_map.h5              or  <sequence>_events_left/…
    images/left/rectified/000000.png …                 or  <sequence>_images_rectified_left/…
    images/timestamps.txt (or beside the pictures)     or  <sequence>_image_timestamps.txt
    images/left/exposure_timestamps_left.txt           or  <sequence>_image_exposure_timestamps_left.txt
    calibration/cam_to_cam.yaml                        or  <sequence>_calibration/cam_to_cam.yaml

Conventions: the left cameras are taken: events of cam0 (640×480), rectified pictures of cam1 (1440×1080). All times are µs on
one clock (events: `t` + `t_offset`). A frame's time is the middle of its exposure where the exposures are given, else its
stamp. Events are rectified by rectify_map.h5, then turned into the pictures by K_rect1 · R · K_rect0⁻¹ with
R = R_rect1 · R_10 · R_rect0ᵀ of cam_to_cam.yaml, which is right for things far away: the two cameras stand some 5 cm apart.
The files' coordinates take whole numbers for pixel centres; half a pixel is added. Without map or calibration the sensor is
taken to show the pictures' field of view, which it does not, and a warning says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi import kinds
from evfi.errors import InputError, RecordingError
from evfi.events.formats.hdf5 import is_hdf5, open_hdf5
from evfi.events.formats.hdf5.container import Hdf5File, one_line_errors
from evfi.events.stream import MAX_SIDE
from evfi.recordings.alignment import Matrix, RectificationMap, checked_mapping, scale_mapping
from evfi.recordings.frames import PictureFrames, find_pictures
from evfi.recordings.options import RecordingOptions
from evfi.recordings.recording import Recording, Times
from evfi.recordings.text_lines import numbered_lines
from evfi.recordings.timestamps import read_timestamps
from evfi.safe_yaml import read_yaml
from evfi.strict_json import Keys

NAME: Final = "dsec"
DESCRIPTION: Final = (
    "a folder in DSEC layout (events/left/events.h5, images/left/rectified/*.png, timestamps, calibration)"
)
CONVENTION: Final = (
    "left cameras; times in µs on one clock, t_offset added; frame time: middle of the exposure where it is given"
)

_EVENTS: Final = ("events/left/events.h5", "*_events_left/events.h5", "events_left/events.h5")
_PICTURES: Final = ("images/left/rectified", "*_images_rectified_left", "images_rectified_left")
_TIMES: Final = (
    "images/timestamps.txt",
    "images/left/timestamps.txt",
    "images/left/rectified/timestamps.txt",
    "*image_timestamps.txt",
    "*_images_rectified_left/timestamps.txt",
)
_EXPOSURES: Final = (
    "images/left/exposure_timestamps_left.txt",
    "images/left/exposure_timestamps.txt",
    "*image_exposure_timestamps_left.txt",
    "*_images_rectified_left/exposure_timestamps_left.txt",
)
_CALIBRATIONS: Final = ("calibration/cam_to_cam.yaml", "*_calibration/cam_to_cam.yaml", "cam_to_cam.yaml")
_MAX_YAML_BYTES: Final = 2**17
_NUMBER: Final = kinds.number(-1e9, 1e9)
_SIZE: Final = kinds.listed(kinds.whole(1, MAX_SIDE), 2, 2)
_MAX_MAP_PIXELS: Final = 2**24


@dataclass(frozen=True)
class _Parts:
    """Where the parts of a sequence lie; None where one is missing."""

    events: Path | None
    pictures: Path | None
    times: Path | None
    exposures: Path | None
    calibration: Path | None


def recognises(path: Path) -> bool:
    """Whether the folder holds the left camera's events and pictures under their names."""
    if not path.is_dir():
        return False
    try:
        events, pictures = _find(path, _EVENTS), _find(path, _PICTURES)
        return events is not None and pictures is not None and events.is_file() and is_hdf5(events)
    except (OSError, InputError):
        return False


def open_recording(path: Path, options: RecordingOptions) -> Recording:
    """Open one sequence.

    Raises:
        InputError: a part is missing, damaged, or contradicts another.
        RecordingError: there is nothing to interpolate.
    """
    parts = _Parts(*(_find(path, names) for names in (_EVENTS, _PICTURES, _TIMES, _EXPOSURES, _CALIBRATIONS)))
    if parts.events is None or parts.pictures is None:
        raise InputError(f"{path}: expected {_EVENTS[0]} and pictures in {_PICTURES[0]}; one of them is missing")
    warnings: list[str] = []
    frames = _open_frames(path, parts, warnings)
    source = open_hdf5(parts.events, options.for_events())
    try:
        rectification, mapping = _alignment(parts, frames.size, source.sensor_size, warnings)
        return Recording(path, NAME, frames, source, mapping, tuple(warnings), rectification, CONVENTION)
    except BaseException:
        source.close()
        raise


def _find(path: Path, names: tuple[str, ...]) -> Path | None:
    """The part that lies under one of these names.

    Raises:
        InputError: there are several, so this is a folder of sequences.
    """
    for name in names:
        found = sorted(path.glob(name))
        if len(found) > 1:
            raise InputError(
                f"{path}: holds several sequences ({found[0].name}, {found[1].name}); give each its own folder"
            )
        if found:
            return found[0]
    return None


class _ExposedFrames(PictureFrames):
    """Pictures whose exposures are known."""

    def __init__(self, paths: list[Path], times_us: Times, exposures_us: Times | None):
        super().__init__(paths, times_us)
        self.exposures_us = exposures_us


def _open_frames(path: Path, parts: _Parts, warnings: list[str]) -> _ExposedFrames:
    assert parts.pictures is not None
    pictures = find_pictures(parts.pictures)
    if len(pictures) < 2:
        raise RecordingError(f"{parts.pictures}: expected at least two frames, found {len(pictures)}")
    if parts.exposures is not None:
        exposures = _read_exposures(parts.exposures, len(pictures))
        return _ExposedFrames(pictures, exposures[:, 0] + (exposures[:, 1] - exposures[:, 0]) // 2, exposures)
    if parts.times is None:
        raise InputError(f"{path}: the pictures have no times; restore {_TIMES[0]} or {_EXPOSURES[0]}")
    warnings.append("the exposures of the pictures are not given; a frame's time is its stamp")
    return _ExposedFrames(pictures, read_timestamps(parts.times, "us", num_frames=len(pictures)), None)


def _read_exposures(path: Path, num_frames: int) -> Times:
    """Start and end of each exposure in µs, int64 [N, 2]."""
    rows = []
    for line, text in numbered_lines(path, "exposures"):
        try:
            start, end = (int(part) for part in text.replace(",", " ").split())
        except ValueError:
            raise InputError(f"{path}: line {line}: expected start and end in µs, found '{text[:40]}'") from None
        if not 0 <= start <= end < 2**61:
            raise InputError(f"{path}: line {line}: an exposure must end after it starts, found {start} to {end}")
        rows.append((start, end))
    if len(rows) != num_frames:
        raise InputError(f"{path}: expected one exposure per frame, found {len(rows)} for {num_frames} frames")
    return np.array(rows, np.int64)


def _alignment(
    parts: _Parts, frame_size: tuple[int, int], sensor_size: tuple[int, int], warnings: list[str]
) -> tuple[RectificationMap | None, Matrix]:
    """The rectification map of the events and the homography from there into the pictures."""
    assert parts.events is not None
    map_file = parts.events.with_name("rectify_map.h5")
    if parts.calibration is None or not map_file.is_file():
        missing = map_file.name if parts.calibration is not None else "cam_to_cam.yaml"
        warnings.append(
            f"{missing} is missing: events are mapped to the pictures by scale alone, many pixels off; restore it, or give "
            "the homography (--sensor-to-frame)"
        )
        return None, scale_mapping(sensor_size, frame_size)
    return _read_map(map_file, sensor_size), _read_homography(parts.calibration, frame_size)


def _read_map(path: Path, sensor_size: tuple[int, int]) -> RectificationMap:
    file = Hdf5File(path)
    try:
        dataset = file.required("rectify_map")
        expected = (sensor_size[1], sensor_size[0], 2)
        if tuple(dataset.shape) != expected or dataset.dtype.kind != "f" or dataset.size > _MAX_MAP_PIXELS:
            raise InputError(
                f"{path}: expected rectify_map as floats {list(expected)}, found {dataset.dtype} {list(dataset.shape)}"
            )
        with one_line_errors(path, "rectify_map cannot be read"):
            places: NDArray[Any] = dataset[()]
    finally:
        file.close()
    if not np.isfinite(places).all():
        raise InputError(f"{path}: rectify_map must hold finite coordinates; copy it again")
    return places.astype(np.float32) + np.float32(0.5)


def _read_homography(path: Path, frame_size: tuple[int, int]) -> Matrix:
    """From rectified event to picture coordinates (pixel i covers [i, i + 1))."""
    cure = "copy the calibration again"
    keys = Keys(read_yaml(path, _MAX_YAML_BYTES, "a calibration", cure), str(path), "the calibration", InputError)
    cameras, extrinsics = keys.inner("intrinsics"), keys.inner("extrinsics")
    from_camera, to_camera = (_camera_matrix(cameras.inner(name)) for name in ("camRect0", "camRect1"))
    size = cameras.inner("camRect1").declared({"resolution": _SIZE}).get("resolution", list(frame_size))
    rect0, rect1 = (_matrix(extrinsics, name, 3) for name in ("R_rect0", "R_rect1"))
    turn = _matrix(extrinsics, "T_10", 4)[:3, :3]
    try:
        homography = to_camera @ rect1 @ turn @ rect0.T @ np.linalg.inv(from_camera)
        half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
        mapping: Matrix = half @ homography @ np.linalg.inv(half)
        with np.errstate(all="ignore"):
            mapping = checked_mapping(mapping / mapping[2, 2])
    except (np.linalg.LinAlgError, InputError):
        raise InputError(f"{path}: its cameras give no invertible mapping; {cure}") from None
    if tuple(size) != frame_size:
        raise InputError(
            f"{path}: is for pictures of {tuple(size)}, found {frame_size}; give the rectified pictures of the left camera"
        )
    return mapping


def _camera_matrix(camera: Keys) -> Matrix:
    fx, fy, cx, cy = camera.of("camera_matrix", kinds.listed(_NUMBER, 4, 4))
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], np.float64)


def _matrix(keys: Keys, name: str, side: int) -> Matrix:
    """A square matrix, given row by row."""
    return np.array(keys.of(name, kinds.listed(kinds.listed(_NUMBER, side, side), side, side)), np.float64)
