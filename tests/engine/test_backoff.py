"""Out of memory during a run: the same work by a smaller plan, with the same result."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
import torch

from evfi.engine.backoff import is_out_of_memory, run_with_backoff
from evfi.errors import ResourceError


@dataclass(frozen=True)
class Pieces:
    """A plan: how many numbers are summed up at once."""

    number: int

    def difference(self, other: object) -> str:
        assert isinstance(other, Pieces)
        return f"{other.number} pieces instead of {self.number}"


def halved(plan: Pieces) -> Pieces | None:
    return Pieces(plan.number // 2) if plan.number > 1 else None


class Failing:
    """Sums up numbers; runs out of memory at the first calls."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.plans: list[int] = []

    def __call__(self, plan: Pieces) -> float:
        self.plans.append(plan.number)
        if self.errors:
            raise self.errors.pop(0)
        return sum(part.sum().item() for part in torch.arange(12.0).split(plan.number))


OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")


def test_what_failed_is_done_again_in_smaller_pieces(caplog: pytest.LogCaptureFixture) -> None:
    work = Failing(OUT, RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    with caplog.at_level(logging.WARNING):
        result, plan = run_with_backoff(work, Pieces(8), halved)
    assert (result, plan, work.plans) == (66.0, Pieces(2), [8, 4, 2])
    first, second = [record.getMessage() for record in caplog.records]
    assert first == (
        "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.); continuing with 4 pieces instead of 8"
    )
    assert "2 pieces instead of 4" in second


def test_without_trouble_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert run_with_backoff(Failing(), Pieces(5), halved) == (66.0, Pieces(5))
    assert not caplog.records


def test_when_nothing_is_left_the_user_is_told_in_one_line() -> None:
    work = Failing(OUT, OUT, OUT)
    with pytest.raises(
        ResourceError, match=r"^not enough memory, and no further saving is possible \(CUDA out of memory"
    ) as told:
        run_with_backoff(work, Pieces(2), halved)
    assert "\n" not in str(told.value)
    assert work.plans == [2, 1]


def test_other_errors_pass() -> None:
    for error in (RuntimeError("sizes do not match"), ValueError("out of memory of what I said"), KeyboardInterrupt()):
        work = Failing(error)
        with pytest.raises(type(error)):
            run_with_backoff(work, Pieces(8), halved)
        assert work.plans == [8]


def test_what_may_be_memory_is_tried_smaller_but_told_as_it_is() -> None:
    unclear = "GET was unable to find an engine to execute this computation"
    assert run_with_backoff(Failing(RuntimeError(unclear)), Pieces(4), halved) == (66.0, Pieces(2))
    with pytest.raises(RuntimeError, match="unable to find an engine"):
        run_with_backoff(Failing(RuntimeError(unclear)), Pieces(1), halved)


def test_the_failed_attempt_holds_nothing_when_the_next_begins() -> None:
    class Held:
        alive = 0

        def __init__(self) -> None:
            Held.alive += 1

        def __del__(self) -> None:
            Held.alive -= 1

    def attempt(plan: Pieces) -> int:
        alive, held = Held.alive, Held()
        if plan.number > 1:
            raise torch.OutOfMemoryError("out of memory")
        del held
        return alive

    assert run_with_backoff(attempt, Pieces(4), halved) == (0, Pieces(1))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:115] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (OSError("out of memory"), False),
    ],
)
def test_errors_about_memory_are_known(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_memory_that_ran_out_behind_another_error_is_seen() -> None:
    def attempt(plan: object) -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as told:
        attempt(None)
    assert is_out_of_memory(told.value)
    assert not is_out_of_memory(RuntimeError("operation failed due to a previous error during capture"))
