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
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from evfi.events.stacks import StackConfig
from evfi.models.bundle import ModelBundle, ModelInfo
from evfi.models.controlnet import EventControlNet
from evfi.models.unet import EventUNet
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise
from evfi.sampling.two_sided import sample_window

SCHEDULER = {
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}
SMALL = {
    "block_out_channels": (32, 32, 64, 64),
    "num_attention_heads": (1, 1, 2, 2),
    "cross_attention_dim": 32,
    "layers_per_block": 1,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
}


def random_bundle(device: str, small: bool) -> ModelBundle:
    """Networks of the published sizes (or tiny ones) with random weights, float32."""
    sizes: dict[str, Any] = SMALL if small else {"num_attention_heads": (5, 10, 20, 20)}
    widths = (32, 32, 32, 32) if small else (128, 256, 512, 512)
    clip = (
        CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, projection_dim=32
        )
        if small
        else CLIPVisionConfig(
            hidden_size=1280,
            intermediate_size=5120,
            num_hidden_layers=32,
            num_attention_heads=16,
            patch_size=14,
            projection_dim=1024,
            hidden_act="gelu",
        )
    )
    torch.manual_seed(0)
    with torch.device(device):
        bundle = ModelBundle(
            vae=AutoencoderKLTemporalDecoder(
                block_out_channels=widths,
                down_block_types=("DownEncoderBlock2D",) * 4,
                layers_per_block=1 if small else 2,
                latent_channels=4,
            ),
            unet=EventUNet(**sizes),
            controlnet=EventControlNet(**sizes),
            scheduler=SCHEDULER,
            event_stack=StackConfig(),
            info=ModelInfo("random", "none", "random weights", 5),
            image_encoder=CLIPVisionModelWithProjection(clip),
        )
    generator = torch.Generator(device).manual_seed(0)
    for module in bundle.controlnet.modules():  # zero convolutions would hide the ControlNet
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.5 * module.weight[0].numel() ** -0.5, generator=generator)
    return bundle.eval()


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
        bundle = random_bundle(device, arguments.small).to(device, dtype)
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
