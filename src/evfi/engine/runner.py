"""Calls of the steered UNet, replayed as CUDA graphs where shapes repeat.

A call launches over a thousand kernels. At small batches the GPU would wait for the launches: recorded once as a graph,
they cost nothing. A graph reads and writes fixed memory, so that a call copies its inputs there first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evfi.engine.memory import FRAGMENTED_SHARE, room_left
from evfi.engine.network import Constants, SteeredUNet


class CallInputs(NamedTuple):
    """The inputs of one call.

    Attributes:
        sample: [B, F, h, w, in_channels].
        events: [B, F, h, w, C0].
        control: vectors for the ControlNet.
        unet: vectors for the UNet.
    """

    sample: Tensor
    events: Tensor
    control: Constants
    unet: Constants

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in a fixed order."""
        return (self.sample, self.events, *self.control, *self.unet)

    def clone(self) -> CallInputs:
        """A copy in memory of its own."""
        control, unet = (Constants(*(value.clone() for value in given)) for given in (self.control, self.unet))
        return CallInputs(self.sample.clone(), self.events.clone(), control, unet)


@dataclass(frozen=True, eq=False)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: CallInputs
    output: Tensor


class Runner:
    """Calls one steered UNet.

    Attributes:
        graphs: whether calls are recorded and replayed; weights must not move while records are kept.
        takes: bytes that a call of so many items takes, where that is known: what has no room is not recorded, since memory
            that runs out in the middle of a recording cannot be had back.
    """

    takes: Callable[[int], int] | None

    def __init__(self, network: SteeredUNet, *, graphs: bool) -> None:
        """Take a network.

        Args:
            network: the network.
            graphs: see the attribute.
        """
        self._network, self.graphs = network, graphs
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._unrecorded: set[tuple[object, ...]] = set()
        self._pool: Any = None
        self.takes = None

    def __call__(self, inputs: CallInputs, controlnet_scale: float) -> Tensor:
        """v-predictions [B, F, h, w, out_channels]."""
        key = (inputs.sample.shape, inputs.sample.dtype, controlnet_scale)
        if not self.graphs or key in self._unrecorded:
            return self._run(inputs, controlnet_scale)
        recorded = self._recorded.get(key)
        if recorded is None and self._recorded and not self._has_room(inputs.sample):
            self.forget()  # what is recorded takes its memory even while another call is made
            self._unrecorded.add(key)
            return self._run(inputs, controlnet_scale)
        if recorded is None:
            places = inputs.clone()
            made = self._run(places, controlnet_scale)  # compiles kernels and chooses algorithms
            torch.cuda.empty_cache()
            if not self._has_room(inputs.sample):
                self._unrecorded.add(key)
                return made
            recorded = self._recorded[key] = self._record(places, controlnet_scale)
        for place, value in zip(recorded.inputs.tensors(), inputs.tensors(), strict=True):
            place.copy_(value)
        recorded.graph.replay()
        return recorded.output.clone()  # the next replay writes there again

    def forget(self) -> None:
        """Drop all graphs, and the memory that they hold."""
        self._recorded.clear()
        self._unrecorded.clear()
        self._pool = None

    def _has_room(self, sample: Tensor) -> bool:
        if self.takes is None:
            return True
        return room_left(sample.device) >= (1 + FRAGMENTED_SHARE["denoise"]) * self.takes(len(sample))

    def _record(self, places: CallInputs, controlnet_scale: float) -> _Recorded:
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        before = torch.cuda.current_stream(places.sample.device)
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                output = self._run(places, controlnet_scale)
        except Exception:
            torch.cuda.set_stream(before)  # a recording that cannot be ended leaves its own behind
            self.forget()
            raise
        return _Recorded(graph, places, output)

    def _run(self, inputs: CallInputs, controlnet_scale: float) -> Tensor:
        return self._network(inputs.sample, inputs.events, inputs.control, inputs.unet, controlnet_scale)
