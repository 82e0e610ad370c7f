"""GPU kernels for what lies between convolutions and matrix products; see `evfi.engine.operators` for what they compute.

Imported only where a GPU is used. All activations are rows of C channels, contiguous; statistics are float32. Sizes that
differ from call to call are plain arguments, so that a kernel is compiled once per dtype and block shape.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_and_sum(
    base,
    change,
    offset,
    out,
    sums,
    num_rows,
    channels,
    rows_per_chunk,
    scale,
    HAS_CHANGE: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Per picture and chunk of rows: out = base + scale (change + offset), and sums of it and of its squares."""
    picture, chunk, number_of_chunks = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    in_width = column < channels
    shift = tl.zeros([BLOCK_CHANNELS], tl.float32)
    if HAS_OFFSET:
        shift = tl.load(offset + column, mask=in_width, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_CHANNELS], tl.float32)
    squares = tl.zeros([BLOCK_CHANNELS], tl.float32)
    first = chunk * rows_per_chunk
    for start in range(0, rows_per_chunk, BLOCK_ROWS):
        row = first + start + tl.arange(0, BLOCK_ROWS)
        inside = (row < num_rows)[:, None] & in_width[None, :]
        place = (picture * num_rows + row)[:, None] * channels + column[None, :]
        value = tl.load(base + place, mask=inside, other=0.0).to(tl.float32)
        if HAS_CHANGE:
            value += scale * (tl.load(change + place, mask=inside, other=0.0).to(tl.float32) + shift[None, :])
            rounded = value.to(out.dtype.element_ty)
            tl.store(out + place, rounded, mask=inside)
            value = tl.where(inside, rounded.to(tl.float32), 0.0)
        total += tl.sum(value, axis=0)
        squares += tl.sum(value * value, axis=0)
    place = (picture * number_of_chunks + chunk) * 2 * channels + column
    tl.store(sums + place, total, mask=in_width)
    tl.store(sums + place + channels, squares, mask=in_width)


@triton.jit
def group_coefficients(
    sums,
    other_sums,
    weight,
    bias,
    offset,
    coefficients,
    rows_of_sums,
    num_values,
    own_channels,
    other_channels,
    group_width,
    eps,
    HAS_OFFSET: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Per item and group: from sums to a factor and a shift per channel. Two sources' channels follow each other."""
    item, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channels = own_channels + other_channels
    within = tl.arange(0, BLOCK_CHANNELS)
    column = group * group_width + within
    in_group = within < group_width
    is_own = in_group & (column < own_channels)
    is_other = in_group & (column >= own_channels)
    total = tl.zeros([BLOCK_CHANNELS], tl.float32)
    squares = tl.zeros([BLOCK_CHANNELS], tl.float32)
    for start in range(0, rows_of_sums, BLOCK_ROWS):
        row = start + tl.arange(0, BLOCK_ROWS)
        inside = (row < rows_of_sums)[:, None]
        line = (item * rows_of_sums + row)[:, None] * 2
        own = sums + line * own_channels + column[None, :]
        other = other_sums + line * other_channels + (column - own_channels)[None, :]
        total += tl.sum(tl.load(own, mask=inside & is_own[None, :], other=0.0), axis=0)
        total += tl.sum(tl.load(other, mask=inside & is_other[None, :], other=0.0), axis=0)
        squares += tl.sum(tl.load(own + own_channels, mask=inside & is_own[None, :], other=0.0), axis=0)
        squares += tl.sum(tl.load(other + other_channels, mask=inside & is_other[None, :], other=0.0), axis=0)
    shift = tl.zeros([BLOCK_CHANNELS], tl.float32)
    if HAS_OFFSET:
        shift = tl.load(offset + column, mask=in_group, other=0.0).to(tl.float32)
        squares += 2.0 * shift * total + num_values * shift * shift
        total += num_values * shift
    number = num_values * group_width
    mean = tl.sum(total, axis=0) / number
    variance = tl.maximum(tl.sum(squares, axis=0) / number - mean * mean, 0.0)
    scale = tl.load(weight + column, mask=in_group, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    start_of_item = coefficients + item * 2 * channels + column
    tl.store(start_of_item, scale, mask=in_group)
    shifted = tl.load(bias + column, mask=in_group, other=0.0).to(tl.float32) + (shift - mean) * scale
    tl.store(start_of_item + channels, shifted, mask=in_group)


@triton.jit
def scale_shift(
    values,
    coefficients,
    out,
    num_rows,
    channels,
    out_channels,
    first_channel,
    pictures_per_item,
    SILU: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Per picture: out = values · factor + shift, with the item's coefficients; SiLU may follow."""
    picture = tl.program_id(1).to(tl.int64)
    column = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    in_width = column < channels
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = (row < num_rows)[:, None] & in_width[None, :]
    line = coefficients + (picture // pictures_per_item) * 2 * out_channels + first_channel + column
    factor = tl.load(line, mask=in_width, other=0.0)
    shift = tl.load(line + out_channels, mask=in_width, other=0.0)
    rows = (picture * num_rows + row)[:, None]
    value = tl.load(values + rows * channels + column[None, :], mask=inside, other=0.0).to(tl.float32)
    value = value * factor[None, :] + shift[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    tl.store(out + rows * out_channels + first_channel + column[None, :], value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_layer_norm(
    stream,
    change,
    before,
    after,
    weight,
    bias,
    new_stream,
    out,
    num_rows,
    channels,
    before_every,
    before_number,
    before_stride,
    after_every,
    after_number,
    after_stride,
    eps,
    HAS_CHANGE: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
    HAS_AFTER: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Rows: new_stream = stream + change + before; out = layer norm of (new_stream + after)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, BLOCK_CHANNELS)
    in_width = column < channels
    inside = (row < num_rows)[:, None] & in_width[None, :]
    place = row[:, None] * channels + column[None, :]
    value = tl.load(stream + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_CHANGE:
        value += tl.load(change + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_BEFORE:
        line = (row // before_every) % before_number
        value += tl.load(before + line[:, None] * before_stride + column[None, :], mask=inside, other=0.0)
    if HAS_CHANGE or HAS_BEFORE:
        rounded = value.to(new_stream.dtype.element_ty)
        tl.store(new_stream + place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if HAS_AFTER:
        line = (row // after_every) % after_number
        value += tl.load(after + line[:, None] * after_stride + column[None, :], mask=inside, other=0.0)
    mean = tl.sum(value, axis=1) / channels
    centred = tl.where(in_width[None, :], value - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, axis=1) / channels
    scale = tl.load(weight + column, mask=in_width, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=in_width, other=0.0).to(tl.float32)
    made = centred * (1.0 / tl.sqrt(variance + eps))[:, None] * scale[None, :] + shift[None, :]
    tl.store(out + place, made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gate_gelu(rows, out, num_rows, width, BLOCK_ROWS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """out = first half of a row · GELU(second half)."""
    row = (tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]
    column = (tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS))[None, :]
    inside = (row < num_rows) & (column < width)
    value = tl.load(rows + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(rows + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    made = value * gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * width + column, made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def mix_rows(spatial, temporal, change, out, number, spatial_share, BLOCK: tl.constexpr):
    """out = share · spatial + (1 - share) (temporal + change)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < number
    first = tl.load(spatial + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(temporal + place, mask=inside, other=0.0).to(tl.float32)
    second += tl.load(change + place, mask=inside, other=0.0).to(tl.float32)
    made = second + spatial_share * (first - second)
    tl.store(out + place, made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def attend_over_frames(
    qkv,
    out,
    pixels,
    channels,
    heads,
    factor,
    FRAMES: tl.constexpr,
    HEAD_WIDTH: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_FRAMES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Per block of pixels and per head: all pairs of the block's rows at once, of which those of one pixel count."""
    item = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    row = tl.arange(0, BLOCK_PIXELS * BLOCK_FRAMES)
    frame, own_pixel = row % BLOCK_FRAMES, row // BLOCK_FRAMES
    pixel = tl.program_id(0) * BLOCK_PIXELS + own_pixel
    exists = (frame < FRAMES) & (pixel < pixels)
    within = tl.arange(0, BLOCK_WIDTH)
    inside = exists[:, None] & (within < HEAD_WIDTH)[None, :]
    rows = ((item * FRAMES + frame) * pixels + pixel)[:, None]
    column = (head * HEAD_WIDTH + within)[None, :]
    there = qkv + rows * 3 * channels + column
    query = tl.load(there, mask=inside, other=0.0)
    key = tl.load(there + channels, mask=inside, other=0.0)
    value = tl.load(there + 2 * channels, mask=inside, other=0.0)
    score = tl.dot(query, key.T, input_precision="ieee") * factor
    pairs = (own_pixel[:, None] == own_pixel[None, :]) & (frame < FRAMES)[None, :]
    score = tl.where(pairs, score, float("-inf"))
    share = tl.exp(score - tl.max(score, axis=1)[:, None])
    total = tl.sum(share, axis=1)
    made = tl.dot(share.to(value.dtype), value, input_precision="ieee") / total[:, None]
    tl.store(out + rows * channels + column, made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gated_product(
    rows,
    weight,
    bias,
    out,
    num_rows,
    depth,
    width,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """out = (rows · first half of weight + bias) · GELU(rows · second half + bias), in one pass; depth is a multiple.

    Programs walk over the output in groups of rows, so that what they read is still in the cache.
    """
    row_blocks, width_blocks = tl.cdiv(num_rows, BLOCK_ROWS), tl.cdiv(width, BLOCK_WIDTH)
    program = tl.program_id(0)
    group = program // (GROUP * width_blocks)
    group_rows = tl.minimum(row_blocks - group * GROUP, GROUP)
    within = program % (GROUP * width_blocks)
    row_start = (group * GROUP + within % group_rows) * BLOCK_ROWS
    column_start = (within // group_rows) * BLOCK_WIDTH
    value = tl.zeros([BLOCK_ROWS, BLOCK_WIDTH], tl.float32)
    gate = tl.zeros([BLOCK_ROWS, BLOCK_WIDTH], tl.float32)
    for start in range(0, depth, BLOCK_DEPTH):
        part = rows.load([row_start, start])
        value = tl.dot(part, weight.load([column_start, start]).T, value)
        gate = tl.dot(part, weight.load([width + column_start, start]).T, gate)
    column = column_start + tl.arange(0, BLOCK_WIDTH)
    value += tl.load(bias + column).to(tl.float32)[None, :]
    gate += tl.load(bias + width + column).to(tl.float32)[None, :]
    made = value * gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    out.store([row_start, column_start], made.to(out.dtype))
