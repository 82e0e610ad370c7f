"""Measure what docs/performance.md and docs/speed.md tell of the engines, on one GPU, and make their tables.

    python scripts/measure_engine.py run OUT [PART ...]
    python scripts/measure_engine.py table OUT

run: networks of the published sizes with random weights; parts (all by default) in the order below, each into OUT/PART.json,
row by row, so that an interrupted run keeps what it has. A part that is there is not measured again.
table: every row of every part, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from evfi.benchmark.config import BenchmarkConfig
from evfi.benchmark.results import as_line, header
from evfi.benchmark.run import Benchmark, BenchmarkRequest

SMALL: Final = ("one-tile-5", "one-tile-13", "hqf-x3")
QUICK: Final = BenchmarkConfig(runs=3, plain_steps=2, seconds_per_row=20)
ONCE: Final = BenchmarkConfig(runs=1, plain_steps=2)


def limited(limit: str) -> BenchmarkConfig:
    return replace(ONCE, max_memory=limit)


PARTS: Final[Mapping[str, BenchmarkRequest]] = {
    "small": BenchmarkRequest("svd-random", SMALL, ("exact", "fast"), ("plain", "fast"), config=QUICK),
    "bsergb-8gib": BenchmarkRequest("svd-random", ("bsergb-x2",), ("exact",), ("fast",), config=limited("8GiB")),
    "bsergb": BenchmarkRequest("svd-random", ("bsergb-x2",), ("exact", "fast"), ("plain", "fast"), config=ONCE),
    "clear-motion-fast": BenchmarkRequest("svd-random", ("clear-motion-x2",), ("fast",), ("fast",), config=ONCE),
    "tile-4gib": BenchmarkRequest("svd-random", ("one-tile-5",), ("exact",), ("plain", "fast"), config=limited("4GiB")),
    "bsergb-fast-5gib": BenchmarkRequest("svd-random", ("bsergb-x2",), ("fast",), ("fast",), config=limited("5GiB")),
    "clear-motion": BenchmarkRequest("svd-random", ("clear-motion-x2",), ("exact",), ("plain", "fast"), config=ONCE),
    "balanced": BenchmarkRequest("svd-random", (*SMALL, "bsergb-x2"), ("balanced",), ("fast",), config=ONCE),
}


def run(output: Path, names: list[str]) -> None:
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        raise SystemExit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    output.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    for name in names or PARTS:
        file = output / f"{name}.json"
        if file.exists():
            continue
        print(f"== {name}, after {time.perf_counter() - begun:.0f} s\n{header()}", flush=True)
        try:
            for row in Benchmark(replace(PARTS[name], json=file)).run():
                print(as_line(row), row.plan.replace("\n", "; "), flush=True)
        except Exception as error:
            print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
    print(f"done after {time.perf_counter() - begun:.0f} s", flush=True)


def table(output: Path) -> None:
    heads = [
        "part",
        "case",
        "preset",
        "engine",
        "s",
        "GiB",
        "planned",
        "held",
        "cold s",
        "of peak",
        "latents",
        "frames",
    ]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for name in PARTS:
        if (output / f"{name}.json").exists():
            found = json.loads((output / f"{name}.json").read_text("utf-8"))
            for row in found["rows"]:
                print("| " + " | ".join(cells(name, row)) + " |")


def cells(name: str, row: dict[str, Any]) -> list[str]:
    if row["failure"]:
        return [name, row["case"], row["preset"], row["engine"], row["failure"]]
    errors, memory = row["errors"].get("plain", {}), row["memory_gib"]
    mark = "~" if row["extrapolated_from_steps"] else ""
    return [
        *(name, row["case"], row["preset"], row["engine"]),
        f"{mark}{row['seconds']['total']:.2f}",
        f"{memory['allocated']:.2f}",
        "" if row["estimated_gib"] is None else f"{row['estimated_gib']:.2f}",
        f"{memory['reserved']:.2f}",
        f"{row['cold_start_s']:.1f}",
        f"{row['peak_share']:.0%}",
        *(f"{errors[part]:.1e}" if errors else "" for part in ("latents", "frames")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("run")
    first.add_argument("output", type=Path)
    first.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    commands.add_parser("table").add_argument("output", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.output, arguments.parts)
    else:
        table(arguments.output)


if __name__ == "__main__":
    main()
