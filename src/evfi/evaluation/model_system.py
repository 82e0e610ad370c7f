"""Models as systems of an evaluation: the same `Interpolator` that everything else goes through."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evfi.evaluation.environment import processor_name
from evfi.evaluation.fingerprints import fingerprint_of
from evfi.evaluation.ground_truth import scored_size_frame
from evfi.evaluation.results import SystemInfo
from evfi.evaluation.systems import SizeRule, SystemRequest, WindowTask
from evfi.interpolator import Interpolator
from evfi.pipeline.blending import blend_linearly
from evfi.sampling.config import SamplingConfig

_log = logging.getLogger(__name__)


class ModelSystem:
    """A model with its settings.

    Where frames are scored at the floored size, the key frames are floored first: the interpolator then has nothing left
    to fit, and brings the decoded picture from the model size to the floored size by one Lanczos resampling, as the
    published evaluation does. A window without a single event is filled by blending its key frames, as jobs do; `notes`
    and the log say so.
    """

    def __init__(
        self,
        request: SystemRequest,
        size: SizeRule,
        device: str | torch.device,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        """Load a model; see `systems.load_system`."""
        self.notes: list[str] = []
        self._size = size
        self._interpolator = load_interpolator(request, device, dtype)
        self.info = _info(request, self._interpolator)

    def make(self, task: WindowTask) -> NDArray[np.uint8]:
        """All frames of a window, uint8 [F, H, W, 3]; the first and last are the key frames.

        Raises:
            ConfigError: the key frames differ in size or are too small, or a setting does not suit the model.
            ResourceError: there is not enough memory.
        """
        keys = [scored_size_frame(key, self._size) for key in (task.window.start_image, task.window.end_image)]
        window = replace(task.window, start_image=keys[0], end_image=keys[1])
        if len(window.events):
            return self._interpolator.interpolate_window(window, seed=task.seed)
        note = (
            f"{self.info.name}: {task.sequence}, skip {task.skip}, window {window.spec.index} has no events and is a "
            "blend of its key frames"
        )
        _log.warning("%s", note)
        self.notes.append(note)
        return blend_linearly(keys[0], keys[1], window.spec.times_us)


def load_interpolator(
    request: SystemRequest, device: str | torch.device, dtype: str | torch.dtype | None
) -> Interpolator:
    """Load the model that a request names, with its settings over the model's own."""
    interpolator = Interpolator.from_pretrained(request.source, device, dtype)
    given = {name: value for name, value in request.settings.items() if value is not None}
    interpolator.config = SamplingConfig.from_defaults({**interpolator.bundle.sampling, **given})
    return interpolator


def weights_fingerprint(networks: Mapping[str, nn.Module]) -> str:
    """SHA-256 over all parameters and buffers: names, shapes, dtypes and bytes, as they lie in memory after loading.

    Args:
        networks: by name; their order does not matter, nor does the device.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in sorted(networks):
        for name, value in sorted(networks[part].state_dict().items()):
            digest.update(f"{part}/{name}/{tuple(value.shape)}/{value.dtype}\0".encode())
            values = value.detach().to("cpu").contiguous().reshape(-1)
            digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()


def device_name(device: torch.device) -> str:
    """What a network runs on: the GPU's or the processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def _info(request: SystemRequest, interpolator: Interpolator) -> SystemInfo:
    bundle = interpolator.bundle
    settings: dict[str, Any] = {
        "model": bundle.info.name,
        **asdict(interpolator.config),
        "dtype": str(bundle.unet.dtype).removeprefix("torch."),
        "event_stack": asdict(bundle.event_stack),
    }
    fingerprint = fingerprint_of([weights_fingerprint(bundle.networks()), bundle.scheduler, settings])
    device = device_name(torch.device(bundle.unet.device))
    return SystemInfo(request.name, "model", settings, fingerprint, device, bundle.info.licence)
