"""Event stacks: channels, directions, normalisations, batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evfi.errors import ConfigError
from evfi.events.stacks import StackConfig, batched_event_stacks, event_stacks, normalised_interval_stacks
from evfi.events.stream import EventStream

SYMMETRIC = StackConfig(normalisation="symmetric")


def row_of_events(number: int, polarity: int = 1) -> EventStream:
    """`number` events, one per pixel of a row from left to right, one per µs."""
    x = np.arange(number)
    return EventStream.from_arrays(x, np.zeros(number), x, np.full(number, polarity), (number, 1))


def random_events(seed: int, number: int, size: tuple[int, int] = (20, 12), duration: int = 1000) -> EventStream:
    rng = np.random.default_rng(seed)
    return EventStream.from_arrays(
        rng.integers(0, size[0], number),
        rng.integers(0, size[1], number),
        np.sort(rng.integers(0, duration, number)),
        rng.choice([-1, 1], number),
        size,
    )


def test_channel_k_holds_the_last_events_of_the_interval() -> None:
    forward, _ = normalised_interval_stacks(row_of_events(64), SYMMETRIC)
    held = [int((channel != 0).sum()) for channel in forward]
    assert held == [63, 31, 15, 7, 0, 0]  # N // 2**k - 1, and nothing where fewer than five are left
    for channel, number in zip(forward, held, strict=True):
        assert (channel[0, 64 - number :] > 0).all()
        assert not channel[0, : 64 - number].any()


def test_backward_holds_the_first_events_with_flipped_sign() -> None:
    _, backward = normalised_interval_stacks(row_of_events(64), SYMMETRIC)
    assert (backward[1, 0, :31] < 0).all()
    assert not backward[1, 0, 31:].any()


def test_backward_equals_forward_of_the_reversed_stream() -> None:
    events = random_events(0, 900)
    _, backward = normalised_interval_stacks(events, StackConfig())
    mirrored, _ = normalised_interval_stacks(events.reverse(0, 1000), StackConfig())
    assert torch.equal(backward, mirrored)


def test_no_events_give_exactly_zero() -> None:
    for config in (SYMMETRIC, StackConfig()):
        forward, backward = event_stacks(row_of_events(4), [0, 10, 20], (4, 1), config)
        assert not forward.any()
        assert not backward.any()
        assert forward.shape == (3, 6, 1, 4)


def test_symmetric_values_by_hand() -> None:
    count = 7
    x = np.repeat([0, 1], count)
    events = EventStream.from_arrays(x, 0 * x, np.arange(2 * count), np.where(x == 0, 1, -1), (2, 1))
    forward, _ = normalised_interval_stacks(events, StackConfig(num_channels=1, normalisation="symmetric"))
    six, seven = (math.log1p(number) / math.log1p(15) for number in (6, 7))
    expected = [int((six + 1) / 2 * 255) / 127 - 1, int((1 - seven) / 2 * 255) / 127 - 1]  # the first event is left out
    assert forward[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_symmetric_values_end_at_the_cap() -> None:
    counts = np.array([3, 4, 5, 40, -3, -4, -5, -40])
    x = np.concatenate([[8], np.repeat(np.arange(8), np.abs(counts))])  # one event more, which channel 0 leaves out
    p = np.concatenate([[1], np.sign(counts)[x[1:]]])
    events = EventStream.from_arrays(x, 0 * x, np.arange(len(x)), p, (9, 1))
    config = StackConfig(num_channels=1, normalisation="symmetric", count_cap=4)
    forward, _ = normalised_interval_stacks(events, config)
    three = int((math.log1p(3) / math.log1p(4) + 1) / 2 * 255) / 127 - 1
    most = 255 / 127 - 1
    expected = [three, most, most, most, int((1 - math.log1p(3) / math.log1p(4)) / 2 * 255) / 127 - 1, -1, -1, -1, 0]
    assert forward[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_released_normalisation_by_hand() -> None:
    # Counts 1 to 4 and -1 to -4; percentiles of (1, 2, 3, 4): p2 = 1.06, p98 = 3.94; of the negative ones n98 = -1.06.
    counts = np.array([1, 2, 3, 4, -1, -2, -3, -4])
    x = np.repeat(np.arange(8), np.abs(counts))
    x = np.concatenate([[8], x])  # one event more, which channel 0 leaves out
    p = np.concatenate([[1], np.sign(counts)[x[1:]]])
    events = EventStream.from_arrays(x, 0 * x, np.arange(len(x)), p, (9, 1))
    forward, _ = normalised_interval_stacks(events, StackConfig(num_channels=1))
    values = [1.06 / 3.94, 2 / 3.94, 3 / 3.94, 1, -1, -1, -1, -1, 0]
    expected = [int((value + 1) / 2 * 255) / 127 - 1 for value in values]
    assert forward[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_released_normalisation_of_one_polarity_leaves_counts() -> None:
    forward, _ = normalised_interval_stacks(row_of_events(16), StackConfig(num_channels=1))
    assert forward[0, 0].tolist() == pytest.approx([0.0] + 15 * [255 / 127 - 1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 1500), st.sampled_from(["released", "symmetric"]))
def test_batched_stacks_equal_single_ones(seed: int, number: int, normalisation: str) -> None:
    config = StackConfig(normalisation=normalisation)  # type: ignore[arg-type]
    windows = [random_events(seed, number), random_events(seed + 1, 700)]
    times = np.array([[0, 300, 301, 900], [100, 200, 500, 1000]])
    singles = [event_stacks(events, row, (20, 12), config) for events, row in zip(windows, times, strict=True)]
    columns = [torch.cat([torch.from_numpy(getattr(events, name)) for events in windows]) for name in "xytp"]
    b = torch.repeat_interleave(torch.arange(2), torch.tensor([len(events) for events in windows]))
    batched = batched_event_stacks(b, *columns, torch.from_numpy(times), (20, 12), config)
    for direction in (0, 1):
        assert torch.equal(batched[direction], torch.stack([single[direction] for single in singles]))


def test_stacks_are_resized_to_the_frame() -> None:
    forward, backward = event_stacks(random_events(3, 4000), [0, 500, 1000], (41, 25), StackConfig())
    assert forward.shape == backward.shape == (3, 6, 25, 41)
    assert float(forward.abs().max()) <= 255 / 127 - 1 + 1e-6


def test_backward_intervals_are_counted_from_the_end() -> None:
    events = row_of_events(30).slice(0, 10)  # events in the first interval alone
    forward, backward = event_stacks(events, [0, 10, 30], (30, 1), SYMMETRIC)
    filled: tuple[list[bool], ...] = tuple([bool(frame.any()) for frame in stacks] for stacks in (forward, backward))
    assert filled == ([False, True, False], [False, False, True])


@pytest.mark.parametrize("times", [[5], [0, 0], [3, 2]])
def test_times_must_increase(times: list[int]) -> None:
    with pytest.raises(ConfigError, match="strictly increasing"):
        event_stacks(row_of_events(9), times, (9, 1), StackConfig())


@pytest.mark.parametrize("wrong", [{"num_channels": 0}, {"normalisation": "other"}, {"count_cap": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        StackConfig(**wrong)  # type: ignore[arg-type]


def test_all_k_of_a_long_stream_match_a_direct_count() -> None:
    events = random_events(8, 1000)
    forward, _ = normalised_interval_stacks(events, StackConfig(normalisation="symmetric", count_cap=1))
    direct: list[Tensor] = []
    for k in range(6):
        last = max(1000 // 2**k - 1, 0)
        counts = np.zeros((12, 20), np.int64)
        np.add.at(counts, (events.y[1000 - last :], events.x[1000 - last :]), events.p[1000 - last :].astype(np.int64))
        direct.append(torch.from_numpy(np.sign(counts)))
    assert torch.equal(forward.sign(), torch.stack(direct).to(forward.dtype))
