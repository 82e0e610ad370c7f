"""Peak memory of loading the full-size model, with random weights (no download needed).

    python scripts/measure_loading.py [--stored float16] [--loaded float16]

Writes a full-size Stable Video Diffusion base and event ControlNet of random numbers to a temporary folder (6 GB in float16,
12 GB in float32), loads it in a fresh process and prints that process's peak resident memory beside the size of the weights.
Every weight is touched once, as weights that stay in their files' mapped pages would otherwise not count. Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", default="float16", choices=["float16", "float32"], help="dtype of the files")
    parser.add_argument(
        "--loaded", default="float16", choices=["float16", "bfloat16", "float32"], help="dtype in memory"
    )
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load is not None:
        _load_and_report(arguments.load, getattr(torch, arguments.loaded))
        return
    with tempfile.TemporaryDirectory() as scratch:
        _write_model(Path(scratch), getattr(torch, arguments.stored))
        command = [sys.executable, __file__, "--load", scratch, "--loaded", arguments.loaded]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"stored {arguments.stored}, loaded {arguments.loaded}: weights {report['weights']:.2f} GiB in memory, "
        f"imports {report['imports']:.2f} GiB, peak resident {report['peak']:.2f} GiB, {report['seconds']:.1f} s"
    )


def _write_model(folder: Path, dtype: torch.dtype) -> None:
    for name, network in _networks().items():
        _write_network(
            network, folder / name, dtype, stem="model" if name == "image_encoder" else "diffusion_pytorch_model"
        )
    _write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"})


def _networks() -> dict[str, Any]:
    """The full-size networks on the meta device, where they take no memory."""
    from diffusers import AutoencoderKLTemporalDecoder
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from evfi.models.controlnet import EventControlNet
    from evfi.models.unet import EventUNet

    vision = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
        projection_dim=1024, hidden_act="gelu",
    )  # fmt: skip
    widths = (128, 256, 512, 512)
    with torch.device("meta"):
        return {
            "unet": EventUNet(num_attention_heads=(5, 10, 20, 20)),
            "controlnet": EventControlNet(),
            "vae": AutoencoderKLTemporalDecoder(block_out_channels=widths, layers_per_block=2, force_upcast=True),
            "image_encoder": CLIPVisionModelWithProjection(vision),
        }


def _write_network(network: Any, folder: Path, dtype: torch.dtype, *, stem: str) -> None:
    """Config and random weights, in one file as the published ones are, written tensor by tensor."""
    folder.mkdir(parents=True)
    if hasattr(network, "save_config"):
        network.save_config(folder)
    else:
        network.config.save_pretrained(folder)
    header: dict[str, Any] = {}
    end = 0
    for name, value in network.state_dict().items():
        start, end = end, end + value.numel() * dtype.itemsize
        label = {torch.float16: "F16", torch.float32: "F32"}[dtype]
        header[name] = {"dtype": label, "shape": list(value.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with (folder / f"{stem}.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for entry in header.values():
            file.write(torch.randn(entry["shape"]).mul_(0.02).to(dtype).numpy().tobytes())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _load_and_report(folder: Path, dtype: torch.dtype) -> None:
    from evfi.models.registry import load_model

    imports = _peak_gib()
    start = time.perf_counter()
    bundle = load_model(folder, dtype=dtype)
    seconds = time.perf_counter() - start
    values = [value for network in bundle.networks().values() for value in network.state_dict().values()]
    for value in values:
        value.sum()
    weights = sum(value.numel() * value.itemsize for value in values)
    print(json.dumps({"weights": weights / 2**30, "imports": imports, "peak": _peak_gib(), "seconds": seconds}))


def _peak_gib() -> float:
    """Peak resident memory since this process's start (getrusage would report the parent's, if that was larger)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20  # type: ignore[index]


if __name__ == "__main__":
    main()
