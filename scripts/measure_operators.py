"""Time the operators that the networks are made of, one by one, in the shapes of the published sizes.

python scripts/measure_operators.py OUTPUT.json [--items 16] [--frames 5]

Answers, on the GPU at hand: which attention kernel is best for which shape, what convolutions and matrix products reach,
whether a temporal convolution is better off as a two-dimensional one, and what the machine's ceilings are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE, DTYPE = "cuda", torch.float16
LEVELS = ((320, 40, 64), (640, 20, 32), (1280, 10, 16), (1280, 5, 8))
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def milliseconds(call: Callable[[], Any]) -> float:
    """Median of some runs, after two."""
    for _ in range(2):
        call()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(7)]
    for start, end in marks:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return sorted(start.elapsed_time(end) for start, end in marks)[len(marks) // 2]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=DTYPE)


class Table:
    """Rows of measurements, printed as they come."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, call: Callable[[], Any], tflop: float = 0.0, gigabytes: float = 0.0) -> None:
        """Measure one call."""
        try:
            took = milliseconds(call)
        except RuntimeError as error:
            print(f"{name:60} {str(error).splitlines()[0][:60]}", flush=True)
            return
        row = {"name": name, "ms": round(took, 4)}
        row |= {"tflop_s": round(tflop / took * 1e3, 1)} if tflop else {}
        row |= {"gb_s": round(gigabytes / took * 1e3)} if gigabytes else {}
        self.rows.append(row)
        print(f"{name:60} {took:9.3f} ms {row.get('tflop_s', ''):>8} {row.get('gb_s', ''):>8}", flush=True)


def ceilings(table: Table) -> None:
    a, b = normal(8192, 8192), normal(8192, 8192)
    table.add("matmul 8192", lambda: a @ b, 2 * 8192**3 / 1e12)
    x = normal(512, 1024, 1024)
    y = torch.empty_like(x)
    table.add("copy 1 GiB", lambda: y.copy_(x), gigabytes=2 * x.nbytes / 1e9)


def convolutions(table: Table, items: int, frames: int) -> None:
    number = items * frames
    for benchmark in (False, True):
        torch.backends.cudnn.benchmark = benchmark
        word = "benchmark" if benchmark else "heuristic"
        for channels, height, width in LEVELS:
            x = normal(number, channels, height, width).to(memory_format=torch.channels_last)
            w = normal(channels, channels, 3, 3).to(memory_format=torch.channels_last)
            flop = 2 * number * height * width * channels**2 * 9 / 1e12
            table.add(f"conv3x3 {channels} {height}x{width} {word}", lambda x=x, w=w: F.conv2d(x, w, padding=1), flop)
            bias = normal(channels)
            if not benchmark:
                call = lambda x=x, w=w, b=bias: F.conv2d(x, w, b, padding=1)  # noqa: E731
                table.add(f"conv3x3+bias {channels} {word}", call, flop)
            # temporal, as a two-dimensional convolution over (frames, pixels)
            t = normal(items, channels, frames, height * width).to(memory_format=torch.channels_last)
            v = normal(channels, channels, 3, 1).to(memory_format=torch.channels_last)
            flop = 2 * number * height * width * channels**2 * 3 / 1e12
            call = lambda t=t, v=v: F.conv2d(t, v, padding=(1, 0))  # noqa: E731
            table.add(f"temporal as 2d {channels} {word}", call, flop)
            t3 = t.unflatten(3, (height, width)).to(memory_format=torch.channels_last_3d)
            v3 = v.unsqueeze(-1).to(memory_format=torch.channels_last_3d)
            call = lambda t=t3, v=v3: F.conv3d(t, v, padding=(1, 0, 0))  # noqa: E731
            table.add(f"temporal as 3d channels-last {channels} {word}", call, flop)
            rows = t.permute(0, 2, 3, 1).contiguous()  # [B, F, P, C]
            padded = F.pad(rows, (0, 0, 0, 0, 1, 1))
            taps = [normal(channels, channels) for _ in range(3)]

            def shifted(padded: Tensor = padded, taps: list[Tensor] = taps, frames: int = frames) -> Tensor:
                total = torch.matmul(padded[:, :frames], taps[0])
                for tap in (1, 2):
                    total += torch.matmul(padded[:, tap : tap + frames], taps[tap])
                return total

            table.add(f"temporal as 3 products {channels}", shifted, flop)
    torch.backends.cudnn.benchmark = False
    x = normal(number, 960, 40, 64).to(memory_format=torch.channels_last)
    w = normal(320, 960, 3, 3).to(memory_format=torch.channels_last)
    table.add("conv3x3 960->320", lambda: F.conv2d(x, w, padding=1), 2 * number * 2560 * 960 * 320 * 9 / 1e12)


def products(table: Table, items: int, frames: int) -> None:
    for channels, height, width in LEVELS[:3]:
        rows = items * frames * height * width
        x, wide = normal(rows, channels), normal(rows, 4 * channels)
        flop = 2 * rows * channels**2 / 1e12
        bias = {k: normal(k * channels) for k in (1, 3, 8)}
        weight = {k: normal(k * channels, channels) for k in (1, 3, 8)}
        down = normal(channels, 4 * channels)
        for k in (1, 3, 8):
            call = lambda x=x, w=weight[k], b=bias[k]: F.linear(x, w, b)  # noqa: E731
            table.add(f"linear {channels}->{k * channels} rows {rows}", call, k * flop)
        table.add(f"linear {4 * channels}->{channels}", lambda x=wide, w=down, b=bias[1]: F.linear(x, w, b), 4 * flop)
        call = lambda x=wide, w=down, r=x: torch.addmm(r, x, w.t())  # noqa: E731
        table.add(f"addmm with residual {4 * channels}->{channels}", call, 4 * flop)


def attention(table: Table, items: int, frames: int) -> None:
    for channels, height, width in LEVELS:
        heads, tokens, number = channels // 64, height * width, items * frames
        qkv = normal(number, tokens, 3, heads, 64)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        flop = 4 * number * heads * tokens**2 * 64 / 1e12
        for name, backend in BACKENDS.items():

            def call(q: Tensor = q, k: Tensor = k, v: Tensor = v, backend: SDPBackend = backend) -> Tensor:
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v)

            table.add(f"attention {tokens} tokens {heads} heads {name}", call, flop)
        rows = normal(items * height * width, frames, 3, heads, 64)
        q, k, v = (part.transpose(1, 2) for part in rows.unbind(2))
        call2 = lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v)  # noqa: E731
        table.add(f"temporal attention {channels} torch", call2, gigabytes=4 / 3 * rows.nbytes / 1e9)


def pointwise(table: Table, items: int, frames: int) -> None:
    channels, height, width = LEVELS[0]
    x = normal(items * frames, channels, height, width).to(memory_format=torch.channels_last)
    gamma = normal(channels)
    table.add("group_norm channels-last", lambda: F.group_norm(x, 32, gamma, gamma), gigabytes=2 * x.nbytes / 1e9)
    table.add("silu", lambda: F.silu(x), gigabytes=2 * x.nbytes / 1e9)
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    call = lambda: F.layer_norm(rows, (channels,), gamma, gamma)  # noqa: E731
    table.add("layer_norm", call, gigabytes=2 * x.nbytes / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--frames", type=int, default=5)
    arguments = parser.parse_args()
    table = Table()
    torch.manual_seed(0)
    with torch.inference_mode():
        ceilings(table)
        for part in (convolutions, products, attention, pointwise):
            part(table, arguments.items, arguments.frames)
    meta = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "items": arguments.items}
    arguments.output.write_text(json.dumps({**meta, "rows": table.rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
