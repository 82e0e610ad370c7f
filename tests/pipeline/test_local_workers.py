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
from executor_checks import PATIENCE_S, assert_same_frames, outcomes, works
from worker_models import Painter, Paints
from workshop import Workshop, contents

from evfi.errors import ModelError, ResourceError
from evfi.pipeline import workers
from evfi.pipeline.jobs import JobConfig
from evfi.pipeline.work import MOST_ATTEMPTS
from evfi.pipeline.workers import LocalWorkers


@contextmanager
def local(plan: Paints, devices: Sequence[str] = ("cpu",), **settings: object) -> Iterator[LocalWorkers]:
    executor = LocalWorkers(plan, devices, **settings)  # type: ignore[arg-type]
    try:
        yield executor
    finally:
        executor.close()


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


def test_a_job_comes_to_the_same_film(tmp_path):
    workshop = Workshop(tmp_path, most=2)
    config = JobConfig(insert=4)
    workshop.run("here", config, model=Painter())
    told = []
    summary = workshop.run(
        "there",
        config,
        executor=lambda on_step: LocalWorkers(Paints(seconds=0.21), ("cpu", "cpu"), on_step),
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
    given = works(5)
    with local(Paints(dies_at=(1,), raises_at=(3,), once=tmp_path)) as executor:
        found = outcomes(executor, given)
    assert_same_frames(found, given)
    assert [found[index].work.attempt for index in range(5)] == [1, 2, 1, 2, 1]


def test_a_window_that_no_worker_survives_fails_and_others_do_not():
    given = works(3)
    with local(Paints(dies_at=(0,))) as executor:
        found = outcomes(executor, given)
    failure = found[0].failure
    assert failure is not None
    assert failure.kind == "crash"
    assert failure.message == "the worker was killed by SIGKILL: perhaps too little memory"
    assert found[0].work.attempt == MOST_ATTEMPTS
    del found[0]
    assert_same_frames(found, given)


def test_a_model_that_cannot_be_loaded_is_told():
    with local(Paints(cannot_load=True)) as executor:
        executor.submit(works(1)[0])
        with pytest.raises(ModelError, match="no weights for cpu"):
            outcomes(executor, [])
            while True:
                executor.next_outcome(0.5)


def test_when_no_worker_is_left_the_job_ends(monkeypatch):
    monkeypatch.setattr(workers, "MOST_STARTS", 1)
    with local(Paints(cannot_start=True), ("cpu", "cpu")) as executor:
        executor.submit(works(1)[0])
        with pytest.raises(ResourceError, match="no worker is left: cpu: its worker ended 1 times"):
            outcomes(executor, works(1))
        assert executor.next_outcome(0.5) is None  # told once


def test_an_error_of_who_hears_of_steps_ends_the_job():
    def fail(*_: object) -> None:
        raise BrokenPipeError("nobody listens")

    with local(Paints(seconds=0.3), on_step=fail) as executor, pytest.raises(BrokenPipeError):
        outcomes(executor, works(1))


def test_ctrl_c_is_not_for_workers_and_close_ends_them(tmp_path):
    given = works(2)
    with local(Paints(pids=tmp_path, seconds=0.2)) as executor:
        assert wait_until(lambda: bool(multiprocessing.active_children()))
        (child,) = multiprocessing.active_children()

        def is_ready() -> bool:  # and interrupted all the while it starts
            os.kill(child.pid, signal.SIGINT)
            return bool(list(tmp_path.iterdir()))

        assert wait_until(is_ready)
        assert_same_frames(outcomes(executor, given), given)
        executor.submit(works(1)[0])
    assert [int(path.name) for path in tmp_path.iterdir()] == [child.pid]  # never replaced
    assert not is_alive(child.pid)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    code = (
        "import sys, time; sys.path[:0] = {path!r}\n"
        "from pathlib import Path\n"
        "from evfi.pipeline.workers import LocalWorkers\n"
        "from executor_checks import works\n"
        "from worker_models import Paints\n"
        "if __name__ == '__main__':\n"
        "    executor = LocalWorkers(Paints(pids=Path({folder!r}), seconds=600), ('cpu', 'cpu'))\n"
        "    for work in works(2): executor.submit(work)\n"
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
