"""The networks' layers, run through `Operators` over activations [B, F, h, w, C].

Each class takes one of diffusers' modules and computes what its `forward` computes, with everything constant folded away.
Weights stay those of the module: nothing is kept twice; where queries, keys and values become one matrix, the module's own
parameters become views of it.

Notable:
- cross-attention has a single key, the key image's embedding, so that its result does not depend on the query: it is one
  vector per layer and item, to_out(to_v(embedding)), and is added where the residual stream is summed up anyway;
- the embedding of the noise level is the same for all items of a step: with the bias of the convolution before it, it is one
  vector per residual block and step;
- the temporal branch of a block is mixed in as base + share · change, so that no pass is spent on mixing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evfi.engine.operators import Feature, Offset, Operators


def derived(module: nn.Module, name: str, value: Tensor) -> Callable[[], Tensor]:
    """Leave with a module what is made of its weights once, so that it moves with them; it is no part of its state.

    Args:
        module: whose weights it is made of.
        name: of the buffer that it becomes.
        value: what is made.

    Returns:
        What gives it, wherever the module lies.
    """
    kept: Any = getattr(module, name, None)
    alike = kept is not None and (kept.shape, kept.dtype, kept.device) == (value.shape, value.dtype, value.device)
    if alike and kept.untyped_storage().nbytes():
        kept.copy_(value)  # another engine's recorded calls read it where it lies
    else:
        module.register_buffer(name, value, persistent=False)
    return lambda: module.get_buffer(name)


class ResidualBlock:
    """A `SpatioTemporalResBlock`: a residual block per frame, then one over frames, mixed.

    Attributes:
        spatial: diffusers' block per frame.
        temporal: its block over frames.
        temporal_share: factor of what the latter changes.
        offsets: give the vector added after each block's first convolution.
    """

    def __init__(self, block: Any, operators: Operators, steps: StepVectors | None) -> None:
        """Take a block.

        Args:
            block: diffusers' module.
            operators: what runs the operations between convolutions.
            steps: collects what depends on the noise level; None for a network without one.
        """
        self.spatial, self.temporal = block.spatial_res_block, block.temporal_res_block
        self._operators = operators
        share = float(torch.sigmoid(block.time_mixer.mix_factor.float()))
        self.temporal_share = share if block.time_mixer.switch_spatial_to_temporal_mix else 1.0 - share
        self.offsets = [
            _BiasOnly(part.conv1) if steps is None else steps.add(part.conv1, part.time_emb_proj)
            for part in (self.spatial, self.temporal)
        ]
        shortcut = self.spatial.conv_shortcut
        bias = self.spatial.conv2.bias.float() + (0.0 if shortcut is None else shortcut.bias.float())
        self._spatial_bias = derived(self.spatial, "summed_bias", bias)
        self._temporal_bias = derived(self.temporal, "summed_bias", self.temporal.conv2.bias.float())

    def __call__(self, sources: Sequence[Feature], step: Tensor | None) -> Feature:
        """Run the block.

        Args:
            sources: activations whose channels follow each other.
            step: the step's vectors, from `StepVectors`.
        """
        run = self._operators
        block = self.spatial
        hidden = run.group_norm(sources, block.norm1, over_frames=False, silu=True)
        hidden = run.convolve(hidden, block.conv1, bias=False)
        offset = self.offsets[0](step)
        hidden = run.group_norm([Feature(hidden)], block.norm2, over_frames=False, silu=True, offset=offset)
        hidden = run.convolve(hidden, block.conv2, bias=False)
        spatial = run.add(self.shortcut(sources), hidden, 1.0, self.spatial_bias)
        block = self.temporal
        hidden = run.group_norm([spatial], block.norm1, over_frames=True, silu=True)
        hidden = run.convolve_frames(hidden, block.conv1)
        offset = self.offsets[1](step)
        hidden = run.group_norm([Feature(hidden)], block.norm2, over_frames=True, silu=True, offset=offset)
        hidden = run.convolve_frames(hidden, block.conv2)
        return run.add(spatial.values, hidden, self.temporal_share, self.temporal_bias)

    @property
    def spatial_bias(self) -> Tensor:
        """Added where the residual stream of the block per frame is summed up."""
        return self._spatial_bias()

    @property
    def temporal_bias(self) -> Tensor:
        """Likewise of the block over frames."""
        return self._temporal_bias()

    def shortcut(self, sources: Sequence[Feature]) -> Tensor:
        """The block's input with as many channels as its output, without the bias of the projection to them."""
        module = self.spatial.conv_shortcut
        if module is None:
            return sources[0].values
        weights = module.weight.flatten(1).split([source.values.shape[-1] for source in sources], dim=1)
        first, *others = (source.values.flatten(0, 3) for source in sources)
        total = self._operators.product(first, weights[0])
        for rows, weight in zip(others, weights[1:], strict=True):
            self._operators.add_product(total, rows, weight)
        return total.unflatten(0, sources[0].values.shape[:4])


class Transformer:
    """A `TransformerSpatioTemporalModel`: layers over the pixels of a frame, each followed by one over frames, mixed."""

    def __init__(self, module: Any, operators: Operators, contexts: ContextVectors) -> None:
        """Take a module.

        Args:
            module: diffusers' module.
            operators: what runs the operations between matrix products.
            contexts: collects what depends on the key image.
        """
        self._module, self._operators = module, operators
        share = float(torch.sigmoid(module.time_mixer.mix_factor.float()))
        pairs = zip(module.transformer_blocks, module.temporal_transformer_blocks, strict=True)
        self._layers = [_TransformerLayer(*pair, share, operators, contexts) for pair in pairs]
        self._positions: dict[int, Tensor] = {}

    def __call__(self, feature: Feature, context: Tensor) -> Feature:
        """Run the layers.

        Args:
            feature: the activation.
            context: the items' vectors, from `ContextVectors`.
        """
        module = self._module
        positions = self._frame_embeddings(feature.values.shape[1])
        stream = self._linear(self._rows(feature), module.proj_in)
        for layer in self._layers:
            stream = layer(stream, feature.values.shape, context, positions)
        change = self._operators.product(stream, module.proj_out.weight).view(feature.values.shape)
        return self._operators.add(feature.values, change, 1.0, module.proj_out.bias)

    def _linear(self, rows: Tensor, module: Any) -> Tensor:
        return self._operators.product(rows, module.weight, module.bias)

    def _rows(self, feature: Feature) -> Tensor:
        return self._operators.group_norm([feature], self._module.norm, over_frames=False, silu=False).flatten(0, 3)

    def _frame_embeddings(self, frames: int) -> Tensor:
        """Float32 [F, C], what tells the temporal layers which frame they see."""
        made = self._positions.get(frames)
        if made is None:
            weight = self._module.proj_in.weight
            angles = self._module.time_proj(torch.arange(frames, device=weight.device)).to(weight.dtype)
            made = self._positions[frames] = self._module.time_pos_embed(angles).float()
        return made


class _TransformerLayer:
    """A `BasicTransformerBlock` and the `TemporalBasicTransformerBlock` after it."""

    def __init__(
        self,
        spatial: Any,
        temporal: Any,
        spatial_share: float,
        operators: Operators,
        contexts: ContextVectors,
    ) -> None:
        self._spatial, self._temporal, self._spatial_share = spatial, temporal, spatial_share
        self._operators = operators
        self._contexts = [contexts.add(block.attn2, block.norm2) for block in (spatial, temporal)]
        self._qkv = [merge_qkv(block.attn1) for block in (spatial, temporal)]

    def __call__(self, stream: Tensor, shape: torch.Size, context: Tensor, positions: Tensor) -> Tensor:
        """Run both on rows [B F h w, C] of an activation of this shape."""
        run, spatial, temporal = self._operators, self._spatial, self._temporal
        batch, frames, pixels = shape[0], shape[1], shape[2] * shape[3]
        by_item = [Offset(pick(context), frames * pixels) for pick in self._contexts]
        by_frame = Offset(positions, pixels)

        change = self._attend_to_pixels(run.layer_norm(stream, spatial.norm1)[1], (batch * frames, pixels))
        stream, seen = run.layer_norm(stream, spatial.norm3, change=change, before=by_item[0])
        change = self._feed_forward(seen, spatial.ff)

        still, seen = run.layer_norm(stream, temporal.norm_in, change=change, after=by_frame)
        change = self._feed_forward(seen, temporal.ff_in)
        stream, seen = run.layer_norm(still, temporal.norm1, change=change, before=by_frame)
        change = self._attend_to_frames(seen, (batch, frames, pixels))
        del seen  # memory: the gate's product comes next, and is wide
        stream, seen = run.layer_norm(stream, temporal.norm3, change=change, before=by_item[1])
        change = self._feed_forward(seen, temporal.ff)
        return run.mix(still, stream, change, self._spatial_share)

    def _linear(self, rows: Tensor, module: Any) -> Tensor:
        return self._operators.product(rows, module.weight, module.bias)

    def _attend_to_pixels(self, rows: Tensor, sizes: tuple[int, int]) -> Tensor:
        attention = self._spatial.attn1
        qkv = self._operators.product(rows, self._qkv[0]()).unflatten(0, sizes)
        return self._linear(self._operators.spatial_attention(qkv, attention.heads).flatten(0, 1), attention.to_out[0])

    def _attend_to_frames(self, rows: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        attention = self._temporal.attn1
        qkv = self._operators.product(rows, self._qkv[1]()).unflatten(0, sizes)
        return self._linear(self._operators.temporal_attention(qkv, attention.heads).flatten(0, 2), attention.to_out[0])

    def _feed_forward(self, rows: Tensor, module: Any) -> Tensor:
        return self._linear(self._operators.gated_product(rows, module.net[0].proj), module.net[2])


class StepVectors:
    """Per noise level: a vector for each residual block, the bias of its first convolution included."""

    def __init__(self) -> None:
        self._parts: list[tuple[Any, Any]] = []
        self.length = 0

    def add(self, convolution: Any, projection: Any) -> Callable[[Tensor | None], Tensor]:
        """Register a block; returns what picks its vector out of a step's."""
        place = slice(self.length, self.length + convolution.out_channels)
        self._parts.append((convolution, projection))
        self.length = place.stop

        def pick(step: Tensor | None) -> Tensor:
            assert step is not None
            return step[place]

        return pick

    def weights(self) -> Iterator[Tensor]:
        """What `compute` reads."""
        for convolution, projection in self._parts:
            yield convolution.bias
            yield from projection.parameters()

    def compute(self, embedding: Tensor) -> Tensor:
        """All vectors float32 [length] of a noise level, given its embedding [1, time channels]."""
        active = F.silu(embedding)
        return torch.cat(
            [projection(active)[0].float() + convolution.bias.float() for convolution, projection in self._parts]
        )


class ContextVectors:
    """Per key image: what each cross-attention with its single key adds, whatever the query."""

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._unused: list[Any] = []
        self.length = 0

    def add(self, attention: Any, norm: Any) -> Callable[[Tensor], Tensor]:
        """Register a cross-attention and the norm of its queries; returns what picks its vectors [B, C] from the items'."""
        place = slice(self.length, self.length + attention.to_out[0].out_features)
        self._parts.append(attention)
        self._unused += [attention.to_q, attention.to_k, norm]
        self.length = place.stop
        return lambda context: context[:, place]

    def weights(self) -> Iterator[Tensor]:
        """What `compute` reads."""
        for part in self._parts:
            yield from (*part.to_v.parameters(), *part.to_out[0].parameters())

    def unused(self) -> Iterator[Tensor]:
        """What no result depends on."""
        for module in self._unused:
            yield from module.parameters()

    def compute(self, embeddings: Tensor) -> Tensor:
        """All vectors float32 [K, length] of key images' embeddings [K, D]."""
        if not self._parts:
            return embeddings.new_zeros(len(embeddings), 0, dtype=torch.float32)
        return torch.cat([part.to_out[0](part.to_v(embeddings)).float() for part in self._parts], dim=1)


def merge_qkv(attention: Any) -> Callable[[], Tensor]:
    """Put the weights of queries, keys and values into one matrix [3 C, C], which they become views of.

    Returns:
        What gives the matrix.
    """
    parts = [attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]
    if not _follow_each_other(parts):
        merged = torch.cat([part.data for part in parts])
        for part, view in zip(parts, merged.chunk(3), strict=True):
            part.data = view
    return lambda: parts[0].as_strided((3 * len(parts[0]), parts[0].shape[1]), parts[0].stride())


def _follow_each_other(parts: Sequence[Tensor]) -> bool:
    """Whether tensors lie one after the other in the same storage."""
    first = parts[0]
    starts = [first.storage_offset() + number * first.numel() for number in range(len(parts))]
    storage = first.untyped_storage().data_ptr()
    return all(
        part.is_contiguous() and part.storage_offset() == start and part.untyped_storage().data_ptr() == storage
        for part, start in zip(parts, starts, strict=True)
    )


class _BiasOnly:
    """The offset of a block without noise level: its convolution's bias."""

    def __init__(self, convolution: Any) -> None:
        self._bias = derived(convolution, "exact_bias", convolution.bias.float())

    def __call__(self, step: Tensor | None) -> Tensor:
        del step
        return self._bias()
