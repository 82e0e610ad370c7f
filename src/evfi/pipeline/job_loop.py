"""The loop that turns planned windows into finished pieces: read, dispatch, collect, store.

Windows are read in the order of time, a few ahead of the work. Pieces that others depend on go first once they can, so that
windows are finished nearly in order and the video can follow. What an earlier run did is not done again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from evfi.errors import EvfiError, RecordingError, ResourceError
from evfi.pipeline.job_config import OnGap
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.models import WindowItem
from evfi.pipeline.piece_board import PieceBoard
from evfi.pipeline.pieces import Piece, PieceKey, piece_of
from evfi.pipeline.timeline import PlannedWindow
from evfi.pipeline.treatments import frames_without_model, treatment_of
from evfi.pipeline.window_checks import check_window
from evfi.pipeline.window_store import KeptPiece, WindowStore
from evfi.recordings.files import FileWatch
from evfi.recordings.recording import Recording, Window
from evfi.video.geometry import Frame
from evfi.workers.scheduler import Scheduler
from evfi.workers.tasks import Failure, Outcome, Task

_WAIT_S: Final = 0.2
_KEEPING_THREADS: Final = 2
_MOST_BEING_KEPT: Final = 8
_NAMED_FAILURES: Final = 3


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    Attributes:
        num_windows: windows of the job, or of this shard of it.
        num_done: those whose frames are kept, from earlier runs too.
        num_kept: those that earlier runs did.
        num_frames: frames to make.
        num_frames_done: those that are made.
        part: windows' worth of work that is under way beyond those done.
        devices: windows' pieces finished in this run, per device.
    """

    num_windows: int
    num_done: int
    num_kept: int
    num_frames: int
    num_frames_done: int
    part: float
    devices: Mapping[str, int]


OnState = Callable[[JobState], None]

OnWindow = Callable[[WindowFacts], None]


class CancelledError(Exception):
    """The loop was cancelled; finished work is kept."""


class Listener(Protocol):
    """Notified when all pieces of a window are done: the video."""

    def add(self, window: int) -> None:
        """A window's frames are there."""

    def check(self) -> None:
        """Raise if the listener met an error."""


@dataclass
class WorkResult:
    """What a run of the loop came to.

    Attributes:
        facts: of each window whose frames are there, by index.
        failures: why the others failed, by index.
        busy_s: seconds of work per device, in this run.
        pieces: pieces finished in this run, per device.
        num_kept: windows that earlier runs did.
        num_frames: frames that are there.
    """

    facts: dict[int, WindowFacts] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    busy_s: dict[str, float] = field(default_factory=dict)
    pieces: dict[str, int] = field(default_factory=dict)
    num_kept: int = 0
    num_frames: int = 0

    def add(self, facts: WindowFacts) -> None:
        """A window's frames are there."""
        self.facts[facts.index] = facts
        self.num_frames += facts.num_inserted

    def raise_failures(self, place: str) -> None:
        """Say what failed, if anything did.

        Args:
            place: where what was done is kept, in words.

        Raises:
            RecordingError: some windows cannot be made from the recording as it is.
            ResourceError: some windows failed for want of memory or of a sound device.
        """
        if not self.failures:
            return
        told = [f"window {index}: {failure.message}" for index, failure in sorted(self.failures.items())]
        more = len(told) - _NAMED_FAILURES
        listed = "; ".join(told[:_NAMED_FAILURES]) + (f"; and {more} more" if more > 0 else "")
        message = (
            f"{len(told)} of {len(told) + len(self.facts)} windows failed: {listed}. All others are kept {place}; run the "
            "same command to retry the failed ones"
        )
        is_input = all(failure.kind == "input" for failure in self.failures.values())
        raise (RecordingError if is_input else ResourceError)(message)


@dataclass(frozen=True, eq=False)
class LoopConfig:
    """How windows are made.

    Attributes:
        most: frames that the model makes at a time.
        seed: of all random numbers.
        on_gap: what is done with doubtful windows.
        typical_us: usual distance of key frames.
    """

    most: int
    seed: int
    on_gap: OnGap | None
    typical_us: int


class JobLoop:
    """Makes the frames of some windows of a recording."""

    def __init__(
        self,
        recording: Recording,
        windows: Sequence[PlannedWindow],
        store: WindowStore,
        config: LoopConfig,
        *,
        watch: FileWatch | None = None,
        on_state: OnState | None = None,
        on_window: OnWindow | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take what is to be done.

        Args:
            recording: frames and events.
            windows: the windows, in the order of time.
            store: where pieces are kept.
            config: how windows are made.
            watch: tells when the recording's files change.
            on_state: called as the work proceeds, also from other threads.
            on_window: called with the facts of each window that this run finishes.
            is_cancelled: asked now and then, also from other threads; the loop ends with `CancelledError` once it says so.
        """
        self._on_window = on_window or (lambda facts: None)
        self._is_cancelled = is_cancelled
        self._recording, self._store, self._config, self._watch = recording, store, config, watch
        self._windows = {window.spec.index: window for window in windows}
        made = [window for window in windows if window.spec.num_inserted]
        self._board = PieceBoard(piece_of(window.spec, config.most) for window in made)
        self._pool = ThreadPoolExecutor(_KEEPING_THREADS, "evfi-keep")
        self._keeping: dict[Future[None], tuple[Piece, WindowFacts]] = {}
        self._begun: dict[PieceKey, tuple[Piece, WindowFacts]] = {}
        self._coarse: tuple[PieceKey | None, list[Frame]] = (None, [])
        self._result = WorkResult()
        self._reporter = _Reporter(self._board, self._result, on_state)
        self._listener: Listener | None = None

    @property
    def windows(self) -> Mapping[int, PlannedWindow]:
        """The windows, by their index."""
        return self._windows

    def tree_of(self, window: PlannedWindow) -> Piece:
        """The work of a window that has frames to make, cut into pieces."""
        return self._board.trees[window.spec.index]

    @property
    def on_step(self) -> Callable[[str, PieceKey, float], None]:
        """What workers call as the work proceeds."""
        return self._step

    def _step(self, device: str, key: PieceKey, part: float) -> None:
        if self._is_cancelled():
            raise CancelledError  # in this process: in the middle of a window
        self._reporter.step(device, key, part)

    @property
    def num_missing(self) -> int:
        """The number of windows whose frames are not done yet."""
        return len(self._board.trees) - len(self._board.complete)

    def resume(self) -> list[str]:
        """Find what earlier runs did.

        Returns:
            What they left damaged, one line each.

        Raises:
            OutputError: the folder of pieces cannot be read.
        """
        found, problems = self._store.scan(piece.key for tree in self._board.trees.values() for piece in tree.all())
        self._board.resume(found, self._config.on_gap)
        for facts in self._board.complete.values():
            self._result.add(facts)
        self._result.num_kept = len(self._board.complete)
        return problems

    def run(self, scheduler: Scheduler | None, listener: Listener | None = None) -> WorkResult:
        """Do the missing work.

        Args:
            scheduler: hands the work out; None where nothing is missing.
            listener: who hears of finished windows.

        Raises:
            EvfiError: nothing more can be done: the disk refuses, the recording's files changed, the model cannot be loaded.
        """
        self._listener = listener
        for index, window in self._windows.items():
            if window.spec.num_inserted == 0 or index in self._board.complete:
                self._announce(index)
        self._reporter.tell()
        try:
            if self.num_missing:
                assert scheduler is not None
                self._loop(scheduler)
            return self._result
        finally:
            self._pool.shutdown()
            self._count_kept()

    def _loop(self, scheduler: Scheduler) -> None:
        pieces = self._board.pieces()
        in_flight, is_over = 0, False
        while not (is_over and not in_flight and not self._keeping):
            while in_flight < scheduler.capacity and len(self._keeping) < _MOST_BEING_KEPT and not is_over:
                piece = next(pieces, "over")
                is_over = piece == "over"
                if not isinstance(piece, Piece):
                    break
                task = self._task_for(piece)
                if task is not None:
                    scheduler.submit(task)
                    in_flight += 1
            if self._is_cancelled():
                raise CancelledError
            if self._listener is not None:
                self._listener.check()
            if in_flight:
                outcome = scheduler.next_outcome(_WAIT_S if not self._keeping else _WAIT_S / 10)
                if outcome is not None:
                    in_flight -= 1
                    self._take(outcome)
            self._collect(is_waiting=not in_flight)

    # where work comes from

    def _task_for(self, piece: Piece) -> Task | None:
        """What is to be done for a piece; None where that needs no model, or cannot be done."""
        try:
            return self._root_task(piece) if not piece.path else self._part_task(piece)
        except EvfiError as error:
            if self._watch is not None:
                self._watch.check()  # a file that is gone ends the job, rather than every window of it
            self._fail(piece, Failure("input", str(error)))
            return None

    def _root_task(self, piece: Piece) -> Task | None:
        window = self._recording.load_window(piece.window)
        finding = check_window(window, self._config.typical_us)
        treatment = treatment_of(finding.kind, len(window.events), self._config.on_gap)
        if treatment is None:
            self._fail(piece, Failure("input", f"{finding.note}; choose what to show there with --on-gap"))
            return None
        facts = WindowFacts(
            index=piece.window.index,
            start_us=int(piece.window.times_us[0]),
            end_us=int(piece.window.times_us[-1]),
            num_inserted=piece.window.num_inserted,
            num_events=len(window.events),
            num_dropped=window.events.num_dropped,
            treatment=treatment,
            finding=finding.kind,
            notes=(finding.note,) if finding.note else (),
        )
        if treatment != "interpolate":
            if piece.parts:  # more frames than one piece has: made one by one for the video
                self._keep(piece, facts, np.stack([window.start_image, window.end_image]))
            else:
                self._keep(piece, facts, frames_without_model(window, treatment))
            return None
        self._begun[piece.key] = piece, facts
        return self._task(piece, replace(window, spec=piece.spec))

    def _part_task(self, piece: Piece) -> Task | None:
        start, end = self._borders(piece)
        start_us, end_us = int(piece.times_us[0]), int(piece.times_us[-1])
        events = self._recording.read_events(start_us, end_us)
        self._begun[piece.key] = (
            piece,
            WindowFacts(
                index=piece.window.index,
                start_us=start_us,
                end_us=end_us,
                num_inserted=len(piece.times_us) - 2,
                num_events=len(events),
                num_dropped=events.num_dropped,
                treatment="interpolate",
            ),
        )
        window = Window(piece.spec, start, end, events)
        if len(events) == 0:
            facts = replace(self._begun.pop(piece.key)[1], treatment="blend")
            self._keep(piece, facts, frames_without_model(window, "blend"))
            return None
        return self._task(piece, window)

    def _task(self, piece: Piece, window: Window) -> Task:
        return Task(piece.key, WindowItem(window, self._config.seed), f"window {piece.window.index}")

    def _borders(self, piece: Piece) -> tuple[Frame, Frame]:
        """The frames that bound a piece: key frames, or frames made before."""
        if not piece.path:
            spec = piece.window
            return self._recording.frames.read(spec.start_frame), self._recording.frames.read(spec.end_frame)
        above = self._board.trees[piece.window.index]
        for part in piece.path[:-1]:
            above = next(one for one in above.parts if one.path[-1] == part)
        if self._coarse[0] != above.key:  # its parts follow each other: read once for all of them
            start, end = self._borders(above)
            self._coarse = above.key, [start, *self._store.read(above.key).frames, end]
        frames = self._coarse[1]
        return frames[piece.path[-1]], frames[piece.path[-1] + 1]

    # outcomes

    def _take(self, outcome: Outcome) -> None:
        piece, facts = self._begun.pop(outcome.task.key)
        self._reporter.forget(outcome.device)
        if outcome.failure is not None:
            self._fail(piece, outcome.failure)
            return
        assert outcome.result is not None
        facts = replace(facts, seconds=outcome.seconds, device=outcome.device, attempts=outcome.task.attempt)
        result = self._result
        result.busy_s[outcome.device] = result.busy_s.get(outcome.device, 0.0) + outcome.seconds
        result.pieces[outcome.device] = result.pieces.get(outcome.device, 0) + 1
        self._keep(piece, facts, outcome.result)

    def _keep(self, piece: Piece, facts: WindowFacts, frames: NDArray[np.uint8]) -> None:
        if self._watch is not None:
            self._watch.check((piece.window.start_frame, piece.window.end_frame))
        kept = KeptPiece(piece.key, facts, frames[1:-1])
        self._keeping[self._pool.submit(self._store.write, kept)] = piece, facts

    def _collect(self, *, is_waiting: bool) -> None:
        """Strike off pieces that are on disk now."""
        if is_waiting and self._keeping:
            wait(self._keeping, timeout=_WAIT_S, return_when=FIRST_COMPLETED)
        for future in [future for future in self._keeping if future.done()]:
            piece, facts = self._keeping.pop(future)
            future.result()
            if self._board.done(piece, facts):
                whole = self._board.complete[piece.window.index]
                self._result.add(whole)
                self._on_window(whole)
                self._announce(piece.window.index)
            self._reporter.tell()

    def _count_kept(self) -> None:
        """After an interruption: strike off what came to the disk meanwhile."""
        for future, (piece, facts) in self._keeping.items():
            if future.exception() is None:
                self._board.done(piece, facts)
        self._keeping.clear()

    def _announce(self, index: int) -> None:
        if self._listener is not None:
            self._listener.add(index)

    def _fail(self, piece: Piece, failure: Failure) -> None:
        self._board.fail(piece.window.index)
        self._result.failures.setdefault(piece.window.index, failure)


class _Reporter:
    """Puts together how far the job is; called from several threads."""

    def __init__(self, board: PieceBoard, result: WorkResult, on_state: OnState | None) -> None:
        self._num_frames = sum(tree.window.num_inserted for tree in board.trees.values())
        self._board, self._result, self._on_state = board, result, on_state
        self._lock = threading.Lock()
        self._under_way: dict[str, float] = {}

    def step(self, device: str, key: PieceKey, part: float) -> None:
        """A piece is so far on a device."""
        with self._lock:
            self._under_way[device] = part / self._board.num_pieces[key[0]]
        self.tell()

    def forget(self, device: str) -> None:
        """A device has finished its piece."""
        with self._lock:
            self._under_way.pop(device, None)

    def tell(self) -> None:
        """Say how far the job is."""
        if self._on_state is None:
            return
        with self._lock:
            result = self._result
            self._on_state(
                JobState(
                    num_windows=len(self._board.trees),
                    num_done=len(result.facts),
                    num_kept=result.num_kept,
                    num_frames=self._num_frames,
                    num_frames_done=result.num_frames,
                    part=self._board.part_done + sum(self._under_way.values()),
                    devices=dict(result.pieces),
                )
            )
