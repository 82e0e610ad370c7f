"""Compare our metrics with the libraries that they come from, on the golden pairs of tests/evaluation/golden_inputs.py.

python scripts/check_metrics.py [--metrics psnr_rgb ...] [--write tests/evaluation/golden_metrics.json] [--pictures A.png B.png]

What is compared is listed in the files scripts/metric_origins_*.py, each of which defines ORIGINS. Libraries that are not
installed are named and left out; with --write their values in the file are kept. The last line is "ok" or what disagrees.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from evfi.evaluation.metrics.base import ALL, ScoredWindow
from evfi.evaluation.metrics.registry import metric_named
from metric_origins import Origin, PairFunction

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent / "tests" / "evaluation"))

from golden_inputs import Pair, golden_pairs  # noqa: E402 it lies among the tests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", nargs="*", help="only these")
    parser.add_argument("--write", type=Path, help="golden values as JSON")
    parser.add_argument("--pictures", type=Path, nargs=2, help="compare these two pictures instead (truth last)")
    arguments = parser.parse_args()
    pairs = golden_pairs() if arguments.pictures is None else {"pictures": _read_pair(arguments.pictures)}
    found, versions, failures = [], {}, []
    for origin in _origins(arguments.metrics):
        try:
            version = importlib.metadata.version(origin.distribution)
            theirs = _values_of(origin.load(), origin, pairs)
        except importlib.metadata.PackageNotFoundError:
            print(f"\n{origin.metric}: {origin.distribution} is not installed, not compared with {origin.name}")
            continue
        except ImportError as error:
            print(
                f"\n{origin.metric}: {origin.distribution} cannot be imported ({error}), not compared with {origin.name}"
            )
            continue
        versions[origin.distribution] = version
        failures += _print_table(origin, theirs, _values_of(_ours(origin), origin, pairs))
        if origin.ours is None:
            found.append((origin, theirs))
    if arguments.write and arguments.pictures is None:
        _write(arguments.write, found, versions)
    sys.exit("disagrees: " + ", ".join(failures) if failures else print("\nok"))


def _origins(metrics: Iterable[str] | None) -> list[Origin]:
    files = sorted(_HERE.glob("metric_origins_*.py"))
    origins = [origin for file in files for origin in importlib.import_module(file.stem).ORIGINS]
    return [origin for origin in origins if not metrics or origin.metric in metrics]


def _read_pair(paths: list[Path]) -> Pair:
    picture, truth = (np.asarray(Image.open(path).convert("RGB")) for path in paths)
    return picture, truth


def _values_of(function: PairFunction, origin: Origin, pairs: dict[str, Pair]) -> dict[str, float]:
    with torch.no_grad():
        return {name: float(function(*pair)) for name, pair in pairs.items() if name not in origin.without}


def _ours(origin: Origin) -> PairFunction:
    if origin.ours is not None:
        return origin.ours()
    score = metric_named(origin.metric).load(torch.device("cpu"))

    def ours(picture: np.ndarray, truth: np.ndarray) -> float:
        return float(
            score(ScoredWindow(np.stack([truth, picture, truth]), np.stack([truth] * 3), np.arange(3)))[ALL][0]
        )

    return ours


def _print_table(origin: Origin, theirs: dict[str, float], ours: dict[str, float]) -> list[str]:
    """Prints one table; names of the pairs that disagree."""
    wanted = "another definition" if origin.tolerance is None else f"to agree within {origin.tolerance:g}"
    print(f"\n{origin.metric} | {origin.name} ({wanted})")
    failures = []
    for name, value in theirs.items():
        difference = ours[name] - value
        disagrees = origin.tolerance is not None and not abs(difference) <= origin.tolerance
        failures += [f"{origin.metric} with {origin.name} on {name}"] if disagrees else []
        print(f"  {name:20} {ours[name]:14.8f} {value:14.8f} {difference:+.2e}{'  <--' if disagrees else ''}")
    return failures


def _write(path: Path, found: list[tuple[Origin, dict[str, float]]], versions: dict[str, str]) -> None:
    """Golden values; those of libraries that were not asked stay as they are."""
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    asked = {(origin.metric, origin.name) for origin, _ in found}
    rows = [row for row in kept.get("origins", []) if (row["metric"], row["origin"]) not in asked]
    rows += [
        {"metric": origin.metric, "origin": origin.name, "tolerance": origin.tolerance, "values": theirs}
        for origin, theirs in found
    ]
    rows.sort(key=lambda row: (row["metric"], row["origin"]))
    content = {"versions": dict(sorted({**kept.get("versions", {}), **versions}.items())), "origins": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
