"""Worker processes: the same frames as in this process, whatever happens to them, and none of them is left behind.

Each start of a worker takes seconds (it imports torch), so tests start few.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from scheduler_checks import PATIENCE_S, assert_same_frames, outcomes, tasks
from worker_models import Painter, Paints
from workshop import Workshop, contents

from evfi.errors import ModelError, ResourceError
from evfi.pipeline.job_config import JobConfig
from evfi.workers import scheduler as scheduling
from evfi.workers.local import LocalProcesses
from evfi.workers.scheduler import MOST_ATTEMPTS, Scheduler


@contextmanager
def local(plan: Paints, devices: Sequence[str] = ("cpu",), **settings: object) -> Iterator[Scheduler]:
    scheduler = Scheduler(LocalProcesses(plan, devices, **settings))  # type: ignore[arg-type]
    try:
        yield scheduler
    finally:
        scheduler.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_a_job_comes_to_the_same_video(tmp_path):
    workshop = Workshop(tmp_path, most=2)
    config = JobConfig(insert=4)
    workshop.run("here", config, model=Painter())
    told = []
    summary = workshop.run(
        "there",
        config,
        scheduler=lambda on_step: Scheduler(LocalProcesses(Paints(seconds=0.21), ("cpu", "cpu"), on_step)),
        on_state=told.append,
    )
    assert contents(workshop.targets("there")) == contents(workshop.targets("here"))
    assert summary.pieces == {"cpu": 12}
    assert {facts.device for facts in summary.windows} == {"cpu"}
    parts = {round(state.num_done + state.part, 4) for state in told}
    assert len(parts) > 12  # steps within pieces were told, too
    assert told[-1].num_done == 4
    assert not multiprocessing.active_children()


def test_workers_that_come_to_harm_are_replaced(tmp_path):
    given = tasks(5)
    with local(Paints(dies_at=(1,), raises_at=(3,), once=tmp_path)) as scheduler:
        found = outcomes(scheduler, given)
    assert_same_frames(found, given)
    assert [found[index].task.attempt for index in range(5)] == [1, 2, 1, 2, 1]


def test_a_window_that_no_worker_survives_fails_and_others_do_not():
    given = tasks(3)
    with local(Paints(dies_at=(0,))) as scheduler:
        found = outcomes(scheduler, given)
    failure = found[0].failure
    assert failure is not None
    assert failure.kind == "crash"
    assert failure.message == "the worker was killed by SIGKILL: perhaps out of memory"
    assert found[0].task.attempt == MOST_ATTEMPTS
    del found[0]
    assert_same_frames(found, given)


def test_a_model_that_cannot_be_loaded_is_told():
    with local(Paints(cannot_load=True)) as scheduler:
        scheduler.submit(tasks(1)[0])
        with pytest.raises(ModelError, match="no weights for cpu"):
            outcomes(scheduler, [])
            while True:
                scheduler.next_outcome(0.5)


def test_when_no_worker_is_left_the_job_ends(monkeypatch):
    monkeypatch.setattr(scheduling, "MOST_STARTS", 1)
    with local(Paints(cannot_start=True), ("cpu", "cpu")) as scheduler:
        scheduler.submit(tasks(1)[0])
        with pytest.raises(ResourceError, match="no worker is left: cpu: its worker ended 1 times"):
            outcomes(scheduler, tasks(1))
        assert scheduler.next_outcome(0.5) is None  # told once


def test_an_error_of_who_hears_of_steps_ends_the_job():
    def fail(*_: object) -> None:
        raise BrokenPipeError("nobody listens")

    with local(Paints(seconds=0.3), on_step=fail) as scheduler, pytest.raises(BrokenPipeError):
        outcomes(scheduler, tasks(1))


def test_ctrl_c_is_not_for_workers_and_close_ends_them(tmp_path):
    given = tasks(2)
    with local(Paints(pids=tmp_path, seconds=0.2)) as scheduler:
        assert wait_until(lambda: bool(multiprocessing.active_children()))
        (child,) = multiprocessing.active_children()

        def is_ready() -> bool:  # and interrupted all the while it starts
            os.kill(child.pid, signal.SIGINT)
            return bool(list(tmp_path.iterdir()))

        assert wait_until(is_ready)
        assert_same_frames(outcomes(scheduler, given), given)
        scheduler.submit(tasks(1)[0])
    assert [int(path.name) for path in tmp_path.iterdir()] == [child.pid]  # never replaced
    assert not is_alive(child.pid)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    code = (
        "import sys, time; sys.path[:0] = {path!r}\n"
        "from pathlib import Path\n"
        "from evfi.workers.local import LocalProcesses\n"
        "from evfi.workers.scheduler import Scheduler\n"
        "from scheduler_checks import tasks\n"
        "from worker_models import Paints\n"
        "if __name__ == '__main__':\n"
        "    plan = Paints(pids=Path({folder!r}), seconds=600)\n"
        "    scheduler = Scheduler(LocalProcesses(plan, ('cpu', 'cpu')))\n"
        "    for task in tasks(2): scheduler.submit(task)\n"
        "    scheduler.next_outcome(600)\n"
        "    scheduler.next_outcome(600)\n"
        "    time.sleep(600)\n"
    )
    script = tmp_path / "parent.py"
    pids = tmp_path / "pids"
    pids.mkdir()
    tests = Path(__file__).parent
    script.write_text(code.format(path=[str(tests), str(tests.parent)], folder=str(pids)))
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        assert wait_until(lambda: len(list(pids.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    children = [int(path.name) for path in pids.iterdir()]
    assert wait_until(lambda: not any(map(is_alive, children)), 10)
