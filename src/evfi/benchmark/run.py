"""Run a benchmark: all cases from the smallest to the largest, each with every preset and engine."""

from __future__ import annotations

import datetime
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from evfi.benchmark.cases import Case, find_cases, make_inputs
from evfi.benchmark.config import BenchmarkConfig
from evfi.benchmark.measure import (
    Measurement,
    Outputs,
    matmul_peak,
    measure,
    reset_memory,
    run_window,
)
from evfi.benchmark.operations import OperationCounter
from evfi.benchmark.results import Row, write_results
from evfi.engine.base import Engine, EngineName, PlainEngine
from evfi.engine.devices import resolve_device, resolve_dtype
from evfi.engine.memory import GIB, parse_memory
from evfi.errors import ConfigError, ResourceError
from evfi.evaluation.environment import processor_name
from evfi.files import check_writable
from evfi.interpolator import Interpolator, memory_errors_told
from evfi.models.bundle import ModelBundle
from evfi.models.random import RANDOM_MODELS, random_bundle
from evfi.models.registry import load_model
from evfi.sampling.conditioning import WindowInputs, window_grid
from evfi.sampling.config import SamplingConfig
from evfi.sampling.denoiser import step_modes
from evfi.sampling.presets import PRESETS, PresetName, with_preset

_log = logging.getLogger(__name__)

_TERA: Final = 1e12
_PUBLISHED_WIDTHS: Final = (320, 640, 1280, 1280)
"""Of the UNet that the reference implementation was measured with."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """A benchmark to run.

    Attributes:
        model: a name of `RANDOM_MODELS`, or what `evfi.models.registry.load_model` takes.
        cases: see `evfi.benchmark.cases.find_cases`.
        presets: the presets.
        engines: the engines; errors of the others are relative to "plain" if it is among them.
        device: see `evfi.engine.devices.resolve_device`.
        dtype: see `evfi.engine.devices.resolve_dtype`.
        against_float32: also tell errors against the plain engine in float32, in the preset exact.
        json: where results are written after every row; None: nowhere.
        config: what is measured.
    """

    model: str
    cases: tuple[str, ...]
    presets: tuple[PresetName, ...]
    engines: tuple[EngineName, ...]
    device: str = "auto"
    dtype: str | None = None
    against_float32: bool = False
    json: Path | None = None
    config: BenchmarkConfig = field(default_factory=BenchmarkConfig)


@dataclass(frozen=True, eq=False)
class _Window:
    """One case as it is measured with one preset.

    Attributes:
        case: the case.
        inputs: its key images and events.
        preset: the preset's name.
        full: the settings that figures are for.
        compared: the settings of the windows that are compared.
        counter: counts operations.
        tiles: their number.
    """

    case: Case
    inputs: WindowInputs
    preset: PresetName
    full: SamplingConfig
    compared: SamplingConfig
    counter: OperationCounter
    tiles: int

    @property
    def shortened(self) -> bool:
        """Whether windows are compared after fewer steps."""
        return self.compared != self.full


class Benchmark:
    """Measures row by row."""

    def __init__(self, request: BenchmarkRequest) -> None:
        """Check the request and load the model.

        Raises:
            ConfigError: a setting or a case is unknown or out of range.
            ModelError: the model cannot be found or loaded.
            ResourceError: there is no such device.
            OutputError: the results cannot be written.
        """
        _check_presets(request.presets)
        self._cases = find_cases(request.cases)
        self._device = resolve_device(request.device)
        self._dtype = resolve_dtype(request.dtype, self._device)
        if request.json is not None:
            check_writable(request.json)
        self._request = replace(  # the plain engine first: others are compared with it
            request, engines=tuple(sorted(dict.fromkeys(request.engines), key=lambda name: name != "plain"))
        )
        limit = request.config.max_memory
        self._limit = None if limit is None else parse_memory(limit)
        self._bundle = self._load(self._dtype)
        self._side, self._peak = matmul_peak(self._device, self._dtype)
        self.settings = self._describe()
        self.rows: list[Row] = []

    def run(self) -> Iterator[Row]:
        """Measure; every row is written to the results before it is given out."""
        for case in self._cases:
            for window in self._windows(case):
                for row in self._measured(window):
                    self.rows.append(row)
                    if self._request.json is not None:
                        write_results(self._request.json, self.settings, self.rows)
                    yield row

    def _load(self, dtype: torch.dtype) -> ModelBundle:
        """Load the model onto the device; it shall not lie in pieces of what was used there before."""
        reset_memory(self._device)
        model = self._request.model
        with memory_errors_told(f"to load model {model} on {self._device}; use a smaller model"):
            if model in RANDOM_MODELS:
                return random_bundle(model, dtype=dtype, device=self._device)
            return load_model(model, dtype=dtype, device=self._device)

    def _describe(self) -> dict[str, Any]:
        cuda = self._device.type == "cuda"
        return {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model": self._bundle.info.name,
            "device": torch.cuda.get_device_name(self._device) if cuda else processor_name(),
            "dtype": str(self._dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "matmul": {"side": self._side, "tflop_per_s": self._peak / _TERA},
            "settings": asdict(self._request.config),
        }

    def _windows(self, case: Case) -> Iterator[_Window]:
        """A case with every preset; inputs and operations are made once."""
        factor, sampling = self._bundle.vae_factor, self._bundle.sampling
        inputs = make_inputs(case, self._bundle.event_stack.num_channels, factor)
        width, height = case.model_size(factor)
        grid = window_grid(self._bundle, height, width, SamplingConfig.from_defaults(sampling))
        counter = OperationCounter(self._bundle, grid, (width // factor, height // factor), case.frames)
        for preset in self._request.presets:
            defaults = with_preset(sampling, preset)
            full = SamplingConfig.from_defaults(defaults, num_inference_steps=self._request.config.steps)
            short = self._request.config.plain_steps
            compared = replace(
                full, num_inference_steps=min(short or full.num_inference_steps, full.num_inference_steps)
            )
            yield _Window(case, inputs, preset, full, compared, counter, len(grid.views))

    def _measured(self, window: _Window) -> Iterator[Row]:
        """The rows of one window, one per engine."""
        references: dict[str, Outputs] = {}
        if self._request.against_float32 and window.preset == "exact":
            try:
                references["float32"] = self._float32_outputs(window)
            except ResourceError as error:
                _log.warning("errors against float32 were not measured: %s", error)
        for engine in self._request.engines:
            if engine == "plain" and window.preset != "exact" and self._request.config.plain_steps is not None:
                continue
            row = self._blank(window, engine)
            try:
                with memory_errors_told(f"for case {window.case.name} on {self._device}"):
                    measurement = self._measure(window, engine)
            except ResourceError as error:
                row = replace(row, failure=str(error))
            if row.failure:
                del self._bundle  # an engine that failed may have left weights off the device
                self._bundle = self._load(self._dtype)
                yield row
                continue
            made = self._compared(window, engine, measurement)
            errors = {name: made.errors(reference) for name, reference in references.items()}
            if engine == "plain":
                references["plain"] = made
            row = self._filled(row, window, measurement, errors)
            reset_memory(self._device)  # weights that return shall not lie in pieces of what the windows used
            measurement.engine.restore()
            del measurement  # its engine's memory is the next one's
            yield row

    def _measure(self, window: _Window, engine: EngineName) -> Measurement:
        config = self._request.config
        if self._is_tight(engine):
            self._bundle.to("cpu")
        return measure(
            self._maker(window.full, engine),
            window.inputs,
            window.compared,
            window.compared if engine == "plain" else window.full,
            self._device,
            warmup=config.warmup,
            runs=config.runs,
            limit_s=config.seconds_per_row,
        )

    def _is_tight(self, engine: EngineName) -> bool:
        """Whether an engine takes the model from the host's memory, part by part, because of the limit.

        Lying on the GPU as a whole it would be the peak of every plan that needs less.
        """
        if engine == "plain" or self._device.type != "cuda" or self._limit is None:
            return False
        return self._limit < 2 * self._bundle.num_bytes

    def _maker(self, config: SamplingConfig, engine: EngineName) -> Callable[[], Engine]:
        return lambda: (
            Interpolator(self._bundle, config, engine=engine, max_memory=self._limit, device=self._device).engine
        )

    def _compared(self, window: _Window, engine: EngineName, measurement: Measurement) -> Outputs:
        """What is compared: the last window, unless only the first had the steps that all are compared at."""
        return measurement.first if window.shortened and engine != "plain" else measurement.last

    def _float32_outputs(self, window: _Window) -> Outputs:
        """What the plain engine makes in float32, without the GPU's shortcuts."""
        with memory_errors_told(f"for the float32 reference of case {window.case.name}"), _exact_float32():
            engine = PlainEngine(self._load(torch.float32))
            return run_window(engine, window.inputs, window.compared, self._device)[1]

    def _blank(self, window: _Window, engine: EngineName) -> Row:
        height, width = window.inputs.key_images.shape[-2:]
        case, published = window.case, tuple(self._bundle.unet.config.block_out_channels) == _PUBLISHED_WIDTHS
        return Row(
            case=case.name,
            width=width,
            height=height,
            frames=case.frames,
            tiles=window.tiles,
            preset=window.preset,
            engine=engine,
            steps=window.full.num_inference_steps,
            reference_s=case.reference_s if published else None,
            reference_gib=case.reference_gib if published else None,
        )

    def _filled(self, row: Row, window: _Window, measurement: Measurement, errors: dict[str, dict[str, float]]) -> Row:
        shortened = window.shortened and row.engine == "plain"
        missing = row.steps - window.compared.num_inference_steps if shortened else 0
        runs = [run.stretched(missing) if missing else run for run in measurement.runs]
        median = measurement.median.stretched(missing) if missing else measurement.median
        operations = window.counter.count(window.full).total
        rate = operations / median.total
        return replace(
            row,
            plan=_plan(measurement.engine),
            estimated_gib=_estimated(measurement.engine),
            seconds={
                "sampling": median.sampling,
                "decoding": median.decoding,
                "total": median.total,
                "step": median.step,
                "conditioning": median.conditioning(row.steps) if _is_even(window.full) else None,
            },
            runs_s=[run.total for run in runs],
            extrapolated_from_steps=window.compared.num_inference_steps if shortened else None,
            frames_per_s=window.case.inserted / median.total,
            tflop=operations / _TERA,
            tflop_per_s=rate / _TERA,
            peak_share=rate / self._peak,
            memory_gib=measurement.memory,
            cold_start_s=measurement.cold_start_s,
            cold_start_steps=window.compared.num_inference_steps,
            errors=errors,
            errors_at_steps=window.compared.num_inference_steps if errors else None,
        )


def _check_presets(presets: tuple[PresetName, ...]) -> None:
    """Refuse presets without the diffusion model: its sampling and decoding are all that is measured."""
    for preset in presets:
        if not PRESETS.get(preset, {}).get("diffusion", True):
            measured = [name for name in PRESETS if PRESETS[name].get("diffusion", True)]
            raise ConfigError(
                f"the benchmark measures the diffusion model, which preset {preset} does not use; choose "
                f"from {', '.join(measured)}"
            )


def _plan(engine: Engine) -> str:
    """How an engine goes about it, in its own words if it has any."""
    describe: Callable[[], str] | None = getattr(engine, "describe", None)
    return (describe() if describe is not None else "") or type(engine).__name__


def _estimated(engine: Engine) -> float | None:
    """The peak of tensors that an engine planned for, in GiB."""
    plan = getattr(engine, "plan", None)
    return None if plan is None else plan.peak_of_tensors / GIB


def _is_even(config: SamplingConfig) -> bool:
    """Whether all steps are alike, so that what is not a step's is the conditioning's."""
    return len(set(step_modes(config, config.num_inference_steps))) == 1 and config.num_reinjections == 0


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Products and convolutions of float32 numbers in float32, not in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
