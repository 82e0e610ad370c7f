"""Threads of a CPU, each with a part of the work of its own.

Pictures, tiles and the two directions do not see each other: where there are enough of them, each thread takes one from
beginning to end, and nothing is waited for between operations. Those that are left over are cut up within operations.

torch works with a single thread in each of these threads, with more where items are fewer than processors; how many it uses
elsewhere stays as it is.

Beside a GPU the CPU has little to do, in small operations; there a few threads are faster than one per processor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import TypeVar

import torch

from evfi.engine.devices import MOST_BESIDE_A_GPU

Item = TypeVar("Item")
Result = TypeVar("Result")

_here = threading.local()


class Workers:
    """As many threads as torch would use."""

    def __init__(self, number: int) -> None:
        """Start the threads."""
        self._number, before = number, torch.get_num_threads()
        self._leaders, self._helpers = (ThreadPoolExecutor(number, name) for name in ("evfi", "evfi-part"))
        started = threading.Barrier(2 * number)
        for pool in (self._leaders, self._helpers):
            for _ in range(number):
                pool.submit(_work_alone, started)
        pool.submit(int).result()
        torch.set_num_threads(before)  # in the calling thread, and of libraries that know one number for all threads

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Call a function for each item, in inference mode; results come in the items' order."""
        given, before = list(items), torch.get_num_threads()
        even = len(given) // self._number * self._number
        whole = [self._leaders.submit(_call, function, item, None, 1) for item in given[:even]]
        each = 1 if even else max(self._number // max(len(given), 1), 1)  # threads of torch, where too few share all
        shared = [self._leaders.submit(_call, function, item, self._helpers, each) for item in given[even:]]
        made = [future.result() for future in whole + shared]
        if each > 1:
            torch.set_num_threads(before)
        return made


def share(function: Callable[[Item], None], parts: Sequence[Item]) -> None:
    """Call a function for each part of an operation, on idle threads if the calling one may use them."""
    helpers: ThreadPoolExecutor | None = getattr(_here, "helpers", None)
    if helpers is None or len(parts) == 1:
        for part in parts:
            function(part)
    else:
        list(helpers.map(partial(_call, function, helpers=None, number=1), parts))


def workers() -> Workers:
    """The process's threads, as many as torch uses in the calling one."""
    return _made(torch.get_num_threads())


@cache
def _made(number: int) -> Workers:
    return Workers(number)


@contextmanager
def few_threads(device: torch.device) -> Iterator[None]:
    """Let torch use at most `MOST_BESIDE_A_GPU` threads of the CPU in the calling thread, where the networks run on a GPU.

    Args:
        device: where the networks run.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" or before <= MOST_BESIDE_A_GPU:
        yield
        return
    torch.set_num_threads(MOST_BESIDE_A_GPU)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _call(function: Callable[[Item], Result], item: Item, helpers: ThreadPoolExecutor | None, number: int) -> Result:
    _here.helpers = helpers
    if torch.get_num_threads() != number:
        torch.set_num_threads(number)
    with torch.inference_mode():
        return function(item)


def _work_alone(started: threading.Barrier) -> None:
    """Let torch use one thread in this one; wait for the others, so that each does it once."""
    torch.set_num_threads(1)
    started.wait()
