"""Plans for refining: what fits at once, what is cut into bands, what comes next when memory runs out."""

from __future__ import annotations

import pytest
import torch

from evfi.engine.refining import RefiningPlan, refining_plan

GIB = 2**30


def test_small_frames_go_together_on_a_gpu() -> None:
    assert refining_plan(720, 1280, torch.float16, 100 * GIB) == RefiningPlan(8, 1)
    assert refining_plan(720, 1280, torch.float16, 2 * GIB) == RefiningPlan(3, 1)


def test_a_cpu_takes_frames_one_by_one() -> None:
    assert refining_plan(260, 346, torch.float32, None) == RefiningPlan(1, 1)


@pytest.mark.parametrize("budget", [None, 100 * GIB])
def test_large_frames_go_alone_in_bands(budget: int | None) -> None:
    plan = refining_plan(2160, 3840, torch.float16, budget)
    assert plan.frames_at_once == 1
    assert plan.bands > 4


def test_more_pixels_never_mean_fewer_bands() -> None:
    bands = [refining_plan(side, side, torch.float32, None).bands for side in range(64, 4096, 64)]
    assert bands == sorted(bands)


def test_a_tight_budget_leaves_one_frame() -> None:
    assert refining_plan(720, 1280, torch.float16, GIB // 4).frames_at_once == 1


def test_plans_end() -> None:
    plan: RefiningPlan | None = RefiningPlan(8, 1)
    seen = []
    while plan is not None:
        seen.append((plan.frames_at_once, plan.bands))
        plan = plan.lowered()
    assert seen[:5] == [(8, 1), (4, 1), (2, 1), (1, 1), (1, 2)]
    assert seen[-1] == (1, 64)
