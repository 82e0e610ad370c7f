"""A job's model: loaded by whoever works, described by who plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from evfi import __version__
from evfi.engine.devices import resolve_device, resolve_dtype
from evfi.errors import ConfigError
from evfi.models.facts import ModelFacts, model_facts
from evfi.sampling.config import PIXELS_VERSION, SamplingConfig
from evfi.sampling.presets import PresetName, with_preset

if TYPE_CHECKING:
    from evfi.interpolator import Interpolator


@dataclass(frozen=True)
class ModelRequest:
    """A model and how it is run; an `InterpolatorFactory`.

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

    def __call__(self, device: str) -> Interpolator:
        """Load the model.

        Args:
            device: "cpu", "cuda:0", …

        Raises:
            ModelError: it cannot be loaded.
            ResourceError: there is no such device, or too little memory.
        """
        from evfi.interpolator import Interpolator  # heavy; who only plans goes without it

        return Interpolator.from_pretrained(
            self.name, device, self.dtype, max_memory=self.max_memory, preset=self.preset, **self.settings
        )

    def facts(self) -> ModelFacts:
        """What is known of the model without loading it.

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
            ConfigError: a setting is out of range.
        """
        config = SamplingConfig.from_defaults(with_preset(facts.sampling, self.preset), **self.settings)
        place = torch.device(device)
        return {
            "evfi version": __version__,
            "version of pixels": PIXELS_VERSION,
            "model": facts.name,
            "model files": facts.fingerprint,
            "sampling": asdict(config),
            "precision": str(resolve_dtype(self.dtype, place)).removeprefix("torch."),
            "kind of device": place.type,
        }


def parse_devices(text: str) -> tuple[str, ...]:
    """Which devices work, one worker each.

    Args:
        text: "auto" (all GPUs, or the CPU where there is none), "cuda" (all GPUs), or names with commas between them:
            "cuda:0,cuda:1", "cpu". The CPU may stand there several times; its cores are shared then.

    Raises:
        ConfigError: no device has such a name, a GPU stands there twice, or CPU and GPUs are mixed, whose frames differ.
        ResourceError: this machine has no such device.
    """
    number = torch.cuda.device_count()
    if text == "auto" or (text == "cuda" and number):
        return tuple(f"cuda:{index}" for index in range(number)) or ("cpu",)
    names = [name.strip() for name in text.split(",")]
    found = [resolve_device(name) for name in names]
    if "auto" in names or any(device.type not in ("cpu", "cuda") for device in found):
        raise ConfigError(f"devices must be auto, or names with commas between them (cuda:0,cuda:1), got '{text}'")
    devices = ["cpu" if device.type == "cpu" else f"cuda:{device.index or 0}" for device in found]
    gpus = [device for device in devices if device != "cpu"]
    if gpus and len(gpus) < len(devices):
        raise ConfigError(f"the frames of CPU and GPUs differ a little; give devices of one kind, got '{text}'")
    if len(set(gpus)) < len(gpus):
        raise ConfigError(f"a GPU has one worker; name each once, got '{text}'")
    return tuple(devices)
