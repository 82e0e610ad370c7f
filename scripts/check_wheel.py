"""Build the wheel and look into it: the small model's weights are there, within their budget, and nothing else strays in.

    python scripts/check_wheel.py

Exits with 1 and says what is wrong, else prints the wheel's size.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "evfi/weights/evfi-tiny/"
NETWORKS = ("vae", "unet", "controlnet")
BUDGET_BYTES = 44_000_000
"""For the weights of all networks together, in float16."""
SUFFIXES = {".py", ".json", ".safetensors", ".md", ".typed", ".css", ".js"}
DATA = (
    "evfi/report/style.css",
    "evfi/report/script.js",
    "evfi/evaluation/protocols/vdm-evfi.json",
    "evfi/evaluation/published.json",
)
"""Some of the data files without which a command does not work."""


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, str(ROOT)]
        subprocess.run(build, check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            sizes = {entry.filename: entry.file_size for entry in opened.infolist() if not entry.is_dir()}
        problems = find_problems(sizes)
        print(f"{wheel.name}: {len(sizes)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def find_problems(sizes: dict[str, int]) -> list[str]:
    """What is wrong with a wheel of these files and sizes."""
    problems = []
    for network in NETWORKS:
        for name in ("config.json", "diffusion_pytorch_model.safetensors"):
            if f"{WEIGHTS}{network}/{name}" not in sizes:
                problems.append(f"missing: {WEIGHTS}{network}/{name}")
    problems += [f"missing: {name}" for name in (f"{WEIGHTS}evfi.json", *DATA) if name not in sizes]
    weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    if weights > BUDGET_BYTES:
        problems.append(f"weights take {weights:,} bytes, the budget is {BUDGET_BYTES:,}")
    for name in sizes:
        in_package = name.startswith("evfi/")
        if not in_package and ".dist-info/" not in name:
            problems.append(f"outside the package: {name}")
        elif in_package and Path(name).suffix not in SUFFIXES:
            problems.append(f"of a kind that does not belong into the package: {name}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
