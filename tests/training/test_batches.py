"""Batches made ahead: the thread that makes them, how it ends, and what it says when it fails."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from evfi.errors import InputError
from evfi.training.batches import Batch, BatchMaker, BatchSource, StepKey
from evfi.training.config import AutoencoderTraining
from evfi.training.textures import TextureLibrary


class Numbers(BatchMaker):
    """Makes batches that say which step they are of; fails, or waits, at one of them."""

    def __init__(self, fail_at: int | None = None, error: Exception | None = None) -> None:
        super().__init__(TextureLibrary(*((torch.zeros(1, channels, 1, 1),) for channels in (3, 3, 4))))
        self.made: list[StepKey] = []
        self.fail_at, self.error = fail_at, error

    def make(self, key: StepKey) -> Batch:
        if key.step == self.fail_at and self.error is not None:
            raise self.error
        self.made.append(key)
        return {"step": torch.tensor(key.step), "thread": torch.tensor(threading.get_ident())}


def source_of(maker: Numbers, *, prefetch: bool = True, first: int = 0) -> BatchSource:
    return BatchSource(AutoencoderTraining(Path("t"), Path("o"), seed=7, prefetch=prefetch), maker, 3, first)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def wait_until_queue_is_full(maker: Numbers) -> None:
    deadline = time.monotonic() + 5
    while len(maker.made) < 3 and time.monotonic() < deadline:  # two in the queue, one in the thread's hand
        time.sleep(0.005)
    assert len(maker.made) == 3


@pytest.mark.parametrize("prefetch", [False, True])
def test_batches_come_in_the_order_of_steps(prefetch: bool) -> None:
    maker = Numbers()
    source = source_of(maker, prefetch=prefetch, first=5)
    try:
        taken = [source.take(step) for step in range(5, 11)]
    finally:
        source.close()
    assert [int(batch["step"]) for batch in taken] == [5, 6, 7, 8, 9, 10]
    assert maker.made[:6] == [StepKey(7, step, 3) for step in range(5, 11)]
    assert all((int(batch["thread"]) != threading.get_ident()) == prefetch for batch in taken)


def test_only_a_few_are_made_ahead_and_closing_ends_a_thread_that_waits() -> None:
    maker = Numbers()
    source = source_of(maker)
    wait_until_queue_is_full(maker)
    time.sleep(0.05)
    assert len(maker.made) == 3
    assert len(threads()) == 1
    source.close()
    assert threads() == []
    source.close()  # twice does no harm


def test_closing_ends_a_thread_that_nobody_took_from() -> None:
    source_of(Numbers()).close()
    assert threads() == []


@pytest.mark.parametrize(
    "error", [InputError("no such picture"), torch.OutOfMemoryError("too small"), ValueError("odd")]
)
def test_what_went_wrong_comes_out_as_itself_after_the_batches_before(error: Exception) -> None:
    source = source_of(Numbers(fail_at=2, error=error))
    try:
        assert [int(source.take(step)["step"]) for step in (0, 1)] == [0, 1]
        with pytest.raises(type(error)) as raised:
            source.take(2)
        assert raised.value is error
    finally:
        source.close()
    assert threads() == []


def test_closing_does_not_wait_for_an_error_to_be_taken() -> None:
    source = source_of(Numbers(fail_at=0, error=ValueError("odd")))
    source.close()
    assert threads() == []


def test_while_paused_no_batch_is_made() -> None:
    maker = Numbers()
    source = source_of(maker)
    try:
        wait_until_queue_is_full(maker)
        with source.paused():
            for step in range(3):
                source.take(step)
            time.sleep(0.05)
            assert len(maker.made) == 3
        assert int(source.take(3)["step"]) == 3
    finally:
        source.close()
