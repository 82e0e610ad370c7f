"""What is found to evaluate, how it is named, and that it is told apart from other data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples_on_disk import HEIGHT, STEP_US, WIDTH, moving_square, write_recording

from evfi.errors import ConfigError, InputError
from evfi.evaluation.sequences import VideoOptions, find_sequences, prepare_sequence
from evfi.fingerprints import fingerprint_of, fingerprint_of_files
from evfi.recordings.options import RecordingOptions
from evfi.video.writer import VideoWriter
from file_writers.datasets import known_recording, write_refid_gopro
from hostile_json import HOSTILE_JSON


def write_video(path: Path, number: int = 9) -> Path:
    with VideoWriter(path, (WIDTH, HEIGHT), 50.0) as writer:
        for frame in moving_square(number):
            writer.write(frame)
    return path


def test_recordings_videos_and_folders_of_them(tmp_path: Path):
    first = write_recording(tmp_path / "one")
    (tmp_path / "set" / "test").mkdir(parents=True)
    second = write_recording(tmp_path / "set" / "test" / "two")
    third = write_video(tmp_path / "set" / "walk.mp4")
    assert find_sequences([first]) == {"one": first}
    assert find_sequences([tmp_path / "set"]) == {"walk": third, "two": second}
    assert find_sequences([first, first]) == {"one": first, "one_2": first}


def test_files_that_only_look_like_recordings_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "set").mkdir()
    good = write_recording(tmp_path / "set" / "good")
    (tmp_path / "set" / "broken.aedat4").write_bytes(b"x")
    (tmp_path / "set" / "notes.txt").write_text("…")
    with caplog.at_level("WARNING", logger="evfi"):
        assert find_sequences([tmp_path / "set"]) == {"good": good}
    assert [record.getMessage() for record in caplog.records] == [
        f"skipping {tmp_path / 'set' / 'broken.aedat4'}: it contains no readable recording; open it alone to see why"
    ]


def test_equal_names_below_a_folder_get_their_folders_name(tmp_path: Path):
    for part in ("a", "b"):
        (tmp_path / "set" / part).mkdir(parents=True)
        write_recording(tmp_path / "set" / part / "seq")
    assert list(find_sequences([tmp_path / "set"])) == ["a_seq", "b_seq"]


def test_what_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(InputError, match="no such file or folder"):
        find_sequences([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    ((name, path),) = find_sequences([tmp_path / "empty"]).items()
    with pytest.raises(InputError, match="the folder is empty"):
        prepare_sequence(name, path, tmp_path / "out")


def test_a_recording_is_described(tmp_path: Path):
    path = write_recording(tmp_path / "one")
    sequence = prepare_sequence("one", path, tmp_path / "out")
    info = sequence.info
    assert (info.num_frames, info.size, info.sensor_size, info.frame_rate) == (
        9,
        (WIDTH, HEIGHT),
        (WIDTH, HEIGHT),
        50.0,
    )
    assert (info.format, info.simulated, info.path) == ("plain", None, str(path))
    assert prepare_sequence("other name", path, tmp_path / "out").info.fingerprint == info.fingerprint
    later = prepare_sequence("one", path, tmp_path / "out", opening=RecordingOptions(time_offset_us=5))
    assert later.info.fingerprint != info.fingerprint
    other = prepare_sequence("one", write_recording(tmp_path / "two", seed=1), tmp_path / "out")
    assert other.info.fingerprint != info.fingerprint


def test_a_video_becomes_a_recording_once(tmp_path: Path):
    video = write_video(tmp_path / "walk.mp4")
    calls: list[int] = []
    options = VideoOptions(height=20, max_frames=7)
    for _ in range(2):
        sequence = prepare_sequence(
            "walk", video, tmp_path / "out", video=options, progress=lambda done, total: calls.append(done)
        )
    assert calls == list(range(1, 8))
    assert (sequence.info.num_frames, sequence.info.size) == (7, (24, 20))
    assert sequence.info.simulated is not None
    assert sequence.info.simulated["max_frames"] == 7
    with sequence.open() as recording:
        np.testing.assert_allclose(np.diff(recording.frames.times_us), STEP_US)
    with pytest.raises(ConfigError, match="other settings"):
        prepare_sequence("walk", video, tmp_path / "out", video=options, seed=1)


@pytest.mark.parametrize("options", [{"height": 7}, {"max_frames": 2}])
def test_video_options_are_checked(options: dict[str, int]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        VideoOptions(**options)


def test_fingerprints_tell_files_apart(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("same")
    assert fingerprint_of_files([tmp_path / "a"]) == fingerprint_of_files([tmp_path / "b"])
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "y")
    assert fingerprint_of_files([tmp_path / "a"]) != fingerprint_of_files([tmp_path / "b"])
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


def test_fingerprints_see_files_behind_links_once(tmp_path: Path):
    for folder in ("data", "elsewhere"):
        (tmp_path / folder).mkdir()
    picture = tmp_path / "elsewhere" / "0.png"
    picture.write_bytes(b"a")
    (tmp_path / "data" / "frames").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    before = fingerprint_of_files([tmp_path / "data"])
    picture.write_bytes(b"b")
    assert fingerprint_of_files([tmp_path / "data"]) != before


def test_the_fingerprint_sees_event_files_beside_the_sequence(tmp_path: Path):
    path = write_refid_gopro(tmp_path / "data", known_recording())
    (name, found), *_ = find_sequences([path]).items()
    before = prepare_sequence(name, found, tmp_path / "out").info.fingerprint
    event_file = next(file for file in sorted((tmp_path / "data").rglob("*.npz")) if not file.is_relative_to(path))
    columns = dict(np.load(event_file))
    columns["polarity"] = columns["polarity"][::-1].copy()
    np.savez(event_file, **columns)
    assert prepare_sequence(name, found, tmp_path / "out").info.fingerprint != before


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_a_hostile_mark_is_of_another_simulation(tmp_path: Path, name: str):
    video = write_video(tmp_path / "a.mp4", 3)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a.simulation.json").write_bytes(HOSTILE_JSON[name])
    with pytest.raises(ConfigError, match="simulated from another video"):
        prepare_sequence("a", video, tmp_path / "out")
