"""Training runs of a few steps on tiny networks: all stages, exact resume, interrupts, refusals, what a run folder holds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from evfi import cli
from evfi.cli.interrupts import one_interrupt
from evfi.errors import ConfigError, InputError, OutputError, RecordingError, ResourceError
from evfi.events.stacks import StackConfig
from evfi.events.stream import EventStream
from evfi.interpolator import Interpolator
from evfi.models.bundle import load_bundle
from evfi.recordings.datasets.plain_writer import write_plain_recording
from evfi.training.batches import PictureMaker
from evfi.training.config import (
    AutoencoderNetwork,
    AutoencoderTraining,
    BaseTraining,
    ControlNetTraining,
    DenoiserNetwork,
    RefinerNetwork,
    RefinerTraining,
    TrainConfig,
)
from evfi.training.curves import draw_series, read_series
from evfi.training.loop import interrupts_deferred, train
from evfi.training.textures import load_textures
from hostile_json import HOSTILE_JSON
from stand_ins import STEP_US, key_frames, memory_recording

TINY: dict[str, Any] = {
    "batch_size": 2,
    "size_px": 32,
    "num_frames": (3,),
    "warmup_steps": 1,
    "cooldown_steps": 1,
    "log_every": 1,
    "device": "cpu",
}
AUTOENCODER = AutoencoderNetwork(width=32, encoder_blocks=(1, 1), decoder_blocks=(1, 1), latent_channels=4)
DENOISER = DenoiserNetwork(widths=(32, 32), attention=(False, True), head_dim=16, context_dim=16, time_dim=8)
REFINER = RefinerNetwork(widths=(8, 8, 8, 8, 8), fusion_widths=(8, 8, 8), matching_levels=1, matching_radius=1)


@pytest.fixture(scope="session")
def runs(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run folder per stage, each trained two steps on the one before."""
    folder = tmp_path_factory.mktemp("runs")
    for make in (autoencoder, base, controlnet, refiner):
        assert train(make(textures, folder)).finished
    return folder


def autoencoder(textures: Path, runs: Path, **changes: Any) -> AutoencoderTraining:
    config = AutoencoderTraining(textures, runs / "autoencoder", steps=2, network=AUTOENCODER, **TINY)
    return replace(config, scene_every=2, **changes)


def base(textures: Path, runs: Path, **changes: Any) -> BaseTraining:
    init = runs / "autoencoder" / "model"
    config = BaseTraining(textures, runs / "base", init=init, steps=2, network=DENOISER, **TINY)
    return replace(config, **changes)


def controlnet(textures: Path, runs: Path, **changes: Any) -> ControlNetTraining:
    init = runs / "base" / "model"
    config = ControlNetTraining(textures, runs / "controlnet", init=init, steps=2, event_widths=(8, 16), **TINY)
    return replace(config, train_base=True, **changes)


def refiner(textures: Path, runs: Path, **changes: Any) -> RefinerTraining:
    init = runs / "controlnet" / "model"
    config = RefinerTraining(
        textures,
        runs / "refiner",
        init=init,
        steps=2,
        network=REFINER,
        window_px=32,
        window_batch=2,
        pool_batches=2,
        pool_start=1,
        renew_every=1,
        groups=1,
        **TINY,
    )
    return replace(config, **changes)


def no_thread_is_left() -> bool:
    return not any(thread.name == "batches" for thread in threading.enumerate())


def last_state(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "states").glob("step-???????"))[-1] / "state.safetensors")


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def assert_same_states(first: Path, second: Path) -> None:
    states = last_state(first), last_state(second)
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def interrupt_at(step: int) -> Callable[[int, int, float], None]:
    def interrupt(done: int, steps: int, loss: float) -> None:
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return interrupt


def test_three_stages_make_a_bundle_that_interpolates(runs: Path) -> None:
    bundle = load_bundle(runs / "controlnet" / "model")
    assert bundle.vae_factor == 2
    assert bundle.event_stack == StackConfig(normalisation="symmetric")
    recording = memory_recording(3)
    interpolator = Interpolator(bundle)
    (first, second) = list(interpolator.interpolate(recording, insert=1))
    assert first.frames.shape == second.frames.shape
    assert np.array_equal(first.frames[0], recording.frames.read(0))


def test_the_refiner_completes_the_bundle(runs: Path) -> None:
    before, after = (load_bundle(runs / stage / "model") for stage in ("controlnet", "refiner"))
    assert before.refiner is None
    assert after.refiner is not None
    assert after.refiner.config.widths == list(REFINER.widths)
    for part in ("vae", "unet", "controlnet"):  # as they came
        weights = after.networks()[part].state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in before.networks()[part].state_dict().items())
    recording = memory_recording(2)
    plain, refined = (next(Interpolator(bundle).interpolate(recording, insert=2)).frames for bundle in (before, after))
    assert refined.shape == plain.shape
    assert np.array_equal(refined[0], plain[0])
    assert not np.array_equal(refined[1:-1], plain[1:-1])


def test_other_parts_keep_their_precision(textures: Path, runs: Path, tmp_path: Path) -> None:
    load_bundle(runs / "controlnet" / "model").save(tmp_path / "half", dtype=torch.float16)
    lossy = runs / "autoencoder" / "model"
    spoilt = {"degraded_share": 1.0, "lossy_autoencoder": lossy, "steps": 1}
    config = refiner(textures, runs, init=tmp_path / "half", output=tmp_path / "run", **spoilt)
    bundle = load_bundle(train(config).model)
    assert bundle.unet.dtype == bundle.vae.dtype == torch.float16
    assert bundle.refiner is not None
    assert bundle.refiner.dtype == torch.float32


def test_a_known_refiner_is_trained_further(textures: Path, runs: Path, tmp_path: Path) -> None:
    init = runs / "refiner" / "model"
    config = refiner(textures, runs, init=init, output=tmp_path / "run", learning_rate=0.0, weight_decay=0.0, steps=1)
    before, after = load_bundle(init).refiner, load_bundle(train(config).model).refiner
    assert before is not None
    assert after is not None
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_what_a_run_folder_holds(runs: Path) -> None:
    for stage in ("autoencoder", "base", "controlnet", "refiner"):
        run = runs / stage
        assert json.loads((run / "config.json").read_text(encoding="utf-8"))["stage"] == stage
        assert len(losses(run)) == 2
        assert Image.open(run / "samples" / "step-0000002.png").width > 32
        assert Image.open(run / "curves.png").width > 32
        assert [path.name for path in (run / "states").iterdir()] == ["step-0000002"]
    assert sorted(path.name for path in (runs / "base" / "model").iterdir()) == ["unet", "vae"]
    scale = json.loads((runs / "autoencoder/model/vae/config.json").read_text(encoding="utf-8"))["scaling_factor"]
    assert scale != 1.0


@pytest.mark.parametrize("make", [autoencoder, base, controlnet, refiner])
def test_resume_is_exact(make: Callable[..., TrainConfig], textures: Path, runs: Path, tmp_path: Path) -> None:
    whole = make(textures, runs, output=tmp_path / "whole", steps=4)
    parts = make(textures, runs, output=tmp_path / "parts", steps=4)
    assert train(whole).finished
    with pytest.raises(KeyboardInterrupt, match="after step 2, which is saved; run the same command to resume"):
        train(parts, on_step=interrupt_at(2))
    assert no_thread_is_left()
    assert train(parts).steps == 4
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert_same_states(tmp_path / "whole", tmp_path / "parts")
    assert no_thread_is_left()


def test_time_up_leaves_a_state_and_a_model(textures: Path, tmp_path: Path) -> None:
    config = autoencoder(textures, tmp_path, max_minutes=0.0)
    summary = train(config)
    assert (summary.finished, summary.steps) == (False, 0)
    assert (summary.model / "vae").is_dir()
    again = train(replace(config, max_minutes=None))
    assert (again.finished, again.steps) == (True, 2)


def test_a_finished_run_only_exports_again(textures: Path, runs: Path, tmp_path: Path) -> None:
    config = autoencoder(textures, tmp_path)
    train(config)
    before = (tmp_path / "autoencoder/model/vae/diffusion_pytorch_model.safetensors").read_bytes()
    steps: list[int] = []
    assert train(config, on_step=lambda step, _, __: steps.append(step)).finished
    assert steps == []
    assert (tmp_path / "autoencoder/model/vae/diffusion_pytorch_model.safetensors").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(textures: Path, runs: Path) -> None:
    with pytest.raises(ConfigError, match=r"learning_rate was 0.0008, is 0.1\); choose another --output"):
        train(autoencoder(textures, runs, learning_rate=0.1))
    with pytest.raises(ConfigError, match="stage was autoencoder"):
        train(base(textures, runs, output=runs / "autoencoder"))


def test_the_second_interrupt_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts_deferred() as came:
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt, match="stopped at once; run the same command to resume"):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the rest of a series does not disturb what tidies up
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [1, 2, 30])
def test_a_series_of_interrupts_goes_on_while_things_are_tidied_up(number: int) -> None:
    tidied = False
    with pytest.raises(KeyboardInterrupt), one_interrupt(is_last=False):  # as the command line does
        try:
            with interrupts_deferred():
                for _ in range(number):
                    signal.raise_signal(signal.SIGINT)
                raise KeyboardInterrupt
        finally:
            for _ in range(30):
                signal.raise_signal(signal.SIGINT)
            tidied = True
    assert tidied


def test_a_program_that_ends_without_closing_its_batches_ends_in_peace() -> None:
    """A thread that Python ended within PyTorch's code aborted the process (status -6)."""
    code = """
    import threading, torch
    from pathlib import Path
    from evfi.training.batches import BatchMaker, BatchSource
    from evfi.training.config import AutoencoderTraining

    began = threading.Event()

    class Maker(BatchMaker):
        device = torch.device("cpu")

        def __init__(self):
            pass

        def make(self, key):
            for _ in range(200):
                values = torch.rand(300, 300) @ torch.rand(300, 300)
                began.set()
            return {"values": values}

    source = BatchSource(AutoencoderTraining(Path("t"), Path("o")), Maker(), 0, 0)
    began.wait()
    raise KeyboardInterrupt
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert "terminate" not in done.stderr
    assert done.returncode in (130, -signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("awaited", ["evfi-run.json", "metrics.jsonl", "states/.evfi-*", "states/step-*"])
@pytest.mark.parametrize("pause_s", [0.0, 0.01, 0.15])
def test_thirty_interrupts(textures: Path, tmp_path: Path, awaited: str, pause_s: float) -> None:
    sizes = "--width 32 --encoder-blocks 1 1 --decoder-blocks 1 1 --size-px 32 --batch-size 2 --num-frames 3"
    every = "--checkpoint-every 2 --log-every 1 --validate-every 5"
    arguments = f"--textures {textures} --output {tmp_path / 'run'} --steps 100000 --device cpu {sizes} {every}".split()
    command = [sys.executable, "-m", "evfi", "train", "autoencoder", *arguments]

    def as_on_a_terminal() -> None:  # what runs in the background inherits that SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=as_on_a_terminal)  # noqa: PLW1509
    while process.poll() is None and not any((tmp_path / "run").glob(awaited)):
        time.sleep(0.002)
    for _ in range(30):
        process.send_signal(signal.SIGINT)
        time.sleep(pause_s)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert told.splitlines()[-1].startswith("evfi: error: ")
    assert "Traceback" not in told
    assert subprocess.run([*command, "--max-minutes", "0"], check=False).returncode == 0


@pytest.mark.parametrize("make", [autoencoder, refiner])
def test_batches_made_ahead_are_the_same(
    make: Callable[..., TrainConfig], textures: Path, runs: Path, tmp_path: Path
) -> None:
    in_turn = make(textures, runs, output=tmp_path / "in turn", prefetch=False)
    train(in_turn)
    ahead = runs / in_turn.stage
    assert json.loads((ahead / "config.json").read_text(encoding="utf-8"))["prefetch"]
    assert losses(tmp_path / "in turn") == losses(ahead)
    assert_same_states(tmp_path / "in turn", ahead)


@pytest.mark.parametrize(
    ("raised", "told"),
    [(torch.OutOfMemoryError("8 GiB"), ResourceError), (ZeroDivisionError("odd"), ZeroDivisionError)],
)
def test_what_goes_wrong_in_the_thread_ends_the_run(
    textures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, told: type[Exception]
) -> None:
    original = PictureMaker.make

    def failing(self: PictureMaker, key: Any) -> Any:
        if key.step == 1:
            raise raised
        return original(self, key)

    monkeypatch.setattr(PictureMaker, "make", failing)
    with pytest.raises(told) as caught:
        train(autoencoder(textures, tmp_path))
    assert raised in (caught.value, caught.value.__cause__)
    assert no_thread_is_left()


def guided_model(runs: Path, folder: Path) -> Path:
    replace(load_bundle(runs / "controlnet" / "model"), sampling={}).save(folder / "guided")
    return folder / "guided"


def test_mistakes_are_told_in_one_line(textures: Path, runs: Path, tmp_path: Path) -> None:
    new = {"output": tmp_path / "run"}
    cases: list[tuple[type[Exception], str, TrainConfig]] = [
        (ConfigError, "pass that one's model folder as --init", base(textures, runs, init=None, **new)),
        (InputError, "no texture folder", autoencoder(tmp_path / "absent", runs, **new)),
        (ConfigError, "multiple of 4 .* got 30; try 28", base(textures, runs, size_px=30, **new)),
        (ConfigError, "multiple of 4 .* got 30; try 28", controlnet(textures, runs, size_px=30, **new)),
        (ConfigError, "multiple of 2, got 31", autoencoder(textures, runs, size_px=31, **new)),
        (ConfigError, "give 2 widths", controlnet(textures, runs, event_widths=(8, 8, 16), **new)),
        (
            ConfigError,
            "set the event stack's options",
            controlnet(textures, runs, init=runs / "controlnet" / "model", event_stack=StackConfig(), **new),
        ),
        (ConfigError, "pass that one's model folder as --init", refiner(textures, runs, init=None, **new)),
        (ConfigError, "without guidance", refiner(textures, runs, init=guided_model(runs, tmp_path), **new)),
        (
            ConfigError,
            "widths must be 3 to 7 whole numbers",
            refiner(textures, runs, network=replace(REFINER, widths=(8, 8)), **new),
        ),
        (
            ConfigError,
            "matching_levels must be a whole number from 1 to 3",
            refiner(textures, runs, network=replace(REFINER, matching_levels=4), **new),
        ),
        (
            ConfigError,
            "fusion_widths must be 3 whole numbers",
            refiner(textures, runs, network=replace(REFINER, fusion_widths=(8, 8)), **new),
        ),
        (ConfigError, "size_px .* multiple of 32, .* got 16; try 32", refiner(textures, runs, size_px=16, **new)),
        (ConfigError, "window_px .* multiple of 32, .* got 72; try 64", refiner(textures, runs, window_px=72, **new)),
        (
            ConfigError,
            "size_px .* multiple of 32, .* got 24; try 32",  # of the loss, where the refiner has few levels
            refiner(textures, runs, network=replace(REFINER, widths=(8, 8, 8)), size_px=24, **new),
        ),
        (ConfigError, "widths must be", base(textures, runs, network=replace(DENOISER, widths=(32, 40)), **new)),
    ]
    for kind, message, config in cases:
        with pytest.raises(kind, match=message) as refused:
            train(config)
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_written(textures: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match="a file with that name exists"):
        train(autoencoder(textures, tmp_path, output=tmp_path / "taken"))


def test_validation_on_a_recording(textures: Path, runs: Path, tmp_path: Path) -> None:
    number = 5
    generator = np.random.default_rng(1)
    times = generator.integers(0, (number - 1) * STEP_US, 500)
    columns = generator.integers(0, 34, 500), generator.integers(0, 22, 500), times, generator.choice([-1, 1], 500)
    events = EventStream.from_arrays(*columns, (34, 22))
    write_plain_recording(tmp_path / "short", key_frames(number), STEP_US * np.arange(number), events)
    given = {"steps": 1, "validation_windows": 1, "validation": (tmp_path / "short",), "validation_skip": 1}
    init = runs / "controlnet" / "model"
    config = controlnet(textures, runs, init=init, output=tmp_path / "events", **given)
    for with_events in (config, refiner(textures, runs, output=tmp_path / "refiner", **given)):
        summary = train(with_events)
        assert 0 < summary.figures["psnr_short"] < 100
    with pytest.raises(RecordingError, match="short cannot validate with --validation-skip 7"):
        train(replace(config, validation=(tmp_path / "short",), validation_skip=7))


def test_from_the_command_line(
    textures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = "--width 32 --encoder-blocks 1 1 --decoder-blocks 1 1 --size-px 32 --batch-size 2 --num-frames 3"
    arguments = f"train autoencoder --textures {textures} --output {tmp_path / 'run'} --steps 1 --device cpu {sizes}"
    assert cli.main(arguments.split()) == 0
    assert "steps   1, finished" in capsys.readouterr().out
    assert cli.main(["train", "base", "--textures", str(textures), "--output", str(tmp_path / "base")]) == 2
    assert "--init" in capsys.readouterr().err


def test_learning_rate_rises_stays_and_falls() -> None:
    config = AutoencoderTraining(Path("t"), Path("o"), steps=100, learning_rate=1.0, warmup_steps=10, cooldown_steps=20)
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 50: 1.0, 80: 1.0, 90: 0.5, 99: 0.05, 100: 0.0, 200: 0.0}
    assert {step: config.learning_rate_at(step) for step in expected} == pytest.approx(expected)
    flat = replace(config, warmup_steps=0, cooldown_steps=0)
    assert [flat.learning_rate_at(step) for step in (0, 50, 99)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"num_frames": ()},
        {"num_frames": (1,)},
        {"ema_decay": 1.0},
        {"keep_checkpoints": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"max_minutes": float("nan")},
        {"max_grad_norm": 0.0},
        {"weight_decay": float("inf")},
        {"warmup_steps": -5},
        {"seed": -1},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AutoencoderTraining(Path("t"), Path("o"), **wrong)


def test_a_file_that_holds_no_packed_textures(tmp_path: Path) -> None:
    (tmp_path / "textures.safetensors").write_text("root:x:0:0:root:/root:/bin/bash\n")
    with pytest.raises(InputError, match="cannot read the packed textures"):
        load_textures(tmp_path / "textures.safetensors")


def test_hostile_lines_of_curves_are_passed_over(tmp_path: Path) -> None:
    odd = [b'{"step": 2, "loss": 1%s}' % (b"0" * 400), b'{"step": "a"}', b'{"step": 3, "loss": []}', b'{"loss": 5}']
    whole = b'{"step": 1, "loss": 0.5}'
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*HOSTILE_JSON.values(), *odd, whole]))
    assert {name: values for name, values in read_series(tmp_path / "metrics.jsonl").items() if values} == {
        "loss": {1: 0.5}
    }


def test_the_plot_does_not_grow_without_end(tmp_path: Path) -> None:
    figures = {f"curve {number}": 0.5 for number in range(2_000)}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, **figures}) + "\n")
    assert len(read_series(tmp_path / "metrics.jsonl")) == 64


def test_curves_are_read_back_and_drawn(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 3.0}', '{"step": 2, "loss": 9.0}', '{"step": 2, "loss": 2.0, "psnr": NaN}', '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    series = read_series(tmp_path / "metrics.jsonl")
    assert series["loss"] == {1: 3.0, 2: 2.0}
    assert draw_series(series).height == draw_series({"loss": series["loss"]}).height
    assert read_series(tmp_path / "absent") == {}
