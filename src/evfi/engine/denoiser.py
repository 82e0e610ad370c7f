"""The guided network call of the fast engine; see `evfi.sampling.denoiser` for what it computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from evfi.engine.network import Constants, SteeredUNet
from evfi.engine.runner import CallInputs, Runner
from evfi.models.bundle import ModelBundle
from evfi.sampling.conditioning import Conditioning
from evfi.sampling.config import SamplingConfig
from evfi.sampling.denoiser import Batch, GuidedDenoiser, StepMode


class StepTable:
    """What the networks derive from a noise level, computed once per level and kept."""

    def __init__(self, network: SteeredUNet) -> None:
        """Take the network."""
        self._network = network
        self._made: dict[tuple[float, ...], tuple[Tensor, Tensor]] = {}

    def vectors(
        self, sigma: float, timestep: Tensor, added_time_ids: Tensor, config: SamplingConfig
    ) -> tuple[Tensor, Tensor]:
        """Vectors of ControlNet and UNet.

        Args:
            sigma: the noise level.
            timestep: its input to the network, a scalar.
            added_time_ids: [3], made of the settings.
            config: the settings that the ids are made of.
        """
        key = (sigma, config.fps, config.motion_bucket_id, config.noise_aug_strength)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._network.step_vectors(timestep, added_time_ids)
        return made


class FastDenoiser(GuidedDenoiser):
    """Predicts v for both passes of one window through the fast engine's network."""

    def __init__(
        self,
        bundle: ModelBundle,
        conditioning: Conditioning,
        config: SamplingConfig,
        *,
        network: SteeredUNet,
        runner: Runner,
        steps: StepTable,
        each: Callable[[Callable[[Batch], Tensor], list[Batch]], list[Tensor]] | None = None,
    ) -> None:
        """Put the constant inputs in order; see `GuidedDenoiser`.

        Args:
            bundle: the model.
            conditioning: what steers this window.
            config: the settings.
            network: the model's networks.
            runner: what calls them.
            steps: what they derive from noise levels.
            each: calls a function for each batch; one after the other by default.
        """
        super().__init__(bundle, conditioning, config)
        self._config, self._network, self._runner, self._steps = config, network, runner, steps
        embeddings = torch.cat([self._embeddings[:, 0], torch.zeros_like(self._embeddings[:1, 0])])
        self._contexts = network.context_vectors(embeddings)  # forward, backward, without image
        self._event_features = self._event_features.permute(0, 1, 3, 4, 2)  # [2 T, F, h, w, C0], as they lie in memory
        self._on_each = each
        self._step: tuple[Tensor, Tensor] | None = None

    def __call__(self, passes: Tensor, sigma: float, timestep: Tensor, mode: StepMode) -> Tensor:
        """See `Denoiser.__call__`."""
        self._step = self._steps.vectors(sigma, timestep, self._ids, self._config)
        return super().__call__(passes, sigma, timestep, mode)

    def _each(self, call: Callable[[Batch], Tensor], batches: list[Batch]) -> list[Tensor]:
        return super()._each(call, batches) if self._on_each is None else self._on_each(call, batches)

    def _call_networks(self, tiles: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        del timestep
        inputs = self._call_inputs(tiles, batch)
        if self._keeps_features:
            keep = partial(self._features.__setitem__, batch)
            made = self._network(inputs.sample, inputs.events, inputs.control, inputs.unet, self._scale, keep)
        else:
            made = self._runner(inputs, self._scale)
        return made.permute(0, 1, 4, 2, 3)

    def _refine(self, tiles: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        del timestep
        inputs = self._call_inputs(tiles, batch)
        made = self._network.refine(inputs.sample, inputs.unet, self._features[batch], self._scale)
        return made.permute(0, 1, 4, 2, 3)

    def _call_inputs(self, tiles: Tensor, batch: Batch) -> CallInputs:
        assert self._step is not None
        sample = self._with_images(tiles, batch).permute(0, 1, 3, 4, 2).contiguous()
        which = torch.where(batch.conditional.flatten() > 0, batch.place % 2, 2)
        control, unet = (vectors[which] for vectors in self._contexts)
        events = self._event_features[batch.place]
        return CallInputs(sample, events, Constants(self._step[0], control), Constants(self._step[1], unet))
