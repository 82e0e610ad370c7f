"""The demo: a deterministic scene, an honest comparison, files that a person can open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evfi.demo.comparison import compare
from evfi.demo.folder import prepare_folder
from evfi.demo.recording import DemoConfig, record_scene
from evfi.demo.run import run_demo
from evfi.demo.scene import Scene, to_srgb
from evfi.demo.sheet import label_row, magnify
from evfi.errors import ConfigError, OutputError
from evfi.recordings.opening import open_recording
from evfi.recordings.recording import Window
from evfi.video.io import VideoFrames, read_image
from hostile_json import HOSTILE_JSON
from stand_ins import Blender

SMALL = DemoConfig(width=64, height=48, windows=2, insert=3, sub_frames=3)


class Oracle:
    """Stands in for a perfect model: knows the truth."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth

    def interpolate_window(self, window: Window, *, seed: int, on_step) -> np.ndarray:
        stride = len(window.spec.times_us) - 1
        return self.truth[window.spec.index * stride : (window.spec.index + 1) * stride + 1]


def test_scene_is_a_function_of_time():
    scene = Scene(64, 48)
    first, later = scene.render(0.0), scene.render(0.02)
    assert first.shape == (48, 64, 3)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(Scene(64, 48).render(0.0), first)
    assert 0.02 < (np.abs(later - first).max(axis=-1) > 0.02).mean() < 0.6
    assert to_srgb(first).std() > 30


def test_srgb_by_hand():
    levels = to_srgb(np.array([0, 0.0031308, 0.5, 1, 2], np.float32))
    assert levels.tolist() == [0, 10, 188, 255, 255]


def test_video_is_deterministic_and_fits_together():
    video, again = record_scene(SMALL), record_scene(SMALL)
    np.testing.assert_array_equal(video.truth, again.truth)
    np.testing.assert_array_equal(video.events.t, again.events.t)
    assert video.truth.shape == (9, 48, 64, 3)
    assert video.times_us.tolist() == list(range(0, 80_001, 10_000))
    np.testing.assert_array_equal(video.recording.frames.read(1), video.truth[4])
    events = video.events
    assert len(events) > 500
    assert (events.t >= 0).all()
    assert (events.t <= 80_000).all()
    moving = np.abs(video.truth[0].astype(int) - video.truth[4]).sum(axis=-1) > 150
    during = events.slice(0, 40_000)
    counts = np.zeros((48, 64), int)
    np.add.at(counts, (during.y, during.x), 1)
    assert (counts[moving] > 0).mean() > 0.9


def test_comparison_scores():
    video = record_scene(SMALL)
    compared = compare(video, Oracle(video.truth), SMALL.insert, 0)
    assert compared.scores(compared.ours).whole == pytest.approx(100)
    blended = compared.scores(compared.blended)
    assert 10 < blended.moving < blended.whole < 40
    np.testing.assert_array_equal(compared.blended[::4], video.truth[::4])


def test_files(tmp_path: Path):
    told = []
    summary = run_demo(
        tmp_path / "demo", Blender(), config=SMALL, progress=lambda done, total: told.append((done, total))
    )
    assert summary.num_inserted == 6
    assert summary.ours == summary.blending
    assert told[-1] == (2, 2)
    with VideoFrames(summary.video) as video:
        assert len(video) == 27
    with Image.open(summary.picture) as picture:
        assert picture.width > 5 * 64
    with open_recording(summary.recording) as recording:
        video = record_scene(SMALL)
        np.testing.assert_array_equal(recording.frames.read(2), video.truth[8])
        np.testing.assert_array_equal(recording.events.slice(0, 10**6).t, video.events.t)
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"demo.mp4", "demo.png", "demo.json", "recording"}


def test_second_run_replaces_the_first(tmp_path: Path):
    first = run_demo(tmp_path, Blender(), config=SMALL)
    pixels = read_image(first.picture)
    second = run_demo(tmp_path, Blender(), config=SMALL)
    np.testing.assert_array_equal(read_image(second.picture), pixels)


def test_nothing_of_others_is_replaced(tmp_path: Path):
    (tmp_path / "recording").mkdir()
    (tmp_path / "recording" / "mine.txt").touch()
    with pytest.raises(OutputError, match="is not a demo's recording"):
        run_demo(tmp_path, Blender(), config=SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        run_demo(tmp_path / "file", Blender(), config=SMALL)
    with pytest.raises(OutputError, match="no folder"):
        run_demo(tmp_path / "no" / "demo", Blender(), config=SMALL)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="insert"):
        DemoConfig(insert=0)
    with pytest.raises(ConfigError, match="key_interval_us must be at least 20000010 for 2000000 inserted frames"):
        DemoConfig(insert=2_000_000)
    assert DemoConfig(insert=3, sub_frames=10, key_interval_us=40).key_interval_us == 40


def test_sheet():
    panel = np.full((30, 40, 3), 7, np.uint8)
    plain = label_row([panel, panel])
    assert plain.shape == (30, 2 * 40 + 3 * 6, 3)
    labelled = label_row([panel, panel], ("a", "b"), ("c", "d"))
    np.testing.assert_array_equal(labelled[-30:], plain)
    header = labelled[:-30]
    assert (header < 100).any()
    assert magnify(panel, (0, 0, 10, 10), (40, 30)).shape == panel.shape


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_files_are_of_no_demo(tmp_path: Path, name: str):
    for folder, file in (("a", "demo.json"), ("b", "recording/recording.json")):
        (tmp_path / folder / file).parent.mkdir(parents=True)
        (tmp_path / folder / file).write_bytes(HOSTILE_JSON[name])
        with pytest.raises(OutputError, match=r"is not a demo's file list|is not a demo's recording"):
            prepare_folder(tmp_path / folder)
