"""The training step as a recording: forward and backward pass are launched as one CUDA graph per shape of batch.

Small networks are bound by the launching of thousands of small kernels: on an H200 the refiner's step takes 70 ms, of which the
GPU works 36. A replayed graph has no such cost, and leaves the processor to the thread that makes batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from evfi.files import one_line
from evfi.training.batches import Batch

_log = logging.getLogger(__name__)
_WARM_UP: Final = 3
_Recorded: TypeAlias = tuple[torch.cuda.CUDAGraph, Batch, Tensor]


class GraphedLoss:
    """Computes a loss and adds its gradients to the parameters', by replaying recordings."""

    def __init__(
        self,
        loss: Callable[[Batch], Tensor],
        parameters: list[nn.Parameter],
        paused: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Take what shall be recorded.

        Args:
            loss: of a batch, a scalar on the GPU.
            parameters: what is trained; their gradients keep their place in memory from now on.
            paused: a context in which no other thread uses the GPU.
        """
        self._loss, self._paused = loss, paused
        self._recorded: dict[Any, _Recorded | None] = {}
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]

    def __call__(self, batch: Batch) -> Tensor:
        """The loss; the parameters' gradients are those of this batch alone."""
        key = tuple((name, tuple(value.shape), value.dtype) for name, value in batch.items())
        if key not in self._recorded:
            self._recorded[key] = self._tried(batch)
        torch._foreach_zero_(self._gradients)
        recorded = self._recorded[key]
        if recorded is None:
            loss = self._loss(batch)
            loss.backward()
            return loss.detach()
        graph, static, loss = recorded
        for name, value in batch.items():
            static[name].copy_(value)
        graph.replay()
        return loss

    def _tried(self, batch: Batch) -> _Recorded | None:
        """A recording, or None where something in the step cannot be recorded."""
        try:
            with self._paused():
                return self._record(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _log.warning("the training step runs without a CUDA graph, which is slower: %s", one_line(error))
            return None

    def _record(self, batch: Batch) -> _Recorded:
        static = {name: value.clone() for name, value in batch.items()}
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._loss(static).backward()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            loss = self._loss(static)
            loss.backward()
        _log.info("recorded the training step for batches of %s", {name: tuple(v.shape) for name, v in batch.items()})
        return graph, static, loss.detach()
