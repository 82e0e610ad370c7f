"""Parity with reference numbers: recompute a folder of them and compare.

The folder holds any of the files below; each is found by its name and brings its own settings, so that one checker takes
folders made with other sizes, seeds, numbers of frames and tile shapes. A file that is not there is reported as absent.

    event_stacks.safetensors           one interval's events per case, and its normalised stacks
    tile_views_WxH.json                where tiles of W×H px lie in frames of several sizes
    NAME_conditioning.npz + NAME/      key images and stacks of a sequence in BS-ERGB layout, per skip, scale and index
    tiny_svd/                          networks for the next two and the last
    unet_controlnet.safetensors        one evaluation: ControlNet residuals and UNet output
    pipeline_*.json + .safetensors     whole sampling: settings, inputs, noise draws, latents, decoded frames
    training_loss.safetensors          the ControlNet's training loss and gradient norm at several noise levels
    euler_churn_steps.safetensors      the schedule, and single steps with churn
    *_parameters.json                  names and shapes of all parameters at full size
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from evfi.errors import InputError
from evfi.events.stack_config import StackConfig
from evfi.events.stacks import event_stacks, normalised_interval_stacks
from evfi.events.stream import EventStream
from evfi.models.bundle import ModelBundle, assemble
from evfi.models.controlnet import EventControlNet
from evfi.models.info import ModelInfo
from evfi.models.unet import EventUNet
from evfi.plain_json import read_json
from evfi.recordings.datasets import bsergb
from evfi.recordings.opening import open_recording
from evfi.recordings.planning import WindowSpec
from evfi.sampling.conditioning import WindowInputs
from evfi.sampling.config import SamplingConfig
from evfi.sampling.noise import Purpose
from evfi.sampling.schedule import euler_step, karras_schedule
from evfi.sampling.tiling import tile_grid
from evfi.sampling.two_sided import sample_window
from evfi.training.loss import DenoisingInputs, denoising_loss
from evfi.video.geometry import FrameGeometry, frame_size

S_CHURN = 0.5
"""Churn of the stored Euler steps (the released sampling's)."""

STACKS_SCALE = 20
"""Stored event stacks of whole samplings are integers, this many times the value."""

MAX_PIXELS_OFF = 1e-3
"""Share of 8-bit values that may differ by one level."""


SMALL_CHANGE = 1e-6
_MAX_JSON_BYTES = 2**24
"""About what rounding does to a float32 tensor; shows how well a sampling can be reproduced at all."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        item: what was compared.
        error: the greatest error found; None if there is nothing to compare with.
        tolerance: the greatest error allowed.
        passed: whether all is well; an absent item passes.
        note: more about it, or why it could not be computed.
    """

    item: str
    error: float | None
    tolerance: float | None
    passed: bool
    note: str = ""

    @property
    def status(self) -> str:
        """One word: ok, OFF, FAILED or absent."""
        if self.error is None:
            return "absent" if self.passed else "FAILED"
        return "ok" if self.passed else "OFF"


class ReferenceFolder:
    """A folder of reference numbers and what several of its files share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def bundle(self) -> ModelBundle:
        """The small networks in float32, their weights laid out and called as the reference does, so that rounding agrees."""
        base = self.path / "tiny_svd"
        info = ModelInfo(name="tiny_svd", licence="reference numbers", source=str(base), num_frames=0)
        bundle = assemble(
            base, base / "controlnet", info=info, event_stack=StackConfig(), sampling={}, dtype=torch.float32
        )
        for network in bundle.networks().values():
            for parameter in network.parameters():
                parameter.data = parameter.data.contiguous()
        return bundle


Checker = Callable[[ReferenceFolder, Path], Iterator[Check]]


def check_folder(path: Path) -> Iterator[Check]:
    """Recompute and compare every known file of a folder.

    Args:
        path: the folder.

    Raises:
        InputError: there is no such folder.
    """
    if not path.is_dir():
        raise InputError(f"no folder of reference numbers at {path}")
    folder = ReferenceFolder(path)
    for pattern, checker in CHECKERS.items():
        files = sorted(path.glob(pattern))
        if not files:
            yield Check(pattern, None, None, passed=True)
        for file in files:
            yield from check_file(folder, file, checker)


def check_file(folder: ReferenceFolder, file: Path, checker: Checker) -> Iterator[Check]:
    """Run one file's comparisons; whatever stops them becomes a failed check, so that the other files are still seen."""
    is_empty = True
    try:
        with torch.random.fork_rng(devices=[]):
            for check in checker(folder, file):
                is_empty = False
                yield check
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Check(file.name, None, None, passed=False, note=reason)
        return
    if is_empty:
        yield Check(file.name, None, None, passed=False, note="holds nothing to compare with")


def compare(item: str, found: Tensor, expected: Tensor, tolerance: float, *, relative: bool = False) -> Check:
    """Compare two tensors by their greatest absolute difference, or that over the greatest expected magnitude."""
    if found.shape != expected.shape:
        note = f"shape {list(found.shape)}, expected {list(expected.shape)}"
        return Check(item, float("inf"), tolerance, passed=False, note=note)
    found, expected = found.detach().to(torch.float64), expected.to(torch.float64)
    error = (found - expected).abs().amax() if found.numel() else torch.zeros(())
    if relative:
        error = error / expected.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    return Check(item, float(error), tolerance, passed=bool(error <= tolerance))


def compare_levels(item: str, found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> Check:
    """Compare 8-bit values: a few may be off by one level."""
    if found.shape != expected.shape:
        note = f"shape {list(found.shape)}, expected {list(expected.shape)}"
        return Check(item, float("inf"), 1.0, passed=False, note=note)
    difference = np.abs(found.astype(np.int16) - expected.astype(np.int16))
    share = float(np.count_nonzero(difference)) / max(difference.size, 1)
    error = float(difference.max(initial=0))
    note = f"{share:.3%} of values differ"
    return Check(item, error, 1.0, passed=error <= 1 and share <= MAX_PIXELS_OFF, note=note)


def check_event_stacks(_: ReferenceFolder, file: Path) -> Iterator[Check]:
    """Normalised stacks of single intervals, before any resizing."""
    tensors = load_file(file)
    for case in sorted(name.removesuffix(".events") for name in tensors if name.endswith(".events")):
        height, width = tensors[f"{case}.forward"].shape[-2:]
        t, x, y, p = tensors[f"{case}.events"].T.numpy()
        events = EventStream.from_arrays(x, y, t, p, (width, height))
        config = StackConfig(num_channels=tensors[f"{case}.forward"].shape[0])
        found = normalised_interval_stacks(events, config)
        for direction, stack in zip(("forward", "backward"), found, strict=True):
            yield compare(f"event stacks {case} {direction}", stack, tensors[f"{case}.{direction}"], 1e-6)


def check_tile_views(_: ReferenceFolder, file: Path) -> Iterator[Check]:
    """Tile positions; sizes are in pixels, positions in latents of an autoencoder of factor 8."""
    tile = tuple(int(side) // 8 for side in _match(r"(\d+)x(\d+)", file.stem))
    cases = read_json(file, _MAX_JSON_BYTES)
    if not cases:
        return
    wrong = []
    for key, expected in cases.items():
        height, width, overlap = _match(r"(\d+)x(\d+)@([\d.]+)", key)
        grid = tile_grid((int(width) // 8, int(height) // 8), (tile[0], tile[1]), float(overlap), multiple=1)
        if [[view.left, view.top, view.right, view.bottom] for view in grid.views] != expected:
            wrong.append(key)
    note = f"{len(cases)} frame sizes and overlaps" + (f", first off: {wrong[0]}" if wrong else "")
    yield Check(file.stem, float(len(wrong)), 0.0, passed=not wrong, note=note)


def check_conditioning(folder: ReferenceFolder, file: Path) -> Iterator[Check]:
    """Key images and event stacks of windows of a sequence in BS-ERGB layout.

    The reference ends a window's last interval just before the window's last event, so that this one event is missing from
    its stacks. It is left out here too; everywhere else every event counts.
    """
    root = folder.path / file.name.removesuffix("_conditioning.npz")
    sequence = next((path.parent for path in sorted(root.rglob("images")) if path.is_dir()), root)
    recording = open_recording(sequence, format=bsergb.NAME)
    with np.load(file, allow_pickle=False) as arrays:
        cases = sorted({name.rsplit(".", 1)[0] for name in arrays.files})
        for case in cases:
            skip, scale, start = (int(value) for value in _match(r"skip(\d+)_scale(\d+)_idx(\d+)", case))
            times = recording.frames.times_us[start : start + skip + 2]
            window = recording.load_window(WindowSpec(start, start, start + skip + 1, times))
            geometry = FrameGeometry(frame_size(window.start_image), 8, "resize", scale)
            events = window.events.slice(int(times[0]), int(window.events.t[-1]))
            stacks = event_stacks(events, times, geometry.model_size, StackConfig())
            found = {
                "start_image": geometry.fit(window.start_image),
                "end_image": geometry.fit(window.end_image),
                "events_forward": _levels(stacks[0]),
                "events_backward": _levels(stacks[1]),
            }
            for name, value in found.items():
                yield compare_levels(f"{root.name} {case} {name}", value, arrays[f"{case}.{name}"])


def _levels(stacks: Tensor) -> np.ndarray[Any, Any]:
    return torch.round((stacks + 1) * 127).to(torch.uint8).numpy()


def check_networks(folder: ReferenceFolder, file: Path) -> Iterator[Check]:
    """One evaluation of ControlNet and UNet."""
    tensors, bundle = load_file(file), folder.bundle
    shared = [tensors[name] for name in ("sample", "timestep", "encoder_hidden_states", "added_time_ids")]
    with torch.inference_mode():
        residuals = bundle.controlnet(*shared, bundle.controlnet.embed_events(tensors["event_stacks"]))
        output = bundle.unet(*shared, residuals)
    for index, skip in enumerate(residuals.skips):
        yield compare(f"ControlNet skip {index}", skip, tensors[f"controlnet_down_{index}"], 1e-4)
    yield compare("ControlNet mid", residuals.mid, tensors["controlnet_mid"], 1e-4)
    yield compare("UNet output", output, tensors["unet_output"], 1e-4)
    stored = sum(name.startswith("controlnet_down_") for name in tensors)
    yield compare("number of ControlNet skips", torch.tensor([len(residuals.skips)]), torch.tensor([stored]), 0.0)


def check_pipeline(folder: ReferenceFolder, file: Path) -> Iterator[Check]:
    """Whole sampling and decoding with given noise.

    Where the latents are off, the note says how much rounding alone can change them: networks that normalise groups of one
    or two values (small tiles at their coarsest level) magnify it beyond any tolerance, in the reference as well.
    """
    settings = read_json(file, _MAX_JSON_BYTES)
    tensors = load_file(file.with_suffix(".safetensors"))
    known = {field.name for field in fields(SamplingConfig)}
    config = SamplingConfig(
        **{"size_mode": "resize", "batch_size": 2, **{name: value for name, value in settings.items() if name in known}}
    )
    inputs = pipeline_inputs(tensors, folder.bundle.vae_factor, config)
    latents = sample_window(folder.bundle, inputs, config, StoredNoise(tensors, config))
    with torch.inference_mode():
        frames = folder.bundle.decode(latents, config.decode_chunk_size)
    check = compare(f"{file.stem} latents", latents, tensors["latents"].reshape(-1, *latents.shape[1:]), 1e-3)
    if not check.passed and not check.note:
        moved = {**tensors, "initial_noise": tensors["initial_noise"] * (1 + SMALL_CHANGE)}
        change = sample_window(folder.bundle, inputs, config, StoredNoise(moved, config)) - latents
        note = f"a relative change of {SMALL_CHANGE:g} in the first noise changes them by {change.abs().amax():.0e}"
        check = replace(check, note=note)
    yield check
    yield compare(f"{file.stem} frames", frames, tensors["frames"], 5e-3)


def pipeline_inputs(tensors: Mapping[str, Tensor], factor: int, config: SamplingConfig) -> WindowInputs:
    """The window of a stored sampling."""
    images = []
    for name in ("start_image", "end_image"):
        picture = tensors[name].numpy()
        geometry = FrameGeometry(frame_size(picture), factor, config.size_mode, config.upscale)
        images.append(torch.from_numpy(geometry.to_model(picture)).permute(2, 0, 1) / 127.5 - 1)
    stacks = torch.stack([tensors["events_forward"], tensors["events_backward"]])
    return WindowInputs(torch.stack(images), stacks.float() / STACKS_SCALE)


class StoredNoise:
    """The noise draws of a stored sampling, in the order in which they were made."""

    def __init__(self, tensors: Mapping[str, Tensor], config: SamplingConfig) -> None:
        self._tensors = tensors
        self._repeats = config.num_reinjections

    def draw(self, purpose: Purpose, shape: tuple[int, ...], step: int = 0, repeat: int = 0) -> Tensor:
        """The draw that was stored for this purpose.

        Raises:
            InputError: there is none, or it has another shape.
        """
        names = sorted(name for name in self._tensors if name.startswith(f"{purpose}_noise"))
        place = {"churn": step * (self._repeats + 1), "reinjection": step * self._repeats}.get(purpose, 0) + repeat
        draws = torch.cat([self._tensors[name].reshape(-1, *shape) for name in names]) if names else torch.zeros(0)
        if place >= len(draws):
            raise InputError(f"the settings need {place + 1} draws of {purpose} noise, {len(draws)} are stored")
        return draws[place]


def check_steps(folder: ReferenceFolder, file: Path) -> Iterator[Check]:
    """The schedule and single Euler steps with churn."""
    tensors = load_file(file)
    config = read_json(folder.path / "tiny_svd/scheduler/scheduler_config.json", _MAX_JSON_BYTES)
    schedule = karras_schedule(config, len(tensors["timesteps"]))
    yield compare("sigmas", torch.tensor(schedule.sigmas), tensors["sigmas"], 1e-4, relative=True)
    yield compare("timesteps", torch.tensor(schedule.timesteps), tensors["timesteps"], 1e-4, relative=True)
    initial = torch.tensor([schedule.initial_scale])
    yield compare("initial scale", initial, tensors["init_noise_sigma"].reshape(1), 1e-4, relative=True)
    churn = schedule.churn(S_CHURN)
    for index in sorted(int(name.split(".")[0]) for name in tensors if name.endswith(".prev_sample")):
        sample, velocity, noise, expected = (
            tensors[f"{index}.{name}"] for name in ("sample", "model_output", "churn_noise", "prev_sample")
        )
        sigma, sigma_next = schedule.sigmas[index : index + 2]
        found = euler_step(sample, velocity, sigma, sigma_next, churn=churn, noise=noise)
        yield compare(f"Euler step {index}", found, expected, 1e-4, relative=True)


def check_training_loss(folder: ReferenceFolder, file: Path) -> Iterator[Check]:
    """The ControlNet's training loss and the norm of its gradient."""
    tensors, bundle = load_file(file), folder.bundle
    parameters = list(bundle.controlnet.parameters())
    for case in sorted(name.removesuffix(".loss") for name in tensors if name.endswith(".loss")):
        names = [field.name for field in fields(DenoisingInputs)]
        given = {name: tensors[f"{case}.{name}" if f"{case}.{name}" in tensors else name] for name in names}
        bundle.controlnet.requires_grad_(True)
        try:
            loss = denoising_loss(bundle.unet, bundle.controlnet, DenoisingInputs(**given)).mean()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        finally:
            bundle.controlnet.requires_grad_(False)
        norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
        for name, found in (("loss", loss), ("controlnet_grad_norm", norm)):
            expected = tensors[f"{case}.{name}"].reshape(1)
            yield compare(f"training {case} {name}", found.reshape(1), expected, 1e-4, relative=True)


def check_parameters(_: ReferenceFolder, file: Path) -> Iterator[Check]:
    """Names and shapes of all parameters of the full-size networks."""
    builders: dict[str, Callable[[], torch.nn.Module]] = {
        "svd_unet_parameters": EventUNet,
        "event_controlnet_parameters": EventControlNet,
    }
    expected = {name: tuple(shape) for name, shape in read_json(file, _MAX_JSON_BYTES).items()}
    if file.stem not in builders:
        raise InputError(f"expected one of {', '.join(builders)}")
    with torch.device("meta"):
        network = builders[file.stem]()
    found = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    note = f"{len(found)} parameters" + (f", first off: {wrong[0]}" if wrong else "")
    yield Check(file.stem, float(len(wrong)), 0.0, passed=not wrong, note=note)


def _match(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise InputError(f"{text!r} does not look like {pattern}")
    return match.groups()


CHECKERS: Mapping[str, Checker] = {
    "event_stacks.safetensors": check_event_stacks,
    "tile_views_*.json": check_tile_views,
    "*_conditioning.npz": check_conditioning,
    "unet_controlnet.safetensors": check_networks,
    "pipeline_*.json": check_pipeline,
    "euler_churn_steps.safetensors": check_steps,
    "training_loss.safetensors": check_training_loss,
    "*_parameters.json": check_parameters,
}
"""Which files are checked, and how."""
