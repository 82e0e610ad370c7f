"""The one training loop: restartable, for any number of devices, writing curves, pictures and checkpoints.

A run is a folder:

    config.json      every setting; evfi-run.json, model.json and run.lock say whose the folder is, see `run_folder`
    metrics.jsonl    the curves: a line per logged step and per validation
    curves.png       the same as pictures; tensorboard/ the same for TensorBoard, where it is installed
    samples/         pictures made during training
    states/step-N/   full states; the same command resumes from the latest
    model/           the averaged networks in diffusers' layout, for the next stage or for `evfi interpolate`

The batch of step n depends on (seed, n, rank) alone, so an interrupted run continues as if it had not stopped. Ctrl-C (or a
polite kill) ends a run after the step in progress, with its state saved; a second one ends it at once.
"""

from __future__ import annotations

import enum
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from evfi.errors import OutputError, ResourceError
from evfi.files import one_line, set_aside
from evfi.training.batches import Batch, BatchSource, init_of
from evfi.training.checkpoint import MovingAverage, resume, save_state, trained
from evfi.training.config import DenoiserTraining, RefinerTraining, TrainConfig
from evfi.training.curves import Curves
from evfi.training.graphs import GraphedLoss
from evfi.training.run_folder import MODEL, STATES, RunFolder, check_run
from evfi.training.stage import Stage
from evfi.training.stages import build_stage
from evfi.training.textures import load_textures

_log = logging.getLogger(__name__)

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


def train(config: TrainConfig, *, on_step: OnStep | None = None) -> TrainSummary:
    """Train one stage, from its latest state if there is one.

    Args:
        config: one of the four stages' settings.
        on_step: called after each step.

    Raises:
        ConfigError: the settings do not fit each other, or the run folder was made with other settings.
        InputError: the textures or a recording, or all saved states, cannot be read.
        OutputError: the run folder is something else's, is read, is in use by another process, or cannot be written.
        ResourceError: the device is absent or too small.
        KeyboardInterrupt: the run was interrupted; its text says what is left of it.
    """
    accelerator = _accelerator(config)
    if isinstance(config, DenoiserTraining | RefinerTraining):
        init_of(config)  # refused before anything is read
    check_run(config)
    library = load_textures(config.textures).to(accelerator.device)
    torch.manual_seed(config.seed)
    stage = build_stage(config, library)
    optimizer = torch.optim.AdamW(
        trained(stage).values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=accelerator.device.type == "cuda",
    )
    average = MovingAverage(stage, config.ema_decay)
    with RunFolder(config, is_main=accelerator.is_main_process) as folder:
        try:
            done = _resume(folder, accelerator, stage, average, optimizer)
            wrapped, optimizer = accelerator.prepare(stage, optimizer)
            return _Run(config, folder, accelerator, stage, wrapped, optimizer, average).go(done, on_step)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"training needs more memory than {accelerator.device} has; lower --batch-size"
            ) from error
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"run folder {config.output} cannot be written: {one_line(error)}; is the disk full?"
            ) from error


def _resume(folder: RunFolder, accelerator: Any, stage: Stage, average: MovingAverage, optimizer: Any) -> int:
    """Restore the latest sound state, and move later ones, which are damaged, out of the way; the steps done."""
    done, damaged = resume(folder.path / STATES, stage, average, optimizer)
    accelerator.wait_for_everyone()  # all have read the same states
    if accelerator.is_main_process:
        for state, problem in damaged:
            _log.warning("%s; moved aside to %s, training resumes from step %d", problem, set_aside(state).name, done)
    return done


class _Stop(enum.IntEnum):
    """Why a run makes no further step; of several reasons the greatest counts."""

    NO = 0
    OUT_OF_TIME = 1
    FINISHED = 2
    INTERRUPTED = 3


@dataclass
class _Run:
    """A run in progress."""

    config: TrainConfig
    folder: RunFolder
    accelerator: Any
    stage: Stage
    wrapped: Any
    optimizer: Any
    average: MovingAverage
    graphs: GraphedLoss | None = None

    def go(self, done: int, on_step: OnStep | None) -> TrainSummary:
        """Make the steps that are left, within the time that is given; then judge and export the networks."""
        curves = Curves(self.folder.path) if self.accelerator.is_main_process else None
        batches = BatchSource(self.config, self.stage.maker, self.accelerator.process_index, done)
        try:
            if self._can_record():
                self.graphs = GraphedLoss(self.wrapped, list(trained(self.stage).values()), batches.paused)
            with interrupts_deferred() as interrupts:
                step, figures, stop = self._make_steps(done, batches, curves, interrupts, on_step)
                if step > done or done == 0:
                    self._save(step)
                if stop is _Stop.INTERRUPTED:
                    raise KeyboardInterrupt(
                        f"interrupted after step {step}, which is saved; run the same command to resume"
                    )
            batches.close()
            figures |= self._validate(step, curves)
            self._export()
        finally:
            batches.close()
            if curves is not None:
                curves.close()
        return TrainSummary(step, step >= self.config.steps, self.folder.path / MODEL, figures)

    def _make_steps(
        self, done: int, batches: BatchSource, curves: Curves | None, interrupts: list[int], on_step: OnStep | None
    ) -> tuple[int, dict[str, float], _Stop]:
        """Make steps until there is a reason to stop; the last one's number, the latest figures, and the reason."""
        config = self.config
        figures: dict[str, float] = {}
        step, started = done, time.monotonic()
        while not (stop := self._stop(step, started, interrupts)):
            step += 1
            losses = self._step(step - 1, batches.take(step - 1))
            if step % config.log_every == 0:
                figures["loss"] = float(losses)
                if curves is not None:
                    curves.numbers(step, {"loss": figures["loss"], "learning_rate": config.learning_rate_at(step - 1)})
            if on_step is not None:
                on_step(step, config.steps, figures.get("loss", float("nan")))
            if step % config.checkpoint_every == 0 and step < config.steps:
                self._save(step)
            if step % config.validate_every == 0 and step < config.steps:
                figures |= self._validate(step, curves)
        return step, figures, stop

    def _stop(self, step: int, started: float, interrupts: list[int]) -> _Stop:
        """Why to make no further step; all processes agree, or some would wait for the others for ever."""
        limit = float("inf") if self.config.max_minutes is None else 60 * self.config.max_minutes
        stop = _Stop.OUT_OF_TIME if time.monotonic() - started > limit else _Stop.NO
        if step >= self.config.steps:
            stop = _Stop.FINISHED
        if interrupts:
            stop = _Stop.INTERRUPTED
        if self.accelerator.num_processes == 1:
            return stop
        return _Stop(int(self.accelerator.gather(torch.tensor([stop], device=self.accelerator.device)).max()))

    def _step(self, step: int, batch: Batch) -> Tensor:
        config, accelerator = self.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        if self.graphs is not None:
            loss = self.graphs(batch)
        else:
            loss = self.wrapped(batch)
            accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained(self.stage).values(), config.max_grad_norm)
        self.optimizer.step()
        if self.graphs is None:
            self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.stage, step)
        return loss.detach()

    def _can_record(self) -> bool:
        """Whether the step can be a CUDA graph: on one GPU, with nothing in it that asks the processor."""
        precise = self.config.precision != "fp16"  # whose loss scaling does
        single = self.accelerator.num_processes == 1 and self.accelerator.device.type == "cuda"
        return single and precise and not self.config.gradient_checkpointing

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            states = self.folder.path / STATES
            save_state(states, step, self.stage, self.average, self.optimizer.optimizer, self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _validate(self, step: int, curves: Curves | None) -> dict[str, float]:
        """Figures and pictures of the averaged networks, made by the main process, which alone has curves."""
        if curves is None:
            return {}
        with self.average.applied(self.stage), self.accelerator.autocast(), torch.no_grad():
            self.stage.eval()
            figures = self.stage.validate()
            curves.pictures(step, self.stage.sample_pictures())
            self.stage.train()
        curves.numbers(step, figures)
        curves.plot()
        return figures

    def _export(self) -> None:
        if self.accelerator.is_main_process:
            with self.average.applied(self.stage), self.folder.model_written() as model:
                self.stage.export(model, dtype=None)


def _accelerator(config: TrainConfig) -> Any:
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ResourceError(
            "training needs the package accelerate; install it with: pip install 'evfi[train]'"
        ) from error
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("training is set to run on cuda, but there is no CUDA device; use --device cpu")
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    return Accelerator(mixed_precision="no" if on_cpu else config.precision, cpu=on_cpu)


@contextmanager
def interrupts_deferred() -> Iterator[list[int]]:
    """Note the first Ctrl-C or polite kill instead of stopping there and then; a second one stops as usual.

    Afterwards whoever handled signals before learns of them, so that further ones do not disturb what tidies up.

    Yields:
        The signals that came. Stays empty outside the main thread, which alone receives them.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 2:
            raise KeyboardInterrupt("stopped at once; run the same command to resume from the latest saved state")
        if len(came) == 1:
            _log.info("stopping after this step; interrupt again to stop at once")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came and callable(handler := before[signal.SIGINT]):
            with suppress(KeyboardInterrupt):
                handler(signal.SIGINT, None)
