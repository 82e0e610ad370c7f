"""A folder of numbered pictures, several compressed at a time: one of 512×320 pixels takes a processor 10 to 40 ms."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from evfi.video.geometry import Frame
from evfi.video.io import write_png

_THREADS: Final = 4
_MOST_WAITING: Final = 2 * _THREADS
"""Frames held in memory."""


class PictureWriter:
    """Writes frames as 000000.png, 000001.png, … in threads; a context, at whose end all are written.

    Attributes:
        count: frames given so far.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder that exists.

        Args:
            folder: gets the pictures.
        """
        self._folder = folder
        self._pool = ThreadPoolExecutor(_THREADS, "evfi-picture")
        self._waiting: deque[Future[None]] = deque()
        self.count = 0

    def write(self, frame: Frame) -> None:
        """Append a frame; it must not be changed afterwards.

        Args:
            frame: uint8 [H, W, 3].

        Raises:
            OutputError: this one or one before cannot be written.
        """
        while len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(write_png, self._folder / f"{self.count:06d}.png", frame))
        self.count += 1

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being written; after an exception, drop what is not begun.

        Raises:
            OutputError: a frame cannot be written.
        """
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
