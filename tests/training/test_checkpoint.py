"""Training states: exact, whole or absent, only the latest kept, damage told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import AdamW

from evfi.errors import InputError, OutputError
from evfi.training.checkpoint import MovingAverage, holds_state, load_state, save_state, saved_states, trained
from hostile_json import HOSTILE_JSON


def new_run(seed: int, width: int = 4) -> tuple[nn.Module, MovingAverage, AdamW]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 2))
    network[0].bias.requires_grad_(False)
    return network, MovingAverage(network, 0.9), AdamW(trained(network).values(), lr=1e-2)


def make_steps(network: nn.Module, average: MovingAverage, optimizer: AdamW, first: int, last: int) -> None:
    for step in range(first, last):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        network(inputs).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(network, step)


def everything(network: nn.Module, average: MovingAverage, optimizer: AdamW) -> dict[str, torch.Tensor]:
    values = {name: value.detach().clone() for name, value in trained(network).items()}
    values |= {f"average {name}": value for name, value in average.values.items()}
    for index, state in enumerate(optimizer.state[parameter] for parameter in trained(network).values()):
        values |= {f"{key} {index}": torch.as_tensor(value) for key, value in state.items()}
    return values


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_restored_state_is_the_saved_one_and_goes_on_alike(tmp_path: Path) -> None:
    run, other = new_run(0), new_run(1)
    other[0][0].bias.data.copy_(run[0][0].bias)  # frozen: part of what the run starts from
    make_steps(*run, 0, 3)
    state = save_state(tmp_path, 3, *run, keep=2)
    assert load_state(state, *other) == 3
    assert_same(everything(*run), everything(*other))
    make_steps(*run, 3, 6)
    make_steps(*other, 3, 6)
    assert_same(everything(*run), everything(*other))


def test_frozen_parameters_are_not_saved(tmp_path: Path) -> None:
    run = new_run(0)
    make_steps(*run, 0, 1)
    names = load_file(save_state(tmp_path, 1, *run, keep=1) / "state.safetensors").keys()
    assert not any("0.bias" in name for name in names)
    assert {"network.0.weight", "average.0.weight", "optimizer.exp_avg.0.weight", "optimizer.step.2.bias"} <= set(names)


def test_only_the_latest_are_kept_and_half_written_ones_ignored(tmp_path: Path) -> None:
    run = new_run(0)
    for step in (2, 10, 9_999_999, 5):
        save_state(tmp_path, step, *run, keep=3)
    assert [path.name for path in saved_states(tmp_path)] == ["step-0000005", "step-0000010", "step-9999999"]
    (tmp_path / ".step-9999999.partial").mkdir()
    (tmp_path / "step-0000011").mkdir()
    (tmp_path / "step-0000011" / "state.safetensors").write_bytes(b"cut sh")
    assert [path.name for path in saved_states(tmp_path)] == ["step-0000005", "step-0000010", "step-9999999"]
    assert saved_states(tmp_path / "absent") == []


def test_a_kill_while_a_step_is_saved_again_leaves_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(0)
    state = save_state(tmp_path, 0, *run, keep=2)
    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        assert saved_states(tmp_path) == [state]  # a kill at this moment leaves a run that can be resumed
        return renamed

    monkeypatch.setattr(Path, "replace", watched)
    assert save_state(tmp_path, 0, *run, keep=2) == state
    assert load_state(state, *new_run(0)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000"]


def test_a_damaged_state_of_the_same_step_is_moved_aside(tmp_path: Path) -> None:
    run = new_run(0)
    file = save_state(tmp_path, 0, *run, keep=2) / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert load_state(save_state(tmp_path, 0, *run, keep=2), *new_run(0)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000", "step-0000000.unusable"]


def cut_short(state: Path) -> None:
    path = state / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def without_an_average(state: Path) -> None:
    path = state / "state.safetensors"
    save_file({name: value for name, value in load_file(path).items() if name != "average.0.weight"}, path)


def no_number(state: Path) -> None:
    (state / "state.json").write_text('["step"]', encoding="utf-8")


def no_json(state: Path) -> None:
    (state / "state.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize("damage", [cut_short, without_an_average, no_number, no_json])
def test_damaged_states_are_told_in_one_line(tmp_path: Path, damage: object) -> None:
    run = new_run(0)
    state = save_state(tmp_path, 1, *run, keep=2)
    damage(state)  # type: ignore[operator]
    with pytest.raises(InputError, match="cannot be resumed") as refused:
        load_state(state, *new_run(0))
    assert "\n" not in str(refused.value)
    assert str(state) in str(refused.value)


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_facts(tmp_path: Path, name: str) -> None:
    state = save_state(tmp_path, 1, *new_run(0), keep=2)
    (state / "state.json").write_bytes(HOSTILE_JSON[name])
    with pytest.raises(InputError, match="cannot be resumed"):
        load_state(state, *new_run(0))
    assert not holds_state(tmp_path)


def test_states_of_other_networks_are_refused(tmp_path: Path) -> None:
    state = save_state(tmp_path, 1, *new_run(0), keep=2)
    with pytest.raises(InputError, match="belongs to other networks") as refused:
        load_state(state, *new_run(0, width=5))
    assert "\n" not in str(refused.value)


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "states").write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"):
        save_state(tmp_path / "states", 1, *new_run(0), keep=2)


def test_moving_average_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = MovingAverage(network, 0.5)
    network.weight.data.fill_(1.0)
    average.update(network, 0)  # decay (1 + 0) / (10 + 0)
    assert average.values["weight"].item() == pytest.approx(0.9)
    network.weight.data.fill_(3.0)
    average.update(network, 1000)  # the decay itself
    assert average.values["weight"].item() == pytest.approx(1.95)
    with average.applied(network):
        assert network.weight.item() == pytest.approx(1.95)
    assert network.weight.item() == 3.0


def test_moments_lie_in_memory_as_their_parameters_do(tmp_path: Path) -> None:
    """On a GPU, the optimiser refuses moments of other strides than their parameter's."""

    def channels_last(seed: int) -> tuple[nn.Module, MovingAverage, AdamW]:
        torch.manual_seed(seed)
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return network, MovingAverage(network, 0.9), AdamW(network.parameters(), lr=1e-2)

    run, other = channels_last(0), channels_last(1)
    run[0](torch.randn(1, 3, 5, 5)).square().sum().backward()
    run[2].step()
    load_state(save_state(tmp_path, 1, *run, keep=1), *other)
    assert_same(everything(*run), everything(*other))
    weight = other[0].weight
    assert not weight.is_contiguous()
    for name in ("exp_avg", "exp_avg_sq"):
        moment = other[2].state[weight][name]
        assert moment.any()
        assert moment.stride() == weight.stride()
    assert other[1].values["weight"].stride() == weight.stride()
