"""The same work on many items, in this process or in several; results do not depend on how many."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Work(Generic[Item, Result]):
    """What a process does: `prepare` once, `do` for each item, `finish` at the end.

    Instances are sent to the processes, so keep them small.
    """

    def prepare(self) -> Any:
        """Make what all items need, e.g. load a model."""
        raise NotImplementedError

    def do(self, state: Any, item: Item) -> Result:
        """Work on one item."""
        raise NotImplementedError

    def finish(self, state: Any) -> None:
        """Give back what `prepare` opened, also after an error; worker processes just end instead."""


def run_work(work: Work[Item, Result], items: Sequence[Item], workers: int) -> Iterator[tuple[Item, Result]]:
    """Work on all items; each result is yielded as it comes, with its item.

    Args:
        work: what to do.
        items: on what.
        workers: processes; with one, the work is done in this process.

    Raises:
        Exception: the first that an item's work raises; items that are not begun are left out then.
        KeyboardInterrupt: items that are begun are finished first.
    """
    if not items:
        return
    if workers <= 1 or len(items) == 1:
        state = work.prepare()
        try:
            for item in items:
                yield item, work.do(state, item)
        finally:
            work.finish(state)
        return
    workers = min(workers, len(items))
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (work, threads)) as pool:
        with _interrupts_later():
            waiting: dict[Future[Result], Item] = {pool.submit(_do, item): item for item in items}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C back. Processes that start meanwhile never see it: this one tells them when to stop."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_current: list[Any] = []
"""In a worker process: its work and the state that it prepared."""


def _begin(work: Work[Any, Any], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _current[:] = [work, None]


def _do(item: Any) -> Any:
    work, state = _current
    if state is None:
        state = _current[1] = work.prepare()
    return work.do(state, item)
