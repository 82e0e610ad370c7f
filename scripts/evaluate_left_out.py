"""Leave frames out of recordings, interpolate them, and compare with the truth and with linear blending.

python scripts/evaluate_left_out.py RECORDING ... [--keep-every 8] [--windows 4] [--model evfi-tiny] [--pictures FOLDER]

Every `keep-every`-th frame is a key frame; those between are the truth. `--windows` takes so many, spread evenly. PSNR in dB
over RGB in [0, 1], mean over the inserted frames; "moving" counts the pixels whose truth differs from either key frame by
more than 12 of 255 levels (mean over the channels), grown by 3 px.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

import evfi
from evfi.evaluation.metrics import moving_pixels, psnr
from evfi.pipeline.blending import blend_linearly
from evfi.recordings.recording import Recording
from evfi.training.validation import left_out_windows


def evaluate(
    recording: Recording, interpolator: evfi.Interpolator, keep_every: int, windows: int | None, pictures: Path | None
) -> dict[str, float]:
    """Mean figures over all inserted frames of the windows."""
    specs = left_out_windows(recording, keep_every - 1, windows or len(recording.frames))
    scores: dict[str, list[float]] = {}
    began, count = time.perf_counter(), 0
    for spec in specs:
        window = recording.load_window(spec)
        ours = interpolator.interpolate_window(window, seed=0)
        blends = blend_linearly(ours[0], ours[-1], spec.times_us)
        for index in range(1, len(ours) - 1):
            truth = recording.frames.read(spec.start_frame + index)
            mask = moving_pixels(truth, ours[0], ours[-1])
            count += 1
            for name, picture in (("ours", ours[index]), ("blending", blends[index])):
                scores.setdefault(name, []).append(psnr(picture[None], truth[None])[0])
                if mask.mean() > 0.001:
                    scores.setdefault(f"{name}_moving", []).append(psnr(picture[None], truth[None], mask)[0])
            if pictures is not None and index == len(ours) // 2:
                sheet = np.concatenate([ours[0], truth, ours[index], blends[index], ours[-1]], 1)
                pictures.mkdir(parents=True, exist_ok=True)
                Image.fromarray(sheet).save(pictures / f"{recording.path.stem}-{spec.index:04d}.png")
    figures = {name: round(float(np.mean(values)), 2) for name, values in scores.items()}
    return {"windows": len(specs), "frames": count, **figures,
            "seconds_per_frame": round((time.perf_counter() - began) / max(count, 1), 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--keep-every", type=int, default=8)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--model", default="evfi-tiny")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--no-detail", action="store_true")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    detail = False if arguments.no_detail else None
    interpolator = evfi.Interpolator.from_pretrained(
        arguments.model, num_inference_steps=arguments.steps, detail_restoration=detail
    )
    rows = {}
    for path in arguments.recordings:
        with evfi.open_recording(path) as recording:
            rows[path.name] = evaluate(
                recording, interpolator, arguments.keep_every, arguments.windows, arguments.pictures
            )
        print(path.name, json.dumps(rows[path.name]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
