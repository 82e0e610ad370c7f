"""Weights that come and go: the same tensors with the same values, and never used while they are away."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evfi.engine.offload import BlockStreamer, Parcel, tensors_of
from evfi.models.weights import channels_last

CPU = torch.device("cpu")


def layer(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(4, 4).requires_grad_(False)


def test_values_strides_and_identity_survive() -> None:
    network = channels_last(nn.Conv2d(3, 8, 3)).requires_grad_(False)
    weight, before, strides = network.weight, network.weight.clone(), network.weight.stride()
    parcel = Parcel(tensors_of([network]))
    assert parcel.num_bytes == (8 * 3 * 9 + 8) * 4
    for _ in range(2):
        parcel.leave()
        assert not parcel.is_here
        assert weight.untyped_storage().nbytes() == 0
        parcel.enter()
    assert parcel.is_here
    assert network.weight is weight
    assert weight.stride() == strides
    assert torch.equal(weight, before)


def test_views_of_a_shared_storage_follow() -> None:
    merged = torch.arange(12.0).view(6, 2)
    first, second = merged.chunk(2)
    other = merged[1:3]  # not in the parcel
    parcel = Parcel([first, second])
    assert parcel.num_bytes == 48
    parcel.leave()
    parcel.enter()
    assert torch.equal(merged, torch.arange(12.0).view(6, 2))
    assert torch.equal(other, merged[1:3])
    assert second.untyped_storage().data_ptr() == merged.untyped_storage().data_ptr()


def test_leaving_and_entering_twice_does_nothing() -> None:
    parcel = Parcel([torch.ones(3)])
    parcel.enter()
    parcel.leave()
    parcel.leave()
    parcel.enter()
    parcel.enter()
    assert parcel.is_here


def test_an_arrival_that_was_broken_off_leaves_nothing_behind() -> None:
    weight = torch.arange(6.0)
    parcel = Parcel([weight])
    parcel.leave()
    parcel.allocate()  # and memory runs out for another one
    parcel.leave()
    assert weight.untyped_storage().nbytes() == 0
    parcel.enter()
    assert torch.equal(weight, torch.arange(6.0))


def test_what_is_sent_is_there_once_it_enters() -> None:
    merged, own = torch.arange(12.0), torch.ones(2, 3).t()
    tensors = [nn.Parameter(merged[:6].view(2, 3)), nn.Parameter(merged[6:]), nn.Parameter(own)]
    expected, strides = [tensor.detach().clone() for tensor in tensors], [tensor.stride() for tensor in tensors]
    parcel = Parcel.sent(tensors, CPU)
    assert not parcel.is_here
    assert all(tensor.untyped_storage().nbytes() == 0 for tensor in tensors)
    assert tensors[0].untyped_storage().data_ptr() == tensors[1].untyped_storage().data_ptr()
    parcel.enter()
    assert all(torch.equal(tensor, value) for tensor, value in zip(tensors, expected, strict=True))
    assert [tensor.stride() for tensor in tensors] == strides
    assert tensors[0].untyped_storage().data_ptr() == tensors[1].untyped_storage().data_ptr()
    parcel.leave()
    parcel.enter()
    assert torch.equal(tensors[1], expected[1])


def test_tensors_made_in_inference_mode_can_leave() -> None:
    with torch.inference_mode():
        weight = torch.ones(3)
        parcel = Parcel([weight])
        parcel.leave()
    parcel.enter()
    assert weight.sum() == 3


class Blocks:
    """Blocks of weights, and what was on the device when each was used."""

    def __init__(self, number: int) -> None:
        self.layers = [layer(seed) for seed in range(number)]
        self.parcels = [Parcel(tensors_of([one])) for one in self.layers]
        self.expected = [one.weight.clone() for one in self.layers]
        self.streamer = BlockStreamer(self.parcels, CPU)

    def here(self) -> list[int]:
        return [index for index, parcel in enumerate(self.parcels) if parcel.is_here]

    def use(self, index: int) -> list[int]:
        with self.streamer.block(index):
            assert torch.equal(self.layers[index].weight, self.expected[index])
            return self.here()


def test_a_block_computes_while_the_next_one_comes() -> None:
    blocks = Blocks(3)
    assert blocks.here() == []
    for _ in range(2):  # after the last comes the first
        assert [blocks.use(index) for index in range(3)] == [[0, 1], [1, 2], [0, 2]]
    assert blocks.here() == [0]
    blocks.streamer.clear()
    assert blocks.here() == []


def test_any_order_is_right() -> None:
    blocks = Blocks(4)
    assert [blocks.use(index) for index in (2, 0, 0, 3)] == [[2, 3], [0, 1], [0, 1], [0, 3]]


def test_a_single_block_stays() -> None:
    blocks = Blocks(1)
    assert blocks.use(0) == blocks.use(0) == [0]


def test_after_an_error_the_blocks_still_work() -> None:
    blocks = Blocks(3)
    with pytest.raises(RuntimeError, match="boom"), blocks.streamer.block(0):
        raise RuntimeError("boom")
    assert blocks.use(0) == [0, 1]


def test_streamed_layers_compute_the_same() -> None:
    blocks = Blocks(3)
    plain = [layer(seed) for seed in range(3)]
    values: Tensor = torch.ones(2, 4)
    expected = plain[2](plain[1](plain[0](values)))
    for index, one in enumerate(blocks.layers):
        with blocks.streamer.block(index):
            values = one(values)
    assert torch.equal(values, expected)
