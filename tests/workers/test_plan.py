"""Options that say who works."""

from __future__ import annotations

import pytest
import torch

from evfi.errors import ConfigError
from evfi.workers.plan import WorkerPlan, plan_workers


@pytest.mark.parametrize(
    ("workers", "devices", "expected"),
    [
        ("here", "cpu,cpu", WorkerPlan("here", ("cpu",))),
        ("local", "cpu,cpu", WorkerPlan("local", ("cpu", "cpu"))),
        ("1", "cpu", WorkerPlan("local", ("cpu",))),
        ("3", "cpu", WorkerPlan("local", ("cpu",) * 3)),
    ],
)
def test_who_works(workers: str, devices: str, expected: WorkerPlan):
    assert plan_workers(workers, devices) == expected
    assert plan_workers(workers, devices).at_most(1).devices == ("cpu",)


def test_workers_share_gpus_evenly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert plan_workers("5", "auto").devices == ("cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0")
    assert plan_workers("1", "auto").devices == ("cuda:0",)
    with pytest.raises(ConfigError, match=r"1 workers cannot use 2 devices \(cuda:0, cuda:1\); name fewer"):
        plan_workers("1", "cuda:0,cuda:1")


@pytest.mark.parametrize("workers", ["0", "-3", "257", "9" * 5000])
def test_numbers_out_of_range(workers: str):
    with pytest.raises(ConfigError, match="the number of workers must be 1 to 256, got"):
        plan_workers(workers, "cpu")


@pytest.mark.parametrize("workers", ["", "two", "1.5", "²", "rayon", "ray:"])
def test_words_that_mean_nothing(workers: str):
    with pytest.raises(ConfigError, match="workers must be here, local, a number, ray, or ray://ADDRESS"):
        plan_workers(workers, "cpu")
