"""`Interpolator`, which the command line, jobs and evaluations all use to interpolate.

    recording -> window -> key images and event stacks -> latents -> pictures -> refined -> frames

Conventions: frames are uint8 [H, W, 3] RGB of the recording's size. Key frames come back untouched, as first and last of
their window's frames; a window whose key frames are grey gives grey frames.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from evfi.engine.base import Engine, EngineName, PlainEngine
from evfi.engine.devices import resolve_device, resolve_dtype
from evfi.engine.fast import FastEngine
from evfi.engine.memory import GIB, free_budget
from evfi.engine.threads import few_threads
from evfi.errors import ConfigError, RecordingError, ResourceError, is_about_memory
from evfi.events.stacks import event_stacks
from evfi.limits import MAX_PIXELS, check_sensor
from evfi.models.bundle import ModelBundle
from evfi.models.registry import load_model
from evfi.recordings.planning import WindowSpec
from evfi.recordings.recording import Recording, Window
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import SeededNoise
from evfi.sampling.presets import PresetName, chosen_config
from evfi.sampling.refinement import rounded_levels
from evfi.sampling.two_sided import OnStep, fusion_weights
from evfi.video.geometry import Frame, FrameGeometry, frame_size
from evfi.video.io import is_grey_frame


@dataclass(frozen=True, eq=False)
class WindowResult:
    """The frames of one window.

    Attributes:
        spec: which window.
        frames: uint8 [F, H, W, 3], one per time of `spec.times_us`; first and last are the key frames.
        seconds: how long it took.
    """

    spec: WindowSpec
    frames: NDArray[np.uint8]
    seconds: float


@dataclass(frozen=True, eq=False)
class PreparedWindow:
    """A window in the form that the networks take, made on the CPU.

    Attributes:
        geometry: what is done about its frames' size.
        inputs: key images and event stacks.
    """

    geometry: FrameGeometry
    inputs: WindowInputs


class Interpolator:
    """Makes the frames between key frames with one model and one set of settings."""

    def __init__(
        self,
        bundle: ModelBundle,
        config: SamplingConfig | None = None,
        *,
        engine: EngineName | None = None,
        max_memory: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Take a loaded model.

        Args:
            bundle: the model, on the device and in the dtype it shall run in; for the fast engine it may also lie in the
                host's memory, which it then leaves part by part.
            config: the settings; the model's own by default.
            engine: what runs the networks; all compute the same. The fast one by default.
            max_memory: bytes of GPU memory that the fast engine may take; by default what is free.
            device: where the model shall run; by default where it lies.

        Raises:
            ConfigError: the settings do not suit the model.
        """
        self.bundle = bundle
        self.config = config or SamplingConfig.from_defaults(bundle.sampling)
        self._check_refiner()
        self.engine = make_engine(engine, bundle, max_memory, device)
        self._runs_on = device or bundle.unet.device

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "evfi-tiny",
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        *,
        engine: EngineName | None = None,
        max_memory: int | None = None,
        preset: PresetName = "exact",
        **sampling: Any,
    ) -> Interpolator:
        """Load a model by name, from a folder or from the hub.

        Args:
            name_or_path: see `evfi.models.registry.resolve_model`.
            device: "auto" takes the GPU if there is one.
            dtype: "float32", "float16" or "bfloat16"; by default float16 on a GPU and float32 on the CPU.
            engine: what runs the networks; all compute the same. The fast one by default.
            max_memory: bytes of GPU memory that the fast engine may take; by default what is free.
            preset: settings between speed and closeness, over the model's own; see `evfi.sampling.presets`.
            **sampling: settings of `SamplingConfig` that differ from the model's own and the preset's.

        Raises:
            ModelError: the model cannot be found or loaded.
            ConfigError: a setting is unknown, out of range, or would have no effect.
            ResourceError: there is no such device, or too little memory.
        """
        place = resolve_device(device)
        kind = resolve_dtype(dtype, place)
        need = _WHOLE_MODEL * kind.itemsize // 2
        whole = engine == "plain" or not _is_tight(place, max_memory, need)
        with memory_errors_told(f"to load model {name_or_path} on {place}; use a smaller model"):
            bundle = load_model(name_or_path, dtype=kind, device=place if whole else "cpu")
            if not whole and not _is_tight(place, max_memory, 2 * bundle.num_bytes):
                bundle.to(place)
        config = chosen_config(bundle.sampling, preset, sampling)
        return cls(bundle, config, engine=engine, max_memory=max_memory, device=place)

    def interpolate(
        self,
        recording: Recording,
        insert: int = 7,
        *,
        times_us: ArrayLike | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        skip: int = 1,
        seed: int = 0,
        on_step: OnStep | None = None,
    ) -> Iterator[WindowResult]:
        """Interpolate a recording, window by window.

        Args:
            recording: key frames and events.
            insert: frames to insert per window, evenly spaced.
            times_us: output times in µs instead of `insert`.
            start_us: leave out windows before this time.
            end_us: leave out windows after this time.
            skip: use every skip-th frame as a key frame.
            seed: of the noise; a window's frames depend on it and on the window's index, not on the other windows.
            on_step: called after each denoising step of each window with (steps done, steps in all).

        Returns:
            The windows' frames in the order of time, made one by one as they are asked for.

        Raises:
            ConfigError: a setting is out of range.
            RecordingError: no window is left; while iterating: a window has no events.
            ResourceError: while iterating: there is not enough memory.
        """
        specs = recording.plan_windows(
            insert if times_us is None else None,
            times_us=None if times_us is None else np.asarray(times_us),
            start_us=start_us,
            end_us=end_us,
            skip=skip,
        )
        return self._results(recording, specs, seed, on_step)

    def _results(
        self, recording: Recording, specs: Iterable[WindowSpec], seed: int, on_step: OnStep | None
    ) -> Iterator[WindowResult]:
        for spec in specs:
            began = time.perf_counter()
            frames = self.interpolate_window(recording.load_window(spec), seed=seed, on_step=on_step)
            yield WindowResult(spec, frames, time.perf_counter() - began)

    def prepare(self, window: Window) -> PreparedWindow | None:
        """Do what a window needs of the CPU before its networks run; another thread may do it while they run for another.

        Args:
            window: key frames and the events between them.

        Returns:
            What the diffusion model takes, or None where it is left out.

        Raises:
            ConfigError: a setting does not suit the model.
        """
        return self._prepared(window) if self.config.diffusion else None

    def _prepared(self, window: Window) -> PreparedWindow:
        check_sensor(f"window {window.spec.index}", window.events.sensor_size)
        size = frame_size(window.start_image)
        if (num := size[0] * size[1] * self.config.upscale**2) > MAX_PIXELS:
            raise ConfigError(
                f"upscale {self.config.upscale} makes pictures of {num / 2**20:.0f} megapixels from frames of "
                f"{size[0]}x{size[1]} px, but at most {MAX_PIXELS // 2**20} are allowed; lower it"
            )
        geometry = FrameGeometry(size, self.bundle.vae_factor, self.config.size_mode, self.config.upscale)
        with torch.inference_mode(), few_threads(self._runs_on):
            return PreparedWindow(geometry, window_inputs(window, geometry, self.bundle))

    def interpolate_window(
        self,
        window: Window,
        *,
        seed: int = 0,
        on_step: OnStep | None = None,
        prepared: PreparedWindow | None = None,
    ) -> NDArray[np.uint8]:
        """Make the frames of one window.

        Args:
            window: key frames and the events between them.
            seed: of the noise, together with the window's index.
            on_step: called after each denoising step with (steps done, steps in all).
            prepared: from `prepare`, where that was done ahead.

        Returns:
            uint8 [F, H, W, 3], one frame per output time; first and last are the key frames, untouched.

        Raises:
            RecordingError: there are no events between the key frames.
            ConfigError: the key frames differ in size, or a setting does not suit the model.
            InputError: the event sensor is too large.
            ResourceError: there is not enough memory.
        """
        keys = (window.start_image, window.end_image)
        if window.spec.num_inserted == 0:
            return np.stack(keys)
        if len(window.events) == 0:
            raise RecordingError(
                f"window {window.spec.index} ({window.spec.times_us[0]} to {window.spec.times_us[-1]} µs) has no events; "
                "interpolate a part of the recording that has events, or check the clocks of frames and events"
            )
        check_sensor(f"window {window.spec.index}", window.events.sensor_size)
        self._check_refiner()
        size, number = frame_size(keys[0]), len(window.spec.times_us)
        need = (
            f"for a window of {number} frames of {size[0]}x{size[1]} px on {self.bundle.unet.device}; insert fewer "
            f"frames or lower upscale ({self.config.upscale}) or decode_chunk_size ({self.config.decode_chunk_size})"
        )
        with memory_errors_told(need), torch.inference_mode(), few_threads(self._runs_on):
            frames = self._predicted(window, seed, on_step, prepared) if self.config.diffusion else None
            if frames is None or (self.config.refinement and self.bundle.refiner is not None):
                frames = self._refined(frames, window)
        if all(is_grey_frame(key) for key in keys):
            frames = np.repeat(np.rint(frames.mean(-1, keepdims=True)).astype(np.uint8), 3, axis=-1)
        frames[0], frames[-1] = keys
        return frames

    def _predicted(
        self, window: Window, seed: int, on_step: OnStep | None, prepared: PreparedWindow | None
    ) -> NDArray[np.uint8]:
        """All frames of a window as the diffusion model makes them, uint8 [F, H, W, 3]."""
        prepared = prepared or self._prepared(window)
        pictures = self._sampled(window, prepared.inputs, seed, on_step)
        return np.stack([prepared.geometry.to_original(picture) for picture in pictures])

    def _refined(self, prediction: NDArray[np.uint8] | None, window: Window) -> NDArray[np.uint8]:
        """All frames of a window with what moves carried from the key frames."""
        given = None if prediction is None else torch.from_numpy(prediction).permute(0, 3, 1, 2)
        made = to_pictures(self.engine.refine(window, given))
        return np.concatenate([window.start_image[None], made, window.end_image[None]])

    def _sampled(self, window: Window, inputs: WindowInputs, seed: int, on_step: OnStep | None) -> NDArray[np.uint8]:
        """All frames of a window as the model makes them, uint8 [F, H, W, 3] of the model size."""
        weights = fusion_weights(torch.from_numpy(window.spec.times_us))
        if not self.config.two_sided:
            weights = torch.ones_like(weights)
        noise = SeededNoise(seed, window.spec.index)
        latents = self.engine.sample(inputs, self.config, noise, weights=weights, on_step=on_step)
        return to_pictures(self.engine.decode(latents, self.config).mul_(127.5).add_(127.5))

    def _check_refiner(self) -> None:
        """Make sure that something makes frames; the settings may be replaced at any time."""
        if not self.config.diffusion and self.bundle.refiner is None:
            raise ConfigError(
                f"model {self.bundle.info.name} has no refiner, but diffusion = false (--no-diffusion, --preset warp) "
                "needs one; remove that option, or choose a model with a refiner, such as evfi-tiny"
            )


def make_engine(
    name: EngineName | None, bundle: ModelBundle, max_memory: int | None = None, device: torch.device | None = None
) -> Engine:
    """Make the engine of that name for a model, the fast one by default; the plain one knows no limit of memory."""
    if name == "plain":
        return PlainEngine(bundle)
    return FastEngine(bundle, max_memory, device=device)


_WHOLE_MODEL: Final = 13 * GIB // 2
"""GPU memory that a model of the published size takes in half precision while it is loaded there as a whole."""


def _is_tight(device: torch.device, max_memory: int | None, need: int) -> bool:
    """Whether less of a GPU's memory may be taken than is needed."""
    budget = free_budget(device, limit=max_memory)
    return budget is not None and budget < need


def window_inputs(window: Window, geometry: FrameGeometry, bundle: ModelBundle) -> WindowInputs:
    """Bring a window's key frames and events into the form that the networks take.

    Args:
        window: the window.
        geometry: what is done about its frames' size.
        bundle: the model; says which event representation it was trained with.
    """
    stacks = event_stacks(window.events, window.spec.times_us, geometry.content_size, bundle.event_stack)
    keys = [from_picture(geometry.to_model(key)) for key in (window.start_image, window.end_image)]
    return WindowInputs(torch.stack(keys), F.pad(torch.stack(stacks), geometry.model_padding))


def from_picture(picture: Frame) -> Tensor:
    """A picture uint8 [H, W, 3] as float32 [3, H, W] in [-1, 1]."""
    return torch.from_numpy(picture).permute(2, 0, 1).to(torch.float32) / 127.5 - 1


def to_pictures(levels: Tensor) -> NDArray[np.uint8]:
    """Levels [F, 3, H, W] in 0..255 (others are clamped), or uint8, as pictures uint8 [F, H, W, 3]."""
    rounded = levels if levels.dtype == torch.uint8 else rounded_levels(levels)
    pixels = rounded.permute(0, 2, 3, 1).contiguous()  # a GPU turns them faster
    pictures: NDArray[np.uint8] = pixels.cpu().numpy()
    return pictures


@contextmanager
def memory_errors_told(need: str) -> Iterator[None]:
    """Turn errors about memory, of the GPU and of the CPU, into one that says what it was needed for.

    Args:
        need: "for ...; what to do".

    Raises:
        ResourceError: there was not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_about_memory(error):
            raise
        raise ResourceError(f"not enough memory {need}") from error
