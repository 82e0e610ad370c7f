"""Inspection: small recordings of which every figure is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evfi.errors import InputError, RecordingError
from evfi.events.report import ReadReport
from evfi.events.source import MemoryEvents
from evfi.events.stream import EventStream
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.recordings.inspection import inspect_recording, inspect_subject
from evfi.recordings.inspection_facts import Inspection
from evfi.recordings.memory import recording_from_memory
from evfi.recordings.options import RecordingOptions
from evfi.recordings.subject import Subject

SIZE = (32, 24)
STEP_US = 40_000
NUM_FRAMES = 11
SPAN_US = STEP_US * (NUM_FRAMES - 1)
Columns = dict[str, NDArray[np.int64]]


def even_events(count: int = 4000) -> Columns:
    """One event every `SPAN_US / count`, all pixels in turn, as many of +1 as of -1."""
    index = np.arange(count)
    pixel = index * 389 % (SIZE[0] * SIZE[1])
    return {
        "x": pixel % SIZE[0],
        "y": pixel // SIZE[0],
        "t": index * (SPAN_US // count) + 1,
        "p": np.where(index % 2, 1, -1),
    }


def with_events(columns: Columns, **more: NDArray[np.int64] | list[int] | int) -> Columns:
    """Columns with more events."""
    length = max(np.size(values) for values in more.values())
    return {name: np.append(columns[name], np.broadcast_to(more[name], length)) for name in columns}


def grey_frames(count: int = NUM_FRAMES, level: int = 100) -> NDArray[np.uint8]:
    return np.full((count, SIZE[1], SIZE[0], 3), level, np.uint8)


def write(
    folder: Path,
    columns: Columns,
    times: NDArray[np.int64] | None = None,
    frames: NDArray[np.uint8] | None = None,
    sensor_size: tuple[int, int] = SIZE,
) -> Path:
    stream = EventStream.from_arrays(**columns, sensor_size=sensor_size)
    times = np.arange(NUM_FRAMES) * STEP_US if times is None else times
    write_plain_recording(folder, grey_frames(len(times)) if frames is None else frames, times, stream)
    return folder


def inspect(folder: Path, columns: Columns, times: NDArray[np.int64] | None = None) -> Inspection:
    return inspect_recording(write(folder / "rec", columns, times))


def warning(inspection: Inspection, part: str) -> str:
    found = [line for line in inspection.warnings if part in line]
    assert len(found) == 1, inspection.warnings
    return found[0]


class TestEvenRecording:
    @pytest.fixture(scope="class")
    @staticmethod
    def found(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
        return inspect(tmp_path_factory.mktemp("even"), even_events())

    def test_frames(self, found: Inspection) -> None:
        frames = found.frames
        assert frames is not None
        assert (frames.num_frames, frames.width_px, frames.height_px, frames.is_grey) == (11, 32, 24, True)
        assert (frames.first_us, frames.last_us, frames.duration_us) == (0, 400_000, 400_000)
        assert (frames.rate_fps, frames.interval_median_us, frames.interval_std_us) == (25, 40_000, 0)
        assert (frames.num_missing, frames.num_out_of_line, frames.exposure_known) == (0, 0, False)
        assert (frames.num_probed, frames.mean_level, frames.share_dark, frames.share_bright) == (9, 100, 0, 0)

    def test_events(self, found: Inspection) -> None:
        events = found.events
        assert (events.num_events, events.num_left_out) == (4000, 0)
        assert (events.first_us, events.last_us, events.duration_us) == (1, 399_901, 399_900)
        assert events.mean_rate_per_s == pytest.approx(4000 / 0.3999)
        assert events.peak_rate_per_s == pytest.approx(10_000)
        assert events.peak_window_us == 10_000
        assert (events.share_positive, events.share_outside_frame) == (0.5, 0)
        assert (events.num_times, events.max_at_once, events.time_step_us) == (4000, 1, 100)
        assert (events.num_duplicates, events.num_unsorted, events.num_gaps) == (0, 0, 0)
        assert events.num_hot_pixels == 0

    def test_rate_over_time(self, found: Inspection) -> None:
        rate = found.events.rate_over_time
        assert rate.start_us == 1
        assert len(rate.events_per_s) <= 240
        np.testing.assert_allclose(rate.events_per_s, 10_000, rtol=0.07)
        last_us = 399_901 + 1 - rate.start_us - (len(rate.events_per_s) - 1) * rate.step_us
        total = sum(rate.events_per_s[:-1]) * rate.step_us + rate.events_per_s[-1] * last_us
        assert total / 1e6 == pytest.approx(4000)

    def test_overlap(self, found: Inspection) -> None:
        overlap = found.overlap
        assert overlap is not None
        assert (overlap.num_intervals, overlap.num_with_events, overlap.num_with_few) == (10, 10, 0)
        assert (overlap.share_of_events, overlap.share_at_frame_times) == (1, 0)

    def test_only_the_coarse_times_are_warned_of(self, found: Inspection) -> None:
        assert [line[:40] for line in found.warnings] == ["all event times are multiples of 100 µs:"]

    def test_json(self, found: Inspection) -> None:
        plain = found.as_json()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert plain["schema"] == "evfi-inspection/1"
        assert plain["frames"]["rate_fps"] == 25
        assert plain["events"]["gaps"] == []


def test_schema() -> None:
    """The names that scripts rely on; a change here is a new schema."""
    from dataclasses import fields

    from evfi.recordings import inspection_facts as facts

    names = {
        kind.__name__: {field.name for field in fields(kind)}
        for kind in (
            facts.Inspection,
            facts.FrameFacts,
            facts.EventFacts,
            facts.OverlapFacts,
            facts.AlignmentFacts,
            facts.RateOverTime,
            facts.Gap,
            facts.HotPixel,
        )
    }
    pinned = json.loads((Path(__file__).parent / "inspection_schema.json").read_text("utf-8"))
    assert {name: sorted(attributes) for name, attributes in names.items()} == pinned[facts.SCHEMA]
    page = (Path(__file__).parents[2] / "docs/inspect.md").read_text("utf-8")
    assert not [name for attributes in names.values() for name in attributes if f"| `{name}` |" not in page]
    assert facts.SCHEMA in page


class TestEvents:
    def test_hot_pixel(self, tmp_path: Path) -> None:
        """4000 events of a pixel among 4000 others: half of all."""
        hot = with_events(even_events(), x=5, y=6, t=np.arange(4000) * 100 + 50, p=1)
        found = inspect(tmp_path, hot)
        own = np.count_nonzero((hot["x"] == 5) & (hot["y"] == 6))
        assert found.events.num_hot_pixels == 1
        assert (found.events.hot_pixels[0].x, found.events.hot_pixels[0].y) == (5, 6)
        assert found.events.share_hot == pytest.approx(own / 8000)
        assert "50% of the events come from 1 pixel that fires all the time: use --remove-hot" in warning(
            found, "fires"
        )
        cleaned = inspect_recording(tmp_path / "rec", RecordingOptions(remove_hot_pixels=True))
        assert cleaned.events.num_events == 8000 - own
        assert cleaned.events.num_left_out == own
        assert "events of 1 hot pixel(s) are left out" in " ".join(cleaned.warnings)
        assert not [line for line in cleaned.warnings if "--sensor-size" in line]

    def test_gap(self, tmp_path: Path) -> None:
        """Nothing between 120,001 and 200,001 µs: two intervals between frames without events."""
        columns = even_events()
        kept = (columns["t"] <= 120_001) | (columns["t"] >= 200_001)
        found = inspect(tmp_path, {name: values[kept] for name, values in columns.items()})
        assert [(gap.start_us, gap.end_us) for gap in found.events.gaps] == [(120_001, 200_001)]
        assert "1 stretch without any event, the longest 80 ms from 120 ms after" in warning(found, "stretch")
        assert found.overlap is not None
        assert (found.overlap.num_with_events, found.overlap.num_with_few) == (9, 1)
        assert "1 of 10 intervals between frames have no event" in warning(found, "no event:")

    def test_duplicates(self, tmp_path: Path) -> None:
        """Forty events twice, one of them three times; the same pixel and time of the other polarity is no duplicate."""
        columns = even_events()
        twice = {name: values[100:140] for name, values in columns.items()}
        thrice = {name: values[100] for name, values in columns.items()}
        other = {**{name: values[200] for name, values in columns.items()}, "p": -columns["p"][200]}
        found = inspect(tmp_path, with_events(with_events(with_events(columns, **twice), **thrice), **other))
        assert found.events.num_duplicates == 41
        assert found.events.max_at_once == 3
        assert "41 events (1.01%) equal another in pixel, time and polarity" in warning(found, "equal another")

    @pytest.mark.parametrize(("sign", "words"), [(1, r"brighter (+1)"), (-1, "darker (-1)")])
    def test_one_sided(self, tmp_path: Path, sign: int, words: str) -> None:
        columns = even_events()
        columns["p"][:] = sign
        found = inspect(tmp_path, columns)
        assert found.events.share_positive == (sign + 1) / 2
        assert warning(found, "one-sided").startswith(f"all events are {words}")

    def test_times_of_frames(self, tmp_path: Path) -> None:
        """A simulator that stamps all events with the next frame's time."""
        columns = even_events()
        columns["t"] = -(-columns["t"] // STEP_US) * STEP_US
        found = inspect(tmp_path, columns)
        assert found.overlap is not None
        assert found.overlap.share_at_frame_times == 1
        assert found.events.num_times == 10
        assert "100% of the events carry exactly a frame's time" in warning(found, "simulators")

    def test_few_different_times(self, tmp_path: Path) -> None:
        columns = even_events()
        columns["t"] = columns["t"] // 10_000 * 10_000 + 5_000
        found = inspect(tmp_path, columns)
        assert found.events.num_times == 40
        assert "all events share 40 different times, one every 10 ms" in warning(found, "simulators")

    def test_outside_frame(self, tmp_path: Path) -> None:
        """The right half of the sensor lies outside a frame that shows the left half enlarged."""
        folder = write(tmp_path / "rec", even_events())
        (tmp_path / "h.txt").write_text("2 0 0 0 1 0 0 0 1")
        found = inspect_recording(folder, RecordingOptions(sensor_to_frame=tmp_path / "h.txt"))
        share = np.mean(even_events()["x"] >= 16)
        assert found.events.share_outside_frame == pytest.approx(share)
        assert found.events.num_left_out == 0
        assert "50% of the events fall outside the frame" in warning(found, "outside the frame")

    def test_outside_sensor(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "rec", even_events())
        declared = json.loads((folder / "recording.json").read_text())
        (folder / "recording.json").write_text(json.dumps({**declared, "sensor_size": [32, 12]}))
        np.savez(folder / "events.npz", **even_events())  # which does not say its sensor
        found = inspect_recording(folder)
        outside = np.count_nonzero(even_events()["y"] >= 12)
        assert (found.events.num_events, found.events.num_left_out) == (4000 - outside, outside)
        assert f"{outside:,} events left out: outside the 32×12 sensor" in warning(found, "left out")

    def test_nanoseconds(self, tmp_path: Path) -> None:
        columns = even_events()
        columns["t"] *= 1000
        found = inspect(tmp_path, columns)
        assert warning(found, "unit ns").startswith("events last 399.9 s and frames 400 ms: event times look like nano")

    def test_a_single_event(self, tmp_path: Path) -> None:
        found = inspect(tmp_path, {"x": np.array([1]), "y": np.array([2]), "t": np.array([7]), "p": np.array([1])})
        assert (found.events.num_events, found.events.duration_us, found.events.time_step_us) == (1, 0, 0)
        json.dumps(found.as_json(), allow_nan=False)


class TestFrames:
    def test_missing_and_jittering(self, tmp_path: Path) -> None:
        """Frames 5 and 6 of 11 are missing, one is 12 ms late."""
        times = np.delete(np.arange(NUM_FRAMES) * STEP_US, [5, 6])
        times[2] += 12_000
        found = inspect(tmp_path, even_events(), times).frames
        assert found is not None
        assert (found.num_frames, found.num_missing) == (9, 2)
        assert found.out_of_line == (1, 2, 4)
        assert (found.interval_median_us, found.interval_min_us, found.interval_max_us) == (40_000, 28_000, 120_000)
        assert found.interval_std_us == pytest.approx(np.diff(times).std())

    def test_jitter_alone(self, tmp_path: Path) -> None:
        times = np.arange(NUM_FRAMES) * STEP_US + np.arange(NUM_FRAMES) % 2 * 4_000
        found = inspect(tmp_path, even_events(), times)
        assert found.frames is not None
        assert found.frames.num_missing == 0
        assert "frame times jitter by 4 ms around 40 ms" not in found.warnings
        assert "jitter by 4 ms" in warning(found, "jitter")

    def test_clipped(self, tmp_path: Path) -> None:
        frames = grey_frames()
        frames[:, :12] = 255
        found = inspect_recording(write(tmp_path / "rec", even_events(), frames=frames))
        assert found.frames is not None
        assert (found.frames.share_bright, found.frames.share_dark) == (0.5, 0)
        assert "50% of the frames' values are too bright" in warning(found, "too bright")

    def test_damaged_frame(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "rec", even_events())
        (folder / "frames/000010.png").write_bytes(b"no picture")
        found = inspect_recording(folder)
        assert found.frames is not None
        assert found.frames.num_frames == 11
        assert "000010.png" in warning(found, "a frame cannot be read")
        assert found.events.num_events == 4000

    def test_lost_frames(self, tmp_path: Path) -> None:
        """Without its frames, a recording's events still tell what they are."""
        folder = write(tmp_path / "rec", even_events())
        for picture in (folder / "frames").iterdir():
            picture.unlink()
        found = inspect_recording(folder, RecordingOptions(sensor_size=SIZE))
        assert found.frames is None
        assert found.no_frames is not None
        assert str(folder) in found.no_frames
        assert warning(found, "frames cannot be read").endswith(found.no_frames)
        assert found.overlap is None
        assert found.events.num_events == 4000

    def test_exposures(self) -> None:
        """Of 4 ms, the last of 6 ms."""
        stream = EventStream.from_arrays(**even_events(), sensor_size=SIZE)
        times = np.arange(NUM_FRAMES) * STEP_US
        recording = recording_from_memory(grey_frames(), times, stream)
        exposures = np.stack([times - 2_000, times + 2_000], 1)
        exposures[-1, 1] += 2_000
        recording.frames.exposures_us = exposures  # type: ignore[attr-defined]
        found = inspect_subject(Subject(Path("r"), recording, recording.events, None, (), RecordingOptions())).frames
        assert found is not None
        assert found.exposure_known
        assert (found.exposure_median_us, found.exposure_min_us, found.exposure_max_us) == (4_000, 4_000, 6_000)


class TestOffset:
    def test_no_overlap(self, tmp_path: Path) -> None:
        found = inspect(tmp_path, even_events(), np.arange(NUM_FRAMES) * STEP_US + 5_000_000)
        assert found.overlap is not None
        assert found.overlap.num_with_events == 0
        assert "frames from 5000000 to 5400000 µs, events from 1 to 399901 µs" in warning(found, "do not overlap")

    def test_offset_is_told(self, tmp_path: Path) -> None:
        """A drifting pattern whose frames are stamped 5 ms early."""
        frames, events = drifting(early_us=5_000)
        write_plain_recording(tmp_path / "rec", frames, np.arange(len(frames)) * 20_000, events)
        found = inspect_recording(tmp_path / "rec")
        assert found.alignment is not None
        assert found.alignment.time_offset_us == pytest.approx(5_000, abs=700)
        told = warning(found, "frames and events seem shifted by")
        assert f"use --estimate-offset or --time-offset-us {found.alignment.time_offset_us}" in told
        further = inspect_recording(tmp_path / "rec", RecordingOptions(time_offset_us=3_000))
        assert further.alignment is None or further.alignment.time_offset_us == pytest.approx(2_000, abs=700)

    def test_what_cannot_be_estimated(self, tmp_path: Path) -> None:
        """Frames are shown all the same."""
        folder = write(tmp_path / "rec", even_events())
        found = inspect_recording(folder, RecordingOptions(estimate_offset=True))
        assert found.frames is not None
        assert "time offset cannot be estimated" in warning(found, "cannot be estimated")

    def test_nothing_to_estimate_from(self, tmp_path: Path) -> None:
        found = inspect(tmp_path, even_events())
        assert found.no_alignment is not None or (found.alignment is not None and not found.alignment.is_reliable)


def drifting(early_us: int) -> tuple[NDArray[np.uint8], EventStream]:
    """Twelve frames of a texture that swings about, and its events; frame i shows the time 20,000 i + `early_us`."""
    x, y = np.meshgrid(np.arange(48), np.arange(36))

    def levels(time_us: float) -> NDArray[np.float64]:
        across = x - 3 * np.sin(time_us / 31_000)
        down = y - 3 * np.cos(time_us / 23_000)
        return 110 + 35 * np.sin(across / 2.3 + 0.4 * down) + 35 * np.sin(down / 2.9 - 0.3 * across)

    parts = []
    memory = np.log(levels(0) + 10)
    for time_us in range(500, 260_000, 500):
        change = np.log(levels(time_us) + 10) - memory
        for sign in (1, -1):
            rows, columns = np.nonzero(sign * change > 0.15)
            memory[rows, columns] += sign * 0.15
            parts.append(np.stack([columns, rows, np.full(len(rows), time_us), np.full(len(rows), sign)], 1))
    events = np.concatenate(parts)
    stream = EventStream.from_arrays(*events.T, sensor_size=(48, 36))
    frames = np.stack([levels(20_000 * i + early_us) for i in range(12)]).round().astype(np.uint8)
    return np.repeat(frames[..., None], 3, axis=-1), stream


class TestErrors:
    def test_paths(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\1")
        (tmp_path / "zero").write_bytes(b"")
        for name, message in (
            ("none", "no such file or folder"),
            ("empty", "the folder is empty"),
            ("clip.mp4", "a video without events"),
            ("zero", "the file is empty"),
        ):
            with pytest.raises(InputError, match=message) as caught:
                inspect_recording(tmp_path / name)
            assert "\n" not in str(caught.value)

    def test_no_events(self, tmp_path: Path) -> None:
        none = np.zeros(0, np.int64)
        np.savez(tmp_path / "e.npz", x=none, y=none, t=none, p=none)
        with pytest.raises((InputError, RecordingError)):
            inspect_recording(tmp_path / "e.npz", RecordingOptions(sensor_size=SIZE))

    def test_folder_with_two_event_files(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "rec", even_events())
        (folder / "timestamps.txt").unlink()
        (folder / "events2.npz").write_bytes((folder / "events.npz").read_bytes())
        with pytest.raises(InputError):
            inspect_recording(folder)


class TestEventFile:
    def test_without_frames(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "e.npz", **even_events())
        found = inspect_recording(tmp_path / "e.npz", RecordingOptions(sensor_size=SIZE))
        assert found.frames is None
        assert found.no_frames is not None
        assert "without frames" in found.no_frames
        assert not [line for line in found.warnings if "cannot be read" in line]
        assert (found.events.num_events, found.events.share_outside_frame) == (4000, None)
        assert found.overlap is None
        assert found.alignment is None

    def test_few_events_over_hours(self, tmp_path: Path) -> None:
        columns = even_events()
        columns["t"] *= 10_000
        np.savez(tmp_path / "e.npz", **columns)
        found = inspect_recording(tmp_path / "e.npz", RecordingOptions(sensor_size=SIZE))
        assert "event times may be nanoseconds" in warning(found, "nanoseconds")

    def test_what_the_reader_reports(self) -> None:
        stream = EventStream.from_arrays(**even_events(), sensor_size=SIZE)
        report = ReadReport("evt9 b", "backwards", 4000, 5, 6, 7, 8, 9, ("it was cold",))
        source = MemoryEvents(stream, np.array([3, 4]), report)
        found = inspect_subject(Subject(Path("r"), None, source, "no frames", (), RecordingOptions()))
        assert (found.format, found.convention, found.no_frames) == ("evt9 b", "backwards", "no frames")
        events = found.events
        assert (events.num_triggers, events.num_unknown, events.num_clock_wraps) == (5, 6, 7)
        assert (events.num_unsorted, events.num_lost_bytes, events.num_left_out) == (8, 9, 2)
        assert found.warnings[0] == "it was cold"
        assert "9 bytes of events could not be read" in warning(found, "are lost")
        assert "8 events are earlier" in warning(found, "sorted")

    def test_nothing_can_be_read(self) -> None:
        class Failing(MemoryEvents):
            def pieces(self):
                yield from ()
                raise InputError("it ends at once")

        source = Failing(EventStream.from_arrays(**even_events(), sensor_size=SIZE))
        with pytest.raises(InputError, match="ends at once"):
            inspect_subject(Subject(Path("r"), None, source, "no frames", (), RecordingOptions()))
