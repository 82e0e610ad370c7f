"""The three stages that share the loop: image autoencoder, image-to-video base, event ControlNet.

A stage is a module whose `forward(batch)` is the loss, so that it can be wrapped for several devices; it knows how to make
the batch of a step (from the seed and the step alone) and how to write its networks in diffusers' layout.
"""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evfi.errors import ConfigError
from evfi.events.stacks import StackConfig
from evfi.models.bundle import (
    ModelBundle,
    ModelInfo,
    decode_latents,
    encode_pixels,
    load_controlnet,
    load_network,
    load_vae,
    save_network,
)
from evfi.models.controlnet import EventControlNet
from evfi.models.unet import EventUNet
from evfi.models.weights import read_json
from evfi.training.config import (
    AutoencoderTraining,
    BaseTraining,
    ControlNetTraining,
    DenoiserTraining,
    TrainConfig,
)
from evfi.training.loss import DenoisingInputs, denoise, denoising_loss
from evfi.training.materials import crop_pictures
from evfi.training.motion import Draw
from evfi.training.networks import new_autoencoder, new_unet
from evfi.training.synthetic import TrainingWindows, WindowConfig, make_batch
from evfi.training.textures import TextureLibrary

Batch = dict[str, Tensor]

TINY_SCHEDULER: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
    "sigma_min": 0.02,
    "sigma_max": 80.0,
}
"""Noise levels of models that are trained from nothing."""

TINY_SAMPLING: dict[str, Any] = {
    "num_inference_steps": 6,
    "max_guidance_scale": 1.0,
    "s_churn": 0.0,
    "noise_aug_strength": 0.0,
}
"""Sampling defaults of models that are trained from nothing: no guidance, few steps, no noise on the key image."""

_ADDED_IDS = (6.0, 127.0)
"""fps - 1 and motion bucket, as at sampling."""


@dataclass(frozen=True)
class StepKey:
    """What the random draws of a batch depend on."""

    seed: int
    step: int
    rank: int = 0

    def generator(self, purpose: int = 0) -> torch.Generator:
        """A CPU generator of its own for each purpose."""
        state = (self.seed * 1_000_003 + self.step) * 1_009 + self.rank * 31 + purpose
        return torch.Generator().manual_seed(state % (2**63))

    def noise(self, shape: tuple[int, ...], device: torch.device, purpose: int) -> Tensor:
        """Standard normal noise, drawn on the device."""
        seed = int(torch.randint(2**62, (1,), generator=self.generator(purpose)))
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=device)


class Stage(nn.Module, abc.ABC):
    """One stage; see the module's docstring."""

    def __init__(self, config: TrainConfig, library: TextureLibrary) -> None:
        super().__init__()
        self.config = config
        self.library = library

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.library.device

    @abc.abstractmethod
    def make_batch(self, key: StepKey) -> Batch:
        """The batch of one step; its tensors lie on the stage's device."""

    @abc.abstractmethod
    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write the stage's networks, and those it builds on, as `folder/vae` and so on."""

    @abc.abstractmethod
    def sample_pictures(self) -> Tensor:
        """Rows of pictures [N, M, 3, H, W] in [-1, 1] that show what the networks do, from fixed draws."""

    @abc.abstractmethod
    def validate(self) -> dict[str, float]:
        """Figures on data that is not trained on."""

    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimiser moves."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def build_stage(config: TrainConfig, library: TextureLibrary) -> Stage:
    """The stage of a config, its networks on the library's device."""
    if isinstance(config, AutoencoderTraining):
        return AutoencoderStage(config, library)
    if isinstance(config, BaseTraining):
        return BaseStage(config, library)
    if isinstance(config, ControlNetTraining):
        return ControlNetStage(config, library)
    raise ConfigError(f"training stage must be autoencoder, base or controlnet, got {type(config).__name__}")


class AutoencoderStage(Stage):
    """Images to latents and back."""

    def __init__(self, config: AutoencoderTraining, library: TextureLibrary) -> None:
        super().__init__(config, library)
        self.settings = config
        vae = _start_from(config.init, "vae", library.device) or new_autoencoder(config.network).to(library.device)
        self.vae = vae.requires_grad_(True).train()
        self._scenes: tuple[StepKey, Tensor] | None = None

    def make_batch(self, key: StepKey) -> Batch:
        """Crops of pictures, and of frames of scenes rendered every few steps."""
        config, draw = self.settings, Draw(key.generator())
        from_scenes = round(config.batch_size * config.scene_share)
        parts = []
        if from_scenes:
            frames = self._rendered(key)
            index = draw.integers((from_scenes,), len(frames)).to(self.device)
            parts.append(frames[index])
        pictures = config.batch_size - from_scenes
        drawings = pictures // 4
        for pyramid, count in ((self.library.photos, pictures - drawings), (self.library.art, drawings)):
            if count:
                parts.append(crop_pictures(pyramid, config.size_px, count, draw)[:, :3].clamp(0, 1) * 2 - 1)
        pixels = torch.cat(parts)
        side = config.size_px // 2 ** (len(config.network.encoder_blocks) - 1)
        shape = (len(pixels), config.network.latent_channels, side, side)
        return {"pixels": pixels, "noise": key.noise(shape, self.device, 1)}

    def _rendered(self, key: StepKey) -> Tensor:
        """Frames [N, 3, H, W] of the scenes that serve this step."""
        turn = dataclasses.replace(key, step=key.step // self.settings.scene_every)
        scenes = self._scenes
        if scenes is None or scenes[0] != turn:
            windows = _windows(
                self.library, self.settings, StackConfig(num_channels=1), turn.generator(2), num_frames=5
            )
            scenes = self._scenes = turn, windows.frames.flatten(0, 1)
        return scenes[1]

    def forward(self, batch: Batch) -> Tensor:
        """L1 of pixels and of picture gradients, and a bound on the latents."""
        pixels = batch["pixels"]
        latents = self.vae.encode(pixels).latents
        decoded = self.vae.decode(latents + self.settings.latent_noise * batch["noise"]).sample.float()
        error = decoded - pixels
        gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        bound = latents.float().square().mean()
        return error.abs().mean() + self.settings.gradient_weight * gradients + self.settings.latent_weight * bound

    @torch.no_grad()
    def _round_trip(self) -> tuple[Tensor, Tensor]:
        """Fixed pictures [N, 3, H, W] and what becomes of them."""
        pixels = self.make_batch(StepKey(self.config.seed + 1, 0))["pixels"]
        return pixels, self.vae.decode(self.vae.encode(pixels).latents).sample.clamp(-1, 1)

    def sample_pictures(self) -> Tensor:
        """Pictures and their round trips."""
        pixels, decoded = self._round_trip()
        return torch.stack([pixels, decoded], 1)[:8]

    def validate(self) -> dict[str, float]:
        """PSNR of the round trip on fixed crops that are not trained on."""
        pixels, decoded = self._round_trip()
        return {"psnr_round_trip": float(_psnr(decoded, pixels).mean())}

    @torch.no_grad()
    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write the autoencoder; its scaling factor gives latents unit variance."""
        latents = self.vae.encode(self.make_batch(StepKey(self.config.seed + 1, 0))["pixels"]).latents
        self.vae.register_to_config(scaling_factor=round(1 / float(latents.float().std()), 4))
        save_network(self.vae, folder / "vae", dtype=dtype)


class DenoiserStage(Stage):
    """What the two denoising stages share: latents of rendered windows, noise levels, conditioning."""

    def __init__(self, config: DenoiserTraining, library: TextureLibrary) -> None:
        super().__init__(config, library)
        self.settings = config
        if config.init is None:
            raise ConfigError(f"the {config.stage} stage builds on the one before; give its model folder as --init")
        self.vae = load_vae(config.init / "vae", dtype=torch.float32, device=library.device).requires_grad_(False)
        self.unet: EventUNet
        self.controlnet: EventControlNet | None = None

    @property
    def _stacks(self) -> StackConfig:
        return getattr(self.settings, "event_stack", None) or StackConfig(num_channels=1)

    @torch.no_grad()
    def make_batch(self, key: StepKey) -> Batch:
        """Latents of rendered windows, seen from their start and from their end, with noise and conditioning."""
        config = self.settings
        frame_counts = config.num_frames
        num_frames = frame_counts[int(torch.randint(len(frame_counts), (1,), generator=key.generator(3)))]
        windows = _windows(self.library, config, self._stacks, key.generator(), num_frames=num_frames)
        draw = Draw(key.generator(4))
        if config.both_sides:
            frames, key_image, events = _both_sides(windows)
        else:
            frames, key_image, events = _either_side(windows, draw.chance((len(windows.frames),), 0.5))
        strength = self._image_noise(draw, len(frames))
        key_image = key_image + strength[:, None, None, None] * key.noise(tuple(key_image.shape), self.device, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision != "no"):
            latents = encode_pixels(self.vae, frames.flatten(0, 1)).float() * float(self.vae.config.scaling_factor)
            image_latent = encode_pixels(self.vae, key_image).float()
        latents = latents.unflatten(0, frames.shape[:2])
        sigma = (config.sigma_log_mean + config.sigma_log_std * draw.normal((len(frames),))).exp()
        dropped = draw.uniform((len(frames),), 0.0, 1.0).to(self.device)
        p = config.conditioning_dropout
        image_latent = image_latent * ~((dropped >= p) & (dropped < 3 * p))[:, None, None, None]
        return {
            "latents": latents,
            "noise": key.noise(tuple(latents.shape), self.device, 2),
            "sigma": sigma.to(self.device),
            "image_latent": image_latent,
            "encoder_hidden_states": torch.zeros(
                len(frames), 1, self.unet.config.cross_attention_dim, device=self.device
            ),
            "added_time_ids": torch.stack([torch.full_like(strength, value) for value in _ADDED_IDS] + [strength], 1),
            "event_stacks": events,
        }

    def _image_noise(self, draw: Draw, number: int) -> Tensor:
        """Standard deviation [B] of the noise on the key images."""
        config = self.settings
        if config.image_noise_log_mean is None:
            return torch.zeros(number, device=self.device)
        drawn = config.image_noise_log_mean + config.image_noise_log_std * draw.normal((number,))
        return drawn.exp().to(self.device)

    def forward(self, batch: Batch) -> Tensor:
        """The mean denoising loss of a batch."""
        inputs = DenoisingInputs(**batch)
        return denoising_loss(self.unet, self.controlnet, inputs, max_weight=self.settings.max_weight).mean()

    @torch.no_grad()
    def sample_pictures(self) -> Tensor:
        """True frames, and frames denoised in one step from much noise, from one side."""
        batch = self._fixed_batch(sigma=20.0)
        truth, denoised = batch["latents"], self._denoised(batch)
        rows = torch.stack([truth, denoised], 1)[:6].flatten(0, 1)
        decoded = torch.stack([decode_latents(self.vae, row, len(row)) for row in rows])
        return decoded.clamp(-1, 1)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss at fixed noise levels on fixed scenes that are not trained on, and the one-step estimate's PSNR."""
        figures = {}
        for sigma in (0.5, 2.0, 8.0, 32.0):
            batch = self._fixed_batch(sigma)
            figures[f"loss_sigma_{sigma:g}"] = float(self(batch))
        truth, denoised = (
            decode_latents(self.vae, latents.flatten(0, 1), 64).clamp(-1, 1)
            for latents in (batch["latents"], self._denoised(batch))
        )
        figures["psnr_one_step"] = float(_psnr(denoised, truth).mean())
        return figures

    def _fixed_batch(self, sigma: float) -> Batch:
        batch = self.make_batch(StepKey(self.config.seed + 1, 0))
        return {**batch, "sigma": torch.full_like(batch["sigma"], sigma)}

    def _denoised(self, batch: Batch) -> Tensor:
        """One-step estimate of the latents [B, F, C, h, w]."""
        return denoise(self.unet, self.controlnet, DenoisingInputs(**batch))


class BaseStage(DenoiserStage):
    """The key image becomes a video, without events."""

    def __init__(self, config: BaseTraining, library: TextureLibrary) -> None:
        super().__init__(config, library)
        assert config.init is not None
        latent_channels = int(self.vae.config.latent_channels)
        unet = new_unet(config.network, latent_channels, max(config.num_frames))
        self.unet = _start_from(config.init, "unet", library.device) or unet.to(library.device)
        self.unet.requires_grad_(True).train()
        _checkpoint_gradients(self.unet, config)

    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write autoencoder and base."""
        save_network(self.vae, folder / "vae", dtype=dtype)
        save_network(self.unet, folder / "unet", dtype=dtype)


class ControlNetStage(DenoiserStage):
    """Events steer the base."""

    def __init__(self, config: ControlNetTraining, library: TextureLibrary) -> None:
        super().__init__(config, library)
        assert config.init is not None
        place: dict[str, Any] = {"dtype": torch.float32, "device": library.device}
        self.stage = config
        self.unet = load_network(EventUNet, config.init / "unet", **place).requires_grad_(config.train_base)
        started = (config.init / "controlnet").is_dir()
        self.controlnet = (
            load_controlnet(config.init / "controlnet", **place)
            if started
            else EventControlNet.from_unet(
                self.unet,
                conditioning_channels=config.event_stack.num_channels,
                conditioning_embedding_out_channels=config.event_widths,
            ).to(library.device)
        )
        self.controlnet.requires_grad_(True).train()
        for network in (self.unet, self.controlnet):
            _checkpoint_gradients(network, config)

    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write a bundle."""
        init = self.stage.init
        assert init is not None
        assert self.controlnet is not None
        scheduler = init / "scheduler" / "scheduler_config.json"
        info = ModelInfo(folder.name, "as its base and its training data allow", str(init), max(self.stage.num_frames))
        bundle = ModelBundle(
            vae=self.vae,
            unet=self.unet,
            controlnet=self.controlnet,
            scheduler=read_json(scheduler) if scheduler.is_file() else TINY_SCHEDULER,
            event_stack=self.stage.event_stack,
            info=info,
            sampling=TINY_SAMPLING if not scheduler.is_file() else {},
        )
        bundle.save(folder, dtype=dtype)


def _start_from(init: Path | None, part: str, device: torch.device) -> Any:
    """A network that an earlier run left in its model folder, or None."""
    if init is None or not (init / part).is_dir():
        return None
    if part == "vae":
        return load_vae(init / part, dtype=torch.float32, device=device)
    return load_network(EventUNet, init / part, dtype=torch.float32, device=device)


def _checkpoint_gradients(network: Any, config: TrainConfig) -> None:
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()


def _windows(
    library: TextureLibrary, config: TrainConfig, stacks: StackConfig, generator: torch.Generator, *, num_frames: int
) -> TrainingWindows:
    return make_batch(
        library,
        WindowConfig(),
        stacks,
        batch=config.batch_size,
        num_frames=num_frames,
        size=config.size_px,
        generator=generator,
    )


def _both_sides(windows: TrainingWindows) -> tuple[Tensor, Tensor, Tensor]:
    """Frames [2B, F, 3, H, W], key images [2B, 3, H, W] and stacks, first seen from the start, then from the end."""
    frames = torch.cat([windows.frames, windows.frames.flip(1)])
    return frames, windows.key_frames.transpose(0, 1).flatten(0, 1), torch.cat([windows.forward, windows.backward])


def _either_side(windows: TrainingWindows, from_end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frames [B, F, 3, H, W], key image [B, 3, H, W] and stacks, seen from the start or (where told) from the end."""
    chosen = from_end.to(windows.frames.device)
    frames = torch.where(chosen[:, None, None, None, None], windows.frames.flip(1), windows.frames)
    key_image = torch.where(chosen[:, None, None, None], windows.key_frames[:, 1], windows.key_frames[:, 0])
    events = torch.where(chosen[:, None, None, None, None], windows.backward, windows.forward)
    return frames, key_image, events


def _psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """PSNR [N] in dB of pictures in [-1, 1]."""
    return -10 * torch.log10(((pictures - truth) / 2).square().flatten(1).mean(1).clamp(min=1e-10))
