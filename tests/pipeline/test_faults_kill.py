"""kill -9 at any moment: of a whole job, of the process that runs it, of its workers; the next run makes the same video."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fault_jobs import NUM_WINDOWS, FaultJob, RunningJob, needs_linux, slow

pytestmark = needs_linux

FEW, MANY = 3, 30


@pytest.fixture(scope="module")
def undisturbed(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Checksums of what an undisturbed run makes, and how long it takes."""
    job, began = FaultJob(recording, tmp_path_factory.mktemp("undisturbed")), time.monotonic()
    finished = job.run()
    assert finished.status == 0, finished.err
    assert len(job.pieces) == NUM_WINDOWS
    return job.results(), time.monotonic() - began


def moments(number: int, seed: int) -> list[float]:
    """Parts of a run's time, one at random within each of so many equal stretches, in random order."""
    generator = random.Random(seed)
    chosen = [(at + generator.random()) / number for at in range(number)]
    generator.shuffle(chosen)
    return chosen


def are_results_noted(job: FaultJob) -> bool:
    """Whether the job knows of results that are there whole."""
    file = job.job / "outputs.json"
    return file.exists() and '"content": ""' not in file.read_text()


def stage(job: FaultJob) -> str:
    """How far a killed job had come."""
    if are_results_noted(job):
        return "results noted"
    if job.frames_dir.exists() or job.video.exists():
        return "video named"
    if not job.pieces:
        return "start"
    return "work and video" if len(job.pieces) < NUM_WINDOWS else "video alone"


def at_stage(job: FaultJob, part: float) -> Callable[[], bool]:
    """What is true once so large a part of the work is on disk; beyond the work, once the video gets its names."""
    count = round(part * (NUM_WINDOWS + 6))
    late = [job.frames_dir.exists, job.video.exists, lambda: are_results_noted(job)]
    if count > NUM_WINDOWS:
        return late[count % len(late)]
    return lambda: len(job.pieces) >= count


def resumed(job: FaultJob, expected: dict[str, str]) -> None:
    """The same command makes what is missing, and the same video as an undisturbed run."""
    kept = job.pieces
    finished = job.run_here()
    assert finished.status == 0, finished.err
    assert job.results() == expected
    assert job.leftovers() == []
    assert set(kept) <= set(job.pieces)
    assert "damaged" not in finished.err


def disturb(job: FaultJob, part: float, duration_s: float, number: int) -> RunningJob:
    """Start a job and wait for the moment: by the clock, or by how far it is, in turns."""
    running = job.start()
    if number % 2:
        running.wait_until(at_stage(job, part))
    else:
        with suppress(Exception):
            running.process.wait(part * duration_s)
    return running


def kill_and_resume(recording: Path, undisturbed: tuple[dict[str, str], float], folder: Path, number: int) -> None:
    expected, duration_s = undisturbed
    stages: Counter[str] = Counter()
    for index, part in enumerate(moments(number, seed=number)):
        job = FaultJob(recording, folder / f"{index:02d}")
        running = disturb(job, part, duration_s, index)
        is_group = index % 4 < 2
        if running.process.poll() is None:
            running.kill(group=is_group)
        stages[stage(job)] += 1
        running.assert_all_gone()
        resumed(job, expected)
    print(f"\n{number} kills, by stage: {dict(stages)}")
    assert number < MANY or len(stages) > 2


def test_killed_at_some_moments(recording, undisturbed, tmp_path: Path):
    kill_and_resume(recording, undisturbed, tmp_path, FEW)


@pytest.mark.slow
def test_killed_at_thirty_moments(recording, undisturbed, tmp_path: Path):
    kill_and_resume(recording, undisturbed, tmp_path, MANY)


@pytest.mark.parametrize("kill_at", ["frames", slow("video.mp4"), slow("noted")])
def test_killed_as_results_get_their_names(recording, undisturbed, tmp_path: Path, kill_at):
    job = FaultJob(recording, tmp_path / "job")
    running = job.start()
    running.wait_until((lambda: are_results_noted(job)) if kill_at == "noted" else (job.folder / kill_at).exists)
    running.kill()
    resumed(job, undisturbed[0])


def kill_again_and_again(
    recording: Path, undisturbed: tuple[dict[str, str], float], folder: Path, least_new: int
) -> None:
    """Kill each run once it has made a few windows more, until one gets through."""
    generator, job, kills = random.Random(1), FaultJob(recording, folder), 0
    while True:
        running = job.start()
        wanted = len(job.pieces) + generator.randint(least_new, 2 * least_new)
        kept = job.pieces
        running.wait_until(lambda wanted=wanted: len(job.pieces) >= wanted)
        if running.process.poll() is not None:
            break
        running.kill(group=bool(kills % 2))
        kills += 1
        running.assert_all_gone()
        assert set(kept) <= set(job.pieces)
    finished = running.wait()
    assert finished.status == 0, finished.err
    assert job.results() == undisturbed[0]
    attempts = job.attempts()
    begun_twice = sum(len(tries) > 1 for tries in attempts.values())
    print(f"\n{kills} kills in a chain, {begun_twice} of {len(attempts)} windows begun more than once")
    assert set(attempts) == set(range(NUM_WINDOWS))
    assert kills >= 2


@pytest.mark.slow
def test_killed_in_a_chain(recording, undisturbed, tmp_path: Path):
    kill_again_and_again(recording, undisturbed, tmp_path / "job", 10)


@pytest.mark.slow
def test_killed_in_a_long_chain(recording, undisturbed, tmp_path: Path):
    kill_again_and_again(recording, undisturbed, tmp_path / "job", 1)


def kill_workers(recording: Path, undisturbed: tuple[dict[str, str], float], folder: Path, number: int) -> None:
    """Kill workers at random moments, several per run, until there were so many."""
    generator, killed, runs = random.Random(2), 0, 0
    while killed < number:
        job = FaultJob(recording, folder / f"{runs:02d}", seconds=0.2)
        runs += 1
        running, before = job.start(), killed
        running.wait_until(lambda job=job: len(job.pieces) >= 1)
        while killed - before < 3 and killed < number and running.process.poll() is None:
            time.sleep(generator.uniform(0, 1.5))
            workers = running.processes(workers=True)
            if workers and len(job.pieces) < NUM_WINDOWS - 3:
                with suppress(ProcessLookupError):
                    os.kill(generator.choice(workers), signal.SIGKILL)
                    killed += 1
            elif len(job.pieces) >= NUM_WINDOWS - 3:
                break
        finished = running.wait()
        running.assert_all_gone()
        assert finished.status == 0, finished.err
        assert job.results() == undisturbed[0]
        assert job.leftovers() == []
        assert "Traceback" not in finished.err
    print(f"\n{killed} workers killed in {runs} runs")


def test_workers_killed_at_some_moments(recording, undisturbed, tmp_path: Path):
    kill_workers(recording, undisturbed, tmp_path, FEW)


@pytest.mark.slow
def test_workers_killed_at_thirty_moments(recording, undisturbed, tmp_path: Path):
    kill_workers(recording, undisturbed, tmp_path, MANY)
