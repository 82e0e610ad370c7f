"""Tests of recordings in HDF5: event_utils (HQF), MVSEC, DSEC."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.stream import EventStream
from evfi.recordings.opening import open_recording
from file_writers.hdf5 import write_dsec_folder, write_event_utils_hdf5, write_mvsec_hdf5

SIZE = (64, 48)
TIMES = np.array([10_000, 50_000, 90_000])

CALIBRATION = """
intrinsics:
  camRect0: {camera_matrix: [500.0, 510.0, 320.0, 240.0], resolution: [640, 480]}
  camRect1: {camera_matrix: [80.0, 80.0, 45.0, 34.0], resolution: [90, 68]}
extrinsics:
  R_rect0: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
  R_rect1: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
  T_10: [[0, -1, 0, 0.05], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
"""


@pytest.fixture
def events() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(5)
    n = 500
    t = np.sort(rng.integers(5_000, 95_000, n))
    return rng.integers(0, SIZE[0], n), rng.integers(0, SIZE[1], n), t, rng.integers(0, 2, n)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (3, SIZE[1], SIZE[0]), np.uint8)


def assert_events(stream: EventStream, events: tuple[np.ndarray, ...]) -> None:
    x, y, t, p = events
    for found, expected in zip((stream.x, stream.y, stream.t, stream.p), (x, y, t, 2 * p - 1), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["event-utils", "mvsec"])
def test_frames_and_events_of_one_file(
    kind: str, events: tuple[np.ndarray, ...], images: np.ndarray, tmp_path: Path
) -> None:
    write = write_event_utils_hdf5 if kind == "event-utils" else write_mvsec_hdf5
    path = write(tmp_path / "a.h5", *events, images=images, image_times_us=TIMES)
    with open_recording(path) as recording:
        assert recording.format == kind and recording.convention and not recording.warnings
        np.testing.assert_array_equal(recording.frames.times_us, TIMES)
        assert recording.is_grey and recording.frames.size == SIZE == recording.events.sensor_size
        for number, image in enumerate(images):
            np.testing.assert_array_equal(recording.frames.read(number), np.repeat(image[..., None], 3, axis=2))
        assert_events(recording.events.slice(0, 10**6), events)


@pytest.mark.parametrize("kind", ["event-utils", "mvsec"])
def test_a_frame_that_goes_back_in_time_is_left_out(
    kind: str, events: tuple[np.ndarray, ...], images: np.ndarray, tmp_path: Path
) -> None:
    write = write_event_utils_hdf5 if kind == "event-utils" else write_mvsec_hdf5
    path = write(tmp_path / "a.h5", *events, images=images, image_times_us=np.array([10_000, 9_000, 90_000]))
    with open_recording(path) as recording:
        np.testing.assert_array_equal(recording.frames.times_us, [10_000, 90_000])
        np.testing.assert_array_equal(recording.frames.read(1)[..., 0], images[2])
        assert "1 frames were left out" in recording.warnings[0]


def test_colour_images_of_event_utils_are_blue_first(events: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    images = np.random.default_rng(6).integers(0, 256, (3, SIZE[1], SIZE[0], 3), np.uint8)
    path = write_event_utils_hdf5(tmp_path / "a.h5", *events, images=images, image_times_us=TIMES)
    with open_recording(path) as recording:
        np.testing.assert_array_equal(recording.frames.read(0), images[0][..., ::-1])
        assert not recording.is_grey


def test_files_without_images_are_event_files(events: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    path = write_event_utils_hdf5(tmp_path / "a.h5", *events)
    with pytest.raises(InputError, match=r"an event file \(hdf5\) without frames"):
        open_recording(path)


def test_images_that_break_the_convention_are_refused(
    events: tuple[np.ndarray, ...], images: np.ndarray, tmp_path: Path
) -> None:
    path = write_event_utils_hdf5(tmp_path / "a.h5", *events, images=images, image_times_us=TIMES)
    with h5py.File(path, "a") as file:
        del file["images/image000000001"].attrs["timestamp"]
    with pytest.raises(InputError, match="no attribute 'timestamp'"):
        open_recording(path)
    path = write_mvsec_hdf5(tmp_path / "b.h5", *events, images=images, image_times_us=TIMES[:2])
    with pytest.raises(InputError, match="one time for each"):
        open_recording(path)
    with h5py.File(path, "a") as file:
        del file["davis/left/image_raw"]
        file["davis/left/image_raw"] = h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(EvfiError):
        open_recording(path)


@pytest.mark.parametrize("sequence", [None, "interlaken_00_c"])
def test_dsec_is_aligned_by_its_calibration(
    sequence: str | None, events: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    pictures = np.random.default_rng(6).integers(0, 256, (3, 68, 90, 3), np.uint8)
    exposures = np.stack([TIMES - 3000, TIMES + 3000], 1) + 10**9
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    places = np.stack([columns + 7.0, rows - 2.0], axis=2)
    absolute = (*events[:2], events[2] + 10**9, events[3])
    write_dsec_folder(
        tmp_path / "s",
        absolute,
        pictures,
        exposures,
        sequence=sequence,
        offset=10**9,
        calibration=CALIBRATION,
        rectify_map=places,
    )
    with open_recording(tmp_path / "s") as recording:
        assert recording.format == "dsec" and not recording.warnings
        np.testing.assert_array_equal(recording.frames.times_us, TIMES + 10**9)
        np.testing.assert_array_equal(recording.frames.exposures_us, exposures)
        np.testing.assert_array_equal(recording.frames.read(1), pictures[1])
        assert recording.events.sensor_size == (640, 480)
        assert_events(recording.events.slice(0, 2**40), absolute)
        assert recording.rectification is not None
        np.testing.assert_allclose(recording.rectification[5, 9], [16.5, 3.5])
        # pixel (370, 291) of camRect0 looks along (0.1, 0.1, 1); a quarter turn makes (-0.1, 0.1, 1), at (37, 42) of camRect1
        moved = recording.sensor_to_frame @ [370.5, 291.5, 1]
        np.testing.assert_allclose(moved[:2] / moved[2], [37.5, 42.5], atol=1e-9)


def test_dsec_without_calibration_or_exposures_says_so(events: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    pictures = np.zeros((3, 68, 90, 3), np.uint8)
    exposures = np.stack([TIMES - 3000, TIMES + 3000], 1)
    folder = write_dsec_folder(tmp_path / "s", events, pictures, exposures)
    with open_recording(folder) as recording:
        assert "cam_to_cam.yaml is missing" in " ".join(recording.warnings)
    (folder / "images/left/exposure_timestamps_left.txt").unlink()
    with open_recording(folder) as recording:
        np.testing.assert_array_equal(recording.frames.times_us, TIMES - 3000)
        assert "exposures of the pictures are not given" in recording.warnings[0]
    (folder / "images/timestamps.txt").unlink()
    with pytest.raises(InputError, match="have no times"):
        open_recording(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "a: [",
        "[" * 50_000,
        "intrinsics: {camRect0: 1}",
        CALIBRATION.replace("500.0", "0.0"),
        CALIBRATION.replace("500.0", "1" + 400 * "0"),
        CALIBRATION.replace("500.0", "1" + ":59" * 400),
        CALIBRATION.replace("500.0", ".nan"),
        CALIBRATION.replace("[90, 68]", "[90, null]"),
    ],
)
def test_dsec_with_a_damaged_calibration_is_refused(text: str, events: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    exposures = np.stack([TIMES, TIMES + 1], 1)
    places = np.zeros((480, 640, 2))
    pictures = np.zeros((3, 68, 90, 3), np.uint8)
    folder = write_dsec_folder(tmp_path / "s", events, pictures, exposures, calibration=text, rectify_map=places)
    with pytest.raises(InputError, match="cam_to_cam") as caught:
        open_recording(folder)
    assert "\n" not in str(caught.value)


def test_dsec_with_one_picture_or_two_sequences_is_refused(events: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    exposures = np.stack([TIMES, TIMES + 1], 1)
    folder = write_dsec_folder(tmp_path / "s", events, np.zeros((1, 68, 90, 3), np.uint8), exposures[:1], sequence="a")
    with pytest.raises(RecordingError, match="at least two frames"):
        open_recording(folder)
    shutil.copytree(folder / "a_events_left", folder / "b_events_left")
    with pytest.raises(InputError, match="several sequences"):
        open_recording(folder, format="dsec")
