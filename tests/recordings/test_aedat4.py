"""AEDAT 4 recordings: frames, their times, colours, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evfi.errors import EvfiError, InputError, RecordingError
from evfi.events.formats.aedat4_container import Aedat4File
from evfi.recordings.datasets.aedat4 import Aedat4Frames
from evfi.recordings.opening import open_recording
from file_writers.aedat4 import EXPOSURE_US, FRAME_STEP_US, SIZE, START_US, random_events, write_aedat4

GREY = np.random.default_rng(0).integers(0, 255, (4, SIZE[1], SIZE[0])).astype(np.uint8)


@pytest.mark.parametrize("compression", ["LZ4", "ZSTD", "NONE"])
def test_grey_frames_and_events(tmp_path: Path, compression: str) -> None:
    events = random_events(500, 4 * FRAME_STEP_US)
    recording = open_recording(write_aedat4(tmp_path / "a.aedat4", frames=GREY, events=events, compression=compression))
    assert (recording.format, recording.is_grey, recording.frames.size) == ("aedat4", True, SIZE)
    assert recording.frames.times_us.tolist() == [START_US + i * FRAME_STEP_US + EXPOSURE_US // 2 for i in range(4)]
    for i in (3, 0, 2):
        assert np.array_equal(recording.frames.read(i), np.repeat(GREY[i][..., None], 3, axis=2))
    for window in recording.windows(recording.plan_windows(insert=1)):
        start, end = window.spec.times_us[[0, -1]]
        assert len(window.events) == np.count_nonzero((events[:, 0] >= start) & (events[:, 0] < end))
        assert window.events.sensor_size == SIZE
    recording.close()
    with pytest.raises(InputError, match="was closed"):
        recording.frames.read(0)


def test_colour_frames_become_rgb(tmp_path: Path) -> None:
    bgr = np.random.default_rng(0).integers(0, 255, (2, SIZE[1], SIZE[0], 3)).astype(np.uint8)
    path = write_aedat4(tmp_path / "a.aedat4", frames=bgr, events=random_events(50, FRAME_STEP_US))
    with open_recording(path) as recording:
        assert not recording.is_grey
        assert np.array_equal(recording.frames.read(1), bgr[1, ..., ::-1])


def test_parts_that_are_missing(tmp_path: Path) -> None:
    events = random_events(50, FRAME_STEP_US)
    for parts, message in (
        ({"events": events}, "holds no frame stream"),
        ({"frames": GREY}, "has no event stream"),
        ({"frames": GREY[:0], "events": events}, "frame stream is empty"),
        ({"frames": GREY[:1], "events": events}, "at least two frames, found 1"),
        ({"frames": GREY, "events": events[:0]}, "event stream is empty"),
        ({"frames": GREY, "events": events + np.array([10**9, 0, 0, 0])}, "do not overlap in time"),
    ):
        with pytest.raises(RecordingError, match=message):
            open_recording(write_aedat4(tmp_path / "a.aedat4", **parts))  # type: ignore[arg-type]


def test_truncated_and_damaged(tmp_path: Path) -> None:
    path = write_aedat4(tmp_path / "a.aedat4", frames=GREY, events=random_events(500, 4 * FRAME_STEP_US))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or truncated AEDAT4"):
        open_recording(path)
    rng = np.random.default_rng(0)
    for position in rng.integers(14, len(whole) - 8, 200):
        data = bytearray(whole)
        data[position : position + 8] = rng.bytes(8)
        path.write_bytes(data)
        try:
            with open_recording(path) as recording:
                list(recording.windows(recording.plan_windows(insert=1)))
        except EvfiError as error:
            assert "\n" not in str(error)


def test_real_recordings(shared_dir: Path) -> None:
    for name, num_frames, num_events, first_us in (
        ("street", 59, 78_830, 1589163147365215),
        ("newtons_cradle", 13, 319_512, 1643243628767800),
    ):
        with open_recording(shared_dir / f"data/recordings/{name}_davis346.aedat4") as recording:
            first, last = recording.events.time_range_us
            assert len(recording.events.slice(first, last + 1)) == num_events
            assert (len(recording.frames), recording.is_grey, recording.frames.size) == (num_frames, True, (346, 260))
            assert int(recording.frames.times_us[0]) == first_us
            assert recording.warnings == ()
            windows = list(recording.windows(recording.plan_windows(insert=1)))
            span = recording.frames.times_us[[0, -1]]
            assert sum(len(w.events) for w in windows) == len(recording.events.slice(*span))
            assert all(w.events.num_dropped == 0 for w in windows)


def test_same_as_dv_processing(shared_dir: Path) -> None:
    dv = pytest.importorskip("dv_processing")
    path = shared_dir / "data/recordings/newtons_cradle_davis346.aedat4"
    reader = dv.io.MonoCameraRecording(str(path))
    start, end = reader.getTimeRange()
    store = reader.getEventsTimeRange(start, end + 1)
    with open_recording(path) as recording:
        stream = recording.events.slice(start, end + 1)
        ours = np.stack([stream.t, stream.x, stream.y, (stream.p + 1) // 2], axis=1)
        theirs = np.concatenate([store.timestamps()[:, None], store.coordinates(), store.polarities()[:, None]], axis=1)
        assert np.array_equal(ours, theirs)
        assert isinstance(recording.frames, Aedat4Frames)
        for i in range(len(recording.frames)):
            assert np.array_equal(recording.frames.read(i)[..., 0], reader.getNextFrame().image)


def test_exposures_are_known(tmp_path: Path) -> None:
    path = write_aedat4(tmp_path / "a.aedat4", frames=GREY, events=random_events(500, 4 * FRAME_STEP_US))
    with open_recording(path) as recording:
        exposures = recording.frames.exposures_us
        assert exposures is not None
        assert exposures.dtype == np.int64
        starts = START_US + FRAME_STEP_US * np.arange(4)
        assert np.array_equal(exposures, np.stack([starts, starts + EXPOSURE_US], 1))


def test_damaged_frame(tmp_path: Path) -> None:
    """Its pixels are looked at when it is read, or at opening where damage is tolerated."""
    path = write_aedat4(tmp_path / "a.aedat4", frames=GREY, events=random_events(500, 4 * FRAME_STEP_US))
    file = Aedat4File(path)
    frame = file.packets(next(stream for stream in file.streams if stream.kind == "FRME"))[1]
    file.close()
    data = bytearray(path.read_bytes())
    data[frame.start + 7 : frame.start + 11] = b"\xff\xff\xff\x7f"  # the LZ4 block's length
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged or truncated AEDAT4 file"), open_recording(path) as recording:
        recording.frames.read(1)
    with open_recording(path, tolerant=True) as recording:
        assert len(recording.frames) == 3
        assert any("1 damaged frames were left out" in warning for warning in recording.warnings)
        assert np.array_equal(recording.frames.read(1)[..., 0], GREY[2])
