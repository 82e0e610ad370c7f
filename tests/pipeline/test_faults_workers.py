"""Workers without memory, with a broken GPU or lost altogether: their windows are made again, elsewhere; those that nobody can
make are told, and all others are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_jobs import FaultJob, needs_linux, slow

pytestmark = needs_linux

WINDOWS = 12


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("resource", "not enough GPU memory for one tile"),
        slow("memory", "OutOfMemoryError: CUDA out of memory"),
        ("cuda", "RuntimeError: CUDA error: an illegal memory access"),
        slow("exit", "the worker ended with status 3"),
        slow("kill", "the worker was killed by SIGKILL: perhaps out of memory"),
    ],
)
def test_failing_once_is_made_again_elsewhere(recording, undisturbed, tmp_path: Path, kind, told):
    job = FaultJob(recording, tmp_path / "job", faults=[f"5:{kind}:1"], seconds=0.2)
    finished = job.run()
    assert finished.status == 0, finished.err
    assert job.results() == undisturbed
    assert "warning: window 5, attempt 1 on cpu" in finished.err
    assert told in finished.err
    tries = job.attempts()
    first, second = tries[5]
    assert first != second  # another worker, or a new one
    assert all(len(others) == 1 for index, others in tries.items() if index != 5)


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("resource", 2), ("kill", 1), slow("cuda", 1), slow("cuda", 2), slow("resource", 1), slow("kill", 2)],
)
def test_failing_always_is_told_and_all_others_are_kept(recording, undisturbed, tmp_path: Path, kind, workers):
    job = FaultJob(recording, tmp_path / "job", workers=workers, faults=[f"0:{kind}:9", f"5:{kind}:9"])
    finished = job.run()
    assert finished.status == 1
    last = finished.err.splitlines()[-1]
    assert last.startswith(f"evfi: error: 2 of {WINDOWS} windows failed: window 0: ")
    assert "; window 5: " in last
    assert "All others are kept" in last
    assert len(job.pieces) == WINDOWS - 2
    assert job.leftovers() == []
    assert not job.video.exists()
    assert not job.frames_dir.exists()
    assert len(job.attempts()[5]) == 3

    for note in job.notes.iterdir():
        note.unlink()
    healed = FaultJob(recording, tmp_path / "job", workers=workers, faults=[f"0:{kind}:0", f"5:{kind}:0"])
    finished = healed.run_here()
    assert finished.status == 0, finished.err
    assert set(healed.attempts()) == {0, 5}
    assert healed.results() == undisturbed


@pytest.mark.slow
def test_no_worker_can_do_anything(recording, tmp_path: Path):
    job = FaultJob(recording, tmp_path / "job", workers=1, faults=[f"{index}:exit:9" for index in range(WINDOWS)])
    finished = job.run()
    assert finished.status == 1
    assert "no worker is left" in finished.err.splitlines()[-1]
    assert job.leftovers() == []


@pytest.mark.slow
def test_one_actor_of_a_ray_cluster_is_lost(recording, undisturbed, tmp_path: Path):
    pytest.importorskip("ray")
    job = FaultJob(recording, tmp_path / "job", faults=["4:exit:1"], more=["--no-report", "--workers", "ray"])
    job.environment["PYTHONPATH"] = str(Path(__file__).parent)
    finished = job.start().wait()
    assert finished.status == 0, finished.err
    assert "window 4, attempt 1" in finished.err
    assert job.results() == undisturbed
