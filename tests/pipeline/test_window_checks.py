"""What is unusual about windows: recordings of moving textures, each with one thing wrong, and real ones with nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evfi.events.simulate_video import simulate_video
from evfi.events.stacks import MIN_EVENTS, StackConfig, event_stacks
from evfi.events.stream import EventStream
from evfi.pipeline.treatments import treatment_of
from evfi.pipeline.window_checks import Finding, check_window, find_time_gaps, typical_interval_us
from evfi.recordings.memory import recording_from_memory
from evfi.recordings.opening import open_recording
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording, Window

WIDTH, HEIGHT = 160, 120
STEP_US = 40_000
FINE = 8  # pictures per key frame, of which events are made
KEYS = 9

Frames = NDArray[np.uint8]


def is_doubtful(finding: Finding) -> bool:
    """Whether the model's frames would show a motion that is not in the data: the user's choice is then asked for."""
    return treatment_of(finding.kind, 10**6, "hold") == "hold"


def texture(seed: int, width: int = 400, height: int = 200) -> NDArray[np.float64]:
    """Random waves of many lengths around 120 levels."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.zeros((height, width))
    for length in np.geomspace(8, 150, 24):
        angle, phase = generator.uniform(0, 2 * np.pi, 2)
        waves += length**0.5 * np.sin(2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return np.clip(120 + 35 * waves / waves.std(), 20, 220)


def picture(levels: NDArray[np.float64]) -> Frames:
    return np.repeat(np.rint(levels).astype(np.uint8)[..., None], 3, axis=-1)


@cache
def video(seed: int, keys: int = KEYS, speed: float = 6.0) -> Frames:
    """A texture that moves by `speed` px per key frame, and before it a square that flies faster; all pictures."""
    ground, square = texture(seed), texture(seed + 1, 40, 40) * 0.5
    pictures = []
    for step in range((keys - 1) * FINE + 1):
        left = round(step / FINE * speed)
        levels = ground[20 : 20 + HEIGHT, left : left + WIDTH].copy()
        at = round(10 + step / FINE * 12) % (WIDTH - 40)
        levels[50:90, at : at + 40] = square
        pictures.append(picture(levels))
    return np.stack(pictures)


def events_of(pictures: Frames) -> EventStream:
    times = [step * STEP_US // FINE for step in range(len(pictures))]
    return EventStream.concatenate(list(simulate_video(iter(pictures), times)))


@cache
def moving(seed: int, keys: int = KEYS, speed: float = 6.0, noise: float = 1.0) -> tuple[Frames, EventStream]:
    """Key frames of such a video, with noise, and its events."""
    pictures = video(seed, keys, speed)
    errors = np.rint(np.random.default_rng(seed + 100).normal(0, noise, (keys, HEIGHT, WIDTH, 1)))
    return np.clip(pictures[::FINE] + errors, 0, 255).astype(np.uint8), events_of(pictures)


def times_of(frames: Frames) -> NDArray[np.int64]:
    return np.arange(len(frames), dtype=np.int64) * STEP_US


def kept(events: EventStream, mask: NDArray[np.bool_]) -> EventStream:
    return EventStream(events.x[mask], events.y[mask], events.t[mask], events.p[mask], events.sensor_size)


def without(events: EventStream, start_us: float, end_us: float) -> EventStream:
    return kept(events, (events.t < start_us) | (events.t >= end_us))


def later(events: EventStream, by_us: int, since_us: int = 0) -> EventStream:
    times = np.where(events.t >= since_us, events.t + by_us, events.t)
    return EventStream(events.x, events.y, times, events.p, events.sensor_size)


def findings(frames: Frames, times_us: NDArray[np.int64], events: EventStream, skip: int = 1) -> dict[int, Finding]:
    return findings_in(recording_from_memory(frames, times_us, events), skip)


def findings_in(recording: Recording, skip: int = 1) -> dict[int, Finding]:
    """Whatever is found, by window."""
    typical_us = typical_interval_us(recording.frames.times_us[::skip])
    windows = recording.windows(recording.plan_windows(insert=7, skip=skip))
    found = {window.spec.index: check_window(window, typical_us) for window in windows}
    return {index: finding for index, finding in found.items() if finding.kind}


def kinds(found: dict[int, Finding]) -> dict[int, str]:
    return {index: finding.kind for index, finding in found.items()}


def still_window(start: Frames, end: Frames, events: EventStream) -> Window:
    return Window(WindowSpec(0, 0, 1, np.arange(9, dtype=np.int64) * STEP_US // 8), start, end, events)


NO_EVENTS = EventStream.empty((WIDTH, HEIGHT))


class TestNothingUnusual:
    @pytest.mark.parametrize("skip", [1, 2, 4])
    @pytest.mark.parametrize("speed", [0.0, 1.0, 6.0, 20.0])
    def test_motion_slow_and_fast(self, speed: float, skip: int) -> None:
        frames, events = moving(1, speed=speed)
        assert findings(frames, times_of(frames), events, skip) == {}

    def test_the_same_window_gives_the_same_finding(self) -> None:
        frames, events = moving(1)
        times = times_of(frames)
        found = findings(frames, times, without(events, times[2], times[3]))
        assert found == findings(frames, times, without(events, times[2], times[3]))

    def test_no_frame_to_be_made(self) -> None:
        frames, _ = moving(1)
        spec = WindowSpec(0, 0, 1, np.array([0, STEP_US], np.int64))
        assert check_window(Window(spec, frames[0], frames[-1], NO_EVENTS), STEP_US) == Finding()

    def test_tiny_pictures(self) -> None:
        generator = np.random.default_rng(0)
        start, end = generator.integers(0, 256, (2, 22, 34, 3), dtype=np.uint8)
        _, events = moving(1)
        assert check_window(still_window(start, end, events), STEP_US).kind == ""
        assert check_window(still_window(start[:5, :5], end[:5, :5], NO_EVENTS), STEP_US).kind == "few-events"

    @pytest.mark.parametrize("skip", [1, 2, 4])
    @pytest.mark.parametrize(
        "name", ["street_davis346.aedat4", "newtons_cradle_davis346.aedat4", "slider_depth_davis240"]
    )
    def test_real_recordings(self, shared_dir: Path, name: str, skip: int) -> None:
        with open_recording(shared_dir / "data" / "recordings" / name) as recording:
            assert findings_in(recording, skip) == {}


class TestGaps:
    def test_typical_interval(self) -> None:
        assert typical_interval_us(np.array([0, 10, 20, 30, 90])) == 10

    def test_frames_lost(self) -> None:
        frames, events = moving(1, keys=17)
        left = np.r_[:6, 11:17]
        times = times_of(frames)[left]
        found = findings(frames[left], times, events)
        assert kinds(found) == {5: "gap"}
        assert is_doubtful(found[5])
        assert "240.0 ms apart, 6.0 times the usual 40.0 ms (limit 2.5): about 5 frames" in found[5].note
        assert find_time_gaps(times, typical_interval_us(times)).tolist() == [5]

    def test_one_lost_frame_is_bridged(self) -> None:
        frames, events = moving(1)
        times = times_of(frames)
        left = np.r_[:4, 5:9]
        assert findings(frames[left], times[left], events) == {}
        assert find_time_gaps(times[left], STEP_US).tolist() == []

    def test_events_stop_within_a_window(self) -> None:
        frames, events = moving(1)
        found = findings(frames, times_of(frames), without(events, 3.2 * STEP_US, 3.8 * STEP_US))
        assert kinds(found) == {3: "gap"}
        assert is_doubtful(found[3])
        assert "of 40.0 ms (limit 50%)" in found[3].note

    def test_less_than_half_a_window_lost(self) -> None:
        frames, events = moving(1)
        assert findings(frames, times_of(frames), without(events, 3.3 * STEP_US, 3.7 * STEP_US)) == {}

    def test_clock_of_events_jumps(self) -> None:
        frames, events = moving(1, keys=33)
        times = times_of(frames)
        found = kinds(findings(frames, times, later(events, 500_000, int(times[16])).slice(0, int(times[-1]))))
        assert set(found.values()) <= {"gap", "no-events"}
        assert set(range(16, 28)) <= set(found) <= set(range(15, 30))

    def test_sparse_events_of_a_still_scene(self) -> None:
        """Noise of a few events per window leaves long stretches without any."""
        still = picture(texture(1)[:HEIGHT, :WIDTH])
        generator = np.random.default_rng(0)
        for number in (10, 30, 60):
            for _ in range(100):
                times = np.sort(generator.integers(0, STEP_US, number))
                x, y = generator.integers(0, WIDTH, number), generator.integers(0, HEIGHT, number)
                events = EventStream.from_arrays(x, y, times, np.ones(number), (WIDTH, HEIGHT))
                assert check_window(still_window(still, still, events), STEP_US).kind in ("", "few-events")

    def test_bursts_as_frames_are_read_out(self) -> None:
        frames, events = moving(1, speed=0.0)
        bursts = without(events, 0.03 * STEP_US, 0.97 * STEP_US).slice(0, STEP_US)
        assert len(bursts) > 100
        assert check_window(still_window(frames[0], frames[0], bursts), STEP_US).kind == ""

    def test_motion_that_begins_late(self) -> None:
        """Without any noise nothing comes before it."""
        frames, events = moving(1, noise=0.0)
        spread = EventStream(events.x, events.y, 30_000 + events.t // 4, events.p, events.sensor_size)
        window = still_window(frames[0], frames[1], spread.slice(0, STEP_US))
        assert check_window(window, STEP_US) == Finding()


class TestCuts:
    def spliced(self, in_between: EventStream) -> dict[int, Finding]:
        first, second = moving(1), moving(7)
        frames = np.concatenate([first[0], second[0]])
        events = EventStream.concatenate([first[1], in_between, later(second[1], KEYS * STEP_US)])
        return findings(frames, times_of(frames), events)

    def test_two_recordings(self) -> None:
        found = self.spliced(NO_EVENTS)
        assert kinds(found) == {KEYS - 1: "cut"}
        assert is_doubtful(found[KEYS - 1])

    def test_events_of_another_motion(self) -> None:
        events = later(moving(1)[1].slice(0, STEP_US), (KEYS - 1) * STEP_US)
        assert kinds(self.spliced(events)) == {KEYS - 1: "cut"}

    def test_video_with_a_cut(self) -> None:
        """The simulated camera sees the cut: its events explain the change, but come at once."""
        pictures = np.concatenate([video(1)[: 2 * FINE + 4], video(7)])[: 5 * FINE + 1]
        keys = pictures[::FINE]
        found = findings(keys, times_of(keys), events_of(pictures))
        assert kinds(found) == {2: "cut"}
        assert "within a quarter" in found[2].note

    def test_to_black(self) -> None:
        frames, _ = moving(1)
        black = np.zeros_like(frames[0])
        assert check_window(still_window(frames[0], black, NO_EVENTS), STEP_US).kind == "cut"


class TestExposure:
    @pytest.mark.parametrize("speed", [0.0, 6.0, 20.0])
    @pytest.mark.parametrize("gain", [1.4, 0.7])
    def test_half_of_the_frames(self, gain: float, speed: float) -> None:
        frames, events = moving(1, speed=speed)
        scaled = np.clip(np.rint(frames[4:] * gain), 0, 255).astype(np.uint8)
        found = findings(np.concatenate([frames[:4], scaled]), times_of(frames), events)
        assert kinds(found) == {3: "exposure"}
        assert is_doubtful(found[3])
        assert ("brighter" if gain > 1 else "darker") in found[3].note

    @pytest.mark.parametrize("gain", [1.1, 0.9])
    def test_a_little(self, gain: float) -> None:
        frames, events = moving(1)
        scaled = np.clip(np.rint(frames[4:] * gain), 0, 255).astype(np.uint8)
        assert findings(np.concatenate([frames[:4], scaled]), times_of(frames), events) == {}

    def test_large_bright_object(self) -> None:
        """Two fifths of the picture become brighter."""
        frames, events = moving(1)
        end = frames[0].copy()
        end[:, : 2 * WIDTH // 5] = np.clip(end[:, : 2 * WIDTH // 5] * 1.5, 0, 255).astype(np.uint8)
        assert check_window(still_window(frames[0], end, events.slice(0, STEP_US)), STEP_US).kind == ""


class TestFewEvents:
    def test_events_removed_where_things_move(self) -> None:
        frames, events = moving(1)
        found = findings(frames, times_of(frames), without(events, 3 * STEP_US, 6 * STEP_US))
        assert kinds(found) == {3: "no-events", 4: "no-events", 5: "no-events"}
        assert all(is_doubtful(finding) for finding in found.values())

    @pytest.mark.parametrize("noise", [0.0, 2.0, 8.0])
    def test_nothing_moves(self, noise: float) -> None:
        still = texture(1)[:HEIGHT, :WIDTH]
        generator = np.random.default_rng(0)
        start, end = (picture(np.clip(still + generator.normal(0, noise, still.shape), 0, 255)) for _ in range(2))
        finding = check_window(still_window(start, end, NO_EVENTS), STEP_US)
        assert finding.kind == "few-events"
        assert not is_doubtful(finding)

    @pytest.mark.parametrize("noise", [0.0, 2.0, 8.0])
    def test_a_small_object_moves(self, noise: float) -> None:
        levels = texture(1)[:HEIGHT, :WIDTH]
        generator = np.random.default_rng(0)
        start, end = (levels + generator.normal(0, noise, levels.shape) for _ in range(2))
        start[40:56, 40:56], end[40:56, 50:66] = 30, 30
        finding = check_window(still_window(picture(start.clip(0)), picture(end.clip(0)), NO_EVENTS), STEP_US)
        assert finding.kind == "no-events"

    def test_light_that_drifts(self) -> None:
        """Of a twentieth, which no event camera sees."""
        still = texture(1)[:HEIGHT, :WIDTH]
        finding = check_window(still_window(picture(still), picture(still * 1.05 + 2), NO_EVENTS), STEP_US)
        assert finding.kind == "few-events"

    @pytest.mark.parametrize("number", range(MIN_EVENTS + 3))
    def test_few_means_that_every_stack_is_empty(self, number: int) -> None:
        """The limit is the stacks' own: just as many events as leave them empty."""
        still = picture(texture(1)[:HEIGHT, :WIDTH])
        times = np.repeat(np.arange(8) * STEP_US // 8, number) + 1
        x = np.tile(np.arange(number), 8)
        events = EventStream.from_arrays(x, x, times, np.ones(8 * number), (WIDTH, HEIGHT))
        window = still_window(still, still, events)
        forward, backward = event_stacks(events, window.spec.times_us, (WIDTH, HEIGHT), StackConfig())
        is_empty = not (forward.any() or backward.any())
        assert (check_window(window, STEP_US).kind == "few-events") == is_empty
