"""Statistics of events in one pass, and what inspection finds in real recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evfi.errors import InputError
from evfi.events.source import MemoryEvents
from evfi.events.stream import EventStream
from evfi.recordings.event_statistics import count_events
from evfi.recordings.inspection import inspect_recording
from evfi.recordings.inspection_events import unusual_gaps
from evfi.recordings.options import RecordingOptions
from evfi.recordings.subject import open_subject

SIZE = (32, 24)


def steady_stream() -> EventStream:
    """4000 events, one every 100 µs from 1 µs on, as many of +1 as of -1."""
    index = np.arange(4000)
    return EventStream.from_arrays(index % 32, index % 24, index * 100 + 1, np.where(index % 2, 1, -1), SIZE)


class TestStatistics:
    def test_regular_silence_is_no_gap(self) -> None:
        """Bursts every 20 ms, as under a flickering lamp."""
        t = (np.arange(100)[:, None] * 20_000 + np.arange(50)).reshape(-1)
        stream = EventStream.from_arrays(t % 32, t % 24, t, t % 2 * 2 - 1, SIZE)
        statistics = count_events(MemoryEvents(stream))
        assert len(statistics.gaps) == 64
        assert len(unusual_gaps(statistics)) == 0

    def test_in_pieces_as_in_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = np.random.default_rng(0)
        columns = {
            "x": generator.integers(0, 4, 3000),
            "y": generator.integers(0, 3, 3000),
            "t": np.sort(generator.integers(0, 900, 3000)) * 3,
            "p": generator.choice([-1, 1], 3000),
        }
        stream = EventStream.from_arrays(**columns, sensor_size=(4, 3))
        whole = count_events(MemoryEvents(stream), np.array([0, 900, 1500]))
        monkeypatch.setattr("evfi.events.source._MEMORY_PIECE", 7)
        parts = count_events(MemoryEvents(stream), np.array([0, 900, 1500]))
        for name, value in vars(whole).items():
            np.testing.assert_array_equal(getattr(parts, name), value, err_msg=name)
        rows = np.stack([columns[name] for name in "xytp"], 1)
        assert whole.num_duplicates == 3000 - len(np.unique(rows, axis=0))
        assert whole.num_times == len(np.unique(columns["t"]))
        assert whole.time_step_us == 3
        assert whole.until_marks.tolist() == [np.count_nonzero(columns["t"] < mark) for mark in (0, 900, 1500)]
        steps = np.sort(np.diff(np.unique(columns["t"])))[::-1]
        np.testing.assert_array_equal(np.diff(whole.gaps, axis=1)[:, 0], steps[:64])
        assert whole.per_pixel is not None
        np.testing.assert_array_equal(
            whole.per_pixel, np.bincount(columns["y"] * 4 + columns["x"], minlength=12).reshape(3, 4)
        )

    def test_peak(self) -> None:
        """A burst of 500 in 5 ms among one event per ms."""
        t = np.sort(np.concatenate([np.arange(2000) * 1000, 700_000 + np.arange(500) * 10]))
        statistics = count_events(MemoryEvents(EventStream.from_arrays(t % 8, t % 8, t, t % 2 * 2 - 1, (8, 8))))
        rate, start_us, window_us = statistics.peak(10_000)
        assert window_us == 10_000
        assert rate == pytest.approx(51_000, rel=0.01)
        assert 695_000 <= start_us <= 700_000

    def test_reading_fails_on_the_way(self) -> None:
        stream = steady_stream()

        class Failing(MemoryEvents):
            def pieces(self):
                yield stream.slice(0, 100_000)
                raise InputError("the file ends in the middle")

        found = count_events(Failing(stream))
        assert found.num_events == 1000
        assert found.error == "the file ends in the middle"

    def test_a_sensor_too_large_to_count_by_pixel(self) -> None:
        stream = replace(steady_stream(), sensor_size=(2**14, 2**14))
        found = count_events(MemoryEvents(stream))
        assert found.per_pixel is None
        assert found.num_duplicates is None
        assert (found.num_events, found.num_positive) == (4000, 2000)


class TestRealRecordings:
    @pytest.mark.parametrize(
        ("name", "frames", "events"),
        [
            ("street_davis346.aedat4", 59, 78_830),
            ("newtons_cradle_davis346.aedat4", 13, 319_512),
            ("slider_depth_davis240", 87, 1_078_541),
        ],
    )
    def test_counts(self, shared_dir: Path, name: str, frames: int, events: int) -> None:
        with open_subject(shared_dir / "data/recordings" / name, RecordingOptions()) as subject:
            assert subject.recording is not None
            assert len(subject.recording.frames) == frames
            assert count_events(subject.events).num_events == events

    def test_whole(self, shared_dir: Path) -> None:
        found = inspect_recording(shared_dir / "data/recordings/newtons_cradle_davis346.aedat4")
        assert found.frames is not None
        assert (found.frames.num_frames, found.events.num_events) == (13, 319_512)
        assert found.frames.rate_fps == pytest.approx(25, rel=0.001)
        assert found.alignment is not None
        assert 1_000 < found.alignment.time_offset_us < 8_000

    @pytest.mark.parametrize(
        ("name", "events", "size"),
        [
            ("evt2_sample.raw", 539_481, (640, 480)),
            ("evt3_sample.raw", 219_596, (1280, 720)),
            ("event_camera_codecs_evt3.bag", 343_474, (640, 480)),
            ("event_camera_codecs.mcap", 571_266, (346, 260)),
            ("ros2_evt3", 343_474, (640, 480)),
            ("dvs.es", 473_225, (320, 240)),
            ("events_only_320x240.aedat4", 111_954, (320, 240)),
        ],
    )
    def test_events_alone(self, shared_dir: Path, name: str, events: int, size: tuple[int, int]) -> None:
        found = inspect_recording(shared_dir / "data/recordings" / name)
        assert found.frames is None
        assert (found.events.num_events, found.events.width_px, found.events.height_px) == (events, *size)
