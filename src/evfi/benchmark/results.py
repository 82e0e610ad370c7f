"""Benchmark results: one row per case, preset and engine, as text and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from evfi.files import written_whole

RESULTS_FORMAT: Final = 1


@dataclass(frozen=True)
class Row:
    """One engine on one case; what was not measured is None or absent.

    Attributes:
        case: its name.
        width: of the pictures that the networks see, in pixels.
        height: the same.
        frames: per window, key frames included.
        tiles: that the pictures are cut into.
        preset: the settings.
        engine: the engine's name.
        plan: how the engine does it, in its own words, or its class.
        steps: denoising steps that the figures are for.
        failure: why there are no figures; empty if there are.
        seconds: of the median run: sampling, decoding, total, step, and conditioning where all steps are alike.
        runs_s: the totals of all runs.
        extrapolated_from_steps: the steps that were made, if fewer: `seconds`, `runs_s` and what follows from them are
            extrapolated linearly in the number of steps.
        frames_per_s: inserted frames per second.
        tflop: operations of the plain computation with these settings, in 10^12.
        tflop_per_s: those, divided by the seconds.
        peak_share: that as a share of the measured matrix product.
        memory_gib: peaks; of tensors ("allocated") and of what PyTorch held ("reserved") on the GPU, or of the whole process
            since it began ("process").
        estimated_gib: the peak of tensors that the engine planned for before it began.
        cold_start_s: from making the engine to the end of its first window.
        cold_start_steps: steps of that first window.
        errors: relative L2 distances of latents and frames, by what they are distances from: plain or float32.
        errors_at_steps: steps of the windows that were compared.
        reference_s: seconds of the reference implementation on an H100 for 25 steps, where known.
        reference_gib: its peak memory.
    """

    case: str
    width: int
    height: int
    frames: int
    tiles: int
    preset: str
    engine: str
    steps: int
    plan: str = ""
    failure: str = ""
    seconds: dict[str, float | None] = field(default_factory=dict)
    runs_s: list[float] = field(default_factory=list)
    extrapolated_from_steps: int | None = None
    frames_per_s: float | None = None
    tflop: float | None = None
    tflop_per_s: float | None = None
    peak_share: float | None = None
    memory_gib: dict[str, float] = field(default_factory=dict)
    estimated_gib: float | None = None
    cold_start_s: float | None = None
    cold_start_steps: int | None = None
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    errors_at_steps: int | None = None
    reference_s: float | None = None
    reference_gib: float | None = None


def write_results(path: Path, settings: dict[str, Any], rows: list[Row]) -> None:
    """Write what was found up to now, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {"format": RESULTS_FORMAT, **settings, "rows": [asdict(row) for row in rows]}
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    with written_whole(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have: errors of results that are not finite."""
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_COLUMNS: Final = (
    ("case", -18),
    ("preset", -9),
    ("engine", -7),
    ("seconds", 9),
    ("sampling", 9),
    ("decoding", 9),
    ("frames/s", 9),
    ("TFLOP/s", 8),
    ("of peak", 8),
    ("GiB", 7),
    ("held", 7),
    ("planned", 8),
    ("cold s", 8),
    ("vs plain", 9),
    ("vs fp32", 9),
    ("reference", 17),
)


def header() -> str:
    """The names of the columns."""
    return _line([name for name, _ in _COLUMNS])


def as_line(row: Row) -> str:
    """A row in the columns of `header`; errors are of frames, and ~ marks what is extrapolated."""
    if row.failure:
        return f"{_line([row.case, row.preset, row.engine])}  {row.failure}"
    mark = "~" if row.extrapolated_from_steps is not None else ""
    memory = list(row.memory_gib.values())
    known = "" if row.reference_s is None else f"{row.reference_s:g} s, {row.reference_gib:g} GiB"
    cells = [
        row.case,
        row.preset,
        row.engine,
        *(mark * (name != "decoding") + _seconds(row.seconds.get(name)) for name in ("total", "sampling", "decoding")),
        mark + _number(row.frames_per_s, "{:.3g}"),
        mark + _number(row.tflop_per_s, "{:.3g}"),
        mark + _number(row.peak_share, "{:.1%}"),
        _number(memory[0] if memory else None, "{:.2f}"),
        _number(memory[1] if len(memory) > 1 else None, "{:.2f}"),
        _number(row.estimated_gib, "{:.2f}"),
        _seconds(row.cold_start_s),
        _number(row.errors.get("plain", {}).get("frames"), "{:.1e}"),
        _number(row.errors.get("float32", {}).get("frames"), "{:.1e}"),
        known,
    ]
    return _line(cells)


def notes(rows: list[Row]) -> list[str]:
    """What has to be said about the table, a line each."""
    found = []
    steps = sorted(
        {(row.extrapolated_from_steps, row.steps) for row in rows if row.extrapolated_from_steps is not None}
    )
    found += [f"~: {made} steps were run; seconds are extrapolated to {all_of}" for made, all_of in steps]
    compared = sorted({row.errors_at_steps for row in rows if row.errors_at_steps not in (None, row.steps)})
    found += [f"errors of frames are measured after windows of {made} steps" for made in compared]
    cold = sorted({row.cold_start_steps for row in rows if row.cold_start_steps not in (None, row.steps)})
    found += [f"cold starts end with a window of {made} steps where timed windows have more" for made in cold]
    if any("process" in row.memory_gib for row in rows):
        found.append("GiB: peak memory of the process so far, including earlier rows")
    return found


def _line(cells: list[str]) -> str:
    widths = [width for _, width in _COLUMNS]
    return " ".join(
        f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False)
    ).rstrip()


def _seconds(value: float | None) -> str:
    return _number(value, "{:.1f}" if value is not None and value >= 100 else "{:.3g}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
