"""Pictures written in threads: all of them, in order, or an error."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evfi.errors import OutputError
from evfi.video import picture_writer as module
from evfi.video.io import read_image, write_png
from evfi.video.picture_writer import PictureWriter

FRAMES = np.random.default_rng(0).integers(0, 256, (23, 6, 8, 3), dtype=np.uint8)


def test_every_frame_gets_its_number(tmp_path: Path) -> None:
    with PictureWriter(tmp_path) as writer:
        for frame in FRAMES:
            writer.write(frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{number:06d}.png" for number in range(23)]
    for number, frame in enumerate(FRAMES):
        np.testing.assert_array_equal(read_image(tmp_path / f"{number:06d}.png"), frame)


@pytest.mark.parametrize("number", [2, 22])
def test_a_frame_that_cannot_be_written_is_an_error_now_or_at_the_end(tmp_path: Path, number: int) -> None:
    (tmp_path / f"{number:06d}.png").mkdir()
    with pytest.raises(OutputError, match=f"{number:06d}.png"), PictureWriter(tmp_path) as writer:
        for frame in FRAMES:
            writer.write(frame)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evfi-picture")]


def test_few_frames_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, written = threading.Event(), []

    def held_up(path: Path, frame: Any) -> None:
        may_write.wait(10)
        written.append(path.name)
        write_png(path, frame)

    monkeypatch.setattr(module, "write_png", held_up)
    with PictureWriter(tmp_path) as writer:
        for frame in FRAMES[:8]:
            writer.write(frame)
        ninth = threading.Thread(target=writer.write, args=(FRAMES[8],))
        ninth.start()
        ninth.join(0.2)
        assert ninth.is_alive()
        assert written == []
        may_write.set()
        ninth.join(10)
        assert not ninth.is_alive()
    assert len(written) == 9


def test_what_is_not_begun_is_dropped_after_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, begun = threading.Event(), []

    def held_up(path: Path, frame: Any) -> None:
        begun.append(path.name)
        may_write.wait(0.5)

    monkeypatch.setattr(module, "write_png", held_up)
    with pytest.raises(KeyError), PictureWriter(tmp_path) as writer:
        for frame in FRAMES[:8]:
            writer.write(frame)
        raise KeyError
    assert len(begun) <= 4
