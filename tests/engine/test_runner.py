"""Calls of the networks: recorded where there is room, and as they are elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from evfi.engine import runner as runner_module
from evfi.engine.network import Constants
from evfi.engine.runner import CallInputs, Runner


class Network:
    """Doubles its sample, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, sample: Tensor, events: Tensor, control: Constants, unet: Constants, scale: float) -> Tensor:
        self.calls += 1
        return 2 * sample


def inputs(items: int) -> CallInputs:
    constants = Constants(torch.zeros(1), torch.zeros(items, 1))
    return CallInputs(torch.rand(items, 2), torch.zeros(items, 1), constants, constants)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setattr(runner_module, "room_left", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return Network()


def test_without_graphs_every_call_is_made(network: Network) -> None:
    runner = Runner(network, graphs=False)  # type: ignore[arg-type]
    for _ in range(2):
        given = inputs(3)
        assert torch.equal(runner(given, 1.0), 2 * given.sample)
    assert network.calls == 2


def test_what_has_no_room_is_not_recorded(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []

    def record(self: Runner, places: CallInputs, scale: float) -> Any:
        recorded.append(len(places.sample))
        raise RuntimeError("recorded")

    monkeypatch.setattr(Runner, "_record", record)
    runner = Runner(network, graphs=True)  # type: ignore[arg-type]
    runner.takes = lambda items: 100 * items
    for _ in range(2):
        given = inputs(9)  # 900 bytes, and a fifth more between them
        assert torch.equal(runner(given, 1.0), 2 * given.sample)
    assert (network.calls, recorded) == (2, [])
    with pytest.raises(RuntimeError, match="recorded"):
        runner(inputs(8), 1.0)
    assert recorded == [8]
