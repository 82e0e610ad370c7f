"""A job's model: loaded by workers, described when the job is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evfi import __version__
from evfi.engine.devices import dtype_name
from evfi.models.facts import ModelFacts, model_facts
from evfi.recordings.recording import Window
from evfi.sampling.config import PIXELS_VERSION
from evfi.sampling.presets import PresetName, chosen_config
from evfi.workers.tasks import OnStep


class WindowInterpolator(Protocol):
    """What a job needs of an `evfi.interpolator.Interpolator`."""

    def prepare(self, window: Window) -> Any:
        """Do what a window needs of the CPU; None where nothing can be done ahead."""

    def interpolate_window(
        self, window: Window, *, seed: int, on_step: OnStep | None, prepared: Any = None
    ) -> NDArray[np.uint8]:
        """Make a window's frames, uint8 [F, H, W, 3], key frames first and last."""


@dataclass(frozen=True, eq=False)
class WindowItem:
    """A task's item: a window to be interpolated.

    Attributes:
        window: its frames, events and times.
        seed: of all random numbers.
    """

    window: Window
    seed: int


class WindowWorker:
    """Interpolates windows; a `Worker`."""

    def __init__(self, interpolator: WindowInterpolator) -> None:
        """Take a loaded model."""
        self._interpolator = interpolator

    def prepare(self, item: WindowItem) -> Any:
        """Do what a window needs of the CPU."""
        return self._interpolator.prepare(item.window)

    def perform(self, item: WindowItem, prepared: Any, on_step: OnStep | None) -> NDArray[np.uint8]:
        """Make a window's frames, uint8 [F, H, W, 3], key frames first and last."""
        return self._interpolator.interpolate_window(item.window, seed=item.seed, on_step=on_step, prepared=prepared)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class ModelRequest:
    """A model and how it is run; a `WorkerFactory`.

    Attributes:
        name: see `evfi.models.registry.resolve_model`.
        dtype: of the networks, or None for the device's usual one.
        max_memory: bytes of GPU memory that may be taken.
        preset: settings between speed and closeness.
        settings: fields of `SamplingConfig` that were given.
    """

    name: str = "evfi-tiny"
    dtype: str | None = None
    max_memory: int | None = None
    preset: PresetName = "exact"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, device: str) -> WindowWorker:
        """Load the model.

        Args:
            device: "cpu", "cuda:0", …

        Raises:
            ModelError: it cannot be loaded.
            ResourceError: there is no such device, or too little memory.
        """
        from evfi.interpolator import Interpolator  # heavy; who only plans goes without it

        interpolator = Interpolator.from_pretrained(
            self.name, device, self.dtype, max_memory=self.max_memory, preset=self.preset, **self.settings
        )
        return WindowWorker(interpolator)

    def facts(self) -> ModelFacts:
        """Facts about the model, without loading it.

        Raises:
            ModelError: it cannot be found or fetched.
        """
        return model_facts(self.name)

    def made_of(self, facts: ModelFacts, device: str) -> dict[str, Any]:
        """All of the model and its settings that frames depend on, in values that JSON can hold.

        Args:
            facts: the model's.
            device: one of those that work; which of a kind does not matter.

        Raises:
            ConfigError: a setting is out of range, or would have no effect.
        """
        config = chosen_config(facts.sampling, self.preset, self.settings)
        kind = device.partition(":")[0]
        return {
            "evfi version": __version__,
            "version of pixels": PIXELS_VERSION,
            "model": facts.name,
            "model files": facts.fingerprint,
            "sampling": asdict(config),
            "precision": dtype_name(self.dtype, kind),
            "kind of device": kind,
        }
