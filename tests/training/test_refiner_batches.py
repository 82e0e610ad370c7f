"""The refiner's batches: events seen from the other end, what the pool keeps, which windows are in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evfi.errors import ConfigError
from evfi.events.simulate import BatchedEvents
from evfi.events.stacks import batched_event_stacks
from evfi.events.stream import EventStream
from evfi.models.bundle import ModelBundle
from evfi.models.refiner import EVENT_STACK
from evfi.training.batches import Batch, StepKey
from evfi.training.config import RefinerTraining
from evfi.training.motion import Draw
from evfi.training.refiner_batches import RefinerMaker, Windows, _batch_of, _packed, refiner_inputs, reversed_in_time
from evfi.training.synthetic import TrainingWindows
from evfi.training.textures import TextureLibrary
from tiny_models import tiny_bundle

SIZE = 16
TIMES = np.array([[0, 10, 400, 500, 900], [100, 300, 500, 700, 1100]])
CONFIG = RefinerTraining(
    Path("t"),
    Path("o"),
    batch_size=4,
    groups=2,
    size_px=16,
    window_px=32,
    window_batch=2,
    pool_batches=3,
    pool_start=2,
    renew_every=2,
    targets=1,
    num_frames=(3,),
)


def windows_of(streams: list[EventStream], times: np.ndarray, pictures: Tensor) -> TrainingWindows:
    """Windows with the events of these streams; pictures [B, F, 3, S, S]."""
    x, y, t, p = (torch.cat([torch.from_numpy(np.array(getattr(part, name))) for part in streams]) for name in "xytp")
    b = torch.repeat_interleave(torch.arange(len(streams)), torch.tensor([len(part) for part in streams]))
    events = BatchedEvents(b, x, y, t, p, len(streams), (SIZE, SIZE))
    rows = torch.from_numpy(times)
    forward, backward = batched_event_stacks(b, x, y, t, p, rows, (SIZE, SIZE), EVENT_STACK)
    return TrainingWindows(pictures, pictures, forward, backward, rows, events)


def random_windows(*, number: int = 2500, reverse: bool = False) -> TrainingWindows:
    """Two windows; or the same ones as they look where time runs backwards."""
    rng = np.random.default_rng(0)
    pictures = torch.rand(2, 5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    streams, times = [], TIMES.copy()
    for window, row in enumerate(TIMES):
        x, y = rng.integers(0, SIZE, (2, number))
        t = rng.integers(row[0], row[-1], number)
        events = EventStream.from_arrays(x, y, t, rng.choice([-1, 1], number), (SIZE, SIZE))
        streams.append(events.reverse(row[0], row[-1] - 1) if reverse else events)
        times[window] = row[0] + row[-1] - row[::-1] if reverse else row
    return windows_of(streams, times, pictures.flip(1) if reverse else pictures)


def packed(windows: TrainingWindows, frames: list[int]) -> Windows:
    chosen = torch.tensor(frames)
    return _packed(windows, chosen, -windows.frames[:, chosen])


def batch_of(windows: Windows, frame: int) -> Batch:
    rows = torch.arange(len(windows.truth))
    batch = _batch_of(windows, rows, torch.full_like(rows, frame), (...,))
    return {**batch, "has_prediction": torch.ones(len(rows))}


def test_reversing_twice_changes_nothing_and_once_does() -> None:
    batch = batch_of(packed(random_windows(), [1, 3]), 1)
    once, twice = reversed_in_time(batch), reversed_in_time(reversed_in_time(batch))
    assert batch.keys() == twice.keys()
    for name, value in batch.items():
        torch.testing.assert_close(twice[name], value, rtol=0, atol=1e-6)
    unlike = {name for name, value in batch.items() if not torch.allclose(once[name], value)}
    assert unlike == {"keys", "key_stacks", "stacks", "sums", "times"}


@pytest.mark.parametrize("frame", [1, 2, 3])
def test_reversed_in_time_is_what_reversed_events_give(frame: int) -> None:
    expected = batch_of(packed(random_windows(reverse=True), [4 - frame]), 0)
    found = reversed_in_time(batch_of(packed(random_windows(), [frame]), 0))
    assert expected["stacks"].any()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)


def test_the_pool_keeps_what_it_is_given() -> None:
    windows = random_windows()
    kept = batch_of(packed(windows, [1, 3]), 1)
    forward, after = windows.forward, windows.backward.flip(1)
    close = {"rtol": 0, "atol": 0.5 / 127.5 + 1e-6}
    torch.testing.assert_close(kept["truth"], windows.frames[:, 3], **close)
    torch.testing.assert_close(kept["prediction"], -windows.frames[:, 3], **close)
    torch.testing.assert_close(kept["keys"], windows.key_frames, **close)
    torch.testing.assert_close(kept["stacks"], torch.cat([forward[:, 3], after[:, 3]], 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(kept["key_stacks"], torch.stack([after[:, 0], forward[:, -1]], 1), rtol=0, atol=1e-5)
    assert kept["times"].tolist() == pytest.approx([500 / 900, 600 / 1000])


@pytest.mark.parametrize("polarity", [-1, 1])
def test_many_events_in_one_pixel_keep_their_sign(polarity: int) -> None:
    """A stack's largest value is 128/127, which as a signed byte would be the most negative one."""
    times = np.array([[0, 500, 1000]])
    columns = (np.full(4000, 3), np.full(4000, 5), np.arange(4000) // 4, np.full(4000, polarity))
    events = EventStream.from_arrays(*columns, (SIZE, SIZE))
    windows = windows_of([events], times, torch.zeros(1, 3, 3, SIZE, SIZE))
    kept = batch_of(packed(windows, [1]), 0)
    assert float(windows.forward[:, 1, 0, 5, 3] * polarity) > 0.99
    place = (..., 5, 3)
    assert (kept["stacks"][place][0, :6] * polarity == 1).all()  # before the frame
    assert (kept["stacks"][place][0, 6:] * polarity == -1).all()  # after it, seen from the end
    assert (kept["key_stacks"][place][0, 1] * polarity == 1).all()
    most = 127 / 48
    assert kept["sums"][place][0].tolist() == pytest.approx([most * polarity, most, most * polarity, most])


def test_the_network_gets_one_frame_of_each_window() -> None:
    batch = batch_of(packed(random_windows(), [1, 3]), 0)
    inputs = refiner_inputs(batch)
    assert inputs.prediction is not None
    assert (inputs.stacks.shape, inputs.times.shape, inputs.keys.shape) == (
        (2, 1, 12, 16, 16),
        (2, 1),
        (2, 2, 3, 16, 16),
    )
    assert torch.equal(inputs.prediction[:, 0], batch["prediction"])


class NumberedMaker(RefinerMaker):
    """Keeps windows whose pictures say which batch they are of, instead of rendered ones."""

    def _made(self, key: StepKey) -> Windows:
        self.asked.append(key.step)
        side = self.config.window_px
        truth = torch.full((2, 1, 3, side, side), key.step, dtype=torch.uint8)
        events = torch.zeros(2, 1, 12, side, side, dtype=torch.int8)
        keys = truth.expand(-1, 2, -1, -1, -1)
        return Windows(truth, truth, keys, events[:, :, :6].expand(-1, 2, -1, -1, -1), events, events[:, :, :4],
                       torch.full((2, 1), 0.25))  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    bundle: ModelBundle = tiny_bundle()
    plain = {"max_guidance_scale": 1.0, "s_churn": 0.0, "noise_aug_strength": 0.0}
    replace(bundle, sampling={**bundle.sampling, **plain}).save(folder)
    return folder


def maker(saved: Path, **changes: Any) -> NumberedMaker:
    library = TextureLibrary(*((torch.zeros(1, channels, 1, 1),) for channels in (3, 3, 4)))
    made = NumberedMaker(replace(CONFIG, init=saved, **changes), library)
    made.asked = []
    return made


def pool_of(made: NumberedMaker) -> list[int]:
    return [int(windows.truth[0, 0, 0, 0, 0]) for windows in made._pool]


def test_windows_come_and_leave_in_turn_and_a_resumed_run_has_the_same(saved: Path) -> None:
    going = maker(saved)
    pools, batches = [], []
    for step in range(9):
        batches.append(going.make(StepKey(0, step)))
        pools.append(pool_of(going))
    assert pools == [[0, 1]] * 2 + [[0, 1, 2]] * 2 + [[1, 2, 3]] * 2 + [[2, 3, 4]] * 2 + [[3, 4, 5]]
    assert going.asked == [0, 1, 2, 3, 4, 5]  # each is made once
    for first in (1, 4, 8):
        resumed = maker(saved)
        made = resumed.make(StepKey(0, first))
        assert pool_of(resumed) == pools[first]
        assert all(torch.equal(value, batches[first][name]) for name, value in made.items())


def test_a_pool_that_starts_larger_than_it_may_be_makes_only_what_it_keeps(saved: Path) -> None:
    made = maker(saved, pool_start=5)
    made.make(StepKey(0, 0))
    assert made.asked == [2, 3, 4]


def test_crops_are_of_one_shape_and_some_lack_the_prediction(saved: Path) -> None:
    made = maker(saved, without_prediction=0.5, without_events=0.0)
    batches = [made.make(StepKey(0, step)) for step in range(20)]
    for batch in batches:
        shapes = {name: tuple(value.shape) for name, value in batch.items()}
        assert shapes == {
            "truth": (4, 3, 16, 16), "prediction": (4, 3, 16, 16), "keys": (4, 2, 3, 16, 16),
            "key_stacks": (4, 2, 6, 16, 16), "stacks": (4, 12, 16, 16), "sums": (4, 4, 16, 16),
            "times": (4,), "has_prediction": (4,),
        }  # fmt: skip
    times = {round(float(time), 2) for batch in batches for time in batch["times"]}
    assert times == {0.25, 0.75}  # some are seen from their end
    assert 0.3 < float(torch.stack([batch["has_prediction"] for batch in batches]).mean()) < 0.7


def test_some_crops_have_neither_events_nor_a_prediction(saved: Path) -> None:
    made = maker(saved, without_prediction=0.0, without_events=0.5, batch_size=16)
    filled = made._made(StepKey(0, 0))
    filled = Windows(*(torch.ones_like(part) for part in filled))
    batch = made._crops(filled, Draw(torch.Generator().manual_seed(1)))
    seen = batch["has_prediction"].bool()
    assert 0 < int(seen.sum()) < len(seen)
    for name in ("key_stacks", "stacks", "sums"):
        assert batch[name][seen].all() and not batch[name][~seen].any(), name
    assert batch["keys"].all() and batch["truth"].all()


def test_the_truth_has_grain_as_the_key_frames_have() -> None:
    """So that interpolated frames look as the camera would have taken them, between key frames with grain."""
    clean = random_windows()
    recorded = clean.frames + 0.1 * torch.randn(clean.frames.shape, generator=torch.Generator().manual_seed(3))
    kept = batch_of(packed(replace(clean, recorded=recorded), [2]), 0)
    torch.testing.assert_close(kept["truth"], recorded[:, 2].clamp(-1, 1), rtol=0, atol=0.5 / 127.5 + 1e-6)


def test_pictures_and_events_are_turned_together(saved: Path) -> None:
    """A mark at the same place of all images stays at one place, whatever crop and turn are drawn."""
    made = maker(saved, without_events=0.0)
    marked = made._made(StepKey(0, 0))
    images = {name: value.clone() for name, value in marked._asdict().items()}
    for name, value in images.items():
        if name != "times":
            value.zero_()
            value[..., 14:18, 15:17] = 100
    places = set()
    for step in range(30):
        batch = made._crops(Windows(**images), Draw(torch.Generator().manual_seed(step)))
        where = batch["stacks"][0, 0] > 0.5
        assert where.any()
        for name in ("truth", "prediction", "keys", "key_stacks", "sums"):
            planes = batch[name].flatten(0, -3)
            assert torch.equal(planes.abs() > 0.5 if name == "sums" or "stacks" in name else planes > -0.5,
                               where.expand(len(planes), -1, -1)), name  # fmt: skip
        places.add(tuple(where.nonzero().flatten().tolist()))
    assert len(places) > 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5}, "multiple of groups, got 5 and 2.*try a batch_size of 4"),
        ({"batch_size": 1}, "try a batch_size of 2"),
        ({"size_px": 48}, "at most window_px.*got 48 and 32"),
        ({"num_frames": (3, 2)}, "at least 3"),
        *(({name: 0}, f"{name} must be at least 1")
          for name in ("groups", "pool_batches", "pool_start", "renew_every", "targets", "window_batch")),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        replace(CONFIG, **changes)
    assert "\n" not in str(refused.value)
