"""Rows of a benchmark: what is measured, compared, extrapolated, written and told."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

from evfi import cli
from evfi.benchmark import run as benchmark_run
from evfi.benchmark.config import BenchmarkConfig
from evfi.benchmark.measure import Outputs, Seconds, matmul_peak, measure
from evfi.benchmark.results import Row, as_line, header, notes, write_results
from evfi.benchmark.run import Benchmark, BenchmarkRequest
from evfi.cli.benchmark import BenchmarkCommand
from evfi.engine.base import EngineName, PlainEngine
from evfi.errors import ConfigError, ResourceError
from evfi.models.random import random_bundle
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig

CPU = torch.device("cpu")
REQUEST = BenchmarkRequest(
    "small-random", ("64x64x3",), ("exact",), ("plain",), device="cpu", config=BenchmarkConfig(steps=2, runs=1)
)


@pytest.fixture(scope="module", autouse=True)
def counted_once() -> Iterator[None]:
    """A window's operations and the machine's peak are the same for all tests; to find them takes longer than small windows."""
    real, made = benchmark_run.OperationCounter, {}

    def counter(bundle, grid, size, num_frames):
        key = (bundle.info.name, bundle.unet.dtype, repr(grid), size, num_frames)
        return made.get(key) or made.setdefault(key, real(bundle, grid, size, num_frames))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_run, "OperationCounter", counter)
        patch.setattr(benchmark_run, "matmul_peak", functools.cache(benchmark_run.matmul_peak))
        yield


class Recorder:
    """An engine that only notes what it is asked for; each step takes a moment that is told."""

    made = 0

    def __init__(self) -> None:
        Recorder.made += 1
        self.steps: list[int] = []

    def sample(self, inputs, config, noise, *, weights=None, on_step=None):
        self.steps.append(config.num_inference_steps)
        for step in range(config.num_inference_steps):
            on_step(step + 1, config.num_inference_steps)
        return torch.full((3, 4, 8, 8), float(config.num_inference_steps))

    def decode(self, latents, config):
        return torch.full((3, 3, 64, 64), 2.0)

    def restore(self):
        pass


class TestMeasure:
    INPUTS = WindowInputs(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 6, 64, 64))

    def measured(self, **settings):
        config = SamplingConfig(num_inference_steps=5)
        first = replace(config, num_inference_steps=2)
        return measure(
            Recorder, self.INPUTS, first, config, CPU, **{"warmup": 1, "runs": 3, "limit_s": 60.0, **settings}
        )

    def test_first_window_then_timed_ones(self):
        done = self.measured(warmup=2)
        assert done.engine.steps == [2, 2, 5, 5, 5]
        assert len(done.runs) == 3
        assert done.first.latents.mean() == 2
        assert done.last.latents.mean() == 5
        assert done.last.frames.max() == 1  # clamped
        assert done.cold_start_s > 0
        assert done.memory["process"] > 0.01

    def test_time_is_up_after_one_window(self):
        assert len(self.measured(limit_s=1e-9).runs) == 1

    def test_median_and_stretching(self):
        runs = tuple(Seconds(sampling, 1.0, 0.5) for sampling in (9.0, 2.0, 4.0))
        done = replace(self.measured(runs=1), runs=runs)
        assert done.median.total == 5.0
        assert done.median.conditioning(4) == 2.0
        assert done.median.stretched(10).total == 10.0

    def test_errors_are_relative_to_the_reference(self):
        reference = Outputs(torch.full((4,), 2.0), torch.ones(4))
        errors = Outputs(torch.full((4,), 3.0), torch.zeros(4)).errors(reference)
        assert errors == {"latents": pytest.approx(0.5), "frames": pytest.approx(1.0)}

    def test_product(self):
        side, rate = matmul_peak(CPU, torch.float32)
        assert side == 1024
        assert 1e8 < rate < 1e14


class TestRows:
    def test_engines_side_by_side(self, tmp_path):
        path = tmp_path / "speed.json"
        request = replace(REQUEST, cases=("128x64x3",), engines=("fast", "plain"), against_float32=True, json=path)
        benchmark = Benchmark(request)
        plain, fast = benchmark.run()
        assert (plain.engine, plain.plan) == ("plain", "PlainEngine")
        assert (fast.engine, fast.plan) == ("fast", "FastEngine")
        assert plain.errors == {"float32": {"latents": 0.0, "frames": 0.0}}
        assert set(fast.errors) == {"plain", "float32"}
        assert 0 < fast.errors["plain"]["frames"] < 1e-3
        assert plain.tflop == fast.tflop
        assert fast.extrapolated_from_steps is plain.extrapolated_from_steps is None
        for row in (plain, fast):
            assert row.seconds["total"] == row.seconds["sampling"] + row.seconds["decoding"]
            assert row.frames_per_s == pytest.approx(1 / row.seconds["total"])
            assert row.tflop_per_s == pytest.approx(row.tflop / row.seconds["total"])
            assert row.peak_share == pytest.approx(row.tflop_per_s / benchmark.settings["matmul"]["tflop_per_s"])
            assert row.cold_start_steps == row.steps == 2
        written = json.loads(path.read_text("utf-8"))
        assert [row["engine"] for row in written["rows"]] == ["plain", "fast"]
        assert written["rows"][1]["errors"] == fast.errors
        assert written["torch"] == torch.__version__
        assert written["settings"]["runs"] == 1

    def test_shortened_plain_runs_are_extrapolated_and_compared_at_their_steps(self):
        config = BenchmarkConfig(steps=6, runs=1, plain_steps=2)
        request = replace(
            REQUEST, cases=("128x64x3",), engines=("plain", "fast"), presets=("exact", "fast"), config=config
        )
        plain, fast, preset = Benchmark(request).run()
        assert (plain.steps, plain.extrapolated_from_steps, plain.errors_at_steps) == (6, 2, None)
        assert plain.seconds["sampling"] >= 5 * plain.seconds["step"]  # the first is not in the mean
        assert (fast.steps, fast.extrapolated_from_steps, fast.errors_at_steps) == (6, None, 2)
        assert 0 < fast.errors["plain"]["latents"] < 1e-3
        assert plain.tflop == fast.tflop
        assert (preset.preset, preset.engine, preset.errors) == ("fast", "fast", {})
        assert preset.tflop < fast.tflop  # less guidance

    def test_written_after_every_row(self, tmp_path):
        path = tmp_path / "speed.json"
        rows = Benchmark(replace(REQUEST, cases=("64x64x3", "64x64x4"), json=path)).run()
        next(rows)
        assert [row["case"] for row in json.loads(path.read_text("utf-8"))["rows"]] == ["64x64x3"]

    def test_too_little_memory_for_one_engine_leaves_the_others(self, monkeypatch):
        def out_of_memory(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(PlainEngine, "sample", out_of_memory)
        plain, fast = Benchmark(replace(REQUEST, engines=("plain", "fast"))).run()
        assert plain.failure == "not enough memory for case 64x64x3 on cpu"
        assert plain.failure in as_line(plain)
        assert fast.failure == ""
        assert fast.seconds["total"] > 0
        assert fast.errors == {}

    def test_without_memory_for_the_reference(self, monkeypatch, caplog):
        def refuse(*_: object) -> Outputs:
            raise ResourceError("not enough memory for the reference")

        monkeypatch.setattr(Benchmark, "_float32_outputs", refuse)
        (row,) = Benchmark(replace(REQUEST, against_float32=True)).run()
        assert row.errors == {}
        assert "errors against float32 were not measured: not enough memory for the reference" in caplog.text

    def test_the_engine_tells_its_plan(self, monkeypatch):
        monkeypatch.setattr(PlainEngine, "describe", lambda self: "one after the other", raising=False)
        (row,) = Benchmark(REQUEST).run()
        assert row.plan == "one after the other"

    def test_networks_are_loaded_anew_after_a_failure(self, monkeypatch):
        """An engine that fails may have left weights off the device."""
        benchmark = Benchmark(REQUEST)
        before = benchmark._bundle
        monkeypatch.setattr(PlainEngine, "sample", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        assert [bool(row.failure) for row in benchmark.run()] == [True]
        assert benchmark._bundle is not before

    def test_the_reference_is_told_for_its_sizes_alone(self, monkeypatch):
        benchmark = Benchmark(replace(REQUEST, cases=("one-tile-5",)))
        (window,) = benchmark._windows(benchmark._cases[0])
        assert benchmark._blank(window, "plain").reference_s is None
        monkeypatch.setattr(benchmark, "_bundle", random_bundle("svd-random", device="meta"))
        assert benchmark._blank(window, "plain").reference_s == 7.9

    @pytest.mark.parametrize(
        ("engine", "limit", "expected"),
        [("fast", 1.5, ["cpu"]), ("fast", 2.5, []), ("fast", None, []), ("plain", 1.5, [])],
    )
    def test_under_a_tight_limit_the_model_waits_in_the_hosts_memory(self, engine, limit, expected, monkeypatch):
        benchmark = Benchmark(REQUEST)
        (window,) = benchmark._windows(benchmark._cases[0])
        moves: list[str] = []
        monkeypatch.setattr(benchmark._bundle, "to", moves.append)
        monkeypatch.setattr(benchmark_run, "measure", lambda *_, **__: None)
        benchmark._limit = None if limit is None else int(limit * benchmark._bundle.num_bytes)
        benchmark._device = torch.device("cuda")
        benchmark._measure(window, engine)
        assert moves == expected

    @pytest.mark.gpu
    def test_peaks_of_a_gpu(self):
        rows = Benchmark(replace(REQUEST, engines=("plain", "fast"), device="cuda", cases=("128x64x3",))).run()
        for row in rows:
            assert 0 < row.memory_gib["allocated"] <= row.memory_gib["reserved"]
            assert 0 < row.seconds["step"] < row.seconds["total"]

    def test_float32_shortcuts_are_back_afterwards(self):
        before = torch.backends.cudnn.allow_tf32
        with benchmark_run._exact_float32():
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32 == before


class TestTable:
    ROW = Row("one-tile-5", 512, 320, 5, 1, "exact", "plain", 25, seconds={"total": 123.4, "sampling": 1.234})

    def test_extrapolated_figures_are_marked(self):
        assert "~123.4" in as_line(replace(self.ROW, extrapolated_from_steps=2))
        assert "~" not in as_line(self.ROW)
        (note,) = notes([replace(self.ROW, extrapolated_from_steps=2)])
        assert note == "~: 2 steps were run; seconds are extrapolated to 25"

    def test_columns_line_up(self):
        row = replace(self.ROW, reference_s=7.9, reference_gib=6.9)
        assert len(as_line(row)) == len(header())

    def test_results_that_are_not_finite(self, tmp_path: Path):
        path = tmp_path / "speed.json"
        row = replace(self.ROW, errors={"plain": {"latents": float("nan"), "frames": float("inf")}})
        write_results(path, {}, [row])
        assert json.loads(path.read_text("utf-8"))["rows"][0]["errors"]["plain"] == {"latents": None, "frames": None}
        assert "inf" in as_line(row)


class TestCommand:
    def test_table(self, capsys):
        arguments = "benchmark --model small-random --case 64x64x3 --engine plain --steps 2 --runs 1 --device cpu"
        assert cli.main(arguments.split()) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("small-random, float32, ")
        assert lines[1].split()[:4] == ["case", "preset", "engine", "seconds"]
        assert lines[2].split()[:3] == ["64x64x3", "exact", "plain"]
        assert lines[3].startswith("GiB: peak memory of the process so far")

    @pytest.mark.parametrize(
        ("arguments", "message", "status"),
        [
            (["--case", "huge"], "unknown case 'huge'; expected one-tile-5, ", 2),
            (["--engine", "slow"], "'slow'", 2),
            (["--preset", "best"], "'best'", 2),
            (["--preset", "exact", "warp"], "which preset warp does not use; choose from exact, balanced, fast", 2),
            (["--runs", "0"], "runs must be at least 1, got 0", 2),
            (["--plain-steps", "1"], "--plain-steps must be at least 2, got 1", 2),
            (["--seconds-per-row", "0"], "--seconds-per-row must be above 0", 2),
            (["--model", "no/such/model/here"], "no model 'no/such/model/here'", 1),
            (["--json", "/no/such/folder/x.json"], "there is no folder /no/such/folder", 1),
        ],
    )
    def test_errors_take_one_line(self, arguments, message, status, capsys):
        assert cli.main(["benchmark", "--device", "cpu", *arguments]) == status
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert captured.err.startswith("evfi: error: ")
        assert captured.err.count("\n") == 1

    def test_engines_are_those_there_are(self):
        offered = get_args(get_args(get_type_hints(BenchmarkCommand)["engine"])[0])
        assert set(offered) == set(get_args(EngineName))

    def test_config_error_is_an_evfi_error(self):
        with pytest.raises(ConfigError, match="warmup must be at least 1"):
            BenchmarkConfig(warmup=0)
