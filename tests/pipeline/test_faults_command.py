"""`evfi interpolate` itself, with the model in the package: killed, interrupted, run twice at once, given a damaged picture."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from fault_jobs import FaultJob, needs_linux, write_recording

pytestmark = [needs_linux, pytest.mark.slow]

WINDOWS = 6


class RealJob(FaultJob):
    """The command as users type it."""

    @property
    def command(self) -> list[str]:
        arguments = [str(self.recording), "-o", str(self.video), "--frames-dir", str(self.frames_dir)]
        arguments += ["--insert", "1", "--devices", "cpu", "--workers", "local", "--steps", "4"]
        return [sys.executable, "-m", "evfi", "interpolate", *arguments]


@pytest.fixture(scope="module")
def undisturbed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    job = RealJob(recording, tmp_path_factory.mktemp("undisturbed"))
    finished = job.run()
    assert finished.status == 0, finished.err
    assert f"windows   {WINDOWS}" in finished.out
    assert (job.folder / "video.report.html").exists()
    return job.results()


def test_killed_and_gone_on(recording, undisturbed, tmp_path: Path):
    job = RealJob(recording, tmp_path / "job")
    running = job.start()
    running.wait_until(lambda: len(job.pieces) >= 2)
    running.kill(group=False)
    running.assert_all_gone()
    finished = job.run()
    assert finished.status == 0, finished.err
    assert "of them already done" in finished.out
    assert job.results() == undisturbed


def test_interrupted_refused_twice_and_gone_on(recording, undisturbed, tmp_path: Path):
    job = RealJob(recording, tmp_path / "job")
    running = job.start()
    running.wait_until(lambda: len(job.pieces) >= 1)
    os.kill(running.process.pid, signal.SIGSTOP)  # so that it is still there when the second one has started
    second = job.run()
    assert second.status == 1
    assert "another process is working on this job" in second.err.splitlines()[-1]
    os.kill(running.process.pid, signal.SIGCONT)
    os.killpg(running.process.pid, signal.SIGINT)
    finished = running.wait()
    running.assert_all_gone(within_s=2)
    assert finished.status == 130
    assert f"of {WINDOWS} windows are done and kept" in finished.err.splitlines()[-1]
    assert "Traceback" not in finished.err
    assert job.leftovers() == []
    assert job.run().status == 0
    assert job.results() == undisturbed


def test_damaged_picture_is_told_and_mended(recording, undisturbed, tmp_path: Path):
    own = write_recording(tmp_path / "scene", WINDOWS)
    file = own / "frames" / "000003.png"
    content = file.read_bytes()
    file.write_bytes(content[:200])
    job = RealJob(own, tmp_path / "job")
    finished = job.run()
    assert finished.status == 1
    last = finished.err.splitlines()[-1]
    assert f"2 of {WINDOWS} windows failed: window 2: " in last
    assert str(file) in last
    assert len(job.pieces) == WINDOWS - 2
    file.write_bytes(content)
    finished = job.run()
    assert finished.status == 0, finished.err
    assert f"windows   {WINDOWS}, {WINDOWS - 2} of them already done" in finished.out
    assert job.results() == undisturbed
