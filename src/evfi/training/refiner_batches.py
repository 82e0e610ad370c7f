"""Batches for the refiner: crops of rendered windows with a frozen model's predictions, from a pool that is renewed.

Rendering and sampling a window costs far more than a training step on a crop of it. So windows are made in batches, kept in a
pool on the device as 8-bit numbers, and several crops are taken of each before it leaves. The n-th batch of windows depends on
the seed and on n alone, and which of them are in the pool on the step alone, so that a resumed run sees what an uninterrupted
one would have seen; it makes the windows of the pool again when it begins.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from evfi.errors import ConfigError
from evfi.events.stacks import batched_event_stacks
from evfi.events.sums import batched_event_sums
from evfi.models.bundle import autoencoder_factor, load_bundle, load_vae
from evfi.models.layouts import is_bundle
from evfi.models.refiner import EVENT_STACK, RefinerInputs
from evfi.training.batches import Batch, BatchMaker, StepKey, init_of
from evfi.training.config import RefinerTraining
from evfi.training.motion import Draw
from evfi.training.predictions import PREDICTION_MULTIPLE, Predictor, degraded_predictions
from evfi.training.synthetic import TrainingWindows, WindowConfig, make_batch
from evfi.training.textures import TextureLibrary

_SUM_LEVELS: Final = 48.0
_STACK_LEVELS: Final = 127.0
_HELD_OUT: Final = 16


class Windows(NamedTuple):
    """A batch of windows in the pool; frames uint8, events int8.

    Attributes:
        truth: [B, T, 3, S, S] true frames at T output times.
        prediction: likewise, as a diffusion model makes them.
        keys: [B, 2, 3, S, S].
        key_stacks: [B, 2, 6, S, S].
        stacks: [B, T, 12, S, S].
        sums: [B, T, 4, S, S].
        times: [B, T] float32, as a share of the window.
    """

    truth: Tensor
    prediction: Tensor
    keys: Tensor
    key_stacks: Tensor
    stacks: Tensor
    sums: Tensor
    times: Tensor


class RefinerMaker(BatchMaker):
    """Makes the refiner's batches; see the module's docstring."""

    def __init__(self, config: RefinerTraining, library: TextureLibrary) -> None:
        super().__init__(library)
        self.config = config
        half = torch.float16 if library.device.type == "cuda" else torch.float32
        init = init_of(config)
        if not is_bundle(init):
            raise ConfigError(
                f"the refiner is trained on a whole model's predictions, but {init} holds none; pass the folder of one as "
                "--init, such as the controlnet stage's model/"
            )
        self.bundle = load_bundle(init, dtype=half, device=library.device)
        self._predictor = Predictor(self.bundle)
        self.lossy = None
        if config.lossy_autoencoder is not None:
            self.lossy = load_vae(config.lossy_autoencoder / "vae", dtype=half, device=library.device)
        self._pool: deque[Windows] = deque()
        self._next = 0

    @property
    def window_multiple(self) -> int:
        """Sides of windows must be multiples of this for the frozen networks."""
        factors = [self.bundle.vae_factor * self.bundle.latent_multiple, PREDICTION_MULTIPLE]
        return math.lcm(*factors, 1 if self.lossy is None else autoencoder_factor(self.lossy))

    def make(self, key: StepKey) -> Batch:
        """Crops for one step, as `RefinerInputs` and the true frames."""
        self._renew(key)
        draw = Draw(key.generator(5))
        groups = self.config.groups
        parts = [self._crops(self._pool[int(draw.integers((1,), len(self._pool)))], draw) for _ in range(groups)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _renew(self, key: StepKey) -> None:
        """Bring the pool to the state of a step: the batches of windows [first, last)."""
        last = self.config.pool_start + key.step // self.config.renew_every
        first = max(0, last - self.config.pool_batches)
        self._next = max(self._next, first)
        while self._next < last:
            turn = StepKey(key.seed, self._next, key.rank)
            self._pool.append(self._made(turn))
            self._next += 1
        while len(self._pool) > last - first:
            self._pool.popleft()

    @torch.no_grad()
    def _made(self, key: StepKey) -> Windows:
        """The windows that a key stands for."""
        config = self.config
        draw = Draw(key.generator(6))
        counts = config.num_frames
        num_frames = counts[int(draw.integers((1,), len(counts)))]
        windows = make_batch(
            self.library,
            WindowConfig(),
            EVENT_STACK,
            batch=config.window_batch,
            num_frames=num_frames,
            size=config.window_px,
            generator=key.generator(7),
        )
        chosen = torch.randperm(num_frames - 2, generator=draw.generator)[: config.targets] + 1
        chosen = chosen.sort().values.to(self.device)
        if bool(draw.chance((1,), config.degraded_share)):
            prediction = degraded_predictions(windows.frames[:, chosen], self.lossy, draw)
        else:
            prediction = self._predictions(windows, key)[:, chosen]
        return _packed(windows, chosen, prediction)

    def _predictions(self, windows: TrainingWindows, key: StepKey) -> Tensor:
        bundle = self.bundle
        own = bundle.event_stack
        forward, backward = windows.forward, windows.backward
        if own != EVENT_STACK:
            events = windows.events
            columns = (events.b, events.x, events.y, events.t, events.p)
            forward, backward = batched_event_stacks(*columns, windows.times_us, events.sensor_size, own)
        side = self.config.window_px // bundle.vae_factor
        shape = (*windows.frames.shape[:2], bundle.latent_channels, side, side)
        noise = key.noise(shape, self.device, 8)
        return self._predictor.sample(windows.key_frames, forward, backward, windows.times_us, noise)

    def held_out(self) -> Batch:
        """Whole windows that are never trained on, always the same, with their predictions."""
        windows = self._made(StepKey(self.config.seed + 1, 0))
        window = torch.arange(min(_HELD_OUT, len(windows.truth)), device=self.device)
        batch = _batch_of(windows, window, torch.full_like(window, windows.truth.shape[1] // 2), (...,))
        return {**batch, "has_prediction": torch.ones(len(window), device=self.device)}

    def _crops(self, windows: Windows, draw: Draw) -> Batch:
        """Crops of several frames of one batch of windows, mirrored, turned, reversed in time and recoloured together."""
        config = self.config
        count = config.batch_size // config.groups
        window = draw.integers((count,), len(windows.truth)).to(self.device)
        frame = draw.integers((count,), windows.truth.shape[1]).to(self.device)
        top, left = draw.integers((2,), config.window_px - config.size_px + 1).tolist()
        cut = (..., slice(top, top + config.size_px), slice(left, left + config.size_px))
        batch = _batch_of(windows, window, frame, cut)
        times = batch.pop("times")
        colours = torch.randperm(3, generator=draw.generator)
        for name in ("truth", "prediction", "keys"):
            batch[name] = batch[name].index_select(-3, colours.to(self.device))
        turns = [bool(draw.chance((1,), 0.5)) for _ in range(4)]
        for on, turn in zip(turns[:3], (_mirrored_x, _mirrored_y, _transposed), strict=True):
            if on:
                batch = {name: turn(value) for name, value in batch.items()}
        batch["times"] = times
        if turns[3]:
            batch = reversed_in_time(batch)
        withheld, unseen = (
            draw.chance((count,), share) for share in (config.without_prediction, config.without_events)
        )
        batch["has_prediction"] = (~(withheld | unseen)).float().to(self.device)
        return without_events(batch, unseen.to(self.device))


def _batch_of(windows: Windows, window: Tensor, frame: Tensor, cut: tuple[Any, ...]) -> Batch:
    """Some frames [N] of some windows [N], their pictures cut out."""
    return {
        "truth": _levels(windows.truth[cut][window, frame]),
        "prediction": _levels(windows.prediction[cut][window, frame]),
        "keys": _levels(windows.keys[cut][window]),
        "key_stacks": windows.key_stacks[cut][window].float() / _STACK_LEVELS,
        "stacks": windows.stacks[cut][window, frame].float() / _STACK_LEVELS,
        "sums": windows.sums[cut][window, frame].float() / _SUM_LEVELS,
        "times": windows.times[window, frame],
    }


def reversed_in_time(batch: Batch) -> Batch:
    """The same windows seen from their end: key frames swapped, events mirrored in time with their polarity negated."""
    sums = batch["sums"]  # signed and number since the start, signed and number until the end
    turned = torch.stack([-sums[:, 2], sums[:, 3], -sums[:, 0], sums[:, 1]], 1)
    return {
        **batch,
        "keys": batch["keys"].flip(1),
        "key_stacks": batch["key_stacks"].flip(1),
        "stacks": batch["stacks"].roll(EVENT_STACK.num_channels, 1),
        "sums": turned,
        "times": 1 - batch["times"],
    }


def without_events(batch: Batch, unseen: Tensor) -> Batch:
    """The same windows, some of them (bool [N]) as if no event had been recorded."""
    kept = (~unseen).float()
    images = {name: batch[name] for name in ("key_stacks", "stacks", "sums")}
    return {**batch, **{name: image * kept.view(-1, *[1] * (image.ndim - 1)) for name, image in images.items()}}


def refiner_inputs(batch: Batch) -> RefinerInputs:
    """A batch in the form that the network takes, one frame per window."""
    return RefinerInputs(
        keys=batch["keys"],
        key_stacks=batch["key_stacks"],
        prediction=batch["prediction"].unsqueeze(1),
        stacks=batch["stacks"].unsqueeze(1),
        sums=batch["sums"].unsqueeze(1),
        times=batch["times"].unsqueeze(1),
        has_prediction=batch["has_prediction"].unsqueeze(1),
    )


def _packed(windows: TrainingWindows, chosen: Tensor, prediction: Tensor) -> Windows:
    """What the pool keeps of windows; `chosen` are the numbers of the output frames.

    The ground truth is as recorded, with the grain that interpolated frames shall share with the key frames.
    """
    events, times = windows.events, windows.times_us
    columns = (events.b, events.x, events.y, events.t, events.p)
    sums = batched_event_sums(*columns, times, events.sensor_size)[:, chosen]
    forward, backward = windows.forward, windows.backward.flip(1)
    stacks = torch.cat([forward[:, chosen], backward[:, chosen]], 2)
    key_stacks = torch.stack([backward[:, 0], forward[:, -1]], 1)
    span = (times[:, -1:] - times[:, :1]).float()
    return Windows(
        truth=_bytes(windows.recorded[:, chosen]),
        prediction=_bytes(prediction),
        keys=_bytes(windows.key_frames),
        key_stacks=_signed_bytes(key_stacks, _STACK_LEVELS),
        stacks=_signed_bytes(stacks, _STACK_LEVELS),
        sums=_signed_bytes(sums, _SUM_LEVELS),
        times=(times[:, chosen] - times[:, :1]).float() / span,
    )


def _bytes(pictures: Tensor) -> Tensor:
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _signed_bytes(images: Tensor, levels: float) -> Tensor:
    """Images of events as int8; the largest value of a stack is 128/127, which would become a negative number."""
    return (images * levels).round().clamp(-127, 127).to(torch.int8)


def _levels(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def _mirrored_x(values: Tensor) -> Tensor:
    return values.flip(-1)


def _mirrored_y(values: Tensor) -> Tensor:
    return values.flip(-2)


def _transposed(values: Tensor) -> Tensor:
    return values.transpose(-1, -2)
