"""Handle Ctrl-C and SIGTERM: they end the work once, however many arrive. Imports nothing slow."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING_S: Final = 10.0
"""So long after an interrupt further ones are part of it: they would only disturb what is being tidied up."""


@contextmanager
def one_interrupt(*, is_last: bool) -> Iterator[None]:
    """Let Ctrl-C end the work once, however often it comes; a polite kill (SIGTERM) does the same.

    Args:
        is_last: the process ends after this, and nothing shall disturb that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    latest = -ENDING_S

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal latest
        now = time.monotonic()
        if now - latest >= ENDING_S:
            latest = now
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if is_last:
            before[signal.SIGINT] = signal.SIG_IGN
        for number, handler in before.items():
            signal.signal(number, handler)
