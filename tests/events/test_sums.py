"""Event sums: by hand, batches against single windows, what does not count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from evfi.events.stream import EventStream
from evfi.events.sums import batched_event_sums, compressed_counts, event_counts

SIZE = (7, 5)


def random_events(seed: int, number: int, duration: int = 1000) -> EventStream:
    rng = np.random.default_rng(seed)
    columns = (rng.integers(0, SIZE[0], number), rng.integers(0, SIZE[1], number))
    return EventStream.from_arrays(
        *columns, np.sort(rng.integers(0, duration, number)), rng.choice([-1, 1], number), SIZE
    )


def batched(windows: list[EventStream], times: np.ndarray) -> Tensor:
    columns = [torch.cat([torch.from_numpy(getattr(events, name)) for events in windows]) for name in "xytp"]
    b = torch.repeat_interleave(torch.arange(len(windows)), torch.tensor([len(events) for events in windows]))
    return batched_event_sums(b, *columns, torch.from_numpy(times), windows[0].sensor_size)


def counts_of(events: EventStream, start_us: int, end_us: int) -> Tensor:
    part = events.slice(start_us, end_us)
    return event_counts(*(torch.from_numpy(np.array(getattr(part, name))) for name in "xyp"), part.sensor_size)


def test_by_hand() -> None:
    x, t, p = [0, 0, 1, 0, 1, 2], [10, 19, 20, 30, 39, 39], [1, -1, -1, 1, -1, 1]
    events = EventStream.from_arrays(x, [0] * 6, t, p, (3, 1))
    sums = batched([events], np.array([[10, 20, 40]]))[0, :, :, 0]
    one, two = math.log(2) / math.log(16), math.log(3) / math.log(16)
    start = [[0, 0, 0], [0, 0, 0], [one, -two, one], [math.log(4) / math.log(16), two, one]]
    middle = [[0, 0, 0], [two, 0, 0], [one, -two, one], [one, two, one]]
    end = [[one, -two, one], [math.log(4) / math.log(16), two, one], [0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(sums, torch.tensor([start, middle, end]))


def test_counts_by_hand_and_compressed() -> None:
    counts = event_counts(torch.tensor([0, 2, 2]), torch.tensor([0, 1, 1]), torch.tensor([-1, 1, 1]), (3, 2))
    assert counts.dtype == torch.int32
    assert counts.tolist() == [[[-1, 0, 0], [0, 0, 2]], [[1, 0, 0], [0, 0, 2]]]
    values = compressed_counts(torch.tensor([0, 15, -15, 255], dtype=torch.int32))
    assert values.tolist() == pytest.approx([0, 1, -1, 2])


def test_a_batch_is_its_windows_one_by_one() -> None:
    windows = [random_events(0, 300), random_events(1, 0), random_events(2, 500)]
    times = np.array([[0, 100, 101, 1000], [0, 1, 2, 3], [200, 400, 500, 800]])
    sums = batched(windows, times)
    assert sums.shape == (3, 4, 4, 5, 7)
    for own, events, row in zip(sums, windows, times, strict=True):
        for frame, time in zip(own, row, strict=True):
            parts = [counts_of(events, int(row[0]), int(time)), counts_of(events, int(time), int(row[-1]))]
            assert torch.equal(frame, compressed_counts(torch.cat(parts)))


def test_events_outside_of_the_window_do_not_count_and_their_order_does_not_matter() -> None:
    events = random_events(3, 400)
    times = np.array([[300, 500, 700]])
    expected = batched([events.slice(300, 700)], times)
    assert torch.equal(batched([events], times), expected)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    x, y, t, p = (torch.from_numpy(getattr(events, name))[order] for name in "xytp")
    b = torch.zeros(400, dtype=torch.int64)
    assert torch.equal(batched_event_sums(b, x, y, t, p, torch.from_numpy(times), SIZE), expected)
