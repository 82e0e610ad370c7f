"""Models as systems of an evaluation, through the same `Interpolator` as everything else."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evfi.errors import ConfigError
from evfi.evaluation.environment import processor_name
from evfi.evaluation.ground_truth import VaeTruth, scored_size_frame
from evfi.evaluation.results import SystemInfo
from evfi.evaluation.systems import SizeRule, SystemRequest, WindowTask
from evfi.fingerprints import fingerprint_of, weights_fingerprint
from evfi.interpolator import Interpolator
from evfi.pipeline.blending import blend_linearly
from evfi.sampling.config import PIXELS_VERSION
from evfi.sampling.presets import chosen_config

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
            f"{self.info.name}: {task.sequence}, skip {task.skip}, window {window.spec.index} has no events; its key frames "
            "are blended"
        )
        _log.warning("%s", note)
        self.notes.append(note)
        return blend_linearly(keys[0], keys[1], window.spec.times_us)


def load_interpolator(
    request: SystemRequest, device: str | torch.device, dtype: str | torch.dtype | None
) -> Interpolator:
    """Load the model that a request names, with its settings over the preset's, and those over the model's own."""
    interpolator = Interpolator.from_pretrained(request.source, device, dtype)
    given = {name: value for name, value in request.settings.items() if value is not None}
    interpolator.config = chosen_config(interpolator.bundle.sampling, request.preset, given, base=request.protocol)
    return interpolator


def load_vae_truth(request: SystemRequest, device: str | torch.device, dtype: str | torch.dtype | None) -> VaeTruth:
    """Load the autoencoder of a model, with its upscaling and chunks.

    Args:
        request: a model, with settings.
        device: where it shall run.
        dtype: of the autoencoder.

    Raises:
        ConfigError: the request is not for a model, or a setting is out of range.
        ModelError: the model cannot be found or loaded.
        ResourceError: there is no such device, or too little memory.
    """
    if request.kind != "model":
        raise ConfigError(
            f"ground truth can only be passed through a model's autoencoder, but {request.name} is {request.kind}; name a model"
        )
    interpolator = load_interpolator(request, device, dtype)
    config = interpolator.config
    return VaeTruth(interpolator.bundle, config.upscale, config.decode_chunk_size)


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
        "pixels_version": PIXELS_VERSION,
    }
    fingerprint = fingerprint_of([weights_fingerprint(bundle.networks()), bundle.scheduler, settings])
    device = device_name(torch.device(bundle.unet.device))
    return SystemInfo(request.name, "model", settings, fingerprint, device, bundle.info.licence)
