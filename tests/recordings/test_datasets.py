"""Published datasets' layouts: small copies of one known recording are claimed by one reader and read back the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evfi.errors import InputError
from evfi.recordings.datasets import (
    bsergb,
    clear_motion,
    ecd,
    erf_x170,
    eventaid,
    hq_evfi,
    hsergb,
    refid,
    timelens,
    vid2e,
)
from evfi.recordings.opening import RECORDING_FORMATS, open_recording
from file_writers.datasets import LAYOUTS, KnownRecording, known_recording, write_evdi, write_hq_evfi

UNSTAMPED = ("erf-x170fps", "refid-gopro", "refid-highrev")
LOSSY = ("eventaid",)


@pytest.fixture(scope="module")
def known() -> KnownRecording:
    return known_recording()


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory, known: KnownRecording) -> dict[str, Path]:
    """One small copy of every layout."""
    root = tmp_path_factory.mktemp("layouts")
    return {layout: write(root / layout, known) for layout, (_, write) in LAYOUTS.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exactly_one_reader_claims_a_layout(copies: dict[str, Path], layout: str) -> None:
    claims = [reader.name for reader in RECORDING_FORMATS if reader.recognises(copies[layout])]
    assert claims == [LAYOUTS[layout][0]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_copy_reads_back_the_same(copies: dict[str, Path], known: KnownRecording, layout: str) -> None:
    recording = open_recording(copies[layout])
    assert recording.format == LAYOUTS[layout][0]
    off = np.abs(recording.frames.times_us - known.times_us)
    assert off.max() <= (200 if layout in UNSTAMPED else 0)
    for number, frame in enumerate(known.frames):
        difference = recording.frames.read(number).astype(int) - frame
        assert np.abs(difference).max() <= (3 if layout in LOSSY else 0)
    events = recording.read_events(int(known.t[0]), int(known.t[-1]) + 1)
    for name, expected in (("x", known.x), ("y", known.y), ("t", known.t), ("p", 2 * known.p - 1)):
        assert np.array_equal(getattr(events, name), expected), name
    assert events.num_dropped == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_hold_their_intervals(copies: dict[str, Path], known: KnownRecording, layout: str) -> None:
    with open_recording(copies[layout]) as recording:
        counts = [len(window.events) for window in recording.windows(recording.plan_windows(insert=1))]
    expected = [int(known.interval(i).sum()) for i in range(len(counts))]
    assert counts == expected if layout not in UNSTAMPED else abs(np.subtract(counts, expected)).max() <= 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_convention_is_one_line(copies: dict[str, Path], layout: str) -> None:
    recording = open_recording(copies[layout])
    assert "px" in recording.convention
    assert "frame times" in recording.convention
    assert "\n" not in recording.convention
    told = any("no frame times" in warning for warning in recording.warnings)
    assert told == (layout in UNSTAMPED)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slice_reads_only_the_files_it_touches(
    tmp_path: Path, known: KnownRecording, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = known_recording(num_frames=30)
    recording = open_recording(LAYOUTS[layout][1](tmp_path / "long", long))
    source = recording.events
    if not hasattr(source, "_load"):
        pytest.skip("one file holds the whole sequence")
    touched: list[int] = []
    load = source._load
    monkeypatch.setattr(source, "_load", lambda index: touched.append(index) or load(index))
    source.slice(int(long.times_us[20]) + 2000, int(long.times_us[21]) - 2000)
    assert touched in ([20], [0])  # [0]: one text file, read as one piece


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_sequences_names_some(copies: dict[str, Path], layout: str) -> None:
    parent = copies[layout].parent
    with pytest.raises(
        InputError, match=r"a folder of recordings, not a recording; choose one of them, e\.g\. /"
    ) as caught:
        open_recording(parent)
    assert "\n" not in str(caught.value)
    if layout == "hs-ergb":
        with pytest.raises(InputError, match="close/test/candle"):
            open_recording(parent.parent.parent)


def test_hq_evfi_without_spans_takes_the_names_times(tmp_path: Path, known: KnownRecording) -> None:
    recording = open_recording(write_hq_evfi(tmp_path / "hq", known, with_spans=False))
    assert recording.frames.times_us.tolist() == known.times_us.tolist()
    assert "the pictures' names, in ns" in recording.convention
    assert "time in ns" in recording.convention
    assert len(recording.read_events(0, 2**40)) == len(known.t)


def test_hq_evfi_names_of_another_clock_are_told(tmp_path: Path, known: KnownRecording) -> None:
    path = write_hq_evfi(tmp_path / "hq", known, with_spans=False)
    for picture in (path / "visual_RGB").iterdir():
        number, stamp = picture.stem.split("_")
        picture.rename(picture.with_stem(f"{number}_{int(stamp) + 10**15}"))
    recording = open_recording(path)
    assert any("names are on a different clock from the events" in warning for warning in recording.warnings)
    assert np.abs(recording.frames.times_us - known.times_us).max() <= 200


def test_evdi_counts_us_or_ns(tmp_path: Path, known: KnownRecording) -> None:
    for name, per_us, unit in (("us", 1, "µs"), ("ns", 1000, "ns")):
        recording = open_recording(write_evdi(tmp_path / name, known, per_us=per_us))
        assert recording.frames.times_us.tolist() == known.times_us.tolist()
        assert f"time in {unit}" in recording.convention
        assert np.array_equal(recording.read_events(0, 2**40).t, known.t)
    shifted = open_recording(tmp_path / "us", frame_time="end")
    assert (shifted.frames.times_us - known.times_us == 1000).all()


def test_the_page_of_datasets_says_what_the_code_does() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/datasets.md").read_text("utf-8")
    plain = [
        reader.CONVENTION for reader in (bsergb, clear_motion, erf_x170, eventaid, hq_evfi, hsergb, timelens, vid2e)
    ]
    for convention in (*plain, refid.GOPRO, refid.HIGHREV):
        assert f"`{convention.format}` | {convention.describe()} |" in page
    assert ecd.CONVENTION in page
    assert all(f"`{reader}`" in page for reader, _ in LAYOUTS.values())
