"""UNet and event ControlNet as one call over activations [B, F, h, w, C].

Computes what `EventControlNet.forward` and `EventUNet.forward` compute together; see `evfi.models.unet` for the mathematics.
What depends on the noise level and on the key images alone is computed beforehand (`step_vectors`, `context_vectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from evfi.engine.layers import (
    ContextVectors,
    ResidualBlock,
    StepVectors,
    Transformer,
)
from evfi.engine.offload import BlockStreamer
from evfi.engine.operators import Feature, Operators
from evfi.models.controlnet import EventControlNet
from evfi.models.unet import EventUNet, time_embedding

_Within: TypeAlias = Callable[[int], AbstractContextManager[None]]
"""Surrounds the use of the block of that number."""


class Constants(NamedTuple):
    """What one network is given beside activations: vectors of the step [length] and of the items [B, length]."""

    step: Tensor
    context: Tensor


class KeptFeatures(NamedTuple):
    """What `SteeredUNet.refine` takes over: the last up block's input, and the ControlNet's changes of its skips."""

    hidden: Feature
    changes: list[Tensor]


class SteeredUNet:
    """The UNet steered by the event ControlNet.

    Attributes:
        streamer: brings the weights of `blocks()` while they are used; None where they lie on the device.
    """

    streamer: BlockStreamer | None

    def __init__(self, controlnet: EventControlNet, unet: EventUNet, operators: Operators) -> None:
        """Take the networks, in evaluation mode, with channels-last convolution weights.

        Args:
            controlnet: the ControlNet.
            unet: the UNet.
            operators: what runs the operations between convolutions and products.
        """
        self.streamer = None
        self._unet, self._controlnet, self._operators = unet, controlnet, operators
        self._blocks: list[Any] = []  # in the order of their use
        self._control = _EncoderHalf(controlnet, operators, self._within)
        self._blocks += [*controlnet.down_blocks, controlnet.mid_block]
        self._encoder = _EncoderHalf(unet, operators, self._within, first_block=len(self._blocks))
        self._blocks += [*unet.down_blocks, unet.mid_block]
        self._first_up = len(self._blocks)
        self._up = [_UpBlock(block, self._encoder, operators) for block in unet.up_blocks]
        self._blocks += unet.up_blocks
        self._num_first_skips = len(unet.up_blocks[-1].resnets)

    def blocks(self) -> list[list[Tensor]]:
        """Weights that are used within one block each, in the order of their use; vectors can be made without them."""
        elsewhere = {id(weight) for weight in self.unused()}
        for half in (self._control, self._encoder):
            elsewhere.update(id(weight) for weight in (*half.steps.weights(), *half.contexts.weights()))
        return [
            [weight for weight in block.parameters() if id(weight) not in elsewhere and weight.numel() > 1]
            for block in self._blocks
        ]

    def blocks_of_networks(self) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """`blocks`, those of the ControlNet and those of the UNet."""
        number, blocks = len(self._controlnet.down_blocks) + 1, self.blocks()
        return blocks[:number], blocks[number:]

    def unused(self) -> list[Tensor]:
        """Weights that nothing here needs: queries and keys of attention to a single key, and the norms before it."""
        return [*self._control.contexts.unused(), *self._encoder.contexts.unused()]

    def _within(self, block: int) -> AbstractContextManager[None]:
        return nullcontext() if self.streamer is None else self.streamer.block(block)

    def step_vectors(self, timestep: Tensor, added_time_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Of a noise level, for ControlNet and UNet.

        Args:
            timestep: scalar, 0.25 ln sigma.
            added_time_ids: [3], the same for all items.
        """
        control, encoder = (half.step_vectors(timestep, added_time_ids) for half in (self._control, self._encoder))
        return control, encoder

    def context_vectors(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Of key images' CLIP embeddings [K, D], for ControlNet and UNet: float32 [K, length]."""
        return self._control.contexts.compute(embeddings), self._encoder.contexts.compute(embeddings)

    def __call__(
        self,
        sample: Tensor,
        events: Tensor,
        control: Constants,
        constants: Constants,
        controlnet_scale: float,
        keep: Callable[[KeptFeatures], None] | None = None,
    ) -> Tensor:
        """Predict v.

        Args:
            sample: [B, F, h, w, in_channels], noisy latents with the key image's.
            events: [B, F, h, w, C0], embedded event stacks.
            control: vectors for the ControlNet.
            constants: vectors for the UNet.
            controlnet_scale: strength of the events.
            keep: called with this prediction's deep features, for `refine`.

        Returns:
            [B, F, h, w, out_channels].
        """
        residuals, mid_residual = self._residuals(sample, events, control)
        first, number = self._num_first_skips, len(self._unet.down_blocks)
        changes = [change.clone() for change, _ in residuals[:first]] if keep is not None else []
        skips: list[Feature] = []
        hidden = Feature(sample)
        for hidden, block in self._encoder.run(sample, None, constants):
            change, bias = residuals.pop(0)
            skips.append(self._operators.add(hidden.values, change, controlnet_scale * (number - block), bias))
        hidden = self._encoder.run_mid(hidden, constants)
        hidden = self._operators.add(hidden.values, mid_residual[0], controlnet_scale, mid_residual[1])
        for number, up in enumerate(self._up[:-1], self._first_up):
            with self._within(number):
                hidden = up(hidden, skips, constants)
        if keep is not None:
            keep(KeptFeatures(hidden, changes))
        return self._finish(hidden, skips, constants)

    def refine(self, sample: Tensor, constants: Constants, kept: KeptFeatures, controlnet_scale: float) -> Tensor:
        """Predict v with the deep features of an earlier prediction for the same items; see `EventUNet.forward`."""
        outlets = self._controlnet.controlnet_down_blocks
        scale = controlnet_scale * len(self._unet.down_blocks)
        skips = []
        made = self._encoder.run(sample, None, constants)  # last in the zip, which asks it for no skip too many
        for change, outlet, (hidden, _) in zip(kept.changes, outlets, made, strict=False):
            skips.append(self._operators.add(hidden.values, change.clone(), scale, _bias(outlet)))
        made.close()
        return self._finish(kept.hidden, skips, constants)

    def _finish(self, hidden: Feature, skips: list[Feature], constants: Constants) -> Tensor:
        with self._within(len(self._blocks) - 1):
            hidden = self._up[-1](hidden, skips, constants)
        seen = self._operators.group_norm([hidden], self._unet.conv_norm_out, over_frames=False, silu=True)
        return self._operators.convolve(seen, self._unet.conv_out, bias=True)

    def _residuals(
        self, sample: Tensor, events: Tensor, constants: Constants
    ) -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
        """What the ControlNet adds to each skip and to the mid features, without and with its bias."""
        outlets: Iterator[Any] = iter(self._controlnet.controlnet_down_blocks)
        residuals: list[tuple[Tensor, Tensor]] = []
        hidden = Feature(sample)
        for hidden, _ in self._control.run(sample, events, constants):
            residuals.append(self._outlet(hidden, next(outlets)))
        mid = self._control.run_mid(hidden, constants)
        return residuals, self._outlet(mid, self._controlnet.controlnet_mid_block)

    def _outlet(self, hidden: Feature, module: Any) -> tuple[Tensor, Tensor]:
        """A 1x1 convolution of a skip, and the bias that is left out."""
        return self._operators.product(hidden.values, module.weight.flatten(1)), module.bias


class _EncoderHalf:
    """The half that UNet and ControlNet have in common."""

    def __init__(self, network: Any, operators: Operators, within: _Within, first_block: int = 0) -> None:
        self._within, self._first_block = within, first_block
        self.steps, self.contexts = StepVectors(), ContextVectors()
        self._network, self._operators = network, operators
        self._down = [
            (
                _layers(block, operators, self.steps, self.contexts),
                block.downsamplers[0].conv if block.downsamplers is not None else None,
            )
            for block in network.down_blocks
        ]
        mid = network.mid_block
        self._mid = [ResidualBlock(block, operators, self.steps) for block in mid.resnets]
        self._mid_attentions = [Transformer(module, operators, self.contexts) for module in mid.attentions]

    def step_vectors(self, timestep: Tensor, added_time_ids: Tensor) -> Tensor:
        dtype = self._network.conv_in.weight.dtype
        return self.steps.compute(time_embedding(self._network, timestep, added_time_ids[None], 1, dtype))

    def run(
        self, sample: Tensor, events: Tensor | None, constants: Constants
    ) -> Generator[tuple[Feature, int], None, None]:
        """Each skip, with the number of the down block that made it; the input convolution's counts as block 0."""
        convolution = self._network.conv_in
        if events is None:
            hidden = Feature(self._operators.convolve(sample, convolution, bias=True))
        else:
            hidden = self._operators.add(
                events, self._operators.convolve(sample, convolution, bias=False), 1.0, convolution.bias
            )
        yield hidden, 0
        for number, (layers, downsampler) in enumerate(self._down):
            with self._within(self._first_block + number):
                for residual, transformer in layers:
                    hidden = residual([hidden], constants.step)
                    if transformer is not None:
                        hidden = transformer(hidden, constants.context)
                    yield hidden, number
                if downsampler is not None:
                    hidden = Feature(self._operators.convolve(hidden.values, downsampler, bias=True))
                    yield hidden, number

    def run_mid(self, hidden: Feature, constants: Constants) -> Feature:
        with self._within(self._first_block + len(self._down)):
            hidden = self._mid[0]([hidden], constants.step)
            for transformer, residual in zip(self._mid_attentions, self._mid[1:], strict=True):
                hidden = residual([transformer(hidden, constants.context)], constants.step)
        return hidden


class _UpBlock:
    """An up block of the UNet."""

    def __init__(self, block: Any, encoder: _EncoderHalf, operators: Operators) -> None:
        self._layers = _layers(block, operators, encoder.steps, encoder.contexts)
        self._operators = operators
        self._upsampler = block.upsamplers[0].conv if block.upsamplers is not None else None

    def __call__(self, hidden: Feature, skips: list[Feature], constants: Constants) -> Feature:
        """Run the block, taking its skips off the end of the list."""
        for residual, transformer in self._layers:
            hidden = residual([hidden, skips.pop()], constants.step)
            if transformer is not None:
                hidden = transformer(hidden, constants.context)
        if self._upsampler is not None:
            hidden = Feature(self._operators.convolve_enlarged(hidden.values, self._upsampler))
        return hidden


def _layers(
    block: Any, operators: Operators, steps: StepVectors, contexts: ContextVectors
) -> list[tuple[ResidualBlock, Transformer | None]]:
    """A block's residual blocks, each with the transformer that follows it, if any."""
    residuals = [ResidualBlock(module, operators, steps) for module in block.resnets]
    modules: Sequence[Any] = getattr(block, "attentions", None) or [None] * len(residuals)
    transformers = [None if module is None else Transformer(module, operators, contexts) for module in modules]
    return list(zip(residuals, transformers, strict=True))


def _bias(module: Any) -> Tensor:
    bias: Tensor = module.bias
    return bias
