"""How much memory a computation takes, found by running it on tensors that hold nothing.

A computation that runs on the meta device makes the same tensors as on a GPU, without values. Every storage that it makes
is counted from its making to its end; the highest sum of what lives at one time is the peak. So no formula has to be kept
in step with the networks.

Conventions: sizes are bytes, each storage rounded up to the blocks of PyTorch's caching allocator. Counted is what an
operation returns and, with `as_cuda`, the copies that CUDA's kernels make of inputs whose layout they cannot read. Not
counted: what was there before (weights, inputs), and work space that cuDNN and cuBLAS ask for inside an operation.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK_BYTES: Final = 512
"""PyTorch's caching allocator gives out multiples of this."""

Network = TypeVar("Network", bound=nn.Module)

_aten: Final = torch.ops.aten


def simulated_peak(computation: Callable[[], Any], held: Iterable[Tensor] = (), *, as_cuda: bool = True) -> int:
    """The most bytes that live at one time while a computation runs.

    Args:
        computation: called once, in inference mode; should work on meta tensors, which makes it cheap.
        held: tensors made before, to be counted as long as they live.
        as_cuda: lay results out as CUDA's kernels do and count their copies; otherwise count what the device at hand does.

    Returns:
        Bytes of what the computation makes, what it returns and what is `held`; weights are not among them.
    """
    with torch.inference_mode(), Footprint(as_cuda=as_cuda) as footprint:
        for tensor in held:
            footprint.count(tensor)
        computation()
    peak: int = footprint.peak
    return peak


class Footprint(TorchDispatchMode):
    """Counts the storages that operations make while it is active; for use in inference mode.

    See `simulated_peak` for `as_cuda`.

    Attributes:
        live: bytes that live now.
        peak: the most that lived at one time.
    """

    def __init__(self, *, as_cuda: bool = True) -> None:
        super().__init__()
        self._as_cuda = as_cuda
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage from now to its end, once however many tensors share it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = block_bytes(storage.nbytes())

        def end(_: object) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, end)
        self.live += size
        self.peak = max(self.peak, self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it makes."""
        kwargs = kwargs or {}
        result = self._run(func, args, kwargs)
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given:
                self.count(made)
        if self._as_cuda:
            self.peak = max(self.peak, self.live + _copied_bytes(func, args))
        return result

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func is _aten.scaled_dot_product_attention.default:
            return _fused_attention(*args[:3])
        if func is _aten.upsample_nearest2d.vec:
            return _enlarged(args[0], kwargs.get("scale_factors", args[2] if len(args) > 2 else None), args[1])
        if func._can_decompose():  # made of others, which are to be seen one by one
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        return _as_cudnn_lays_out(result, args) if self._as_cuda and func is _aten.convolution.default else result


def block_bytes(size: int) -> int:
    """What the caching allocator takes for a storage of that many bytes."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What a fused attention kernel returns: no matrix of weights; laid out [B, L, heads, D] in memory."""
    shape = (*query.shape[:-1], value.shape[-1])
    if query.dim() != 4:
        return query.new_empty(shape)
    batch, heads, length, width = shape
    return query.new_empty(batch, length, heads, width).transpose(1, 2)


def _enlarged(pictures: Tensor, factors: Any, size: Any) -> Tensor:
    """What one kernel returns, in its input's layout; meta tensors go through an index and a copy instead."""
    sides = size or [int(side * factor) for side, factor in zip(pictures.shape[2:], factors, strict=True)]
    last = torch.channels_last if _is_channels_last(pictures, torch.channels_last) else torch.contiguous_format
    return torch.empty(*pictures.shape[:2], *sides, dtype=pictures.dtype, device=pictures.device, memory_format=last)


def _as_cudnn_lays_out(result: Tensor, args: Any) -> Tensor:
    """A convolution's result in the layout that cuDNN gives it: channels last if the input or the weight has it."""
    layout = _cudnn_format(args)
    if layout is torch.contiguous_format or result.is_contiguous(memory_format=layout):
        return result
    return torch.empty_like(result, memory_format=layout)


def _cudnn_format(args: Any) -> torch.memory_format:
    values, weight = args[0], args[1]
    last = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
    is_last = any(_is_channels_last(tensor, last) for tensor in (values, weight))
    return last if is_last and weight.dim() in (4, 5) else torch.contiguous_format


def _is_channels_last(tensor: Tensor, last: torch.memory_format) -> bool:
    return tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous()


def _copied_bytes(func: Any, args: Any) -> int:
    """Bytes of the copies that an operation's CUDA kernel makes of its input and drops again."""
    if func is _aten.convolution.default:
        fits = args[0].is_contiguous(memory_format=_cudnn_format(args))
    elif func is _aten.native_group_norm.default:
        fits = args[0].is_contiguous()
    else:
        return 0
    return 0 if fits else block_bytes(args[0].numel() * args[0].element_size())


@torch.inference_mode(False)
def meta_twin(network: Network, *, keep_scalars: bool = False) -> Network:
    """A copy of a network whose weights lie on the meta device: same shapes, strides and dtypes, no values.

    They are ordinary tensors, whether the caller is in inference mode or not.

    Args:
        network: any; its weights are not touched.
        keep_scalars: leave parameters of one element with their values on the CPU, for code that reads them.
    """
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        kept = keep_scalars and parameter.numel() == 1
        twin = parameter.detach().cpu() if kept else _empty_twin(parameter)
        memo[id(parameter)] = nn.Parameter(twin, requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = _empty_twin(buffer)
    return copy.deepcopy(network, memo)


def _empty_twin(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
