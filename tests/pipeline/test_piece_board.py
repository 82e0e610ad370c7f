"""Which pieces can be done next, and what is left after an interruption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.piece_board import PieceBoard
from evfi.pipeline.pieces import Piece, piece_of
from evfi.recordings.planning import WindowSpec


def tree(index: int, inserted: int, most: int) -> Piece:
    return piece_of(WindowSpec(index, index, index + 1, np.arange(inserted + 2, dtype=np.int64)), most)


def facts_of(piece: Piece, treatment: str = "interpolate", finding: str = "") -> WindowFacts:
    number = len(piece.times_us) - 2 if treatment == "interpolate" else piece.window.num_inserted
    return WindowFacts(piece.window.index, 0, 1, number, 100, 0, treatment, finding, (), 2.0, "cpu")  # type: ignore[arg-type]


trees_of_windows = st.builds(
    lambda inserted, most: [tree(index, number, most) for index, number in enumerate(inserted)],
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(1, 8),
)


@given(trees_of_windows, st.data())
def test_all_is_done_once_whatever_the_order(trees, data):
    board = PieceBoard(trees)
    under_way: list[Piece] = []
    finished = set()
    for piece in board.pieces():
        if piece is None:
            assert under_way  # else it would be waited for ever
            done = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            assert board.done(done, facts_of(done)) == (done.window.index in board.complete)
            finished.add(done.key)
        else:
            assert not piece.path or (piece.window.index, piece.path[:-1]) in finished  # what bounds it is there
            assert piece.key not in finished | {one.key for one in under_way}
            under_way.append(piece)
    assert finished == {piece.key for one in trees for piece in one.all()}
    assert set(board.complete) == {one.window.index for one in trees}
    for one in trees:
        assert board.complete[one.window.index].seconds == 2.0 * sum(1 for _ in one.all())


def one_after_the_other(board: PieceBoard) -> list[tuple[int, tuple[int, ...]]]:
    order = []
    for piece in board.pieces():
        assert piece is not None
        order.append(piece.key)
        board.done(piece, facts_of(piece))
    return order


def test_a_window_is_finished_before_the_next_begins():
    board = PieceBoard([tree(0, 15, 3), tree(1, 15, 3)])
    parts = [(), (0,), (1,), (2,), (3,)]
    assert one_after_the_other(board) == [(index, path) for index in (0, 1) for path in parts]


@given(trees_of_windows, st.data())
def test_what_was_done_is_not_done_again(trees, data):
    pieces = [piece for one in trees for piece in one.all()]
    there = data.draw(st.sets(st.sampled_from([piece.key for piece in pieces])))
    board = PieceBoard(trees)
    board.resume({piece.key: facts_of(piece) for piece in pieces if piece.key in there}, None)

    def is_kept(key: tuple[int, tuple[int, ...]]) -> bool:  # with all that bounds it
        index, path = key
        return all((index, path[:depth]) in there for depth in range(len(path) + 1))

    expected = sorted(piece.key for piece in pieces if not is_kept(piece.key))
    assert sorted(one_after_the_other(board)) == expected
    assert len(board.complete) == len(trees)


def test_a_window_that_failed_is_left_and_the_others_go_on():
    board = PieceBoard([tree(0, 3, 1), tree(1, 1, 1)])
    first = next(board.pieces())
    assert first is not None
    board.done(first, facts_of(first))
    board.fail(0)
    assert one_after_the_other(board) == [(1, ())]
    assert set(board.complete) == {1}


def test_a_window_made_as_a_whole_has_no_further_pieces():
    board = PieceBoard([tree(0, 15, 3)])
    root = next(board.pieces())
    assert root is not None
    assert board.done(root, facts_of(root, "blend", "gap"))
    assert next(board.pieces(), "over") == "over"


def test_only_doubtful_windows_are_made_anew_if_the_user_chooses_otherwise():
    trees = [tree(0, 1, 1), tree(1, 1, 1), tree(2, 1, 1)]
    found = {
        (0, ()): facts_of(trees[0]),
        (1, ()): facts_of(trees[1], "hold", "cut"),
        (2, ()): facts_of(trees[2], "blend", "few-events"),
    }
    for choice, redone in ((None, []), ("hold", []), ("blend", [(1, ())]), ("fail", [(1, ())])):
        board = PieceBoard(trees)
        board.resume(found, choice)  # type: ignore[arg-type]
        assert one_after_the_other(board) == redone


def test_facts_of_pieces_add_up():
    one = tree(0, 3, 1)
    board = PieceBoard([one])
    for piece, (device, attempts) in zip(one.all(), [("cpu", 1), ("cuda:1", 3), ("cpu", 2)], strict=True):
        board.done(piece, replace(facts_of(piece), device=device, attempts=attempts))
    assert board.complete[0].device == "cpu, cuda:1"
    assert board.complete[0].attempts == 3
    assert board.complete[0].seconds == 6.0


def test_pieces_of_open_windows_count_in_part():
    trees = [tree(0, 15, 3), tree(1, 15, 3)]  # five pieces each
    board = PieceBoard(trees)
    parts = []
    for piece in [*trees[0].all(), *list(trees[1].all())[:2]]:
        board.done(piece, facts_of(piece))
        parts.append(round(board.part_done, 6))
    assert parts == [0.2, 0.4, 0.6, 0.8, 0.0, 0.2, 0.4]
    board.fail(1)
    assert board.part_done == 0
