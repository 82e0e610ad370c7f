"""What breaks the conventions of datasets with one event file per interval is named, with the convention that fits."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evfi.errors import InputError, RecordingError
from evfi.recordings.opening import open_recording
from file_writers.datasets import (
    LAYOUTS,
    SIZE,
    known_recording,
    write_eventaid,
    write_hq_evfi,
    write_hsergb,
    write_refid_gopro,
    write_stamps,
)

STAMPED = ("bs-ergb", "clear-motion", "hs-ergb", "timelens", "vid2e")
NPZ = (*STAMPED, "erf-x170fps", "hq-evfi", "refid-gopro", "refid-highrev")
Columns = dict[str, NDArray[np.generic]]


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], tuple[Path, list[Path]]]:
    """Writes a layout; gives its path and its event files."""

    def write(layout: str) -> tuple[Path, list[Path]]:
        path = LAYOUTS[layout][1](tmp_path / "copy", known_recording())
        files = sorted(file for file in (tmp_path / "copy").rglob("*") if file.parent.name != "images")
        return path, [file for file in files if file.suffix == ".npz" or file.parent.name == "event"]

    return write


Copy = Callable[[str], tuple[Path, list[Path]]]


def change(files: list[Path], edit: Callable[[Columns], Columns]) -> None:
    for file in files:
        with np.load(file) as archive:
            columns = dict(archive)
        np.savez(file, **{**columns, **edit(columns)})


def time_key(columns: Columns) -> str:
    return "timestamp" if "timestamp" in columns else "t"


def scaled_times(factor: float) -> Callable[[Columns], Columns]:
    return lambda columns: {time_key(columns): (columns[time_key(columns)].astype(np.int64) * factor).astype(np.int64)}


def shift_numbers(files: list[Path], by: int) -> None:
    order = files[::-1] if by > 0 else files
    for file in order:
        file.rename(file.with_name(f"{int(file.stem) + by:0{len(file.stem)}d}.npz"))


@pytest.mark.parametrize("layout", ["bs-ergb", "clear-motion", "vid2e"])
def test_numbered_by_their_end(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    shift_numbers(files, 1)
    shutil.copy(files[1], files[0])
    (files[-1].with_name(f"{len(files):0{len(files[0].stem)}d}.npz")).unlink()
    with pytest.raises(InputError, match="fits frames 0 and 1: files seem to be numbered by their end frame"):
        open_recording(path, format=LAYOUTS[layout][0])


@pytest.mark.parametrize(("layout", "message"), [("hs-ergb", "fits frames 1 and 2: "), ("timelens", "for 5 images: ")])
def test_numbered_by_their_start(copy: Copy, layout: str, message: str) -> None:
    path, files = copy(layout)
    shift_numbers(files, -1)
    with pytest.raises(InputError, match=f"{message}files seem to be numbered by their start frame"):
        open_recording(path)


def test_hq_evfi_numbered_by_the_start(tmp_path: Path) -> None:
    path = write_hq_evfi(tmp_path / "hq", known_recording(), with_spans=False)
    for file in sorted((path / "RGB-EVS").iterdir()):
        number, rest = file.stem.split("_")
        file.rename(file.with_stem(f"{int(number) - 1}_{rest}") if number != "0" else path / "spare.npz")
    (path / "visual_RGB" / max(file.name for file in (path / "visual_RGB").iterdir())).unlink()
    with pytest.raises(InputError, match="fits frames 1 and 2: files seem to be numbered by their start frame"):
        open_recording(path)


@pytest.mark.parametrize(
    ("layout", "factor", "unit"),
    [
        *((layout, factor, unit) for layout in STAMPED[:4] for factor, unit in ((1000, "ns"), (0.001, "ms"))),
        ("vid2e", 0.001, "us"),
        ("vid2e", 1e-6, "ms"),
    ],
)
def test_another_unit(copy: Copy, layout: str, factor: float, unit: str) -> None:
    path, files = copy(layout)
    change(files, scaled_times(factor))
    with pytest.raises(InputError, match=rf"fits if the times are in {unit}: give that unit \(--events-unit {unit}\)"):
        open_recording(path, format=LAYOUTS[layout][0])


def test_the_unit_can_be_given(copy: Copy) -> None:
    path, files = copy("bs-ergb")
    change(files, scaled_times(1000))
    recording = open_recording(path, events_unit="ns")
    assert len(recording.read_events(0, 2**40)) == len(known_recording().t)
    assert "time in ns" in recording.convention


@pytest.mark.parametrize("layout", STAMPED)
def test_every_file_counts_from_its_own_frame(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    change(files, lambda columns: {time_key(columns): columns[time_key(columns)] - columns[time_key(columns)].min()})
    with pytest.raises(InputError, match="fits if every file counts from its own frame"):
        open_recording(path, format=LAYOUTS[layout][0])


@pytest.mark.parametrize("layout", ["erf-x170fps", "refid-gopro", "refid-highrev"])
def test_times_begin_again_where_only_events_tell_them(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    change(files, lambda columns: {time_key(columns): columns[time_key(columns)] - columns[time_key(columns)].min()})
    with pytest.raises(InputError, match=r"begin where .* ends.*restart in every file"):
        open_recording(path)


@pytest.mark.parametrize("layout", [layout for layout in NPZ if layout not in ("bs-ergb", "clear-motion")])
def test_a_larger_scale(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    change(files, lambda columns: {name: (columns[name] * 32).astype(columns[name].dtype) for name in "xy"})
    with pytest.raises(InputError, match=r"of the events lie outside the 48×36 frames; their coordinates do not seem"):
        open_recording(path)


def test_the_scale_that_fits_is_named(copy: Copy) -> None:
    path, files = copy("hs-ergb")
    change(files, lambda columns: {name: np.abs(columns[name] * 128) for name in "xy"})
    with pytest.raises(InputError, match=r"but 1/128 px; this is another dataset's convention"):
        open_recording(path)


def test_whole_pixels_where_a_scale_is_declared(copy: Copy) -> None:
    path, files = copy("erf-x170fps")
    change(files, lambda columns: {name: columns[name] // 128 for name in "xy"})
    with pytest.raises(InputError, match=r"expected coordinates in 1/128 px.*they seem to be whole pixels"):
        open_recording(path)


def test_a_smaller_scale_is_told(copy: Copy) -> None:
    path, files = copy("erf-x170fps")
    change(files, lambda columns: {name: columns[name] // 4 for name in "xy"})
    assert any("not in 1/128 px" in warning for warning in open_recording(path).warnings)


@pytest.mark.parametrize("layout", NPZ)
def test_swapped_axes(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    change(files, lambda columns: {"x": columns["y"], "y": columns["x"]})
    with pytest.raises(InputError, match="would lie inside with x and y swapped"):
        open_recording(path, format=LAYOUTS[layout][0])


def test_few_events_leave_the_scale_open(copy: Copy) -> None:
    path, files = copy("clear-motion")
    change(files, lambda columns: {name: values[:20] for name, values in columns.items()})
    with pytest.raises(InputError, match=r"could be bs-ergb .*, or clear-motion .*; say which with --format bs-ergb"):
        open_recording(path)
    assert open_recording(path, format="clear-motion").events.slice(0, 2**40).x.max() > 2


@pytest.mark.parametrize("layout", STAMPED)
def test_times_that_decrease(copy: Copy, layout: str) -> None:
    path, _ = copy(layout)
    stamps = next(path.rglob("timestamp*.txt"))
    lines = stamps.read_text().splitlines()
    lines[3] = lines[1]
    write_stamps(stamps, lines)
    with pytest.raises(InputError, match=r"times must increase, but lines 3 and 4 say"):
        open_recording(path)


@pytest.mark.parametrize("layout", [*NPZ, "eventaid"])
def test_a_missing_image(copy: Copy, layout: str) -> None:
    path, _ = copy(layout)
    pictures = sorted(file for file in path.rglob("*") if file.suffix in (".png", ".jpg"))
    pictures[2].unlink()
    with pytest.raises(InputError, match=r"image 2 is not where it should be: .*3.* follows .*1"):
        open_recording(path)


@pytest.mark.parametrize("layout", [*NPZ, "eventaid"])
def test_a_missing_event_file(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    files[2].unlink()
    with pytest.raises(InputError, match=r"expected \w*[\w-]+/\d+\.(npz|txt), found .* in its place"):
        open_recording(path)


@pytest.mark.parametrize("layout", ["erf-x170fps", "refid-gopro", "hq-evfi"])
def test_event_files_missing_at_the_end(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    files[-1].unlink()
    with pytest.raises(InputError, match=r"one event file fewer than images, found 5 images and 3 event files"):
        open_recording(path)


def test_spare_images_and_files_are_told(tmp_path: Path) -> None:
    known = known_recording()
    path = write_hsergb(tmp_path, known, num_spare_images=3)
    recording = open_recording(path)
    assert len(recording.frames) == len(known.frames)
    assert "3 images at the end belong to no interval and were left out" in recording.warnings
    folder = path / "events_aligned"
    shutil.copy(folder / "000001.npz", folder / "000000.npz")
    assert "000000.npz lies before the first frame and was left out" in open_recording(path).warnings
    stamps = path / "images_corrected/timestamp.txt"
    write_stamps(stamps, stamps.read_text().splitlines()[:-1])
    assert len(open_recording(path).frames) == len(known.frames) - 1


def test_frames_of_two_sizes(copy: Copy) -> None:
    path, _ = copy("hs-ergb")
    Image.new("RGB", (8, 8)).save(path / "images_corrected/000002.png")
    with pytest.raises(InputError, match="expected 48×36 like the first frame, found 8×8"):
        open_recording(path).frames.read(2)


@pytest.mark.parametrize("layout", ["erf-x170fps", "refid-gopro"])
def test_empty_event_files_leave_times_to_be_interpolated(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    change(files[1:2], lambda columns: {name: values[:0] for name, values in columns.items()})
    recording = open_recording(path)
    assert np.abs(recording.frames.times_us - known_recording().times_us).max() < 300
    change(files, lambda columns: {name: values[:0] for name, values in columns.items()})
    with pytest.raises(RecordingError, match="all event files are empty"):
        open_recording(path, format=LAYOUTS[layout][0])


def test_intervals_of_no_known_unit(tmp_path: Path) -> None:
    path = write_refid_gopro(tmp_path, known_recording())
    files = sorted((tmp_path / "train_event").rglob("*.npz"))
    change(files, lambda columns: {"timestamp": columns["timestamp"] * 1e-9})
    with pytest.raises(InputError, match=r"not a frame interval in s, ms, µs or ns; set the unit"):
        open_recording(path)


def test_polarity_in_the_other_code_is_read_and_told(copy: Copy) -> None:
    path, files = copy("timelens")
    change(files, lambda columns: {"p": 2 * columns["p"].astype(np.int8) - 1})
    recording = open_recording(path)
    assert any("polarities are -1/+1, expected 0/1" in warning for warning in recording.warnings)
    assert np.array_equal(recording.read_events(0, 2**40).p, 2 * known_recording().p - 1)


def test_unsorted_files_are_told(copy: Copy) -> None:
    path, files = copy("vid2e")
    change(files, lambda columns: {name: values[::-1] for name, values in columns.items()})
    recording = open_recording(path)
    assert any("not in order of time" in warning for warning in recording.warnings)
    assert np.array_equal(recording.read_events(0, 2**40).t, known_recording().t)


@pytest.mark.parametrize("layout", ["bs-ergb", "hs-ergb", "vid2e", "refid-gopro"])
def test_damaged_files_can_be_left_out(copy: Copy, layout: str) -> None:
    path, files = copy(layout)
    size = files[1].stat().st_size // 2
    files[1].write_bytes(files[1].read_bytes()[:size])
    with pytest.raises(InputError, match="damaged or truncated"):
        open_recording(path)
    recording = open_recording(path, tolerant=True)
    assert recording.events.report.num_lost_bytes == size
    assert any(f"left out the damaged event file {files[1]}" in warning for warning in recording.warnings)
    known = known_recording()
    assert len(recording.read_events(0, 2**40)) == len(known.t) - known.interval(1).sum()


def test_members_that_are_missing(copy: Copy) -> None:
    path, files = copy("hs-ergb")
    for file in files:
        np.savez(file, x=[1.0], y=[1.0], p=[1])
    with pytest.raises(InputError, match="expected members x, y, t, p; missing: t"):
        open_recording(path)


def test_eventaid_without_times_takes_the_ranges(tmp_path: Path) -> None:
    known = known_recording()
    path = write_eventaid(tmp_path / "scene", known, header="index exposure gain")
    recording = open_recording(path)
    assert any("frame_info.txt has no column of times ('index exposure gain')" in line for line in recording.warnings)
    assert np.abs(recording.frames.times_us - known.times_us).max() < 200
    (path / "frame_info.txt").unlink()
    assert any("no frame_info.txt" in line for line in open_recording(path).warnings)


def test_eventaid_tables_that_are_broken(tmp_path: Path) -> None:
    path = write_eventaid(tmp_path / "scene", known_recording())
    (path / "shape.txt").write_text("640 480\n")
    with pytest.raises(InputError, match="expected the frames' size 48×36, found 640 480"):
        open_recording(path)
    (path / "shape.txt").write_text(f"{SIZE[0]} {SIZE[1]}\n")
    (path / "frame_info.txt").write_text("index time\n0 x\n")
    with pytest.raises(InputError, match="line 2: expected a time in column 2, found '0 x'"):
        open_recording(path)


def test_eventaid_shape_of_any_length_is_read_no_further_than_needed(tmp_path: Path) -> None:
    path = write_eventaid(tmp_path / "scene", known_recording())
    with (path / "shape.txt").open("r+b") as file:
        file.truncate(2**25)
    tracemalloc.start()
    open_recording(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_evdi_exposures_that_end_before_they_start(copy: Copy) -> None:
    path, _ = copy("evdi")
    write_stamps(path / "Exposure_end.txt", known_recording().times_us - 2000)
    with pytest.raises(InputError, match=r"line 1: the exposure ends at 998000 µs, before it starts at 999000"):
        open_recording(path)
    (path / "Exposure_end.txt").unlink()
    with pytest.raises(InputError, match=r"missing: Exposure_end.txt"):
        open_recording(path, format="evdi")


def test_links_to_data_elsewhere_are_followed(copy: Copy, tmp_path: Path) -> None:
    path, _ = copy("bs-ergb")
    (tmp_path / "linked").mkdir()
    for name in ("images", "events"):
        (tmp_path / "linked" / name).symlink_to(path / name)
    assert len(open_recording(tmp_path / "linked").frames) == 5


@pytest.mark.parametrize("layout", NPZ)
@pytest.mark.parametrize(
    "edit",
    [
        lambda columns: {"x": columns["x"][:-1]},
        lambda columns: {time_key(columns): columns[time_key(columns)] > 0},
        lambda columns: {time_key(columns): np.full(len(columns["x"]), np.nan)},
        lambda columns: {"x": np.full(len(columns["x"]), np.inf)},
        lambda columns: {name: values.reshape(2, -1) for name, values in columns.items() if values.size % 2 == 0},
        lambda columns: {time_key(columns): np.full(len(columns["x"]), 2**63, np.uint64)},
    ],
)
def test_columns_that_are_none(copy: Copy, layout: str, edit: Callable[[Columns], Columns]) -> None:
    path, files = copy(layout)
    change(files, edit)
    with pytest.raises((InputError, RecordingError)) as caught:
        open_recording(path)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value)
