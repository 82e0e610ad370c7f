"""Making the frames of all systems, and the truth as the autoencoder sees it; whatever is there already is not made again.

OUT/frames/SYSTEM-xxxxxxxx/…      inserted frames, see `frame_store`
OUT/truth/vae-xxxxxxxx/…          true frames passed through the model's autoencoder, key frames included
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evfi import __version__
from evfi.evaluation.frame_store import FrameStore
from evfi.evaluation.ground_truth import VaeTruth, scored_size_frame
from evfi.evaluation.model_system import load_vae_truth
from evfi.evaluation.plan import EvaluationPlan, OpenRecordings, spec_of, true_frames
from evfi.evaluation.results import SystemInfo, WindowRecord
from evfi.evaluation.systems import System, SystemRequest, WindowTask, load_system
from evfi.evaluation.workers import Work, run_work
from evfi.fingerprints import fingerprint_of

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
class FrameWork(Work[WindowRecord, None]):
    """Makes one system's frames."""

    plan: EvaluationPlan
    request: SystemRequest
    device: str
    dtype: str | None
    is_timed: bool
    system: System | None = None

    def prepare(self) -> Any:
        """Load the system, unless it is ready."""
        system = self.system or load_system(self.request, self.plan.protocol.size, self.device, self.dtype)
        return _Maker(system, OpenRecordings(self.plan), frame_store(self.plan, system.info))

    def do(self, state: Any, item: WindowRecord) -> None:
        """Make and keep a window's frames."""
        maker: _Maker = state
        window = maker.recordings[item.sequence].load_window(spec_of(item))
        began = time.perf_counter()
        frames = maker.system.make(WindowTask(item.sequence, item.skip, window, self.plan.seed))
        seconds = time.perf_counter() - began
        maker.store.write(
            item,
            self.plan.sequence(item.sequence).info,
            frames[1:-1],
            range(item.start_frame + 1, item.end_frame),
            seconds=seconds if self.is_timed else None,
            is_warm=maker.is_warm,
            notes=tuple(maker.system.notes),
        )
        maker.system.notes.clear()
        maker.is_warm = True

    def finish(self, state: Any) -> None:
        """Close the recording that is open."""
        maker: _Maker = state
        maker.recordings.close()


@dataclass
class _Maker:
    system: System
    recordings: OpenRecordings
    store: FrameStore
    is_warm: bool = False


@dataclass(frozen=True)
class TruthWork(Work[WindowRecord, None]):
    """Passes true frames through a model's autoencoder."""

    plan: EvaluationPlan
    request: SystemRequest
    device: str
    dtype: str | None
    truth: VaeTruth | None = None

    def prepare(self) -> Any:
        """Load the autoencoder, unless it is ready."""
        truth = self.truth or load_vae_truth(self.request, self.device, self.dtype)
        return truth, OpenRecordings(self.plan), truth_store(self.plan, truth.fingerprint)

    def do(self, state: Any, item: WindowRecord) -> None:
        """Pass and keep a window's true frames."""
        vae: VaeTruth
        vae, recordings, store = state
        frames = scored_truth(self.plan, recordings, item)
        numbers = range(item.start_frame, item.end_frame + 1)
        passed = vae.pass_through(frames, item.sequence, numbers, self.plan.seed)
        store.write(item, self.plan.sequence(item.sequence).info, passed, numbers)

    def finish(self, state: Any) -> None:
        """Close the recording that is open."""
        state[1].close()


def scored_truth(plan: EvaluationPlan, recordings: OpenRecordings, record: WindowRecord) -> NDArray[np.uint8]:
    """A window's true frames at the size that is scored, uint8 [F, H, W, 3]."""
    frames = true_frames(recordings[record.sequence], record)
    return np.stack([scored_size_frame(frame, plan.protocol.size) for frame in frames])


def kept_frames(
    plan: EvaluationPlan, info: SystemInfo, record: WindowRecord, truth: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """All frames of a window as a system made them, uint8 [F, H, W, 3]; the key frames are those of the truth.

    Raises:
        InputError: the frames are not there, or damaged.
    """
    inserted = frame_store(plan, info).read(record, plan.sequence(record.sequence).info)
    return np.concatenate([truth[:1], inserted, truth[-1:]])


def make_missing(
    plan: EvaluationPlan,
    store: FrameStore,
    work: Work[WindowRecord, None],
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    """Do a work for the windows that a store lacks.

    Raises:
        EvfiError: whatever stops a window; those made before are kept.
    """
    windows = plan.scored
    missing = [record for record in windows if store.facts(record, plan.sequence(record.sequence).info) is None]
    done = len(windows) - len(missing)
    progress(done, len(windows))
    for _ in run_work(work, missing, workers):
        done += 1
        progress(done, len(windows))
