"""Compares every kernel with its twin on one device; a program of its own, since Triton's interpreter is chosen at import.

python kernel_cases.py cpu|cuda
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from evfi.engine.operators import Feature, Offset, Operators, TorchOperators
from evfi.engine.triton_operators import TritonOperators

BATCH, FRAMES, HEIGHT, WIDTH, CHANNELS = 2, 3, 5, 7, 96
TOLERANCE = {torch.float32: 1e-6, torch.float16: 6e-4}


def check(name: str, made: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    error = float((made.float() - expected.float()).norm() / expected.float().norm())
    if not error < TOLERANCE[dtype]:
        raise SystemExit(f"{name} in {dtype} is off by {error:.2e}")
    print("ok", name, dtype, f"{error:.1e}")


def check_all(kernels: Operators, dtype: torch.dtype, device: str) -> None:
    twins, generator = TorchOperators(), torch.Generator().manual_seed(0)

    def normal(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, kind)

    def affine(module: nn.Module) -> nn.Module:
        for parameter in module.parameters():
            parameter.data = normal(*parameter.shape)
        return module

    shape = (BATCH, FRAMES, HEIGHT, WIDTH, CHANNELS)
    base, change, vector = normal(*shape) + 1, normal(*shape), normal(CHANNELS, kind=torch.float32)
    feature = kernels.add(base, change.clone(), 0.3, vector)
    check("add", feature.values, twins.add(base, change.clone(), 0.3, vector).values, dtype)

    if device == "cuda" or dtype == torch.float16:  # the interpreter takes its time over them
        large = (1, 2, 256, 257, 4)  # more pixels than the sums have chunks of one block
        base_large, change_large = normal(*large), normal(*large)
        made_large = kernels.add(base_large, change_large.clone(), 1.0, None)
        check("add to many pixels", made_large.values, base_large + change_large, dtype)
        if made_large.sums is not None:
            expected_sums = made_large.values.float().flatten(2, 3).flatten(0, 1).sum(1)
            check("sums of many pixels", made_large.sums[:, :, 0].sum(1), expected_sums, torch.float16)

    other = Feature(3 * normal(*shape[:-1], 32))
    norm = affine(nn.GroupNorm(32, CHANNELS + 32))
    for over_frames in (True, False):
        for offset in (None, normal(CHANNELS + 32, kind=torch.float32)):
            made, expected = (
                run.group_norm([feature, other], norm, over_frames=over_frames, silu=True, offset=offset)  # type: ignore[arg-type]
                for run in (kernels, twins)
            )
            check(f"group_norm {over_frames} {offset is not None}", made, expected, dtype)

            summed, plain = (run.sums(Feature(other.values)) for run in (kernels, twins))
            pair = (
                run.norm_coefficients(own, HEIGHT * WIDTH, nn.GroupNorm(8, 32).to(device), frames=frames, offset=None)
                for run, own in ((kernels, summed), (twins, plain))
                for frames in [FRAMES if over_frames else 1]
            )
            scaled = [run.scale_shift(other.values, next(pair), silu=True) for run in (kernels, twins)]
            check(f"scale_shift {over_frames}", *scaled, dtype)

    pixels = HEIGHT * WIDTH
    rows, change = normal(BATCH * FRAMES * pixels, CHANNELS), normal(BATCH * FRAMES * pixels, CHANNELS)
    by_item = Offset(normal(BATCH, 200, kind=torch.float32)[:, 50 : 50 + CHANNELS], FRAMES * pixels)
    by_frame = Offset(normal(FRAMES, CHANNELS, kind=torch.float32), pixels)
    layer = affine(nn.LayerNorm(CHANNELS))
    for changed, before, after in ((0, None, None), (1, by_item, None), (1, None, by_frame), (0, by_frame, None)):
        results = [
            run.layer_norm(
                rows.clone(),
                layer,
                change=change.clone() if changed else None,
                before=before,
                after=after,  # type: ignore[arg-type]
            )
            for run in (kernels, twins)
        ]
        check("layer_norm stream", results[0][0], results[1][0], dtype)
        check("layer_norm", results[0][1], results[1][1], dtype)

    for depth, width in ((24, 40), (128, 256)):
        gates, linear = normal(137, depth), affine(nn.Linear(depth, 2 * width))
        made, expected = (run.gated_product(gates, linear) for run in (kernels, twins))  # type: ignore[arg-type]
        check("gated_product", made, expected, dtype)
    mixed = (run.mix(rows, change, 2 * rows, 0.3) for run in (kernels, twins))
    check("mix", *mixed, dtype)
    qkv = normal(BATCH, FRAMES, pixels, 3 * CHANNELS)
    attended = (run.temporal_attention(qkv, 3) for run in (kernels, twins))
    check("temporal_attention", *attended, dtype)
    qkv = normal(BATCH, pixels, 3 * CHANNELS)
    if device == "cuda" or dtype == torch.float32:
        attended = (run.spatial_attention(qkv, 3) for run in (kernels, twins))
        check("spatial_attention", *attended, dtype)


if __name__ == "__main__":
    with torch.inference_mode():
        for precision in TOLERANCE:
            check_all(TritonOperators(), precision, sys.argv[1])
    print("all equal")
