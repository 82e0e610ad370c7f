"""Workers on a Ray cluster of this machine: the same frames, whatever happens to them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from scheduler_checks import assert_same_frames, outcomes, tasks  # noqa: E402
from worker_models import Painter, Paints  # noqa: E402
from workshop import Workshop, contents  # noqa: E402

from evfi.errors import ConfigError, ModelError, ResourceError  # noqa: E402
from evfi.pipeline.job_config import JobConfig  # noqa: E402
from evfi.workers.ray_cluster import RayActors, cluster_devices  # noqa: E402
from evfi.workers.scheduler import Scheduler  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster with two CPUs and no GPU, whose actors can import the stand-ins."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent)])
    ray.init(
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


def test_a_job_comes_to_the_same_video_though_an_actor_is_lost(tmp_path):
    workshop, config, lost = Workshop(tmp_path, most=2), JobConfig(insert=4), tmp_path / "lost"
    lost.mkdir()
    workshop.run("here", config, model=Painter())
    plan = Paints(dies_at=(1,), once=lost)
    summary = workshop.run("there", config, scheduler=lambda on_step: Scheduler(RayActors(plan, ("cpu", "cpu"))))
    assert contents(workshop.targets("there")) == contents(workshop.targets("here"))
    assert sum(summary.pieces.values()) == 12
    assert [facts.attempts for facts in summary.windows] == [1, 2, 1, 1]
    assert all(facts.device.endswith("cpu") for facts in summary.windows)


@pytest.mark.slow
def test_a_window_that_no_actor_survives_fails_and_others_do_not(tmp_path):
    given = tasks(4)
    scheduler = Scheduler(RayActors(Paints(dies_at=(0,), raises_at=(2,)), ("cpu", "cpu")))
    try:
        found = outcomes(scheduler, given)
    finally:
        scheduler.close()
    kinds = [found[index].failure.kind if found[index].failure else "" for index in range(4)]
    assert kinds == ["crash", "", "crash", ""]
    assert "illegal memory access" in found[2].failure.message
    assert_same_frames({index: found[index] for index in (1, 3)}, given)


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told():
    scheduler = Scheduler(RayActors(Paints(cannot_load=True), ("cpu",)))
    try:
        scheduler.submit(tasks(1)[0])
        with pytest.raises(ModelError, match="no weights for cpu"):
            outcomes(scheduler, tasks(1))
    finally:
        scheduler.close()


def test_what_the_cluster_has():
    assert cluster_devices("ray", "auto") == ("cpu",)
    assert cluster_devices("ray", "cpu,cpu") == ("cpu", "cpu")
    with pytest.raises(ResourceError, match="has no GPU"):
        cluster_devices("ray", "cuda")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ConfigError, match="devices must be"):
        cluster_devices("ray", "auto,cpu")
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'evfi\[ray\]'"):
        cluster_devices("ray", "auto")
