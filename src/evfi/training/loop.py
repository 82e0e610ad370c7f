"""The one training loop: restartable, for any number of devices, writing curves, pictures and checkpoints.

A run is a folder:

    config.json      every setting
    metrics.jsonl    the curves: a line per logged step and per validation
    tensorboard/     the same for TensorBoard, where it is installed
    samples/         pictures made during training
    states/step-N/   full states; the same command resumes from the latest
    model/           the averaged networks in diffusers' layout, for the next stage or for `evfi interpolate`

The batch of step n depends on (seed, n, rank) alone, so an interrupted run continues as if it had not stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evfi.errors import ConfigError, OutputError, ResourceError
from evfi.training.batches import Batch, BatchSource
from evfi.training.checkpoint import MovingAverage, load_state, save_state, saved_states
from evfi.training.config import TrainConfig
from evfi.training.stages import Stage, build_stage
from evfi.training.textures import load_textures

OnStep = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss of the last logged step)."""


@dataclass(frozen=True)
class TrainSummary:
    """What a run has come to.

    Attributes:
        steps: done, over all restarts.
        finished: whether all steps are done, or the time ran out first.
        model: folder of the averaged networks.
        figures: of the last validation.
    """

    steps: int
    finished: bool
    model: Path
    figures: dict[str, float]


class Curves:
    """Writes numbers and pictures of a run as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._board = _tensorboard(folder / "tensorboard")

    def numbers(self, step: int, figures: dict[str, float]) -> None:
        """Add a line to the curves."""
        line = json.dumps({"step": step, **{name: float(f"{value:.6g}") for name, value in figures.items()}})
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        for name, value in figures.items():
            if self._board is not None:
                self._board.add_scalar(name, value, step)

    def pictures(self, step: int, rows: Tensor) -> None:
        """Write rows of pictures [N, M, 3, H, W] in [-1, 1] as one PNG."""
        sheet = rows.permute(0, 3, 1, 4, 2)  # [N, M, 3, H, W] -> [N, H, M, W, 3]
        sheet = sheet.reshape(sheet.shape[0] * sheet.shape[1], -1, 3)
        pixels = ((sheet.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"step-{step:07d}.png")


def train(config: TrainConfig, *, on_step: OnStep | None = None) -> TrainSummary:
    """Train one stage, from its latest state if there is one.

    Args:
        config: one of the three stages' settings.
        on_step: called after each step.

    Raises:
        ConfigError: the run folder was made with other settings.
        OutputError: the run folder cannot be written.
        ResourceError: the device is absent or too small.
    """
    accelerator = _accelerator(config)
    _write_config(config)
    library = load_textures(config.textures).to(accelerator.device)
    torch.manual_seed(config.seed)
    stage = build_stage(config, library)
    optimizer = torch.optim.AdamW(
        stage.trained(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=accelerator.device.type == "cuda",
    )
    average = MovingAverage(stage, config.ema_decay)
    states = saved_states(config.output / "states")
    done = load_state(states[-1], stage, average, optimizer) if states else 0
    wrapped, optimizer = accelerator.prepare(stage, optimizer)
    run = _Run(config, accelerator, stage, wrapped, optimizer, average)
    try:
        return run.go(done, on_step)
    except torch.OutOfMemoryError as error:
        raise ResourceError(f"training needs more memory than {accelerator.device} has; lower --batch-size") from error


@dataclass
class _Run:
    """A run in progress."""

    config: TrainConfig
    accelerator: Any
    stage: Stage
    wrapped: Any
    optimizer: Any
    average: MovingAverage

    def go(self, done: int, on_step: OnStep | None) -> TrainSummary:
        """Make the steps that are left, within the time that is given."""
        config, curves = self.config, Curves(self.config.output)
        figures: dict[str, float] = {}
        step = done
        batches = BatchSource(config, self.stage.maker, self.accelerator.process_index, done)
        for step in self._steps(done):
            losses = self._step(step - 1, batches.take(step - 1))
            if step % config.log_every == 0:
                figures["loss"] = float(losses)
                if self.accelerator.is_main_process:
                    curves.numbers(step, {"loss": figures["loss"], "learning_rate": config.learning_rate_at(step - 1)})
            if on_step is not None:
                on_step(step, config.steps, figures.get("loss", float("nan")))
            if step % config.checkpoint_every == 0 and step < config.steps:
                self._save(step)
            if step % config.validate_every == 0 and step < config.steps:
                figures |= self._validate(step, curves)
        batches.close()
        if step > done or not (config.output / "model").is_dir():
            self._save(step)
            figures |= self._validate(step, curves)
            self._export()
        return TrainSummary(step, step >= config.steps, config.output / "model", figures)

    def _steps(self, done: int) -> Iterator[int]:
        """Numbers of the steps to make, from 1, until all are made or the time is up."""
        started = time.monotonic()
        limit = float("inf") if self.config.max_minutes is None else 60 * self.config.max_minutes
        for step in range(done + 1, self.config.steps + 1):
            if time.monotonic() - started > limit:
                return
            yield step

    def _step(self, step: int, batch: Batch) -> Tensor:
        config, accelerator = self.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        loss: Tensor = self.wrapped(batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(self.stage.trained(), config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.stage, step)
        return loss.detach()

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            states = self.config.output / "states"
            save_state(states, step, self.stage, self.average, self.optimizer.optimizer, self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _validate(self, step: int, curves: Curves) -> dict[str, float]:
        """Figures and pictures of the averaged networks, made by the main process."""
        if not self.accelerator.is_main_process:
            return {}
        with self.average.applied(self.stage), self.accelerator.autocast(), torch.no_grad():
            self.stage.eval()
            figures = self.stage.validate()
            curves.pictures(step, self.stage.sample_pictures())
            self.stage.train()
        curves.numbers(step, figures)
        return figures

    def _export(self) -> None:
        if self.accelerator.is_main_process:
            with self.average.applied(self.stage):
                self.stage.export(self.config.output / "model", dtype=None)


def _accelerator(config: TrainConfig) -> Any:
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ResourceError(
            "training needs the package accelerate; install it with: pip install 'evfi[train]'"
        ) from error
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("training was asked to run on cuda, but no CUDA device is there; use --device cpu")
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    return Accelerator(mixed_precision="no" if on_cpu else config.precision, cpu=on_cpu)


_RESUMABLE_CHANGES = {
    *("steps", "max_minutes", "cooldown_steps", "device", "data_workers", "output", "textures", "init"),
    *("checkpoint_every", "keep_checkpoints", "log_every", "validate_every"),
    *("validation", "validation_skip", "validation_windows"),
}
"""Settings that may differ when a run is resumed: they move its end or its records, not its steps."""


def _write_config(config: TrainConfig) -> None:
    """Save every setting; refuse a folder that was made with others."""
    path = config.output / "config.json"
    settings = json.loads(json.dumps(config.as_json(), default=str))
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in settings if key not in _RESUMABLE_CHANGES and before.get(key) != settings[key]]
            if changed and saved_states(config.output / "states"):
                was = ", ".join(f"{key} was {before.get(key)}, is {settings[key]}" for key in changed)
                raise ConfigError(f"{config.output} holds a run with other settings ({was}); choose another --output")
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"run folder {config.output} cannot be written: {error.strerror}; choose another") from error


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print("evfi: tensorboard is not installed; curves go to metrics.jsonl alone", file=sys.stderr)
        return None
    return SummaryWriter(str(folder))
