"""How the work of one window is cut so that it fits the memory at hand: a plan, made before anything runs.

A window goes through three phases: *condition* (CLIP, the autoencoder's encoder), *denoise* (ControlNet and UNet, once per
step for all items: tiles × directions × guidance halves) and *decode* (the autoencoder's decoder). What each of them takes
is known beforehand (`Costs`, found by simulation); a plan is the first of a row of candidates, the fastest first, whose
phases all fit.

Conventions: sizes are bytes of GPU memory that PyTorch takes for tensors. The driver's own memory is not among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from evfi.errors import ConfigError, ResourceError
from evfi.sampling.config import ENCODED_AT_ONCE

if TYPE_CHECKING:
    import torch

GIB: Final = 2**30
_UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": GIB}

Phase = Literal["condition", "denoise", "decode"]
Offload = Literal["none", "idle", "blocks"]

NEEDS: Final[Mapping[Phase, tuple[str, ...]]] = {
    "condition": ("image_encoder", "vae_encoder"),
    "denoise": ("controlnet", "unet"),
    "decode": ("vae_decoder",),
}
"""The networks that each phase uses."""

ALWAYS: Final = "rest"
"""Weights that never leave: the small parts of ControlNet and UNet outside their blocks."""

UNUSED: Final = "unused"
"""Weights that no result of the fast engine depends on."""

_DOING: Final = {"condition": "encoding", "denoise": "denoising", "decode": "decoding"}
_SPOKEN: Final = {
    "image_encoder": "the image encoder",
    "vae_encoder": "the autoencoder's encoder",
    "vae_decoder": "the autoencoder's decoder",
    "controlnet": "the ControlNet",
    "unet": "the UNet",
}

MOST_PICTURES: Final = 160
"""Items × frames in one network call; more take memory and save no time."""

WORK_SPACE: Final = 256 * 2**20
"""What cuDNN and cuBLAS take inside operations, which simulation does not see."""

FRAGMENTED_SHARE: Final[Mapping[Phase, float]] = {"condition": 0.2, "denoise": 0.2, "decode": 0.35}
"""Memory that the allocator holds between tensors, as a share of those that come and go: the larger, the fewer they are."""

_DRIVER: Final = 2**29
"""What is left to the driver where nothing else limits what may be taken."""

MOST_RECORDED: Final = 64
"""Items × frames of calls that are worth recording; larger ones keep a GPU busy without, and recording takes their memory."""


def parse_memory(text: str | int) -> int:
    """A size of memory in bytes.

    Args:
        text: a number with a unit, as ``8GiB``, ``8 GB`` or ``800MiB``; without one it is bytes.

    Raises:
        ConfigError: it is no such thing, or not above zero.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", str(text))
    factor = _UNITS.get(found[2].upper()) if found else None
    size = int(float(found[1]) * factor) if found and factor else 0
    if size <= 0:
        raise ConfigError(f"expected a size of memory such as 8GiB, 8GB or 800MiB, got {str(text)!r}")
    return size


def free_budget(device: torch.device, own: int = 0, limit: int | None = None) -> int | None:
    """Bytes that may be taken on a device now; None on a CPU, where nothing is planned.

    Args:
        device: the device.
        own: bytes that lie there already and are to be counted as free.
        limit: the most that all of PyTorch's tensors may take; without one something is left to the driver, which loads the
            libraries' code as it is used.
    """
    if device.type != "cuda":
        return None
    import torch  # heavy; plans are made without it

    free, _ = torch.cuda.mem_get_info(device)
    others = torch.cuda.memory_allocated(device) - own
    there = free + torch.cuda.memory_reserved(device) - others
    return there - _DRIVER if limit is None else min(there, limit - others)


def room_left(device: torch.device) -> int:
    """Bytes that PyTorch can still take on a GPU: free, and under the limit that may be set."""
    import torch

    free, whole = torch.cuda.mem_get_info(device)
    limit = int(torch.cuda.get_per_process_memory_fraction(device) * whole)
    return min(free, limit - torch.cuda.memory_reserved(device))


def in_gib(size: int) -> str:
    """A size for people, in GiB."""
    return f"{size / GIB:.1f} GiB"


@dataclass(frozen=True)
class Linear:
    """A size that grows with a number of items: base + number · per_item."""

    base: int
    per_item: int

    @classmethod
    def through(cls, first: tuple[int, int], second: tuple[int, int]) -> Linear:
        """The line through two points (number, size)."""
        per_item = -(-(second[1] - first[1]) // (second[0] - first[0]))
        return cls(first[1] - first[0] * per_item, per_item)

    def at(self, number: int) -> int:
        """The size of a number of items."""
        return self.base + number * self.per_item


@dataclass(frozen=True)
class Work:
    """How much there is to do in one window.

    Attributes:
        items: tiles × directions × guidance halves of a step.
        frames: frames of a window, key frames included.
        pictures: pictures that are encoded: tiles × directions.
    """

    items: int
    frames: int
    pictures: int


@dataclass(frozen=True)
class Costs:
    """What the phases of a window take, in bytes; found by simulation.

    Attributes:
        weights: of each network, ControlNet and UNet by their blocks; beside them `ALWAYS` and `UNUSED`.
        held: what stays from the condition phase to the last step: features of events, and deep features that are reused.
        embed: embedding the event stacks of a tile.
        encode: encoding a number of pictures at once.
        denoise: one network call of a number of items.
        decode: decoding, by the number of bands that a frame is cut into.
        streamed: weights that lie on the device at one time when ControlNet and UNet come block by block.
    """

    weights: Mapping[str, int]
    held: int
    embed: int
    encode: Linear
    denoise: Linear
    decode: Mapping[int, int]
    streamed: int

    def total(self, names: tuple[str, ...]) -> int:
        """The weights of several networks."""
        return sum(self.weights.get(name, 0) for name in names)


@dataclass(frozen=True)
class MemoryPlan:
    """How a window's work is cut.

    Attributes:
        items_per_call: of a step, in one call of ControlNet and UNet.
        encode_batch: pictures encoded at once.
        decode_bands: bands that a frame is cut into for decoding; 1 is whole.
        offload: what leaves the GPU: nothing, networks while they are not in use, or also blocks of those in use.
        residency: the networks that lie on the GPU in each phase.
        graphs: CUDA graphs may be used: the denoising networks do not move while they are in use.
        keep_graphs: they may be kept from window to window: the denoising networks never move, and there is room.
        estimates: bytes at the peak of each phase: tensors, and what graphs hold that are kept.
        recorded: bytes that graphs hold while no network call is made.
        budget: bytes that may be taken; None if there is no limit.
    """

    items_per_call: int
    encode_batch: int
    decode_bands: int
    offload: Offload
    residency: Mapping[Phase, tuple[str, ...]]
    graphs: bool
    keep_graphs: bool
    estimates: Mapping[Phase, int]
    recorded: int
    budget: int | None

    @property
    def peak(self) -> int:
        """Bytes at the highest peak."""
        return max(self.estimates.values())

    @property
    def peak_of_tensors(self) -> int:
        """The same without what graphs hold, which PyTorch does not count as allocated."""
        return max(size - (self.recorded if phase != "denoise" else 0) for phase, size in self.estimates.items())

    def describe(self) -> str:
        """The plan for users, one to four lines."""
        highest = max(self.estimates, key=lambda phase: self.estimates[phase])
        limit = "" if self.budget is None else f" of {in_gib(self.budget)}"
        graphs = f", {in_gib(self.recorded)} of it for CUDA graphs" if self.recorded else ""
        lines = [f"about {in_gib(self.peak)}{limit} GPU memory at most, while {_DOING[highest]}{graphs}"]
        cut = f"; frames are decoded in {self.decode_bands} bands" if self.decode_bands > 1 else ""
        lines.append(f"{self.items_per_call} tiles × directions × guidance halves per network call{cut}")
        if self.offload != "none":
            away = [name for phase in NEEDS for name in NEEDS[phase] if not self._stays(name)]
            spoken = ", ".join(_SPOKEN[name] for name in away)
            lines.append(f"in the host's memory while not in use: {spoken}")
        if self.offload == "blocks":
            lines.append("the ControlNet's and the UNet's weights are streamed block by block while they compute")
        return "\n".join(lines)

    def difference(self, other: object) -> str:
        """What another plan does differently, in a few words."""
        assert isinstance(other, MemoryPlan)
        changes = [
            f"{theirs} {what} instead of {ours}"
            for ours, theirs, what in (
                (self.items_per_call, other.items_per_call, "items per network call"),
                (self.encode_batch, other.encode_batch, "pictures encoded at once"),
                (self.decode_bands, other.decode_bands, "bands per decoded frame"),
            )
            if ours != theirs
        ]
        if other.offload != self.offload:
            what = {
                "none": "all networks on the GPU",
                "idle": "idle networks in the host's memory",
                "blocks": "networks streamed block by block",
            }
            changes.append(what[other.offload])
        elif self.keep_graphs and not other.keep_graphs:
            changes.append("CUDA graphs recorded again for each window")
        return ", ".join(changes) or "the same plan"

    def _stays(self, name: str) -> bool:
        return all(name in names for names in self.residency.values())


def make_plan(costs: Costs, work: Work, budget: int | None) -> MemoryPlan:
    """The fastest plan that fits.

    Before anything leaves the GPU, frames are decoded in bands and CUDA graphs are dropped between windows; before network
    calls become small, idle networks leave; before they become very small, blocks are streamed.

    Args:
        costs: what the phases take.
        work: how much there is to do.
        budget: bytes that may be taken; None for no limit.

    Raises:
        ResourceError: nothing fits.
    """
    sizes = call_sizes(work)
    for offload, keep_graphs, least_share in _WAYS:
        for size in sizes:
            if size < least_share * sizes[0]:
                continue
            plan = _fitted(costs, work, budget, size, offload, keep_graphs=keep_graphs)
            if plan is not None:
                return plan
    least = _least(costs)
    raise ResourceError(
        f"not enough GPU memory: frames of this size need {in_gib(least)}, but only {in_gib(budget or 0)} may be used; "
        "use a lower --upscale, fewer --insert, or a higher --max-memory"
    )


def lower_plan(plan: MemoryPlan, phase: Phase, costs: Costs, work: Work) -> MemoryPlan | None:
    """The next plan that takes less in a phase, for when memory ran out there; None when nothing is left.

    First the phase's own work is cut finer, then idle networks leave, then blocks are streamed.

    Args:
        plan: the plan that took too much.
        phase: where.
        costs: what the phases take.
        work: how much there is to do.
    """
    if phase == "denoise" and plan.items_per_call > 1:
        smaller = [size for size in call_sizes(work) if size <= 0.6 * plan.items_per_call]
        size = smaller[0] if smaller else 1
        graphs = _is_recordable(size, work, plan.offload)
        changed = replace(plan, items_per_call=size, graphs=graphs, keep_graphs=plan.keep_graphs and not graphs)
    elif phase == "condition" and plan.encode_batch > 1:
        changed = replace(plan, encode_batch=plan.encode_batch // 2)
    elif phase == "decode" and (finer := [bands for bands in sorted(costs.decode) if bands > plan.decode_bands]):
        changed = replace(plan, decode_bands=finer[0])
    elif plan.offload == "none":
        changed = replace(plan, offload="idle", residency=_lean("idle"), keep_graphs=False)
    elif plan.keep_graphs or plan.residency != _lean(plan.offload):
        changed = replace(plan, residency=_lean(plan.offload), keep_graphs=False)
    elif plan.offload == "idle" and phase == "denoise":
        changed = replace(plan, offload="blocks", residency=_lean("blocks"), graphs=False)
    else:
        return None
    return _estimated(costs, changed)


def call_sizes(work: Work) -> list[int]:
    """Numbers of items per call that are worth trying, the best first.

    Larger ones are better up to `MOST_PICTURES`; one that divides the items evenly needs a single shape of call, and is
    better than a larger one by up to a third that does not.
    """
    most = max(MOST_PICTURES // work.frames, 1)
    sizes = {-(-work.items // calls) for calls in range(1, work.items + 1)}
    possible = [size for size in sizes if size <= most] or [1]
    return sorted(possible, key=lambda size: -size * (1.0 if work.items % size == 0 else 0.75))


_WAYS: Final[tuple[tuple[Offload, bool, float], ...]] = (
    ("none", True, 1.0),
    ("none", False, 0.5),
    ("idle", True, 1.0),
    ("idle", False, 0.25),
    ("blocks", False, 0.0),
)
"""Offload, whether graphs are kept between windows, and the least size of calls as a share of the best: the fastest first.

Calls of half the size cost more than networks that leave once a window, and much smaller ones more than blocks that come once
a call.
"""


def _fitted(
    costs: Costs, work: Work, budget: int | None, size: int, offload: Offload, *, keep_graphs: bool
) -> MemoryPlan | None:
    """The plan of that kind with the largest pieces that fit; None where none does."""
    plan = MemoryPlan(
        items_per_call=size,
        encode_batch=1,
        decode_bands=1,
        offload=offload,
        residency=_residency(costs, offload, keep_graphs=keep_graphs),
        graphs=_is_recordable(size, work, offload),
        keep_graphs=keep_graphs,
        estimates={},
        recorded=0,
        budget=budget,
    )
    pictures = _first(lambda number: _fits(costs, replace(plan, encode_batch=number), "condition"), _halvings(work))
    bands = _first(lambda number: _fits(costs, replace(plan, decode_bands=number), "decode"), sorted(costs.decode))
    if pictures is None or bands is None or not _fits(costs, plan, "denoise"):
        return None
    return _estimated(costs, replace(plan, encode_batch=pictures, decode_bands=bands))


def _is_recordable(size: int, work: Work, offload: Offload) -> bool:
    """Whether calls of so many items are worth recording, and their weights lie still."""
    return offload != "blocks" and size * work.frames <= MOST_RECORDED


def _first(suits: Callable[[int], bool], numbers: Iterable[int]) -> int | None:
    return next((number for number in numbers if suits(number)), None)


def _halvings(work: Work) -> Iterator[int]:
    number = min(work.pictures, ENCODED_AT_ONCE)
    while number >= 1:
        yield number
        number //= 2


def _residency(costs: Costs, offload: Offload, *, keep_graphs: bool) -> Mapping[Phase, tuple[str, ...]]:
    if offload == "none":
        return {phase: tuple(costs.weights) for phase in NEEDS}
    if keep_graphs:  # the denoising networks stay where they are
        return {phase: tuple(dict.fromkeys((*names, *NEEDS["denoise"], ALWAYS))) for phase, names in NEEDS.items()}
    return _lean(offload)


def _lean(offload: Offload) -> Mapping[Phase, tuple[str, ...]]:
    """Each phase with its own networks alone; streamed ones are never there as a whole."""
    streamed = NEEDS["denoise"] if offload == "blocks" else ()
    return {phase: (*(name for name in names if name not in streamed), ALWAYS) for phase, names in NEEDS.items()}


def _moving(costs: Costs, plan: MemoryPlan, phase: Phase) -> int:
    """Bytes at the peak of a phase that come and go, weights that are streamed among them."""
    if phase == "condition":
        return costs.held + max(costs.encode.at(plan.encode_batch), costs.embed) + _recorded(costs, plan)
    if phase == "denoise":
        streamed = costs.streamed if plan.offload == "blocks" else 0
        return costs.held + costs.denoise.at(plan.items_per_call) + streamed
    return costs.decode[plan.decode_bands] + _recorded(costs, plan)


def _recorded(costs: Costs, plan: MemoryPlan) -> int:
    """Bytes that graphs hold while no network call is made."""
    return costs.denoise.at(plan.items_per_call) if plan.keep_graphs and plan.graphs else 0


def _estimated(costs: Costs, plan: MemoryPlan) -> MemoryPlan:
    """The plan with what it takes."""
    estimates = {phase: _moving(costs, plan, phase) + costs.total(plan.residency[phase]) for phase in NEEDS}
    return replace(plan, recorded=_recorded(costs, plan), estimates=estimates)


def _fits(costs: Costs, plan: MemoryPlan, phase: Phase) -> bool:
    return plan.budget is None or _with_margin(costs, plan, phase) <= plan.budget


def _with_margin(costs: Costs, plan: MemoryPlan, phase: Phase) -> int:
    """What a phase takes with what the allocator and the libraries take beside its tensors."""
    moving = int(_moving(costs, plan, phase) * (1 + FRAGMENTED_SHARE[phase]))
    return costs.total(plan.residency[phase]) + moving + WORK_SPACE


def _least(costs: Costs) -> int:
    """The least memory that would do."""
    plan = _fitted(costs, Work(1, 1, 1), None, 1, "blocks", keep_graphs=False)
    assert plan is not None
    least = replace(plan, decode_bands=max(costs.decode))
    return max(_with_margin(costs, least, phase) for phase in NEEDS)
