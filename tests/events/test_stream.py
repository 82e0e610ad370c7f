"""EventStream: what it accepts, refuses and preserves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evfi.errors import InputError
from evfi.events.stream import EventStream

SENSOR = (7, 5)


@st.composite
def streams(draw: st.DrawFn) -> EventStream:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, SENSOR[0] - 1),
                st.integers(0, SENSOR[1] - 1),
                st.integers(-50, 50),
                st.sampled_from([-1, 1]),
            ),
            max_size=40,
        )
    )
    columns = np.array(rows, np.int64).reshape(-1, 4).T
    return EventStream.from_arrays(*columns, SENSOR)


def columns_of(stream: EventStream) -> list[tuple[int, int, int, int]]:
    return list(zip(*(column.tolist() for column in (stream.x, stream.y, stream.t, stream.p)), strict=True))


@given(streams())
def test_dtypes_and_order(stream: EventStream) -> None:
    assert [c.dtype for c in (stream.x, stream.y, stream.t, stream.p)] == [np.int32, np.int32, np.int64, np.int8]
    assert (np.diff(stream.t) >= 0).all()


@given(streams(), st.integers(-60, 60), st.integers(0, 60))
def test_reversing_twice_is_the_identity(stream: EventStream, start: int, length: int) -> None:
    backward = stream.reverse(start, start + length)
    assert (np.diff(backward.t) >= 0).all()
    assert backward.p.tolist() == (-stream.p[::-1]).tolist()
    assert columns_of(backward.reverse(start, start + length)) == columns_of(stream)


@given(streams(), st.integers(-60, 60), st.integers(-60, 60))
def test_slices_partition_the_stream(stream: EventStream, a: int, b: int) -> None:
    first, second = min(a, b), max(a, b)
    parts = [stream.slice(-100, first), stream.slice(first, second), stream.slice(second, 100)]
    assert columns_of(EventStream.concatenate(parts)) == columns_of(stream)
    assert all(first <= t < second for t in parts[1].t)


def test_empty_slice_when_bounds_are_swapped() -> None:
    stream = EventStream.from_arrays([0, 1], [0, 1], [1, 5], [1, -1], SENSOR)
    assert len(stream.slice(6, 0)) == 0


def test_sorting_is_stable() -> None:
    stream = EventStream.from_arrays([0, 1, 2, 3], [0, 0, 0, 0], [5, 3, 5, 3], [1, 1, -1, -1], SENSOR)
    assert stream.x.tolist() == [1, 3, 0, 2]


def test_concatenate_sorts_and_keeps_the_count_of_dropped() -> None:
    late = EventStream.from_arrays([0, 9], [0, 0], [5, 5], [1, 1], SENSOR, on_outside="drop")
    early = EventStream.from_arrays([1], [0], [5], [1], SENSOR)
    joined = EventStream.concatenate([late, early, EventStream.empty(SENSOR)])
    assert joined.x.tolist() == [0, 1]
    assert joined.num_dropped == 1


def test_concatenate_refuses_nothing_and_different_sensors() -> None:
    with pytest.raises(InputError, match="at least one"):
        EventStream.concatenate([])
    with pytest.raises(InputError, match="different sensor sizes"):
        EventStream.concatenate([EventStream.empty((4, 4)), EventStream.empty((4, 5))])


def test_outside_is_counted_and_reported() -> None:
    x, y, t, p = np.array([0, 7, -1, 3], np.int16), [0, 0, 0, 5], [0, 1, 2, 3], [1, 1, 1, 1]
    with pytest.raises(InputError, match=r"3 of 4 events lie outside the 7×5 sensor \(the first at x=7, y=0\)"):
        EventStream.from_arrays(x, y, t, p, SENSOR)
    stream = EventStream.from_arrays(x, y, t, p, SENSOR, on_outside="drop")
    assert (len(stream), stream.num_dropped) == (1, 3)


def test_unsigned_wrap_is_outside_not_clipped() -> None:
    stream = EventStream.from_arrays(
        np.array([65534, 2], np.uint16), np.array([2**64 - 1, 2], np.uint64), [0, 1], [1, 1], SENSOR, on_outside="drop"
    )
    assert (stream.x.tolist(), stream.num_dropped) == ([2], 1)


def test_polarity_conventions() -> None:
    def signs(p: object, convention: str) -> list[int]:
        return EventStream.from_arrays([0, 0], [0, 0], [0, 1], p, SENSOR, polarity=convention).p.tolist()  # type: ignore[arg-type]

    assert signs([-1, 1], "signed") == [-1, 1]
    assert signs([0, 1], "binary") == [-1, 1]
    assert signs(np.array([False, True]), "binary") == [-1, 1]
    assert signs(np.array([0.0, 1.0]), "binary") == [-1, 1]
    for values, convention in (
        ([0, 1], "signed"),
        ([-1, 1], "binary"),
        ([2, 1], "binary"),
        (np.array([False, True]), "signed"),
        ([np.nan, 1], "signed"),
        ([0, 1], "other"),
    ):
        with pytest.raises(InputError, match="polari"):
            signs(values, convention)


def test_times_are_rounded_and_must_be_finite() -> None:
    stream = EventStream.from_arrays([0, 0], [0, 0], [0.6, 1.4], [1, 1], SENSOR)
    assert stream.t.tolist() == [1, 1]
    for bad in (np.nan, np.inf, 1e30):
        with pytest.raises(InputError, match=r"event (column|times)"):
            EventStream.from_arrays([0, 0], [0, 0], [0.0, bad], [1, 1], SENSOR)
    with pytest.raises(InputError, match="within"):
        EventStream.from_arrays([0], [0], np.array([2**63], np.uint64), [1], SENSOR)


@pytest.mark.parametrize("size", [(0, 5), (7, -1), (7.0, 5), (True, 5), (7,), None, "ab"])
def test_sensor_size_must_be_two_positive_integers(size: object) -> None:
    with pytest.raises(InputError, match="sensor size"):
        EventStream.from_arrays([], [], [], [], size)  # type: ignore[arg-type]


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="equal lengths, got x: 1, y: 1, t: 2, p: 1"):
        EventStream.from_arrays([0], [0], [0, 1], [1], SENSOR)
    with pytest.raises(InputError, match="one dimension"):
        EventStream.from_arrays([[0]], [[0]], [[0]], [[1]], SENSOR)
    with pytest.raises(InputError, match=r"whole pixels, got x=0\.5"):
        EventStream.from_arrays([0.5], [0], [0], [1], SENSOR)
    with pytest.raises(InputError, match="numbers"):
        EventStream.from_arrays(["a"], [0], [0], [1], SENSOR)
