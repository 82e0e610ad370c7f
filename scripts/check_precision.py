"""Sample with full-size networks of random weights: error of fp16 and bf16 against fp32, seconds and peak memory.

python scripts/check_precision.py OUTPUT.json [--steps 25] [--size 512 320] [--small]

Needs a CUDA device with about 30 GiB; --small runs tiny networks anywhere, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from evfi.models.bundle import ModelBundle
from evfi.models.random import random_bundle
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise
from evfi.sampling.two_sided import sample_window


def run(bundle: ModelBundle, inputs: WindowInputs, config: SamplingConfig, device: str) -> dict[str, Any]:
    """Latents, frames, seconds and peak GiB of one window."""
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    latents = sample_window(bundle, inputs, config, SeededNoise(0, 0))
    if cuda:
        torch.cuda.synchronize()
    sampled = time.perf_counter()
    with torch.inference_mode():
        frames = bundle.decode(latents, config.decode_chunk_size).float().clamp(-1, 1)
    if cuda:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")
    seconds = {"sampling_s": sampled - start, "decoding_s": time.perf_counter() - sampled, "peak_gib": peak}
    return {"latents": latents.float().cpu(), "frames": frames.cpu(), **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 320), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--frames", type=int, nargs="+", default=(5, 13))
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    width, height = arguments.size
    config = SamplingConfig(num_inference_steps=arguments.steps)
    generator = torch.Generator().manual_seed(1)
    rows, references = [], {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        bundle = random_bundle("small-random" if arguments.small else "svd-random", dtype=dtype, device=device)
        for frames in arguments.frames:
            inputs = WindowInputs(
                torch.rand(2, 3, height, width, generator=generator.manual_seed(1)) * 2 - 1,
                (torch.rand(2, frames, 6, height, width, generator=generator) - 0.5).round(decimals=0),
            )
            if dtype == torch.float16:
                run(bundle, inputs, SamplingConfig(num_inference_steps=1), device)  # warm-up
            result = run(bundle, inputs, config, device)
            row = {"dtype": str(dtype).removeprefix("torch."), "frames": frames}
            row |= {key: round(result[key], 3) for key in ("sampling_s", "decoding_s", "peak_gib")}
            if dtype == torch.float32:
                references[frames] = result
            for name in ("latents", "frames"):
                error = (result[name] - references[frames][name]).norm() / references[frames][name].norm()
                row[f"{name}_relative_error"] = float(f"{float(error):.3g}")
            row["finite"] = bool(result["frames"].isfinite().all())
            rows.append(row)
            print(row, flush=True)
        del bundle
        if device == "cuda":
            torch.cuda.empty_cache()
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    meta = {"device": name, "torch": torch.__version__, "steps": arguments.steps, "size": [width, height]}
    arguments.output.write_text(json.dumps({**meta, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
