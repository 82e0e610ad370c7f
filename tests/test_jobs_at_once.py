"""Jobs that run at the same time: one folder of frames, one video, shards of one job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evfi.errors import OutputError
from evfi.files import folder_written_whole, held_alone
from evfi.interpolator import Interpolator
from evfi.pipeline.job import interpolate_recording
from evfi.pipeline.job_config import JobConfig
from evfi.recordings.opening import open_recording
from stand_ins import Blender
from test_cli import failure, run, write_recording
from test_no_loss import contents


class Meanwhile(Blender):
    """The stand-in for the model, which lets something happen while it makes its first window."""

    def __init__(self) -> None:
        super().__init__()
        self.happens: Callable[[], None] | None = None

    def interpolate_window(self, window: Any, **more: Any) -> Any:
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()
        return super().interpolate_window(window, **more)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    model = Meanwhile()
    monkeypatch.setattr(Interpolator, "from_pretrained", staticmethod(lambda *_, **__: model))
    return model


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "r")


def interpolate(recording: Path, job: str, *more: object) -> tuple[object, ...]:
    return "interpolate", recording, "--insert", 1, "--no-report", "--job", recording.parent / job, *more


class TestOneFolderOfFrames:
    def test_the_second_job_is_refused_before_its_work(self, recording, tmp_path, model, capsys):
        frames = ("--frames-dir", tmp_path / "f")
        told = []

        def second() -> None:
            capsys.readouterr()
            told.append(failure(capsys, *interpolate(recording, "second", *frames)))
            assert model.seen == []

        model.happens = second
        assert run(*interpolate(recording, "first", *frames)) == 0
        assert "another process is writing it; wait until it is done, or choose another folder" in told[0]
        assert len(list((tmp_path / "f").iterdir())) == 8
        assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "first", "r", "second"]
        assert len(model.seen) == 3

    def test_so_it_is_where_an_earlier_result_is_replaced(self, recording, tmp_path, model, capsys):
        frames = ("--frames-dir", tmp_path / "f")
        assert run(*interpolate(recording, "first", *frames)) == 0
        model.happens = lambda: told.append(failure(capsys, *interpolate(recording, "second", *frames)))
        told: list[str] = []
        capsys.readouterr()
        assert run(*interpolate(recording, "first", *frames, "--fresh")) == 0
        assert "cannot write" in told[0]
        assert len(list((tmp_path / "f").iterdir())) == 8

    def test_so_is_the_python_call(self, recording, tmp_path, model):
        with open_recording(recording) as opened, held_alone(tmp_path / "f"):
            with pytest.raises(OutputError, match="another process is writing it"):
                interpolate_recording(model, opened, None, frames_dir=tmp_path / "f", config=JobConfig(insert=1))
            assert model.seen == []
            interpolate_recording(model, opened, None, frames_dir=tmp_path / "g", config=JobConfig(insert=1))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["g", "r"]

    def test_what_others_put_there_meanwhile_is_kept(self, tmp_path):
        with (
            pytest.raises(OutputError, match="something was put there in the meantime"),
            folder_written_whole(tmp_path / "f") as partial,
        ):
            (partial / "a.txt").write_text("x")
            (tmp_path / "f").mkdir()
            (tmp_path / "f" / "mine.txt").write_text("mine")
        assert contents(tmp_path) == {"f": "folder", "f/mine.txt": b"mine"}

    def test_a_place_is_held_until_the_end_and_no_other_is(self, tmp_path):
        with held_alone(tmp_path / "f"):
            with held_alone(tmp_path / "g"), folder_written_whole(tmp_path / "f"):
                pass
            with pytest.raises(OutputError, match="another process is writing it"), held_alone(tmp_path / "f"):
                pass
        with held_alone(tmp_path / "f"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_two_jobs_with_one_video_both_succeed(recording, tmp_path, model):
    video = ("-o", tmp_path / "a.mp4", "--compare", "--timecodes")
    statuses = []
    model.happens = lambda: statuses.append(run(*interpolate(recording, "second", *video)))
    assert run(*interpolate(recording, "first", *video)) == 0
    assert statuses == [0]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("r", "first", "second", "a.mp4", "a.compare.mp4", "a.timecodes.txt")
    }


class TestShards:
    def test_of_another_number_are_refused(self, recording, tmp_path, model, capsys):
        command = interpolate(recording, "job", "-o", tmp_path / "a.mp4", "--shard")
        told = []

        def second() -> None:
            capsys.readouterr()
            told.append(failure(capsys, *command, "1/3"))
            assert model.seen == []

        model.happens = second
        assert run(*command, "2/2") == 0
        assert "shard 2 of 2 of the job in" in told[0]
        assert "run all shards with the same number, as in --shard 1/2, or wait until it is done" in told[0]
        assert run(*command, "1/3") == 0  # afterwards it may

    def test_of_one_number_work_at_the_same_time(self, recording, tmp_path, model):
        command = interpolate(recording, "job", "-o", tmp_path / "a.mp4", "--shard")
        assert run(*command, "1/3") == 0  # its lock stays there and belongs to nobody
        statuses = []
        model.happens = lambda: statuses.append(run(*command, "1/2"))
        assert run(*command, "2/2") == 0
        assert statuses == [0]
        assert sorted(index for index, _ in model.seen) == [0, 1, 2]
