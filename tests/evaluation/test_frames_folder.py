from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from system_tasks import FLOORED, HEIGHT, WIDTH, window_task

from evfi.errors import InputError
from evfi.evaluation.ground_truth import scored_size_frame
from evfi.evaluation.loading import load_system
from evfi.evaluation.systems import SizeRule, System, SystemRequest
from evfi.video.geometry import Frame
from evfi.video.io import write_png


def _picture(number: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Frame:
    return np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)


def _write(folder: Path, numbers: tuple[int, ...] = (5, 6, 7), shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        write_png(folder / f"{number:06d}.png", _picture(number, shape))
    return folder


def _system(folder: Path, size: SizeRule = "original") -> System:
    return load_system(SystemRequest("theirs", "frames", str(folder)), size, "cpu")


@pytest.mark.parametrize("inner", ["street/skip3", "street", "skip3", ""])
def test_frames_are_found_where_either_level_may_be_missing(tmp_path: Path, inner: str) -> None:
    _write(tmp_path / inner)
    task = window_task()
    frames = _system(tmp_path).make(task)
    assert (frames[1:-1] == np.stack([_picture(number) for number in (5, 6, 7)])).all()
    assert (frames[[0, -1]] == np.stack([task.window.start_image, task.window.end_image])).all()


def test_key_frames_in_the_folder_are_not_looked_at(tmp_path: Path) -> None:
    _write(tmp_path / "street" / "skip3", (4, 5, 6, 7, 8))
    task = window_task()
    assert (_system(tmp_path).make(task)[0] == task.window.start_image).all()


def test_leading_zeros_and_formats_are_free_and_other_files_ignored(tmp_path: Path) -> None:
    for number, name in ((5, "5.png"), (6, "0000000006.PNG"), (7, "007.bmp")):
        write_png(tmp_path / name, _picture(number)) if name[-1] != "p" else _write_bmp(tmp_path / name, number)
    (tmp_path / "6.txt").write_text("x")
    write_png(tmp_path / "frame6.png", _picture(0))
    assert (_system(tmp_path).make(window_task())[1:-1] == np.stack([_picture(n) for n in (5, 6, 7)])).all()


def _write_bmp(path: Path, number: int) -> None:
    from PIL import Image

    Image.fromarray(_picture(number)).save(path)


def test_frames_of_the_original_size_are_floored_and_those_of_the_scored_size_taken(tmp_path: Path) -> None:
    original, floored = _write(tmp_path / "a"), _write(tmp_path / "b", shape=FLOORED)
    task = window_task()
    frames = _system(original, "floor8").make(task)
    assert (frames[2] == scored_size_frame(_picture(6), "floor8")).all()
    assert (frames[0] == scored_size_frame(task.window.start_image, "floor8")).all()
    assert (_system(floored, "floor8").make(task)[2] == _picture(6, FLOORED)).all()


def test_another_size_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, shape=FLOORED)
    path = re.escape(str(tmp_path / "000005.png"))
    with pytest.raises(InputError, match=f"^{path}: expected a picture of 50x35 pixels, found 48x32$"):
        _system(tmp_path).make(window_task())
    _write(tmp_path, shape=(30, 40))
    with pytest.raises(InputError, match=f"^{path}: expected a picture of 48x32 or 50x35 pixels, found 40x30$"):
        _system(tmp_path, "floor8").make(window_task())


def test_missing_frames_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder = _write(tmp_path / "street" / "skip3", (6,))
    expected = (
        "theirs: 2 of 3 frames of window 1 of street, skip 3, are missing; the first was expected at "
        f"{folder / '000005.png'}"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        _system(tmp_path).make(window_task())


def test_a_missing_sequence_is_an_error_that_says_where_it_was_expected(tmp_path: Path) -> None:
    _write(tmp_path / "street" / "skip3")
    expected = "theirs: no frames of gym, skip 3; the first was expected at " + str(
        tmp_path / "gym" / "skip3" / "000005.png"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        _system(tmp_path).make(window_task(name="gym"))


def test_two_places_are_an_error(tmp_path: Path) -> None:
    full, short = _write(tmp_path / "street" / "skip3"), _write(tmp_path / "street")
    expected = (
        "theirs: cannot tell where the frames of street, skip 3, are: there are numbered pictures in "
        f"{full} and in {short}; keep them in {full} only"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        _system(tmp_path).make(window_task())


@pytest.mark.parametrize(
    ("inner", "other"), [("street", {"skip": 1, "name": "street"}), ("skip3", {"skip": 3, "name": "gym"})]
)
def test_a_missing_level_serves_one_skip_or_one_sequence_only(tmp_path: Path, inner: str, other: dict) -> None:  # type: ignore[type-arg]
    folder = _write(tmp_path / inner)
    system = _system(tmp_path)
    system.make(window_task())
    expected = (
        f"theirs: the pictures in {folder} match both street, skip 3, and {other['name']}, skip "
        f"{other['skip']}; put each set into its own folder SEQUENCE/skipK"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        system.make(window_task(**other))


def test_windows_that_overlap_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, (5, 6, 7, 8))
    system = _system(tmp_path)
    assert (system.make(window_task()) == system.make(window_task())).all()
    expected = (
        "theirs: frame 6 of street, skip 3, lies in the windows that start at frames 4 and 5; a folder of frames can be "
        "evaluated only where windows do not overlap"
    )
    with pytest.raises(InputError, match=f"^{expected}$"):
        system.make(window_task(start=5))


def test_one_number_twice_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path)
    write_png(tmp_path / "6.png", _picture(1))
    with pytest.raises(InputError, match=r": 000006\.png and 6\.png are both frame 6; keep one of them$"):
        _system(tmp_path)


def test_a_folder_without_frames_is_an_error(tmp_path: Path) -> None:
    advice = "expected frames named SEQUENCE/skipK/NNNNNN.png in it"
    with pytest.raises(InputError, match=f"^no folder {re.escape(str(tmp_path / 'none'))}; {advice}$"):
        _system(tmp_path / "none")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))} holds no numbered pictures; {advice}$"):
        _system(tmp_path)


def test_a_damaged_picture_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "000006.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"000006\.png"):
        _system(tmp_path).make(window_task())


def test_the_fingerprint_is_that_of_names_and_contents(tmp_path: Path) -> None:
    first, second = (_write(tmp_path / name / "street" / "skip3") for name in "ab")
    info = _system(tmp_path / "a").info
    assert (info.name, info.kind, info.settings) == ("theirs", "frames", {"folder": str(tmp_path / "a")})
    assert _system(tmp_path / "b").info.fingerprint == info.fingerprint
    (second / "notes.txt").write_text("x")
    assert _system(tmp_path / "b").info.fingerprint == info.fingerprint
    write_png(second / "000006.png", _picture(9))
    assert _system(tmp_path / "b").info.fingerprint != info.fingerprint
    (first / "000006.png").rename(first / "000009.png")
    assert _system(tmp_path / "a").info.fingerprint != info.fingerprint
