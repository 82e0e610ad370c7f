"""Going on when memory runs out: the same work again, in smaller pieces.

Work done piece by piece gives the same result to rounding whatever the pieces' size, and random numbers are keyed by seed,
window and step; so what ran out of memory is simply done again. Nothing is lost but the time of the attempt.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import torch

from evfi.errors import ResourceError

_log = logging.getLogger(__name__)

_SURE: Final = ("out of memory", "allocate memory", "_status_alloc_failed", "_status_not_enough_memory")
_LIKELY: Final = ("unable to find an engine to execute", "no valid engine config", "cudnn_status_internal_error")
"""What cuDNN says when no algorithm's work space could be had, among other causes."""


class Describable(Protocol):
    """A plan that can be told to a user."""

    def difference(self, other: object) -> str:
        """What another plan does differently, in a few words."""


Result = TypeVar("Result")
Plan = TypeVar("Plan", bound=Describable)


def run_with_backoff(
    attempt: Callable[[Plan], Result], plan: Plan, lower: Callable[[Plan], Plan | None]
) -> tuple[Result, Plan]:
    """Do some work; where memory runs out, do it again by a plan that needs less.

    Args:
        attempt: does the work by a plan; may be called several times and must leave nothing half done.
        plan: the first plan.
        lower: the next plan, which needs less; None when nothing is left.

    Returns:
        The work's result, and the plan that it was done by, for what comes next.

    Raises:
        ResourceError: memory ran out and no plan is left.
    """
    while True:
        try:
            return attempt(plan), plan
        except (RuntimeError, MemoryError) as error:
            if not (is_out_of_memory(error) or _may_be(error, _LIKELY)):
                raise
            reason, lowered = first_line(error), lower(plan)
            if lowered is None:
                if not is_out_of_memory(error):
                    raise
                raise ResourceError(f"not enough memory, and no further saving is possible ({reason})") from error
        # not before the error is gone: its frames hold the failed attempt's tensors
        release_memory()
        _log.warning("out of memory (%s); continuing with %s", reason, plan.difference(lowered))
        plan = lowered


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the GPU or the CPU, in PyTorch or in a library beneath it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _may_be(error, _SURE):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)


def _may_be(error: BaseException, phrases: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in phrases)


def first_line(error: BaseException) -> str:
    """An error's first sentence or two, in one line of at most 160 letters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 160 else lines[0][:157] + "..."


def release_memory() -> None:
    """Give back what nobody uses: Python's cycles, and the blocks that PyTorch keeps for later."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
