"""Measure what the presets and their ingredients cost in quality.

    python scripts/measure_presets.py prepare VIDEO_OR_RECORDING ... -o build/presets
    python scripts/measure_presets.py measure build/presets -o OUT --device cuda

prepare: windows of videos (events simulated as in `evfi evaluate`) and of recordings become small files, so that measuring
needs neither videos nor their decoder; the weights of ST-LPIPS are put beside them where their package is installed.
measure: every row samples the windows with evfi-tiny. Frames are compared with those of the first row, "exact" at 25 steps,
and with the truth. OUT/presets.json grows row by row, and the same call goes on there; OUT/presets.md is the table.
The refiner is left out: it would hide differences, and what it makes alone (preset warp) is no way of sampling.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from evfi.errors import EvfiError
from evfi.events.stream import EventStream
from evfi.interpolator import Interpolator
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Window
from evfi.sampling.config import SamplingConfig
from evfi.sampling.denoiser import step_modes
from evfi.sampling.presets import PRESETS, with_preset

EXACT: Final = "exact"
STEPS: Final = 25
METRICS: Final = ("psnr_rgb", "ssim_y_pyiqa", "stlpips_alex")
GUIDED: Final = {"max_guidance_scale": 3.0}
DPMPP: Final = {"solver": "dpmpp_2m", "s_churn": 0.0}
ADAMS: Final = {"solver": "adams_bashforth", "s_churn": 0.0}


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        changes: settings that differ from the model's own at `STEPS` steps.
        beside: the row whose frames count as exact.
        seed: of the noise.
    """

    changes: dict[str, Any]
    beside: str = EXACT
    seed: int = 0


def _preset_changes(own: dict[str, Any], name: Any) -> dict[str, Any]:
    return {key: value for key, value in with_preset(own, name).items() if own.get(key) != value}


def table_rows(own: dict[str, Any]) -> dict[str, Row]:
    """All rows by name.

    Args:
        own: the model's settings at `STEPS` steps.
    """
    rows = {EXACT: Row({}), "exact, another seed": Row({}, seed=1), "churn 0.5": Row({"s_churn": 0.5})}
    for steps in (16, 12, 8):
        rows[f"euler, {steps} steps"] = Row({"num_inference_steps": steps})
    for steps in (STEPS, 16, 12, 8):
        rows[f"dpmpp_2m, {steps} steps"] = Row({**DPMPP, "num_inference_steps": steps})
    for steps in (16, 12, 8):
        rows[f"adams_bashforth, {steps} steps"] = Row({**ADAMS, "num_inference_steps": steps})
    for interval in (2, 3):
        rows[f"reuse {interval}"] = Row({"reuse_interval": interval})
    rows["dpmpp_2m, 16 steps, reuse 2"] = Row({**DPMPP, "num_inference_steps": 16, "reuse_interval": 2})
    for name in PRESETS:
        if name != EXACT and PRESETS[name].get("diffusion", True):
            rows[f"preset {name}"] = Row(_preset_changes(own, name))
    rows["own steps"] = Row({"num_inference_steps": 3})
    rows["guided"] = Row(dict(GUIDED))
    for start, end in ((0.0, 0.6), (0.2, 0.8), (0.4, 1.0)):
        rows[f"guided from {start} to {end}"] = Row(
            {**GUIDED, "guidance_start": start, "guidance_end": end}, beside="guided"
        )
    return rows


def prepare(arguments: argparse.Namespace) -> None:
    """Write the windows."""
    from evfi.evaluation.plan import true_frames
    from evfi.evaluation.protocol import load_protocol
    from evfi.evaluation.results import WindowRecord
    from evfi.evaluation.selection import select_windows, spread
    from evfi.evaluation.sequences import VideoOptions, find_sequences, prepare_sequence

    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    protocol = load_protocol("raw")
    for name, path in find_sequences(arguments.data).items():
        video = VideoOptions(height=arguments.height, max_frames=arguments.max_frames)
        sequence = prepare_sequence(name, path, folder.with_name(f"{folder.name}-simulated"), video=video)
        with sequence.open() as recording:
            windows = [one for one in select_windows(recording, protocol, arguments.skip) if one.dropped is None]
            for selected in spread(windows, arguments.windows):
                spec = selected.spec
                times = tuple(int(moment) for moment in spec.times_us)
                record = WindowRecord(
                    name, arguments.skip, spec.index, spec.start_frame, spec.end_frame, times, dropped=None
                )
                window = recording.load_window(spec)
                if len(window.events):
                    _write_window(folder / f"{name}_{spec.index:05d}.npz", window, true_frames(recording, record))
    _copy_weights(folder)
    size = sum(file.stat().st_size for file in folder.glob("*.npz"))
    print(f"{len(list(folder.glob('*.npz')))} windows, {size / 2**20:.1f} MiB")


def _write_window(path: Path, window: Window, truth: NDArray[np.uint8]) -> None:
    events = window.events
    is_grey = bool((truth == truth[..., :1]).all())
    np.savez_compressed(
        path,
        truth=truth[..., :1] if is_grey else truth,
        times_us=window.spec.times_us,
        index=np.array(window.spec.index),
        x=events.x.astype(np.uint16),
        y=events.y.astype(np.uint16),
        t=(events.t - window.spec.times_us[0]).astype(np.uint32),
        p=events.p,
        sensor_size=np.array(events.sensor_size),
    )


def _copy_weights(folder: Path) -> None:
    """Weights of ST-LPIPS into the cache that `measure` looks at."""
    from evfi.evaluation.metrics.metric_weights import SHIFT_TOLERANT_ALEX, find_published

    try:
        found = find_published(SHIFT_TOLERANT_ALEX)
    except EvfiError as error:
        print(f"without ST-LPIPS: {error}")
        return
    (folder / "cache" / "metrics").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, folder / "cache" / "metrics" / SHIFT_TOLERANT_ALEX.name)


def read_windows(folder: Path, limit: int | None) -> dict[str, tuple[Window, NDArray[np.uint8]]]:
    """Windows and their true frames by name; at most `limit` of each sequence, the first ones."""
    windows: dict[str, tuple[Window, NDArray[np.uint8]]] = {}
    seen: dict[str, int] = {}
    for path in sorted(folder.glob("*.npz")):
        sequence = path.stem.rpartition("_")[0]
        seen[sequence] = seen.get(sequence, 0) + 1
        if limit is not None and seen[sequence] > limit:
            continue
        with np.load(path) as data:
            truth = np.broadcast_to(data["truth"], (*data["truth"].shape[:3], 3)).copy()
            times = data["times_us"].astype(np.int64)
            moments = data["t"].astype(np.int64) + times[0]
            width, height = (int(side) for side in data["sensor_size"])
            events = EventStream.from_arrays(data["x"], data["y"], moments, data["p"], (width, height))
            spec = WindowSpec(int(data["index"]), 0, len(times) - 1, times)
        windows[path.stem] = Window(spec, truth[0], truth[-1], events), truth
    if not windows:
        raise SystemExit(f"no windows in {folder}; run `prepare` first")
    return windows


Scores = dict[str, Callable[[Any], Any]]


def load_scores(device: torch.device) -> Scores:
    """The metrics that can be computed here."""
    from evfi.evaluation.metrics.registry import metric_named

    scores: Scores = {}
    for name in METRICS:
        try:
            scores[name] = metric_named(name).load(device)
        except EvfiError as error:
            print(f"without {name}: {error}", flush=True)
    return scores


def work_of(config: SamplingConfig, reuse_share: float) -> float:
    """Network calls for one item, a call that reuses deep features counted as its share of a full one."""
    modes = step_modes(config, config.num_inference_steps)
    return sum((2 if mode.guided else 1) * (reuse_share if mode.reuse else 1.0) for mode in modes)


def measure(arguments: argparse.Namespace) -> None:
    """Sample, score and write."""
    os.environ["EVFI_CACHE"] = str((arguments.data / "cache").absolute())
    windows = read_windows(arguments.data, arguments.windows)
    interpolator = Interpolator.from_pretrained("evfi-tiny", arguments.device, arguments.dtype, engine=arguments.engine)
    own = {**interpolator.bundle.sampling, "num_inference_steps": arguments.steps, "refinement": False}
    scores = load_scores(interpolator.bundle.unet.device)
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "presets.json"
    conditions = {
        "device": str(interpolator.bundle.unet.device),
        "dtype": str(interpolator.bundle.unet.dtype),
        "engine": arguments.engine,
        "steps": arguments.steps,
        "windows": list(windows),
    }
    results = read_results(file, conditions)
    for name, row, made in _made_rows(interpolator, own, windows, arguments, results["rows"]):
        began, config, frames, exact = made
        changes = json.loads(json.dumps(row.changes))
        seconds = time.perf_counter() - began
        results["rows"][name] = {
            "changes": changes,
            "beside": row.beside,
            "work": work_of(config, arguments.reuse_share),
            "seconds": seconds,
            "exact": compare(frames, exact, windows, scores),
            "truth": compare(frames, {key: truth for key, (_, truth) in windows.items()}, windows, scores),
        }
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{seconds:6.1f} s  {name}", flush=True)
    table = markdown(results)
    (arguments.output / "presets.md").write_text(table, encoding="utf-8")
    print(table)


def read_results(file: Path, conditions: dict[str, Any]) -> dict[str, Any]:
    """Rows measured before under the same conditions."""
    if not file.exists():
        return {"conditions": conditions, "rows": {}}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if results["conditions"] != conditions:
        raise SystemExit(f"{file} was measured under other conditions; choose another folder")
    return results


Frames = dict[str, NDArray[np.uint8]]


def _made_rows(
    interpolator: Interpolator,
    own: dict[str, Any],
    windows: dict[str, tuple[Window, NDArray[np.uint8]]],
    arguments: argparse.Namespace,
    done: dict[str, Any],
) -> Iterator[tuple[str, Row, tuple[float, SamplingConfig, Frames, Frames]]]:
    """Rows that are missing, with (when sampling began, settings, frames, frames of the row beside)."""
    rows = table_rows(own)
    missing = [name for name in rows if name not in done and (not arguments.rows or name in arguments.rows)]
    needed = {rows[name].beside for name in missing}
    kept: dict[str, Frames] = {}
    for name, row in rows.items():
        if name not in missing and name not in needed:
            continue
        interpolator.config = config = SamplingConfig.from_defaults({**own, **row.changes})
        if not kept:  # the first row would be charged for whatever is prepared once
            interpolator.interpolate_window(next(iter(windows.values()))[0])
        began = time.perf_counter()
        frames = {key: interpolator.interpolate_window(window, seed=row.seed) for key, (window, _) in windows.items()}
        if name in needed:
            kept[name] = frames
        if name in missing:
            yield name, row, (began, config, frames, kept[row.beside])


def compare(
    frames: Frames, reference: Frames, windows: dict[str, tuple[Window, NDArray[np.uint8]]], scores: Scores
) -> dict[str, float]:
    """Average over windows of the average over inserted frames; PSNR of equal frames counts as 100 dB."""
    from evfi.evaluation.metrics.base import ALL, ScoredWindow

    averages: dict[str, float] = {}
    for name, score in scores.items():
        values = [
            score(ScoredWindow(frames[key], reference[key], window.spec.times_us))[ALL].mean()
            for key, (window, _) in windows.items()
        ]
        averages[name] = float(np.mean(values))
    return averages


def markdown(results: dict[str, Any]) -> str:
    """The table."""
    names = [name for name in METRICS if any(name in row["truth"] for row in results["rows"].values())]
    titles = {"psnr_rgb": "PSNR", "ssim_y_pyiqa": "SSIM", "stlpips_alex": "ST-LPIPS"}
    heads = ["", "work", "s", *(f"{titles[name]} to {to}" for to in ("exact", "truth") for name in names)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for title, row in results["rows"].items():
        base = results["rows"].get(row["beside"], row)
        cells = [title, f"{row['work'] / base['work']:.2f}", f"{row['seconds']:.1f}"]
        cells += [_cell(name, row[to].get(name)) for to in ("exact", "truth") for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if name == "psnr_rgb" else f"{value:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare")
    first.add_argument("data", type=Path, nargs="+")
    first.add_argument("-o", "--output", type=Path, required=True)
    first.add_argument("--height", type=int, default=256)
    first.add_argument("--max-frames", type=int, default=65)
    first.add_argument("--skip", type=int, default=7)
    first.add_argument("--windows", type=int, default=2, help="of each sequence")
    first.set_defaults(run=prepare)
    second = commands.add_parser("measure")
    second.add_argument("data", type=Path)
    second.add_argument("-o", "--output", type=Path, required=True)
    second.add_argument("--device", default="auto")
    second.add_argument("--dtype")
    second.add_argument("--engine", choices=("plain", "fast"), default="plain")
    second.add_argument("--steps", type=int, default=STEPS, help="of exact; others only to try the script")
    second.add_argument("--windows", type=int, help="at most so many of each sequence")
    second.add_argument("--rows", nargs="+", help="these only")
    second.add_argument("--reuse-share", type=float, default=0.25, help="work of a reusing call; a full one is 1")
    second.set_defaults(run=measure)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
