"""Plans: the fastest that fits, told in words, and lowered step by step when memory runs out all the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evfi.engine.memory import (
    ALWAYS,
    GIB,
    NEEDS,
    UNUSED,
    Costs,
    Linear,
    MemoryPlan,
    Phase,
    Work,
    call_sizes,
    free_budget,
    lower_plan,
    make_plan,
    parse_memory,
)
from evfi.errors import ConfigError, ResourceError


def gib(number: float) -> int:
    return int(number * GIB)


COSTS = Costs(
    weights={
        "image_encoder": gib(1.2),
        "vae_encoder": gib(0.2),
        "vae_decoder": gib(0.2),
        "controlnet": gib(1.2),
        "unet": gib(2.6),
        ALWAYS: gib(0.2),
        UNUSED: gib(0.1),
    },
    held=gib(0.5),
    embed=gib(0.6),
    encode=Linear(0, gib(0.4)),
    denoise=Linear(gib(0.1), gib(0.25)),
    decode={1: gib(8.0), 2: gib(4.2), 4: gib(2.3), 8: gib(1.4)},
    streamed=gib(0.4),
)  # fmt: skip
WORK = Work(items=100, frames=5, pictures=50)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 8 * GIB),
        ("8GB", 8 * 10**9),
        (" 800 mib ", 800 * 2**20),
        ("1.5GiB", 3 * GIB // 2),
        ("4096", 4096),
        (4096, 4096),
        ("7kB", 7000),
    ],
)
def test_sizes_are_read(text: str | int, expected: int) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "8 giraffes", "GiB", "-3GiB", "0", "1e9", "8GiB 2", "0.0001", "infGiB"])
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a size of memory such as 8GiB") as told:
        parse_memory(text)
    assert "\n" not in str(told.value)


def test_nothing_is_planned_on_a_cpu() -> None:
    assert free_budget(torch.device("cpu")) is None


def test_a_line_goes_through_its_points() -> None:
    line = Linear.through((1, 300), (3, 700))
    assert [line.at(number) for number in (1, 2, 3, 10)] == [300, 500, 700, 2100]


def test_calls_of_one_size_are_preferred() -> None:
    assert call_sizes(Work(100, 5, 50))[:3] == [25, 20, 17]  # 4 x 25, 5 x 20; then two shapes
    assert call_sizes(Work(4, 5, 2))[0] == 4
    assert call_sizes(Work(148, 5, 74))[0] == 30  # only 4 and 2 divide it
    assert call_sizes(Work(100, 13, 50))[0] == 10
    assert call_sizes(Work(4, 999, 2)) == [1]


def test_without_a_limit_all_stays_and_calls_are_large() -> None:
    plan = make_plan(COSTS, WORK, None)
    assert (plan.items_per_call, plan.encode_batch, plan.decode_bands) == (25, 4, 1)
    assert (plan.offload, plan.graphs, plan.keep_graphs) == ("none", False, True)  # such calls are not worth recording
    everything = gib(1.2 + 0.2 + 0.2 + 1.3 + 2.8)
    assert plan.estimates["decode"] == pytest.approx(everything + gib(8.0), abs=100)
    assert plan.estimates["denoise"] == pytest.approx(everything + gib(0.5 + 0.1 + 25 * 0.25), abs=100)
    assert plan.estimates["condition"] == pytest.approx(everything + gib(0.5 + 4 * 0.4), abs=100)
    assert plan.peak == plan.peak_of_tensors == plan.estimates["decode"]
    assert plan.recorded == 0


def test_small_calls_are_recorded_and_that_takes_memory() -> None:
    plan, large = (make_plan(COSTS, Work(items, 5, 2), None) for items in (4, 100))
    assert (plan.graphs, plan.keep_graphs, plan.items_per_call) == (True, True, 4)
    assert plan.recorded == gib(0.1 + 4 * 0.25)
    assert plan.estimates["decode"] == pytest.approx(large.estimates["decode"] + plan.recorded, abs=100)
    assert plan.peak_of_tensors == plan.estimates["decode"] - plan.recorded
    assert plan.describe() == (
        "about 14.8 GiB GPU memory at most, while decoding, 1.1 GiB of it for CUDA graphs\n"
        "4 tiles × directions × guidance halves per network call"
    )


def test_embedding_events_may_take_more_than_encoding_pictures() -> None:
    plan = make_plan(replace(COSTS, embed=gib(3.0)), WORK, None)
    assert plan.estimates["condition"] == make_plan(COSTS, WORK, None).estimates["condition"] + gib(3.0) - 4 * gib(0.4)


def plans(budgets: list[float]) -> list[tuple[object, ...]]:
    made = [make_plan(COSTS, WORK, gib(budget)) for budget in budgets]
    return [(plan.offload, plan.keep_graphs, plan.items_per_call, plan.decode_bands) for plan in made]


def test_less_memory_is_met_by_what_costs_least_time_first() -> None:
    assert plans([30, 20, 14, 12, 8, 7, 4]) == [
        ("none", True, 25, 1),
        ("none", True, 25, 1),
        ("none", False, 20, 2),
        ("none", False, 17, 2),
        ("idle", False, 10, 2),
        ("blocks", False, 17, 2),
        ("blocks", False, 7, 4),
    ]


@pytest.mark.parametrize("budget", [5.5, 6, 7, 8, 9.5, 12, 14, 20, 40])
def test_every_plan_keeps_within_its_budget(budget: float) -> None:
    plan = make_plan(COSTS, WORK, gib(budget))
    assert plan.peak < gib(budget)
    for phase, needed in NEEDS.items():
        assert plan.offload == "blocks" or set(needed) <= set(plan.residency[phase])


def test_when_nothing_fits_the_least_is_told() -> None:
    with pytest.raises(
        ResourceError,
        match=r"not enough GPU memory: frames of this size need (\d\.\d) GiB, but only 1\.0 GiB may be used",
    ) as told:
        make_plan(COSTS, WORK, GIB)
    assert "\n" not in str(told.value)
    least = float(str(told.value).split(" need ")[1].split(" ")[0])
    assert make_plan(COSTS, WORK, gib(least + 0.1)).offload == "blocks"
    with pytest.raises(ResourceError):
        make_plan(COSTS, WORK, gib(least - 0.1))


def test_a_model_without_image_encoder_has_plans() -> None:
    costs = replace(COSTS, weights={name: size for name, size in COSTS.weights.items() if name != "image_encoder"})
    assert make_plan(costs, WORK, gib(6)).offload != "none"


def lowered(plan: MemoryPlan, phase: Phase) -> list[MemoryPlan]:
    steps = [plan]
    while (following := lower_plan(steps[-1], phase, COSTS, WORK)) is not None:
        steps.append(following)
    return steps


def test_lowering_while_denoising_ends_with_streaming() -> None:
    steps = lowered(make_plan(COSTS, WORK, None), "denoise")
    assert [(step.items_per_call, step.offload, step.graphs) for step in steps] == [
        (25, "none", False),
        (15, "none", False),
        (9, "none", True),
        (5, "none", True),
        (3, "none", True),
        (1, "none", True),
        (1, "idle", True),
        (1, "blocks", False),
    ]
    peaks = [step.estimates["denoise"] for step in steps]
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == len(peaks)


def test_lowering_while_decoding_cuts_frames_then_networks_leave() -> None:
    steps = lowered(make_plan(COSTS, WORK, None), "decode")
    assert [(step.decode_bands, step.offload) for step in steps] == [
        (1, "none"), (2, "none"), (4, "none"), (8, "none"), (8, "idle")
    ]  # fmt: skip
    assert all(step.items_per_call == 25 for step in steps)


def test_lowering_while_encoding_halves_the_pictures() -> None:
    steps = lowered(make_plan(COSTS, WORK, None), "condition")
    assert [(step.encode_batch, step.offload) for step in steps] == [
        (4, "none"), (2, "none"), (1, "none"), (1, "idle")
    ]  # fmt: skip


def test_plans_are_told_in_words() -> None:
    assert make_plan(COSTS, WORK, None).describe() == (
        "about 13.7 GiB GPU memory at most, while decoding\n25 tiles × directions × guidance halves per network call"
    )
    lines = make_plan(COSTS, WORK, gib(4)).describe().splitlines()
    assert lines[0] == "about 2.9 GiB of 4.0 GiB GPU memory at most, while denoising"
    assert "; frames are decoded in 4 bands" in lines[1]
    assert lines[2] == (
        "in the host's memory while not in use: the image encoder, the autoencoder's encoder, the ControlNet, the UNet, "
        "the autoencoder's decoder"
    )
    assert lines[3] == "the ControlNet's and the UNet's weights are streamed block by block while they compute"


def test_changes_are_told_in_words() -> None:
    plan = make_plan(COSTS, WORK, None)
    assert plan.difference(replace(plan, items_per_call=12)) == "12 items per network call instead of 25"
    assert plan.difference(replace(plan, offload="idle")) == "idle networks in the host's memory"
    assert plan.difference(replace(plan, keep_graphs=False)) == "CUDA graphs recorded again for each window"
