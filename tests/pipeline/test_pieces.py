"""Windows are cut into pieces that make every frame once, and put together again in order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evfi.events.stream import EventStream
from evfi.pipeline.blending import blend_linearly
from evfi.pipeline.job_facts import WindowFacts
from evfi.pipeline.pieces import Piece, PieceKey, piece_of
from evfi.pipeline.treatments import frames_without_model
from evfi.pipeline.video_thread import assemble
from evfi.pipeline.window_store import KeptPiece
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Window


def window(inserted: int, index: int = 0) -> WindowSpec:
    return WindowSpec(index, index, index + 1, np.arange(inserted + 2, dtype=np.int64))


def picture(time: int) -> NDArray[np.uint8]:
    """A frame whose pixel says its time."""
    return np.array([[[time // 256, time % 256, 0]]], np.uint8)


def times_in(frames: list[NDArray[np.uint8]]) -> list[int]:
    return [int(frame[0, 0, 0]) * 256 + int(frame[0, 0, 1]) for frame in frames]


def kept_pieces_of(tree: Piece) -> dict[PieceKey, KeptPiece]:
    facts = WindowFacts(0, 0, 1, 1, 1, 0, "interpolate")
    return {
        piece.key: KeptPiece(piece.key, facts, np.array([picture(int(time)) for time in piece.times_us[1:-1]]))
        for piece in tree.all()
    }


frames_and_most = st.tuples(st.integers(1, 300), st.integers(1, 30))


@given(frames_and_most)
def test_every_frame_is_made_once_and_no_piece_makes_too_many(case):
    inserted, most = case
    tree = piece_of(window(inserted), most)
    made = [int(time) for piece in tree.all() for time in piece.times_us[1:-1]]
    assert sorted(made) == list(range(1, inserted + 1))
    assert all(1 <= len(piece.times_us) - 2 <= most for piece in tree.all())
    keys = [piece.key for piece in tree.all()]
    assert len(set(keys)) == len(keys)


@given(frames_and_most)
def test_what_bounds_a_piece_is_made_before_it(case):
    tree = piece_of(window(case[0]), case[1])
    known = {0, case[0] + 1}
    for piece in tree.all():
        assert {int(piece.times_us[0]), int(piece.times_us[-1])} <= known
        known.update(piece.times_us.tolist())


@given(frames_and_most)
def test_pieces_are_nearly_even(case):
    inserted, most = case
    for piece in piece_of(window(inserted), most).all():
        steps = np.diff(piece.times_us)
        assert steps.max() - steps.min() <= 1


def test_the_example_of_the_module():
    tree = piece_of(window(15), 7)
    assert tree.times_us.tolist() == [0, 8, 16]
    assert [part.times_us.tolist() for part in tree.parts] == [list(range(9)), list(range(8, 17))]
    assert [part.key for part in tree.parts] == [(0, (0,)), (0, (1,))]
    assert piece_of(window(7), 7).parts == ()


@given(st.lists(st.integers(1, 120), min_size=1, max_size=30), st.integers(1, 9), st.integers(0, 10**6))
def test_each_piece_has_noise_of_its_own(inserted, most, first):
    trees = [piece_of(window(number, first + at), most) for at, number in enumerate(inserted)]
    indices = [piece.spec.index for tree in trees for piece in tree.all()]
    assert len(set(indices)) == len(indices)
    assert [tree.spec.index for tree in trees] == [tree.window.index for tree in trees]  # as without pieces


def test_noise_differs_however_finely_one_cuts():
    indices = [Piece(window(1, i), path, np.arange(3)).spec.index for i in (0, 1, 4095, 4096) for path in PATHS]
    assert len(set(indices)) == len(indices)


PATHS = [(), (0,), (1,), (4095,), (4096,), (8191,), (0, 0), (0, 1), (1, 0), (4095, 4095), (0, 0, 0), (0, 0, 0, 0)]


@given(frames_and_most)
def test_frames_come_together_in_order(case):
    inserted, most = case
    tree = piece_of(window(inserted), most)
    frames = list(assemble(tree, picture(0), picture(inserted + 1), kept_pieces_of(tree).__getitem__))
    assert times_in(frames) == list(range(inserted + 2))


@given(frames_and_most)
def test_a_window_made_as_a_whole_needs_no_pieces(case):
    inserted, most = case
    tree = piece_of(window(inserted), most)
    whole = KeptPiece(
        tree.key, WindowFacts(0, 0, 1, inserted, 0, 0, "blend"), np.array([*map(picture, range(1, inserted + 1))])
    )
    frames = list(assemble(tree, picture(0), picture(inserted + 1), {tree.key: whole}.__getitem__))
    assert times_in(frames) == list(range(inserted + 2))


@pytest.mark.parametrize("treatment", ["hold", "blend"])
def test_a_long_window_without_a_model_is_not_in_memory_as_a_whole(treatment):
    spec = WindowSpec(0, 0, 1, np.arange(2001) ** 2)
    tree = piece_of(spec, 7)
    start, end = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), np.uint8)
    kept = KeptPiece(tree.key, WindowFacts(0, 0, 1, 1999, 0, 0, treatment), np.zeros((0, 1, 1, 3), np.uint8))
    events = EventStream.from_arrays([], [], [], [], (1, 1))
    expected = frames_without_model(Window(spec, start, end, events), treatment)
    tracemalloc.start()
    number = 0
    for frame, wanted in zip(assemble(tree, start, end, {tree.key: kept}.__getitem__), expected, strict=True):
        number += np.array_equal(frame, wanted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 2001
    assert peak < 50 * start.nbytes  # all would be 2001


def test_blending_takes_no_more_than_its_frames():
    start, end = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), np.uint8)
    tracemalloc.start()
    frames = blend_linearly(start, end, np.arange(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * frames.nbytes
