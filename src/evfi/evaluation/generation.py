"""Make the frames of all systems, and the ground truth through the autoencoder; existing frames are not made again.

OUT/frames/SYSTEM-xxxxxxxx/…      inserted frames, see `frame_store`
OUT/truth/vae-xxxxxxxx/…          true frames passed through the model's autoencoder, key frames included
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evfi import __version__
from evfi.errors import ConfigError
from evfi.evaluation.frame_store import FrameStore
from evfi.evaluation.ground_truth import VaeTruth, scored_size_frame
from evfi.evaluation.loading import load_system
from evfi.evaluation.model_system import load_vae_truth
from evfi.evaluation.plan import EvaluationPlan, OpenRecordings, spec_of, true_frames
from evfi.evaluation.results import SystemInfo, WindowRecord
from evfi.evaluation.systems import System, SystemRequest, WindowTask
from evfi.fingerprints import fingerprint_of
from evfi.workers.plan import WorkerPlan
from evfi.workers.scheduler import run_tasks
from evfi.workers.tasks import OnStep, Task, WorkerFactory

_SHORT: Final = 8

Progress = Callable[[float, int, str], None]
"""Called with (done, in all, what is being done)."""


def frame_store(plan: EvaluationPlan, info: SystemInfo) -> FrameStore:
    """Where a system's frames are kept, apart from those of other settings, seeds, devices and versions of this package."""
    maker = fingerprint_of([info.fingerprint, info.device, plan.protocol.size, plan.seed, __version__])
    name = re.sub(r"[^\w.+-]", "_", info.name)
    return FrameStore(plan.folder / "frames" / f"{name}-{maker[:_SHORT]}", maker)


def truth_store(plan: EvaluationPlan, fingerprint: str) -> FrameStore:
    """Where true frames are kept that were passed through an autoencoder, apart in the same way."""
    maker = fingerprint_of([fingerprint, plan.protocol.size, plan.seed, __version__])
    return FrameStore(plan.folder / "truth" / f"vae-{maker[:_SHORT]}", maker)


@dataclass(frozen=True)
class FrameMaking:
    """Makes one system's frames; a `WorkerFactory`.

    Attributes:
        plan: the evaluation.
        request: the system.
        info: what is known of it.
        dtype: of a model.
        is_timed: whether seconds per frame are noted.
        system: the system where it is loaded, for work in this process.
    """

    plan: EvaluationPlan
    request: SystemRequest
    info: SystemInfo
    dtype: str | None
    is_timed: bool
    system: System | None = None

    def __call__(self, device: str) -> FrameMaker:
        """Load the system, unless it is ready.

        Raises:
            ConfigError: this device is another than the one whose frames are evaluated.
        """
        system = self.system or load_system(self.request, self.plan.protocol.size, device, self.dtype)
        if system.info.device != self.info.device:
            raise ConfigError(
                f"frames of different devices differ slightly; expected {self.info.device} for all workers, found "
                f"{system.info.device} at {device}; name devices of one kind"
            )
        return FrameMaker(self, system)


class FrameMaker:
    """Makes and keeps windows' frames; a `Worker`."""

    def __init__(self, making: FrameMaking, system: System) -> None:
        """Take a loaded system."""
        self._plan, self._is_timed, self._system = making.plan, making.is_timed, system
        self._recordings = OpenRecordings(making.plan)
        self._store = frame_store(making.plan, making.info)
        self._is_warm = False

    def prepare(self, item: WindowRecord) -> None:
        """Nothing is done ahead."""

    def perform(self, item: WindowRecord, prepared: None, on_step: OnStep | None) -> None:
        """Make and keep a window's frames."""
        window = self._recordings[item.sequence].load_window(spec_of(item))
        began = time.perf_counter()
        frames = self._system.make(WindowTask(item.sequence, item.skip, window, self._plan.seed))
        seconds = time.perf_counter() - began
        self._recordings.check(item)
        self._store.write(
            item,
            self._plan.sequence(item.sequence).info,
            frames[1:-1],
            range(item.start_frame + 1, item.end_frame),
            seconds=seconds if self._is_timed else None,
            is_warm=self._is_warm,
            notes=tuple(self._system.notes),
        )
        self._system.notes.clear()
        self._is_warm = True

    def close(self) -> None:
        """Close the recording that is open."""
        self._recordings.close()


@dataclass(frozen=True)
class TruthMaking:
    """Passes true frames through a model's autoencoder; a `WorkerFactory`.

    Attributes:
        plan: the evaluation.
        request: the model.
        dtype: of the autoencoder.
        truth: the autoencoder where it is loaded, for work in this process.
    """

    plan: EvaluationPlan
    request: SystemRequest
    dtype: str | None
    truth: VaeTruth | None = None

    def __call__(self, device: str) -> TruthMaker:
        """Load the autoencoder, unless it is ready."""
        return TruthMaker(self.plan, self.truth or load_vae_truth(self.request, device, self.dtype))


class TruthMaker:
    """Passes and keeps windows' true frames; a `Worker`."""

    def __init__(self, plan: EvaluationPlan, truth: VaeTruth) -> None:
        """Take a loaded autoencoder."""
        self._plan, self._truth = plan, truth
        self._recordings, self._store = OpenRecordings(plan), truth_store(plan, truth.fingerprint)

    def prepare(self, item: WindowRecord) -> None:
        """Nothing is done ahead."""

    def perform(self, item: WindowRecord, prepared: None, on_step: OnStep | None) -> None:
        """Pass and keep a window's true frames."""
        frames = scored_truth(self._plan, self._recordings, item)
        numbers = range(item.start_frame, item.end_frame + 1)
        passed = self._truth.pass_through(frames, item.sequence, numbers, self._plan.seed)
        self._recordings.check(item)
        self._store.write(item, self._plan.sequence(item.sequence).info, passed, numbers)

    def close(self) -> None:
        """Close the recording that is open."""
        self._recordings.close()


def scored_truth(plan: EvaluationPlan, recordings: OpenRecordings, record: WindowRecord) -> NDArray[np.uint8]:
    """A window's true frames at the size that is scored, uint8 [F, H, W, 3]."""
    frames = true_frames(recordings[record.sequence], record)
    return np.stack([scored_size_frame(frame, plan.protocol.size) for frame in frames])


def kept_frames(
    plan: EvaluationPlan, info: SystemInfo, record: WindowRecord, truth: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """All frames of a window as a system made them, uint8 [F, H, W, 3]; the key frames are the ground truth's.

    Raises:
        InputError: the frames are not there, or damaged.
    """
    inserted = frame_store(plan, info).read(record, plan.sequence(record.sequence).info)
    return np.concatenate([truth[:1], inserted, truth[-1:]])


def make_missing(
    plan: EvaluationPlan,
    store: FrameStore,
    factory: WorkerFactory,
    workers: WorkerPlan,
    progress: Callable[[int, int], None],
) -> None:
    """Work on the windows that a store lacks.

    Args:
        plan: the evaluation.
        store: where the workers keep what they make.
        factory: loads the workers.
        workers: who works.
        progress: called with (windows done, windows in all).

    Raises:
        EvfiError: whatever stops a window; those made before are kept.
    """
    windows = plan.scored
    missing = [record for record in windows if store.facts(record, plan.sequence(record.sequence).info) is None]
    done = len(windows) - len(missing)
    progress(done, len(windows))
    if not missing:
        return
    tasks = (Task(record.key, record, window_name(record)) for record in missing)
    for _ in run_tasks(workers.at_most(len(missing)).scheduler(factory), tasks):
        done += 1
        progress(done, len(windows))


def window_name(record: WindowRecord) -> str:
    """A window in messages."""
    return f"{record.sequence}, skip {record.skip}, window {record.index}"
