"""Weights that leave the GPU while they are not needed.

A `Parcel` holds the storages of some tensors. When it leaves, the storages shrink to nothing; when it enters, they grow again
and are filled from a copy in the host's memory. The tensors, their strides, and every view of the same storage stay the
objects that they are, so that nobody who holds one has to be told. Weights never change, therefore the host's copy is made
once and leaving costs nothing.

A tensor of a parcel that is away must not be used: its memory is gone, and a GPU kernel would not notice. Addresses change
when a parcel returns: CUDA graphs that were made before are void.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evfi.engine.footprint import block_bytes


class Parcel:
    """Tensors whose storages come and go together; tensors that share a storage take it along once.

    Attributes:
        num_bytes: what it takes on the device.
        is_here: whether its tensors can be used.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Take tensors that lie on the device now.

        Args:
            tensors: weights; they must not change any more.
        """
        self._storages = [storage for storage in storages_of(tensors) if storage.nbytes()]
        self._sizes = [storage.nbytes() for storage in self._storages]
        self._copies: list[Tensor] = []
        self.num_bytes = sum(self._sizes)
        self.is_here = True

    @classmethod
    def sent(cls, tensors: Iterable[Tensor], device: torch.device) -> Parcel:
        """A parcel of tensors that lie in the host's memory and shall belong to a device; it has not entered there yet.

        Args:
            tensors: weights; they become tensors of the device, and must not be used before the parcel enters.
            device: the device; a storage at a time is taken there and freed again.
        """
        weights = list(tensors)
        parcel = cls(weights)
        parcel._copies = _host_copies(parcel._storages, pinned=device.type == "cuda")
        places = {storage._cdata: number for number, storage in enumerate(parcel._storages)}
        numbers = [places.get(tensor.untyped_storage()._cdata) for tensor in weights]
        for number, size in enumerate(parcel._sizes):
            storage = torch.empty(size, dtype=torch.uint8, device=device).untyped_storage()
            for tensor in (tensor for tensor, own in zip(weights, numbers, strict=True) if own == number):
                there = torch.empty(0, dtype=tensor.dtype, device=device)
                tensor.data = there.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
            storage.resize_(0)
            parcel._storages[number] = storage
        parcel.is_here = False
        return parcel

    def leave(self) -> None:
        """Free the device's memory, in the order of the current stream; the host's copy is made if there is none yet."""
        if self.is_here and not self._copies:
            self._copies = _host_copies(self._storages)
        for storage in self._storages:  # also what an arrival took that was broken off
            storage.resize_(0)
        self.is_here = False

    def enter(self) -> None:
        """Take memory on the device and fill it, in the order of the current stream."""
        self.allocate()
        self.fill()

    def allocate(self) -> None:
        """Take memory on the device; what is in it is undefined until `fill`."""
        if self.is_here:
            return
        for storage, size in zip(self._storages, self._sizes, strict=True):
            storage.resize_(size)

    def fill(self) -> None:
        """Fill the memory that `allocate` took."""
        if self.is_here:
            return
        for storage, held in zip(self._storages, self._copies, strict=True):
            _bytes_of(storage).copy_(held, non_blocking=True)
        self.is_here = True


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """All parameters and buffers of some modules."""
    return [tensor for module in modules for group in (module.parameters(), module.buffers()) for tensor in group]


def storages_of(tensors: Iterable[Tensor]) -> list[torch.UntypedStorage]:
    """The storages that tensors lie in, each once."""
    return list({tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}.values())


def _bytes_of(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _host_copies(storages: Sequence[torch.UntypedStorage], *, pinned: bool | None = None) -> list[Tensor]:
    """The storages' bytes in the host's memory, in one piece, pinned where that can be had and speeds up copies to a GPU."""
    sizes = [block_bytes(storage.nbytes()) for storage in storages]
    if pinned is None:
        pinned = any(storage.device.type == "cuda" for storage in storages)
    try:
        whole = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned)
    except RuntimeError:  # not so much can be pinned
        whole = torch.empty(sum(sizes), dtype=torch.uint8)
    parts = [part[: storage.nbytes()] for part, storage in zip(whole.split(sizes), storages, strict=True)]
    for part, storage in zip(parts, storages, strict=True):
        part.copy_(_bytes_of(storage))
    return parts


class BlockStreamer:
    """Has one block's weights on the device while it computes and the next one's on the way.

    Blocks are used in order, over and over: after the last one comes the first. On a GPU the copies run on a stream of their
    own beside the computation; memory is taken on the computing stream, and a copy waits for what was queued there before
    its memory was taken, as that may still read what lay there.
    """

    def __init__(self, blocks: Sequence[Parcel], device: torch.device) -> None:
        """Take the blocks, in the order of their use; they leave the device.

        Args:
            blocks: one parcel per block.
            device: where they compute.
        """
        self._blocks = list(blocks)
        self._device = device
        self._arrivals: dict[int, torch.cuda.Event | None] = {}
        self._copying: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)
        for block in self._blocks:
            block.leave()

    @contextmanager
    def block(self, index: int) -> Iterator[None]:
        """Have block `index` on the device while the body queues its computation.

        Any order is right; only the order of use is fast.
        """
        self._fetch(index)
        arrival = self._arrivals.pop(index)
        if arrival is not None:
            torch.cuda.current_stream(self._device).wait_event(arrival)
        following = (index + 1) % len(self._blocks)
        self._drop({index, following})
        self._fetch(following)
        try:
            yield
        finally:
            if following != index:
                self._blocks[index].leave()

    def clear(self) -> None:
        """Free the device of all blocks, for another phase or a new order."""
        self._drop(set())

    def _fetch(self, index: int) -> None:
        """Start the copy of a block that is neither here nor on its way."""
        block = self._blocks[index]
        if index in self._arrivals:
            return
        if block.is_here or self._copying is None:
            block.enter()
            self._arrivals[index] = None
            return
        block.allocate()
        queued = torch.cuda.current_stream(self._device).record_event()
        self._copying.wait_event(queued)
        with torch.cuda.stream(self._copying):
            block.fill()
            self._arrivals[index] = self._copying.record_event()

    def _drop(self, kept: set[int]) -> None:
        """Free what was fetched and is not wanted next."""
        for index in [index for index in self._arrivals if index not in kept]:
            arrival = self._arrivals.pop(index)
            if arrival is not None:  # what takes its memory next comes after the copy
                torch.cuda.current_stream(self._device).wait_event(arrival)
            self._blocks[index].leave()
