"""Decoders of Prophesee's words: content, and the same events wherever a stream is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from evfi.events.formats import evt2_words, evt_words, word_state
from evfi.events.formats.evt_words import Evt3Decoder
from evfi.events.formats.word_state import initial_state, new_tally
from file_writers.prophesee import dat_words, evt3_words, evt21_words
from file_writers.prophesee import evt2_words as write_evt2

Events = tuple[NDArray[Any], ...]
DECODERS: dict[str, tuple[Callable[..., int], type[np.unsignedinteger[Any]], Callable[..., NDArray[Any]]]] = {
    "evt2": (evt2_words.decode_evt2, np.uint32, write_evt2),
    "evt21-little": (evt2_words.decode_evt21_little, np.uint64, evt21_words),
    "evt21-legacy": (
        evt2_words.decode_evt21_legacy,
        np.uint64,
        lambda *columns: evt21_words(*columns, order="legacy"),
    ),
    "evt3": (evt_words.decode_evt3, np.uint16, evt3_words),
    "dat": (evt2_words.decode_dat, np.uint64, dat_words),
}
CLOCK_BITS = {"evt2": 34, "evt21-little": 34, "evt21-legacy": 34, "evt3": 24, "dat": 32}


def decode(
    name: str, words: NDArray[Any], state: NDArray[np.int64] | None = None, size: tuple[int, int] = (2**30, 2**30)
) -> tuple[Events, NDArray[np.int64], NDArray[np.int64]]:
    """Count, then decode words; returns x, y, t, p, the times outside, and the tally."""
    function = DECODERS[name][0]
    state = initial_state() if state is None else state
    limits = np.array([*size, 2**62, 2**62], np.int64)
    counted = new_tally()
    function(words, state.copy(), limits, None, None, None, None, None, counted)
    columns = word_state.empty_columns(int(counted[word_state.EVENTS]))
    outside = np.empty(int(counted[word_state.OUTSIDE]), np.int64)
    tally = new_tally()
    assert function(words, state, limits, *columns, outside, tally) == len(words)
    same = [i for i in range(len(tally)) if i not in range(word_state.MIN_T, word_state.MAX_Y + 1)]
    assert np.array_equal(tally[same], counted[same])
    return columns, outside, counted


def random_events(seed: int, count: int, start_us: int = 0, max_step_us: int = 40) -> Events:
    """Edges of up to 40 pixels, in time order."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.2, count), 40)
    t = start_us + np.cumsum(rng.integers(0, max_step_us, count))
    x, y, p = rng.integers(0, 600, count), rng.integers(0, 480, count), rng.integers(0, 2, count)
    steps = np.concatenate([np.arange(length) for length in lengths])
    x, y, t, p = (np.repeat(column, lengths) for column in (x, y, t, p))
    return x + steps, y, t, p


def assert_same(found: Events, written: Events) -> None:
    x, y, t, p = written
    for name, a, b in zip("xytp", found, (x, y, t, p * 2 - 1), strict=True):
        assert np.array_equal(a, b), name


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("start_us", [0, 123_456_789])
def test_events_come_back(name: str, start_us: int) -> None:
    start_us %= 2 ** CLOCK_BITS[name]
    events = random_events(1, 500, start_us)
    found, outside, tally = decode(name, DECODERS[name][2](*events))
    assert_same(found, events)
    assert len(outside) == tally[word_state.UNSORTED] == tally[word_state.UNKNOWN] == tally[word_state.UNDATED] == 0
    assert [v.dtype for v in found] == [np.int32, np.int32, np.int64, np.int8]


@pytest.mark.parametrize("name", DECODERS)
def test_times_go_on_beyond_wraps_of_the_clock(name: str) -> None:
    turn = 2 ** CLOCK_BITS[name]
    t = np.arange(10) * (turn // 4) + turn // 8
    events = np.arange(10), np.full(10, 7), t, np.arange(10) % 2
    words = DECODERS[name][2](*events)
    state = initial_state()
    found, _, tally = decode(name, words, state)
    assert_same(found, events)
    assert state[word_state.LOOPS] == 2 and tally[word_state.UNSORTED] == 0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.integers(0, 2**32), st.integers(1, 60), st.data())
def test_a_stream_may_be_cut_anywhere(name: str, seed: int, count: int, data: st.DataObject) -> None:
    words = DECODERS[name][2](*random_events(seed, count, 2**24 - 300, 20))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(words)), max_size=6)))
    whole, _, whole_tally = decode(name, words)
    state = initial_state()
    parts = [decode(name, part, state) for part in np.split(words, cuts)]
    for column, expected in enumerate(whole):
        assert np.array_equal(np.concatenate([part[0][column] for part in parts]), expected)
    counts = range(word_state.EVENTS, word_state.MIN_T)
    assert [sum(int(part[2][i]) for part in parts) for i in counts] == [int(whole_tally[i]) for i in counts]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=2000), st.integers(0, 2**32))
def test_any_bytes_give_events_within_bounds_however_cut(name: str, data: bytes, seed: int) -> None:
    itemsize = np.dtype(DECODERS[name][1]).itemsize
    words = np.frombuffer(data[: len(data) // itemsize * itemsize], DECODERS[name][1])
    (x, y, t, p), outside, tally = decode(name, words, size=(640, 480))
    assert ((x >= 0) & (x < 640) & (y >= 0) & (y < 480)).all() and np.isin(p, [-1, 1]).all()
    times = np.concatenate([t, outside])
    assert (times >= 0).all() and (times < 2**61).all()
    if len(times):
        assert (tally[word_state.MIN_T], tally[word_state.MAX_T]) == (times.min(), times.max())
    whole, _, largest = decode(name, words)
    if len(whole[0]):
        assert (largest[word_state.MAX_X], largest[word_state.MAX_Y]) == (whole[0].max(), whole[1].max())
    state, cut = initial_state(), seed % (len(words) + 1)
    parts = [decode(name, part, state, (640, 480)) for part in (words[:cut], words[cut:])]
    for column, expected in enumerate((x, y, t, p)):
        assert np.array_equal(np.concatenate([part[0][column] for part in parts]), expected)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=3000), st.integers(1, 50), st.integers(32, 200))
def test_limits_are_kept_and_each_call_makes_progress(name: str, data: bytes, soft: int, hard: int) -> None:
    function, dtype, _ = DECODERS[name]
    words = np.frombuffer(data[: len(data) // 8 * 8], dtype)
    state, limits = initial_state(), np.array([640, 480, soft, hard], np.int64)
    used = num_events = 0
    while used < len(words):
        tally = new_tally()
        step = function(words[used:], state, limits, None, None, None, None, None, tally)
        assert step > 0 and tally[word_state.EVENTS] + tally[word_state.OUTSIDE] <= hard
        used, num_events = used + step, num_events + int(tally[word_state.EVENTS])
    assert num_events == len(decode(name, words, size=(640, 480))[0][0])


@pytest.mark.parametrize("name", DECODERS)
def test_events_outside_are_counted_with_their_times(name: str) -> None:
    events = np.array([5, 640, 7, 8]), np.array([6, 6, 480, 9]), np.array([100, 200, 300, 400]), np.array([1, 1, 0, 0])
    found, outside, _ = decode(name, DECODERS[name][2](*events), size=(640, 480))
    assert found[2].tolist() == [100, 400] and outside.tolist() == [200, 300]


@pytest.mark.parametrize("name", ["evt2", "evt21-little", "evt21-legacy"])
def test_words_that_are_no_events(name: str) -> None:
    shift = 32 if name == "evt21-little" else 0
    mask = 0 if name == "evt2" else 1 << (32 - shift)
    event = (1 << 28 | 5 << 22 | 3 << 11 | 4) << shift | mask
    kinds = [event, *(kind << (28 + shift) for kind in (10, 14, 15, 8, 9, 2)), event]
    (x, y, t, p), _, tally = decode(name, np.array(kinds, DECODERS[name][1]))
    assert [column.tolist() for column in (x, y, t, p)] == [[3], [4], [5], [1]]
    assert tally[word_state.UNDATED] == 1 and tally[word_state.TRIGGERS] == 1 and tally[word_state.UNKNOWN] == 2


def test_evt21_masks_reach_all_columns() -> None:
    for name, word in (("evt21-little", (1 << 28 | 64 << 11) << 32 | 0xC0000001), ("evt21-legacy", None)):
        high = 8 << 28
        if word is None:
            words = np.array([high, 0xC0000001 << 32 | 1 << 28 | 64 << 11], np.uint64)
        else:
            words = np.array([high << 32, word], np.uint64)
        assert decode(name, words)[0][0].tolist() == [64, 94, 95]


def test_dat_polarities_other_than_0_and_1_are_unknown() -> None:
    words = np.array([5 << 60 | 3 << 32 | 7, 1 << 60 | 3 << 32 | 8], np.uint64)
    (x, _, t, p), _, tally = decode("dat", words)
    assert (x.tolist(), t.tolist(), p.tolist(), tally[word_state.UNKNOWN]) == ([3], [8], [1], 1)


def test_evt3_words_by_hand() -> None:
    words = [
        0x2005,  # an event before any time
        0x8001, 0x6002, 0x0004, 0x2805,  # 4098 µs, row 4, column 5, brighter
        0x3810, 0x4003, 0x5081,  # a vector from column 16: 16, 17, then (12 columns on) 28, 35
        0xA001, 0xE000, 0x7001, 0xF001, 0x9000,  # trigger, the camera's own, two that go on, unknown
        0x8002, 0x2006,  # a new high time sets the low one to 0
    ]  # fmt: skip
    decoder = Evt3Decoder()
    x, y, t, p = decoder.decode(np.array(words, np.uint16))
    assert x.tolist() == [5, 16, 17, 28, 35, 6]
    assert y.tolist() == [4] * 6
    assert t.tolist() == [4098] * 5 + [8192]
    assert p.tolist() == [1, 1, 1, 1, 1, -1]
    assert (decoder.num_undated, decoder.num_triggers, decoder.num_unknown) == (1, 1, 1)
    assert (decoder.num_clock_wraps, decoder.num_unsorted) == (0, 0)


def test_evt3_exposure_events_are_no_contrast_events() -> None:
    words = np.array([0x8001, 0x6000, 0x0004, 0x2001, 0x1004, 0x2002, 0x2003, 0x0005, 0x2004], np.uint16)
    decoder = Evt3Decoder()
    assert decoder.decode(words)[0].tolist() == [1, 4]
    assert decoder.num_unknown == 3


def test_evt3_decoder_of_packets_equals_one_decoder() -> None:
    events = random_events(3, 400, 2**24 - 5000)
    words = evt3_words(*events, num_triggers=5)
    decoder = Evt3Decoder()
    parts = [decoder.decode(part) for part in np.array_split(words, 23)]
    assert_same(tuple(np.concatenate([part[i] for part in parts]) for i in range(4)), events)
    assert decoder.num_triggers == 5 and decoder.num_clock_wraps == 1


def test_small_steps_back_of_the_clock_are_no_wraps() -> None:
    highs = [100, 99, 100, 4095, 0, 4095, 0, 1]
    words = np.array([word for high in highs for word in (0x8000 | high, 0x6000, 0x0001, 0x2001)], np.uint16)
    decoder = Evt3Decoder()
    times = decoder.decode(words)[2] >> 12
    assert times.tolist() == [100, 99, 100, 4095, 4096, 4095, 4096, 4097]
    assert decoder.num_clock_wraps == 1 and decoder.num_unsorted == 2
