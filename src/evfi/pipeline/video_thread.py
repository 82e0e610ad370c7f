"""Write the video from finished pieces in a separate thread, while later windows are still being made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from evfi.errors import InputError
from evfi.pipeline.comparison_video import comparison_frame
from evfi.pipeline.outputs import Outputs
from evfi.pipeline.pieces import Piece, PieceKey
from evfi.pipeline.timeline import PlannedWindow, Timeline
from evfi.pipeline.treatments import frame_without_model
from evfi.pipeline.video_statistics import VideoFacts, VideoStatistics, busiest_row
from evfi.pipeline.window_store import KeptPiece
from evfi.recordings.recording import Recording
from evfi.video.geometry import Frame

_PROBED_PAIRS: Final = 4
_WAIT_S: Final = 0.2

ReadPiece = Callable[[PieceKey], KeptPiece]


@dataclass(frozen=True, eq=False)
class VideoSource:
    """The parts of a video.

    Attributes:
        timeline: its frames.
        piece_of: a window's work, cut into pieces.
        read_piece: gives a finished piece.
        open_recording: opens the recording once more, for this thread alone.
        check_inputs: raises if the recording's files changed since the work began.
    """

    timeline: Timeline
    piece_of: Callable[[PlannedWindow], Piece]
    read_piece: ReadPiece
    open_recording: Callable[[], AbstractContextManager[Recording]]
    check_inputs: Callable[[], None] = lambda: None


class VideoStoppedError(Exception):
    """The video was stopped before it was finished."""


class VideoThread(threading.Thread):
    """Writes the video as its windows become available, in order."""

    def __init__(self, source: VideoSource, outputs: Outputs) -> None:
        """Take what is needed; `start` begins.

        Args:
            source: where frames come from.
            outputs: where they go.
        """
        super().__init__(name="evfi-video", daemon=True)
        self._source, self._outputs = source, outputs
        self._changed = threading.Condition()
        self._available: set[int] = set()
        self._stopping = False
        self._error: BaseException | None = None
        self._facts: VideoFacts | None = None

    def add(self, window: int) -> None:
        """All pieces of a window are there now."""
        with self._changed:
            self._available.add(window)
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop without a video; what was written of it is removed."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self.ident is not None:
            self.join()

    def check(self) -> None:
        """Raise what went wrong in the thread, if that is a reason to stop the work, too.

        A key frame or a finished piece that cannot be read is none: it concerns some windows, and all others shall be made.

        Raises:
            EvfiError: a result cannot be written.
        """
        if self._error is not None and not isinstance(self._error, InputError | VideoStoppedError):
            raise self._error

    def finish(self) -> VideoFacts:
        """Wait for the end of the video; all windows must have been added.

        Raises:
            EvfiError: a result cannot be written, or a key frame or a finished piece cannot be read.
        """
        while self.is_alive():
            self.join(_WAIT_S)  # in parts, so that Ctrl-C is heard
        if self._error is not None:
            raise self._error
        assert self._facts is not None
        return self._facts

    def run(self) -> None:
        """What the thread does."""
        try:
            with self._source.open_recording() as recording, self._outputs:
                facts = self._write(recording)
                self._source.check_inputs()  # before anything gets its name: key frames were read until now
                self._facts = facts
        except BaseException as error:  # told by `check`
            self._error = error

    def _write(self, recording: Recording) -> VideoFacts:
        timeline = self._source.timeline
        statistics = VideoStatistics(recording.frames.size, timeline.num_frames, _busiest_row(recording, timeline))
        shown, before_us = timeline.shown_us(), None
        for window in timeline.windows:
            held, frames = self._frames_of(window, recording)
            for position, frame in frames:
                time_us = int(window.spec.times_us[position])
                from_us = time_us if before_us is None else before_us

                def comparison(
                    held: Frame = held, frame: Frame = frame, span: tuple[int, int] = (from_us, time_us)
                ) -> Frame:
                    return comparison_frame(held, recording.read_events(*span), frame)

                self._outputs.write(frame, time_us, next(shown), comparison)
                is_key = position in (0, len(window.spec.times_us) - 1)
                statistics.add(frame, time_us, is_key)
                before_us = time_us
        return statistics.finish()

    def _frames_of(self, window: PlannedWindow, recording: Recording) -> tuple[Frame, Iterator[tuple[int, Frame]]]:
        """The frame held as input, and the shown frames of a window with their positions, once it is available."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or window.spec.index in self._available)
            if self._stopping:
                raise VideoStoppedError
        start, end = (recording.frames.read(frame) for frame in (window.spec.start_frame, window.spec.end_frame))
        if window.spec.num_inserted == 0:
            frames: Iterable[Frame] = (start, end)
        else:
            frames = assemble(self._source.piece_of(window), start, end, self._source.read_piece)
        return start, ((position, frame) for position, frame in enumerate(frames) if position in window.positions)


def assemble(piece: Piece, start: Frame, end: Frame, read_piece: ReadPiece) -> Iterator[Frame]:
    """All frames of a piece of work and of those below it, one by one: few of them are in memory at a time.

    Args:
        piece: the piece.
        start: the frame before those that it makes.
        end: the frame after them.
        read_piece: gives finished pieces.

    Yields:
        Frames in the order of time, `start` first and `end` last.
    """
    yield start
    yield from _after_start(piece, start, end, read_piece)


def _after_start(piece: Piece, start: Frame, end: Frame, read_piece: ReadPiece) -> Iterator[Frame]:
    kept = read_piece(piece.key)
    if piece.parts and not len(kept.frames):  # held or blended
        times_us = piece.window.times_us
        for position in range(1, len(times_us)):
            yield frame_without_model(start, end, times_us, position, kept.facts.treatment)
        return
    coarse = [start, *kept.frames, end]
    if len(coarse) > len(piece.times_us):  # the same, kept as a whole by an earlier version
        yield from coarse[1:]
        return
    parts = {part.path[-1]: part for part in piece.parts}
    for number, (before, after) in enumerate(pairwise(coarse)):
        if number in parts:
            yield from _after_start(parts[number], before, after, read_piece)
        else:
            yield after


def _busiest_row(recording: Recording, timeline: Timeline) -> int:
    """The row with the most motion, over a few windows sampled across the video."""
    number = len(timeline.windows)
    chosen = sorted({number * part // _PROBED_PAIRS for part in range(_PROBED_PAIRS)})
    specs = [timeline.windows[at].spec for at in chosen]
    return busiest_row(
        [(recording.frames.read(spec.start_frame), recording.frames.read(spec.end_frame)) for spec in specs]
    )
