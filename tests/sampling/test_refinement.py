"""Refining a window: the events of each frame, any size and any times, whatever is computed at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evfi.events.stacks import event_stacks
from evfi.events.stream import EventStream
from evfi.events.sums import batched_event_sums
from evfi.models.refiner import EVENT_STACK, Refiner
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Window
from evfi.sampling.refinement import WindowEvents, refine_window
from tiny_models import tiny_refiner

SIZE = (47, 33)  # no multiple of anything
TIMES = np.array([1000, 1010, 1400, 1500, 1900])


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return tiny_refiner()


def random_events(size: tuple[int, int] = SIZE, number: int = 3000) -> EventStream:
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, side, number) for side in size]
    return EventStream.from_arrays(*columns, rng.integers(1000, 1900, number), rng.choice([-1, 1], number), size)


def window_of(times: np.ndarray = TIMES, *, grey: bool = False, size: tuple[int, int] = SIZE) -> Window:
    width, height = size
    keys = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), np.uint8)
    keys = np.repeat(keys[..., :1], 3, -1) if grey else keys
    return Window(WindowSpec(0, 0, 1, times), keys[0], keys[1], random_events(size))


def predicted(window: Window) -> Tensor:
    height, width = window.start_image.shape[:2]
    shape = (len(window.spec.times_us), 3, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def refined(refiner: Refiner, window: Window, prediction: Tensor | None = None, **settings: Any) -> Tensor:
    return refine_window(refiner, window, prediction, **settings)


def differences(frames: Tensor, others: Tensor) -> Tensor:
    return (frames.int() - others.int()).abs()


def window_events(events: EventStream, size: tuple[int, int] = SIZE) -> WindowEvents:
    return WindowEvents(events, TIMES, (size[1], size[0]), torch.device("cpu"))


def test_stacks_are_those_of_the_intervals_beside_each_frame() -> None:
    events = random_events()
    forward, backward = event_stacks(events, TIMES, SIZE, EVENT_STACK)
    after = backward.flip(0)  # in the order of time: that of the interval that begins with the frame
    made = window_events(events)
    frames = list(made.frames())
    assert len(frames) == len(TIMES) - 2
    for number, frame in enumerate(frames, 1):
        assert torch.equal(frame.stacks, torch.cat([forward[number], after[number]]))
    assert torch.equal(made.key_stacks(), torch.stack([after[0], forward[-1]]))
    assert after[1].any()


def test_sums_are_those_of_batches() -> None:
    events = random_events()
    columns = [torch.from_numpy(getattr(events, name)) for name in "xytp"]
    b = torch.zeros(len(events), dtype=torch.int64)
    expected = batched_event_sums(b, *columns, torch.from_numpy(TIMES)[None], SIZE)[0, 1:-1]
    assert torch.equal(torch.stack([frame.sums for frame in window_events(events).frames()]), expected)


def test_a_grid_of_another_size_is_brought_to_the_frame() -> None:
    """Twice as fine along each side, with the same events in every pixel of a block, it shows what the coarse one does."""
    coarse = EventStream.from_arrays([1] * 8, [2] * 8, np.arange(1100, 1108), [1] * 8, (4, 5))
    columns = [np.repeat(getattr(coarse, name), 4) for name in "xytp"]
    shifts = np.tile([0, 1, 0, 1], 8), np.tile([0, 0, 1, 1], 8)
    fine = EventStream.from_arrays(2 * columns[0] + shifts[0], 2 * columns[1] + shifts[1], *columns[2:], (8, 10))
    whole, shrunk = (next(iter(window_events(events, (4, 5)).frames())) for events in (coarse, fine))
    assert shrunk.stacks.shape == (12, 5, 4)
    assert shrunk.sums[2].argmax() == whole.sums[2].argmax() == 2 * 4 + 1
    peak, total = float(whole.sums[2].max()), float(shrunk.sums[2].sum())
    assert 0.5 * peak < float(shrunk.sums[2].max()) < peak  # spread a little by the filter, shifted by nothing
    assert total == pytest.approx(peak, rel=0.05)
    torch.testing.assert_close(shrunk.sums[2], shrunk.sums[3])


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [SIZE, (64, 32)])
def test_any_size_in_colour_and_in_grey(refiner: Refiner, size: tuple[int, int], grey: bool) -> None:
    window = window_of(grey=grey, size=size)
    frames = refined(refiner, window, predicted(window))
    assert frames.dtype == torch.uint8
    assert frames.shape == (3, 3, size[1], size[0])
    assert float(frames.float().std()) > 5


def test_levels_are_those_of_the_pictures(refiner: Refiner) -> None:
    """Where all candidates are one constant and the residual is off, so is the frame."""
    window = window_of()
    flat = Window(
        window.spec, np.full_like(window.start_image, 200), np.full_like(window.end_image, 200), window.events
    )
    still = tiny_refiner()
    for parameter in still.fusion.choose.parameters():
        torch.nn.init.zeros_(parameter)
    frames = refined(still, flat, torch.full((5, 3, 33, 47), 200))
    assert (frames == 200).all()


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("settings", [{"frames_at_once": 2}, {"frames_at_once": 7}, {"frames_at_once": 2, "bands": 3}])
def test_what_is_computed_at_once_does_not_matter(refiner: Refiner, settings: dict[str, int], given: bool) -> None:
    """But for rounding: convolutions of other batches and heights sum in another order."""
    window = window_of()
    prediction = predicted(window) if given else None
    one_by_one = refined(refiner, window, prediction)
    other = refined(refiner, window, prediction, **settings)
    assert differences(other, one_by_one).max() <= 1
    assert (other != one_by_one).float().mean() < 1e-3
    assert differences(one_by_one[0], one_by_one[2]).max() > 1


def test_only_inserted_frames_of_the_prediction_count(refiner: Refiner) -> None:
    window = window_of()
    prediction = predicted(window)
    other = prediction.clone()
    other[0], other[-1] = 0, 0
    assert torch.equal(refined(refiner, window, other), refined(refiner, window, prediction))
    other[2] = 0
    changed = (refined(refiner, window, other) != refined(refiner, window, prediction)).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]


def test_a_single_frame_and_where_in_time_it_lies(refiner: Refiner) -> None:
    early, late = (refined(refiner, window_of(np.array([1000, time, 1900]))) for time in (1010, 1800))
    assert early.shape == (1, 3, 33, 47)
    assert differences(early, late).max() > 1


def test_the_network_is_told_times_as_shares_of_the_window(refiner: Refiner) -> None:
    told: list[float] = []
    original = refiner.refine

    def refine(inputs: Any, *arguments: Any, **settings: Any) -> Any:
        told.extend(inputs.times.flatten().tolist())
        return original(inputs, *arguments, **settings)

    refiner.refine = refine  # type: ignore[method-assign]
    try:
        refined(refiner, window_of())
    finally:
        del refiner.refine
    assert told == pytest.approx([10 / 900, 400 / 900, 500 / 900])
