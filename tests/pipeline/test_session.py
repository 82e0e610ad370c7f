"""A whole job from Python: run, resumed, cancelled and watched, also by another process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_jobs import write_recording
from fault_model import StandInRequest

import evfi
from evfi.errors import ConfigError, InputError, JobCancelledError, OutputError
from evfi.pipeline.job_config import JobConfig
from evfi.pipeline.job_folder import JobFolder
from evfi.pipeline.job_loop import JobState
from evfi.pipeline.outputs import Targets
from evfi.pipeline.session import JobRequest, JobSession
from evfi.pipeline.watching import cancel_job, job_status

WINDOWS = 6


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recording") / "scene", WINDOWS)


def request(recording: Path, folder: Path, seconds: float = 0.0, faults: str = "", **settings: Any) -> JobRequest:
    notes = folder / "notes"
    notes.mkdir(exist_ok=True)
    model: Any = StandInRequest(f"{notes},{seconds}{faults}")
    targets, config = Targets(folder / "out.mp4"), JobConfig(insert=3)
    return JobRequest(recording, targets, config, model=model, workers="here", folder=folder / "job", **settings)


def test_a_job_in_one_call(recording: Path, tmp_path: Path):
    states: list[JobState] = []
    given = request(recording, tmp_path)
    settings = {"workers": "here", "folder": given.folder, "on_state": states.append}
    summary = evfi.interpolate(recording, tmp_path / "out.mp4", insert=3, model=given.model, **settings)
    assert (summary.num_windows, summary.num_inserted) == (WINDOWS, 3 * WINDOWS)
    assert states[-1].num_done == WINDOWS
    assert (tmp_path / "out.mp4").is_file()
    assert summary.targets.report.is_file()
    again = evfi.interpolate(str(recording), str(tmp_path / "out.mp4"), insert=3, model=given.model, **settings)
    assert (again.num_kept, again.video_facts) == (WINDOWS, None)
    status = evfi.job_status(tmp_path / "job")
    assert (status.condition, status.num_done, status.finished) == ("done", WINDOWS, tuple(range(WINDOWS)))
    assert (status.process[1], status.workers, status.message) == (os.getpid(), (), "")


def test_the_alignment_is_estimated_once(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = request(recording, tmp_path)
    advice = "frames and events seem shifted"
    monkeypatch.setattr("evfi.pipeline.session.advise_alignment", lambda *_: [advice])
    with JobSession(given) as session:
        assert session.recording.warnings[-1] == advice
        session.run()
    monkeypatch.setattr("evfi.pipeline.session.estimate_alignment", lambda *_, **__: pytest.fail("estimated again"))
    with JobSession(given) as session:
        assert session.recording.warnings[-1] == advice
        assert session.run().num_kept == WINDOWS
    shutil.copytree(recording, tmp_path / "other")
    shutil.copy(recording / "frames" / "000001.png", tmp_path / "other" / "frames" / "000000.png")
    monkeypatch.setattr("evfi.pipeline.session.estimate_alignment", lambda *_, **__: None)
    monkeypatch.setattr("evfi.pipeline.session.advise_alignment", lambda *_: ["another"])
    with JobSession(replace(given, recording=tmp_path / "other")) as session:
        assert session.recording.warnings[-1] == "another"


@pytest.mark.parametrize("by", ["this thread", "a window's steps", "a file"])
def test_a_cancelled_job_is_resumed(recording: Path, tmp_path: Path, by: str):
    given = request(recording, tmp_path, 0.3 if by == "a file" else 0.0)
    with JobSession(given) as session:

        def cancel(state: JobState) -> None:
            is_at_two = state.num_done == 2
            is_within = 2 < state.num_done + state.part < 3
            if by == "a file" and is_at_two and not (given.job_folder / "cancel").exists():
                cancel_job(given.job_folder)
            elif (by == "this thread" and is_at_two) or (by == "a window's steps" and is_within):
                session.cancel()

        with pytest.raises(JobCancelledError, match=r"cancelled; \d of 6 windows are done and kept in .*to resume"):
            session.run(cancel)
    status = job_status(given.job_folder)
    assert status.condition == "stopped"
    assert 2 <= status.num_done < WINDOWS
    assert not (tmp_path / "out.mp4").exists()
    with JobSession(given) as session:
        summary = session.run()
    assert summary.num_kept == status.num_done
    assert len(list((tmp_path / "notes").iterdir())) <= WINDOWS + 1  # the one that was being made began twice
    assert not (given.job_folder / "cancel").exists()
    assert job_status(given.job_folder).condition == "done"


def test_another_process_is_watched_and_cancelled(recording: Path, tmp_path: Path):
    given = request(recording, tmp_path, 0.5)
    code = (
        "import sys; sys.path[:0] = {path!r}\n"
        "from pathlib import Path\n"
        "from test_session import request\n"
        "from evfi.pipeline.session import JobSession\n"
        "with JobSession(request(Path({recording!r}), Path({folder!r}), 0.5)) as session: session.run()\n"
    )
    tests = Path(__file__).parent
    script = code.format(path=[str(tests), str(tests.parent)], recording=str(recording), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 90
        while not given.job_folder.is_dir() or job_status(given.job_folder).num_done < 1:
            assert time.monotonic() < until
            time.sleep(0.05)
        status = job_status(given.job_folder)
        assert (status.condition, status.workers, status.num_windows) == ("running", ("job",), WINDOWS)
        assert status.process[1] == process.pid
        assert status.finished[:1] == (0,)
        cancel_job(given.job_folder)
        assert "JobCancelledError: cancelled;" in process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert job_status(given.job_folder).condition == "stopped"
    with pytest.raises(InputError, match=r"no process is working on the job in .*; there is nothing to cancel"):
        cancel_job(given.job_folder)


def test_failed_windows_are_told_to_who_watches(recording: Path, tmp_path: Path):
    given = request(recording, tmp_path, faults=",3:resource:1000")
    with JobSession(given) as session, pytest.raises(evfi.ResourceError, match="1 of 6 windows failed"):
        session.run()
    status = job_status(given.job_folder)
    assert (status.condition, status.num_done, list(status.failures)) == ("failed", WINDOWS - 1, [3])
    assert "not enough GPU memory" in status.failures[3]


def test_files_in_the_place_of_folders_are_moved_aside(recording: Path, tmp_path: Path):
    given = request(recording, tmp_path)
    with JobSession(given) as session:
        session.run()
    shutil.rmtree(given.job_folder / "windows")
    (given.job_folder / "windows").write_text("mine")
    with JobSession(given) as session:
        assert session.run().num_kept == 0
    assert (given.job_folder / "windows.unusable").read_text() == "mine"


def test_a_file_of_somebody_else_s_is_no_request_to_cancel(recording: Path, tmp_path: Path):
    given = request(recording, tmp_path)
    with JobSession(given) as session:
        session.run()
    (given.job_folder / "cancel").write_text("mine")
    with JobFolder(given.job_folder), pytest.raises(OutputError, match="its file cancel is not evfi's; move it away"):
        cancel_job(given.job_folder)
    with JobSession(given) as session:
        assert session.run().num_kept == WINDOWS
    assert (given.job_folder / "cancel").read_text() == "mine"


def test_folders_without_a_job(tmp_path: Path):
    with pytest.raises(InputError, match="the folder does not exist"):
        job_status(tmp_path / "missing")
    (tmp_path / "mine.txt").write_text("mine")
    for act in (job_status, cancel_job):
        with pytest.raises(InputError, match="it holds other files"):
            act(tmp_path)


def test_a_damaged_log_is_read_as_far_as_it_goes(recording: Path, tmp_path: Path):
    given = request(recording, tmp_path)
    with JobSession(given) as session:
        session.run()
    log = given.job_folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"[" * 5000 + b"\n" + b"\xff\n" + b'{"what": "window"}\n' + b"".join(lines[1:-1]))
    assert job_status(given.job_folder).condition == "stopped"
    assert job_status(given.job_folder).finished == tuple(range(WINDOWS))
    with log.open("r+b") as file:
        file.truncate(2**40)  # zeros, of no size on the disk
    assert job_status(given.job_folder).condition == "planned"
    log.unlink()
    os.mkfifo(log)
    assert job_status(given.job_folder).condition == "planned"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge": True, "fresh": True}, "leave out one of them"),
        ({"shard": (1, 2), "merge": True}, "--shard only makes frames"),
        ({"shard": (3, 2)}, "shard must have the form"),
    ],
)
def test_settings_that_exclude_each_other(recording: Path, tmp_path: Path, settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        request(recording, tmp_path, **settings)


def test_results_do_not_depend_on_who_runs_the_job(recording: Path, tmp_path: Path):
    places = {}
    for name in ("alone", "cancelled"):
        (tmp_path / name).mkdir()
        given = request(recording, tmp_path / name, 0.05 if name == "cancelled" else 0.0)
        with JobSession(given) as session:
            if name == "cancelled":
                threading.Timer(0.2, session.cancel).start()
            while True:
                try:
                    session.run()
                    break
                except JobCancelledError:
                    session._cancelled.clear()
        places[name] = np.frombuffer((tmp_path / name / "out.mp4").read_bytes(), np.uint8)
    np.testing.assert_array_equal(places["alone"], places["cancelled"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "the number of workers must be 1 to"),
        ({"workers": 3.7}, "workers must be here, local, a number"),
        ({"devices": ["cpu"]}, "devices must be of type str"),
        ({"config": "x"}, "config must be of type JobConfig"),
        ({"model": None}, "model must be a name or a ModelRequest, got None"),
        ({"insert": 1.5}, "insert must be a whole number, got 1.5"),
        ({"insert": "3"}, "insert must be a whole number, got '3'"),
    ],
)
def test_wrong_types(recording: Path, tmp_path: Path, settings: dict[str, Any], message: str):
    given = request(recording, tmp_path)
    with pytest.raises(ConfigError, match=message):
        evfi.interpolate(recording, tmp_path / "out.mp4", **{"model": given.model, **settings})
    assert not (tmp_path / "out.mp4").exists()


def test_a_number_of_workers(recording: Path, tmp_path: Path):
    given = replace(request(recording, tmp_path), workers=1, devices="cpu", config=JobConfig(insert=np.int64(3)))
    with JobSession(given) as session:
        assert session.run().num_inserted == 3 * WINDOWS
