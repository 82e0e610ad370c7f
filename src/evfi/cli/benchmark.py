"""`evfi benchmark`: speed, memory use and accuracy of the engines on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evfi.benchmark.config import BenchmarkConfig
from evfi.cli.options import parse
from evfi.cli.terminal import print_lines
from evfi.guard import Read, Written, check_places
from evfi.paths import expanded
from evfi.sampling.presets import PresetName


@dataclass(frozen=True)
class BenchmarkCommand:
    """Measure the time, memory and errors of the engines on windows of known sizes, on this machine.

        evfi benchmark
        evfi benchmark --model svd-random --case all --engine plain fast --plain-steps 2 --json speed.json

    Attributes:
        model: svd-random (the published sizes with random weights: equally fast, nothing to download), small-random, or as in
            `evfi interpolate`.
        case: one-tile-5, one-tile-13, hqf-x3, bsergb-x2, clear-motion-x2, all, or WIDTHxHEIGHTxFRAMES[xUPSCALE]; one or
            several, measured from the smallest to the largest.
        preset: exact, balanced, fast; one or several. warp is not measured: it does not use the diffusion model.
        engine: plain, fast; one or both, side by side. Errors are measured against plain if it is included.
        device: as in `evfi interpolate`.
        dtype: as in `evfi interpolate`.
        reference: float32: also measure errors against the plain engine in float32, with the preset exact.
        json: a file for the results, written after every row; an existing file is replaced.
        config: how to measure.
    """

    model: str = "evfi-tiny"
    case: tuple[str, ...] = ("one-tile-5",)
    preset: tuple[PresetName, ...] = ("exact",)
    engine: tuple[Literal["plain", "fast"], ...] = ("plain", "fast")
    device: str = "auto"
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    reference: Literal["float32"] | None = None
    json: Path | None = None
    config: BenchmarkConfig = field(default_factory=BenchmarkConfig)


def run(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: Those after `benchmark`.
    """
    command = parse(BenchmarkCommand, "benchmark", arguments)
    if command.json is not None:
        check_places([Written(command.json, "the results")], [Read(expanded(command.model), "the model")])

    from evfi.benchmark.results import as_line, header, notes
    from evfi.benchmark.run import Benchmark, BenchmarkRequest

    benchmark = Benchmark(
        BenchmarkRequest(
            model=command.model,
            cases=command.case,
            presets=command.preset,
            engines=command.engine,
            device=command.device,
            dtype=command.dtype,
            against_float32=command.reference is not None,
            json=command.json,
            config=command.config,
        )
    )
    told, product = benchmark.settings, benchmark.settings["matmul"]
    print_lines(
        f"{told['model']}, {told['dtype']}, {told['device']}, torch {told['torch']}; "
        f"a product of {product['side']}x{product['side']} matrices reaches {product['tflop_per_s']:.3g} TFLOP/s",
        header(),
    )
    for row in benchmark.run():
        print_lines(as_line(row))
    print_lines(*notes(benchmark.rows))
