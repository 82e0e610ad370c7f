"""What a worker does ahead, and with how many threads."""

from __future__ import annotations

import os
import queue
import threading

import numpy as np
import pytest

from evfi.pipeline.models import WindowItem, WindowWorker
from evfi.workers.devices import threads_per_worker
from evfi.workers.process import prepare_tasks
from evfi.workers.tasks import Task, perform, prepare
from stand_ins import Blender, memory_recording


class Preparing(Blender):
    """Notes in which thread it prepared what, and what it was given of that."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails, self.prepared_in, self.given = fails, [], []

    def prepare(self, window):
        if self.fails:
            raise RuntimeError("no")
        self.prepared_in.append(threading.current_thread())
        return window.spec.index

    def interpolate_window(self, window, *, seed, on_step, prepared=None):
        self.given.append(prepared)
        return super().interpolate_window(window, seed=seed, on_step=on_step)


def tasks() -> list[Task]:
    recording = memory_recording()
    return [
        Task((spec.index, ()), WindowItem(recording.load_window(spec), 0), f"window {spec.index}")
        for spec in recording.plan_windows(insert=1)
    ]


@pytest.mark.parametrize(("device", "expected"), [("cuda:0", [0, 1, 2]), ("cpu", [None] * 3)])
def test_only_a_gpu_has_its_windows_prepared_ahead(device, expected):
    model, waiting, ahead = Preparing(), queue.SimpleQueue(), queue.Queue(1)
    for task in tasks():
        waiting.put(task)
    worker = WindowWorker(model)
    thread = threading.Thread(target=prepare_tasks, args=(worker, device, waiting, ahead), daemon=True)
    thread.start()
    for index in range(3):
        task, prepared = ahead.get(timeout=10)
        assert task.key == (index, ())
        assert perform(worker, task.item, prepared).failure is None
    assert model.given == expected
    assert set(model.prepared_in) <= {thread}


def test_what_cannot_be_prepared_is_reported_by_the_work_itself():
    item = tasks()[0].item
    assert prepare(WindowWorker(Blender()), item) is None
    worker = WindowWorker(Preparing(fails=True))
    assert prepare(worker, item) is None
    np.testing.assert_array_equal(perform(worker, item).result, perform(WindowWorker(Blender()), item).result)


def test_threads_never_outnumber_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert threads_per_worker(["cpu"]) is None
    assert threads_per_worker(["cpu"] * 3) == 2
    assert threads_per_worker(["cpu"] * 9) == 1
    assert threads_per_worker(["cuda:0"]) == 4
    assert threads_per_worker([f"cuda:{number}" for number in range(4)]) == 1
