"""Ctrl-C, polite kills, terminals that go away, and two processes at one job."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fault_jobs import FaultJob, RunningJob, needs_linux, slow

pytestmark = needs_linux

WINDOWS = 20


def interrupt(running: RunningJob, number: int, *, group: bool) -> None:
    (os.killpg if group else os.kill)(running.process.pid, number)


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGINT, True),
        slow(signal.SIGINT, False),
        (signal.SIGTERM, False),
        slow(signal.SIGTERM, True),
    ],
)
def test_interrupted(recording, undisturbed, tmp_path: Path, number, group):
    job = FaultJob(recording, tmp_path / "job", seconds=0.3)
    running = job.start()
    running.wait_until(lambda: len(job.pieces) >= 3)
    interrupt(running, number, group=group)
    finished = running.wait(timeout=30)
    running.assert_all_gone(within_s=2)
    assert finished.status == 130, finished.err
    last = finished.err.splitlines()[-1]
    told = re.fullmatch(
        rf"evfi: error: interrupted; (\d+) of {WINDOWS} windows are done and kept in (.*): run the same command to resume",
        last,
    )
    assert told, finished.err
    assert 3 <= int(told[1]) <= len(job.pieces)
    assert told[2] == str(job.job)
    assert "Traceback" not in finished.err
    assert job.leftovers() == []
    assert not job.video.exists()
    assert not job.frames_dir.exists()
    finished = job.run_here()
    assert finished.status == 0, finished.err
    assert job.results() == undisturbed


def test_ctrl_c_while_workers_start(recording, undisturbed, tmp_path: Path):
    for place, wait_s in enumerate([0.0, 0.5, 1.0]):
        job = FaultJob(recording, tmp_path / f"{place}")
        running = job.start()
        running.wait_until(lambda running=running: len(running.processes(workers=True)) == 2)
        time.sleep(wait_s)
        interrupt(running, signal.SIGINT, group=True)
        finished = running.wait(timeout=30)
        running.assert_all_gone(within_s=2)
        assert finished.status == 130
        assert "Traceback" not in finished.err, finished.err
        assert "KeyboardInterrupt" not in finished.err
        assert f"0 of {WINDOWS} windows are done" in finished.err.splitlines()[-1] or job.pieces
        assert job.leftovers() == []


@pytest.mark.slow
def test_ctrl_c_at_the_end_tells_no_lies(recording, undisturbed, tmp_path: Path):
    job = FaultJob(recording, tmp_path / "job", more=["--compare"])
    running = job.start()
    running.wait_until(job.video.exists)
    interrupt(running, signal.SIGINT, group=True)
    finished = running.wait(timeout=60)
    running.assert_all_gone(within_s=2)
    assert finished.status in (0, 130), finished.err
    assert "to start again" not in finished.err
    assert job.leftovers() == []
    assert job.run_here().status == 0
    assert job.results() == undisturbed


@pytest.mark.slow
def test_terminal_gone(recording, undisturbed, tmp_path: Path):
    """SIGHUP, as a closed terminal sends it, kills at once, like kill -9."""
    job = FaultJob(recording, tmp_path / "job", seconds=0.3)
    running = job.start()
    running.wait_until(lambda: len(job.pieces) >= 2)
    interrupt(running, signal.SIGHUP, group=False)
    assert running.process.wait(timeout=30) != 0
    running.assert_all_gone()
    kept = job.pieces
    assert job.run_here().status == 0
    assert set(kept) <= set(job.pieces)
    assert job.leftovers() == []
    assert job.results() == undisturbed


@pytest.mark.parametrize("progress", ["json", slow("auto")])
def test_nobody_reads_along_any_more(recording, undisturbed, tmp_path: Path, progress):
    """Output into a pipe whose reader leaves: the job ends, or goes on, but never hangs and never loses windows."""
    job = FaultJob(recording, tmp_path / "job", seconds=0.3, more=["--no-report", "--progress", progress])
    running = job.start()
    running.wait_until(lambda: len(job.pieces) >= 2)
    assert running.process.stdout is not None
    assert running.process.stderr is not None
    running.process.stdout.close()
    running.process.stderr.close()
    running.process.wait(timeout=60)
    running.assert_all_gone()
    assert running.process.returncode in (0, 1, 120)
    assert job.leftovers() == []
    kept = job.pieces
    assert len(kept) >= 2
    assert job.run_here().status == 0
    assert set(kept) <= set(job.pieces)
    assert job.results() == undisturbed


@pytest.mark.slow
def test_output_closed_from_the_start(recording, undisturbed, tmp_path: Path):
    job = FaultJob(recording, tmp_path / "job")
    command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *job.command]
    running = job.start(command=command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running.process.wait(timeout=120)
    running.assert_all_gone()
    assert job.leftovers() == []
    assert job.run_here().status == 0
    assert job.results() == undisturbed


@pytest.mark.parametrize("is_named", [False, slow(True)])
def test_second_process_is_refused_at_once(recording, undisturbed, tmp_path: Path, is_named):
    job = FaultJob(recording, tmp_path / "job", seconds=0.4)
    more = ["--job", str(job.job)] if is_named else []
    running = job.start(*more)
    running.wait_until(lambda: len(job.pieces) >= 1)
    second = FaultJob(recording, tmp_path / "job").run_here(*more)
    assert running.process.poll() is None
    assert second.status == 1
    assert second.err.splitlines()[-1].startswith("evfi: error: another process is working on this job (job in ")
    assert "log.jsonl identify it" in second.err
    finished = running.wait()
    assert finished.status == 0, finished.err
    assert job.results() == undisturbed
    assert all(len(tries) == 1 for tries in job.attempts().values())


@pytest.mark.slow
def test_two_jobs_with_one_output_do_not_spoil_each_other(recording, undisturbed, tmp_path: Path):
    """Each writes under a name of its own; who ends last has written the results."""
    job = FaultJob(recording, tmp_path / "job", seconds=1.5, pictures=False)
    running = job.start("--job", str(tmp_path / "first"))
    running.wait_until((tmp_path / "first" / "windows").is_dir)
    second = FaultJob(recording, tmp_path / "job", pictures=False).run("--job", str(tmp_path / "second"))
    assert running.process.poll() is None
    first = running.wait()
    assert second.status == 0, second.err
    assert first.status == 0, first.err
    assert job.results() == {"video.mp4": undisturbed["video.mp4"]}
    assert job.leftovers() == []
