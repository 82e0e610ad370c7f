"""Which pieces of a job's windows are done, which can be done next, and which windows are complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from evfi.pipeline.job_config import OnGap
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.pieces import Piece, PieceKey
from evfi.pipeline.treatments import treatment_of


class PieceBoard:
    """The pieces of all windows.

    Attributes:
        trees: each window's work, cut into pieces, by the window's index.
        complete: facts of the windows all of whose pieces are there.
        failed: indices of windows that will not be completed.
        num_pieces: of how many pieces each window's work is made up, by the window's index.
        part_done: windows' worth of pieces that are there of windows that are neither complete nor failed.
    """

    def __init__(self, trees: Iterable[Piece]) -> None:
        """Take windows none of which is begun.

        Args:
            trees: each window's work, in the order of time; windows without frames to make are none of this.
        """
        self.trees = {tree.window.index: tree for tree in trees}
        self.complete: dict[int, WindowFacts] = {}
        self.failed: set[int] = set()
        self.part_done = 0.0
        self._parts: dict[int, float] = {}
        self._facts: dict[int, WindowFacts] = {}
        self._missing = {index: {piece.key for piece in tree.all()} for index, tree in self.trees.items()}
        self.num_pieces = {index: len(missing) for index, missing in self._missing.items()}
        self._ready: deque[Piece] = deque()

    def resume(self, found: Mapping[PieceKey, WindowFacts], on_gap: OnGap | None) -> None:
        """Strike off what earlier runs did, unless the user now chose otherwise for doubtful windows.

        Args:
            found: facts of pieces that are there.
            on_gap: the user's choice.
        """
        for index, tree in self.trees.items():
            facts = found.get(tree.key)
            if facts is None or facts.treatment != treatment_of(facts.finding, facts.num_events, on_gap):
                continue
            self._strike(tree, facts)
            for piece in tree.all():
                if piece.path and piece.key in found and (index, piece.path[:-1]) not in self._missing[index]:
                    self._strike(piece, found[piece.key])

    def pieces(self) -> Iterator[Piece | None]:
        """Pieces to do, each when it can be done; those that others wait for, and earlier windows, first.

        Yields:
            A piece; None where there is none at the moment, but `done` may make more possible.
        """
        pending = iter([index for index, missing in self._missing.items() if missing])
        while True:
            if self._ready:
                piece = self._ready.popleft()
                if piece.window.index not in self.failed:
                    yield piece
                continue
            index = next(pending, None)
            if index is not None:
                self._ready.extend(self._possible(self.trees[index]))
            elif len(self.complete) + len(self.failed) == len(self.trees):
                return
            else:
                yield None

    def done(self, piece: Piece, facts: WindowFacts) -> bool:
        """A piece is there now.

        Args:
            piece: the piece.
            facts: how its frames came about.

        Returns:
            Whether its window is complete.
        """
        self._strike(piece, facts)
        missing = self._missing[piece.window.index]
        self._ready.extendleft(part for part in reversed(piece.parts) if part.key in missing)
        return piece.window.index in self.complete

    def fail(self, index: int) -> None:
        """A window cannot be completed."""
        self.failed.add(index)
        self._count_part(index, 0.0)

    def _strike(self, piece: Piece, facts: WindowFacts) -> None:
        index = piece.window.index
        missing = self._missing[index]
        missing.discard(piece.key)
        if not piece.path:
            self._facts[index] = facts
            if facts.treatment != "interpolate":
                missing.clear()  # they are made for the video, without a model
        else:
            self._facts[index] = _added(self._facts[index], facts)
        if not missing:
            self.complete[index] = self._facts[index]
        is_open = missing and index not in self.failed
        self._count_part(index, 1 - len(missing) / self.num_pieces[index] if is_open else 0.0)

    def _count_part(self, index: int, part: float) -> None:
        self._parts[index] = part
        if part == 0:
            del self._parts[index]
        self.part_done = sum(self._parts.values())

    def _possible(self, tree: Piece) -> list[Piece]:
        index, missing = tree.window.index, self._missing[tree.window.index]
        return [
            piece
            for piece in tree.all()
            if piece.key in missing and (not piece.path or (index, piece.path[:-1]) not in missing)
        ]


def _added(whole: WindowFacts, part: WindowFacts) -> WindowFacts:
    """A window's facts with those of one more of its pieces."""
    return replace(
        whole,
        seconds=whole.seconds + part.seconds,
        attempts=max(whole.attempts, part.attempts),
        device=whole.device if part.device in whole.device.split(", ") else f"{whole.device}, {part.device}",
    )
