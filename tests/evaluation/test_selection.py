"""Each protocol selects exactly the windows that its description says: lists below are written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evfi.errors import ConfigError, InputError, RecordingError
from evfi.evaluation.protocol import DropRule, Protocol, WindowRule, load_protocol
from evfi.evaluation.selection import complaint, count_polarities, select_windows, spread, window_starts
from evfi.recordings.opening import open_recording
from evfi.recordings.recording import Recording
from file_writers.datasets import (
    SIZE,
    KnownRecording,
    known_recording,
    write_bsergb,
    write_ecd,
    write_hsergb,
    write_refid_gopro,
)

STARTS: dict[str, list[tuple[int, int, list[int]]]] = {
    # (skip, frames of the sequence, first frames of windows)
    "raw": [
        (1, 2, []), (1, 3, [0]), (1, 4, [0]), (1, 5, [0, 2]), (1, 8, [0, 2, 4]),
        (3, 4, []), (3, 5, [0]), (3, 8, [0]), (3, 9, [0, 4]), (3, 12, [0, 4]), (3, 13, [0, 4, 8]),
        (7, 8, []), (7, 9, [0]), (7, 16, [0]), (7, 17, [0, 8]),
    ],
    "vdm-evfi": [
        (1, 2, []), (1, 3, [0]), (1, 7, [0]), (1, 9, [0]), (1, 10, [0, 2]), (1, 11, [0, 2]), (1, 12, [0, 2, 4]),
        (3, 4, []), (3, 5, [0]), (3, 9, [0]), (3, 10, [0]), (3, 13, [0]), (3, 14, [0, 4]), (3, 17, [0, 4]),
        (3, 18, [0, 4, 8]),
        (11, 12, []), (11, 13, [0]), (11, 29, [0]), (11, 30, [0, 12]), (11, 41, [0, 12]), (11, 42, [0, 12, 24]),
    ],
    "cbmnet": [
        (1, 2, []), (1, 3, [0]), (1, 4, [0]), (1, 5, [0, 2]),
        (3, 4, []), (3, 5, [0]), (3, 8, [0]), (3, 9, [0, 4]),
    ],
    "refid": [(7, 8, []), (7, 9, [0]), (7, 16, [0]), (7, 17, [0, 8]), (15, 16, []), (15, 17, [0]), (15, 33, [0, 16])],
    "timelens-xl": [
        (1, 3, []), (1, 4, [0]), (1, 5, [0]), (1, 6, [0, 2]), (1, 7, [0, 2]), (1, 8, [0, 2, 4]),
        (3, 5, []), (3, 6, [0]), (3, 9, [0]), (3, 10, [0, 4]),
    ],
    "continuitycam": [
        (1, 9, []), (1, 10, [0]), (1, 11, [0]), (1, 12, [0, 2]), (1, 13, [0, 2]), (1, 14, [0, 2, 4]),
        (3, 9, []), (3, 10, [0]), (3, 13, [0]), (3, 14, [0, 4]), (3, 17, [0, 4]), (3, 18, [0, 4, 8]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_windows_start_where_the_protocol_says(name: str) -> None:
    rule = load_protocol(name).windows
    for skip, num_frames, expected in STARTS[name]:
        assert list(window_starts(num_frames, rule, skip)) == expected, (skip, num_frames)


def test_starts_of_the_published_evaluation_are_its_formula() -> None:
    """Where the sequence holds the window at all."""
    rule = load_protocol("vdm-evfi").windows
    for skip in (1, 3, 11):
        for n in range(skip + 2, 80):
            assert list(window_starts(n, rule, skip)) == list(range(0, max(1, n - 1 - (skip + 2 + 3)), skip + 1))


def test_no_window_reaches_past_the_end() -> None:
    for rule in (WindowRule(at_least_one=True), WindowRule(2, 1, 3, "first", True), WindowRule(stride=5)):
        for skip in (1, 4):
            for n in range(20):
                assert all(start + skip + 1 < n for start in window_starts(n, rule, skip))


def test_further_rules() -> None:
    assert list(window_starts(8, WindowRule(stride=1), 1)) == [0, 1, 2, 3, 4, 5]
    assert list(window_starts(8, WindowRule(first=3, stride=1), 1)) == [3, 4, 5]
    assert list(window_starts(8, WindowRule(first=6, at_least_one=True), 1)) == []
    assert list(window_starts(8, WindowRule(first=5, tail_margin=9, at_least_one=True), 1)) == [5]


def with_counts(counts: Sequence[tuple[int, int]]) -> KnownRecording:
    """A recording whose intervals hold so many (positive, negative) events."""
    recording = known_recording(num_frames=len(counts) + 1)
    t = [
        recording.times_us[interval] + 1 + np.arange(sum(pair)) * 9000 // max(sum(pair), 1)
        for interval, pair in enumerate(counts)
    ]
    p = [np.repeat([1, 0], pair) for pair in counts]
    total = sum(map(sum, counts))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, SIZE[0], total), rng.integers(0, SIZE[1], total)
    return replace(recording, x=x, y=y, t=np.concatenate(t), p=np.concatenate(p))


def selected(recording: Recording, protocol: Protocol | str, skip: int) -> list[tuple[int, str | None]]:
    rules = load_protocol(protocol) if isinstance(protocol, str) else protocol
    return [(window.spec.start_frame, window.dropped) for window in select_windows(recording, rules, skip)]


# 15 intervals of 16 frames; the published evaluation looks at windows 0, 2, 4, 6, 8 for skip 1 (intervals 0 to 9)
FAULTY = [
    (10, 1), (1, 5),  # the limits themselves
    (3, 3), (0, 0),  # empty
    (4, 0), (3, 3),  # positive only
    (3, 3), (12, 1),  # above 10
    (1, 6), (0, 7),  # below 0.2
    (0, 0), (0, 0), (0, 0), (0, 0), (3, 3),
]  # fmt: skip
REASONS = [
    (0, None),
    (2, "interval 3 (1030000 to 1040000 µs) has no events"),
    (4, "interval 4 (1040000 to 1050000 µs) has 4 positive events and none of the other polarity"),
    (6, "interval 7 (1070000 to 1080000 µs) has 12 positive and 1 negative events: ratio 12.0 is above 10"),
    (8, "interval 8 (1080000 to 1090000 µs) has 1 positive and 6 negative events: ratio 0.17 is below 0.2"),
]


def test_faulty_windows_of_event_files_are_dropped(tmp_path: Path) -> None:
    with open_recording(write_bsergb(tmp_path, with_counts(FAULTY)), format="bs-ergb") as recording:
        assert selected(recording, "vdm-evfi", 1) == REASONS
        assert selected(recording, "raw", 1) == [(start, None) for start in (0, 2, 4, 6, 8, 10, 12)]
        assert selected(recording, "cbmnet", 3) == [(0, None), (4, None), (8, None)]
        assert selected(recording, "continuitycam", 1) == [(0, None), (2, None), (4, None), (6, None)]


def test_faulty_windows_of_one_stream_are_dropped(tmp_path: Path) -> None:
    with open_recording(write_ecd(tmp_path, with_counts(FAULTY))) as recording:
        assert selected(recording, "vdm-evfi", 1) == REASONS


def test_longer_windows_name_their_first_faulty_interval(tmp_path: Path) -> None:
    """16 frames, skip 3: windows 0 and 4, over intervals 0 to 3 and 4 to 7."""
    with open_recording(write_bsergb(tmp_path, with_counts(FAULTY)), format="bs-ergb") as recording:
        (first, second) = select_windows(recording, load_protocol("vdm-evfi"), 3)
    assert first.dropped == REASONS[1][1]
    assert second.dropped == REASONS[2][1]
    assert (second.spec.index, second.spec.start_frame, second.spec.end_frame) == (1, 4, 8)
    assert second.spec.times_us.tolist() == [1_040_000, 1_050_000, 1_060_000, 1_070_000, 1_080_000]


def test_timelens_xl_drops_empty_intervals_only(tmp_path: Path) -> None:
    """16 frames, skip 3: windows 0, 4, 8 (the last image belongs to none)."""
    with open_recording(write_bsergb(tmp_path, with_counts(FAULTY)), format="bs-ergb") as recording:
        assert selected(recording, "timelens-xl", 3) == [
            (0, "interval 3 (1030000 to 1040000 µs) has no events"),
            (4, None),
            (8, "interval 10 (1100000 to 1110000 µs) has no events"),
        ]


def test_files_of_the_previous_interval_are_counted_for_their_own(tmp_path: Path) -> None:
    """HS-ERGB numbers event files by their last frame; REFID's by their first."""
    counts = [(50, 40), (44, 41), (0, 45), *[(50, 50)] * 6]
    for folder, write in (("hs", write_hsergb), ("refid", write_refid_gopro)):
        with open_recording(write(tmp_path / folder, with_counts(counts))) as recording:
            assert [count_polarities(recording, index) for index in range(4)] == counts[:4]


def test_refid_takes_all_windows(tmp_path: Path) -> None:
    with open_recording(write_refid_gopro(tmp_path, known_recording(num_frames=17))) as recording:
        assert selected(recording, "refid", 7) == [(0, None), (8, None)]


def test_whole_event_files_are_counted(tmp_path: Path) -> None:
    """Published evaluations count a file with what lies outside the frame; reading its events leaves that out."""
    folder = write_bsergb(tmp_path, with_counts([(11, 1), (4, 4), *[(3, 3)] * 8]))
    path = folder / "events/000000.npz"
    with np.load(path) as file:
        columns = dict(file)
    columns["x"][0] = 65534  # wrapped around: -2/32 px is outside after rounding up to 16 bits
    np.savez(path, **columns)
    with open_recording(folder, format="bs-ergb") as recording:
        assert count_polarities(recording, 0) == (11, 1)
        inside = recording.events.slice(1_000_000, 1_010_000).p
        assert (np.count_nonzero(inside > 0), np.count_nonzero(inside < 0)) == (10, 1)
        reason = "interval 0 (1000000 to 1010000 µs) has 11 positive and 1 negative events: ratio 11.0 is above 10"
        assert selected(recording, "vdm-evfi", 1)[0] == (0, reason)


def test_an_event_at_a_frames_time_belongs_to_the_next_interval_of_a_stream(tmp_path: Path) -> None:
    recording = with_counts([(2, 1), (2, 2), (2, 3)])
    recording.t[3] = recording.times_us[1]
    with open_recording(write_ecd(tmp_path, recording)) as opened:
        assert [count_polarities(opened, index) for index in range(3)] == [(2, 1), (2, 2), (2, 3)]


def test_damaged_files_are_errors_where_they_are_looked_at(tmp_path: Path) -> None:
    folder = write_bsergb(tmp_path, known_recording(num_frames=40))
    (folder / "events/000005.npz").write_bytes(b"PK\x03\x04")  # not one of those that opening looks at
    with open_recording(folder) as recording:
        assert len(selected(recording, "raw", 1)) == 19
        with pytest.raises(InputError, match=r"000005.npz"):
            select_windows(recording, load_protocol("vdm-evfi"), 1)


def test_damaged_files_that_were_left_out_are_empty(tmp_path: Path) -> None:
    folder = write_bsergb(tmp_path, known_recording(num_frames=12))
    (folder / "events/000002.npz").write_bytes(b"PK\x03\x04")
    with open_recording(folder, tolerant=True) as recording:
        assert [start for start, reason in selected(recording, "vdm-evfi", 1) if reason] == [2]


@pytest.mark.parametrize(
    ("name", "skip", "message"),
    [
        (
            "raw",
            3,
            r"protocol raw with skip 3 needs at least 5 frames \(a window has 5 frames\), found 4; use a smaller skip",
        ),
        ("vdm-evfi", 3, r"needs at least 5 frames \(a window has 5 frames\), found 4"),
        ("timelens-xl", 3, r"needs at least 6 frames \(a window has 5 frames, 1 must follow it\), found 4"),
        ("continuitycam", 1, r"needs at least 10 frames \(a window has 3 frames, 7 must follow it\), found 4"),
    ],
)
def test_sequences_that_are_too_short(tmp_path: Path, name: str, skip: int, message: str) -> None:
    with open_recording(write_ecd(tmp_path, known_recording(num_frames=4))) as recording:
        with pytest.raises(RecordingError, match=message):
            select_windows(recording, load_protocol(name), skip)
        with pytest.raises(ConfigError, match="skip must be at least 1"):
            select_windows(recording, load_protocol(name), 0)


def test_ratios_are_exact() -> None:
    rule = DropRule(max_ratio=10.0, min_ratio=0.2)
    million = 10**6
    assert complaint(10 * million, million, rule) is None
    assert complaint(million, 5 * million, rule) is None
    above = complaint(10 * million + 1, million, rule)
    below = complaint(million, 5 * million + 1, rule)
    assert above is not None and above.endswith("ratio 10.000001 is above 10")
    assert below is not None and below.endswith("ratio 0.19999996 is below 0.2")
    assert complaint(3, 10, DropRule(max_ratio=0.3)) is None


def test_ratios_without_the_rule_on_polarities() -> None:
    rule = DropRule(max_ratio=10.0, min_ratio=0.2)
    assert complaint(0, 0, rule) is None
    assert complaint(3, 0, rule) == "has 3 positive and 0 negative events: ratio infinite is above 10"
    assert complaint(0, 3, rule) == "has 0 positive and 3 negative events: ratio 0.0 is below 0.2"
    assert complaint(0, 3, DropRule(one_polarity=True)) == "has 3 negative events and none of the other polarity"
    assert complaint(0, 0, DropRule(one_polarity=True, min_ratio=0.2)) is None


def test_spread() -> None:
    assert spread(range(10), 20) == list(range(10))
    assert spread(range(10), 10) == list(range(10))
    assert spread(range(10), 1) == [5]
    assert spread(range(10), 2) == [2, 7]
    assert spread(range(10), 3) == [1, 5, 8]
    assert spread(range(12), 4) == [1, 4, 7, 10]
    for limit in range(1, 30):
        assert len(set(spread(range(29), limit))) == limit
    assert spread([], 3) == []
    with pytest.raises(ConfigError, match="at least 1"):
        spread([1], 0)
