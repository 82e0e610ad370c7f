"""The stages that train a diffusion model: image autoencoder, image-to-video base, event ControlNet."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evfi.errors import ConfigError
from evfi.models.bundle import (
    ModelBundle,
    decode_latents,
    load_controlnet,
    load_network,
    load_vae,
    save_network,
)
from evfi.models.controlnet import EventControlNet
from evfi.models.info import ModelInfo
from evfi.models.json_files import read_json
from evfi.models.layouts import BUNDLE_FILE
from evfi.models.unet import EventUNet
from evfi.training.batches import Batch, PictureMaker, WindowMaker, init_of
from evfi.training.config import (
    AutoencoderTraining,
    BaseTraining,
    ControlNetTraining,
    DenoiserTraining,
    RefinerTraining,
    TrainConfig,
)
from evfi.training.loss import DenoisingInputs, denoise, denoising_loss
from evfi.training.networks import new_autoencoder, new_unet
from evfi.training.refiner_stage import RefinerStage
from evfi.training.stage import Stage
from evfi.training.textures import TextureLibrary
from evfi.training.validation import check_recordings, psnr, validate_recordings

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
    "num_inference_steps": 3,
    "max_guidance_scale": 1.0,
    "s_churn": 0.0,
    "noise_aug_strength": 0.0,
    "tile_width": 640,
    "tile_height": 480,
}
"""Sampling defaults of models that are trained from nothing: no guidance, few steps, no noise on the key image."""


def build_stage(config: TrainConfig, library: TextureLibrary) -> Stage:
    """The stage of a config, its networks on the library's device."""
    if isinstance(config, AutoencoderTraining):
        return AutoencoderStage(config, library)
    if isinstance(config, BaseTraining):
        return BaseStage(config, library)
    if isinstance(config, ControlNetTraining):
        return ControlNetStage(config, library)
    if isinstance(config, RefinerTraining):
        return RefinerStage(config, library)
    raise ConfigError(f"training stage must be autoencoder, base, controlnet or refiner, got {type(config).__name__}")


class AutoencoderStage(Stage):
    """Images to latents and back."""

    def __init__(self, config: AutoencoderTraining, library: TextureLibrary) -> None:
        super().__init__(config, PictureMaker(config, library))
        self.settings = config
        vae = _start_from(config.init, "vae", library.device) or new_autoencoder(config.network).to(library.device)
        self.vae = vae.requires_grad_(True).train()

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
        """Fixed pictures [N, 3, H, W] and the networks' output for them."""
        pixels = self.fixed_batch()["pixels"]
        return pixels, self.vae.decode(self.vae.encode(pixels).latents).sample.clamp(-1, 1)

    def sample_pictures(self) -> Tensor:
        """Pictures and their round trips."""
        pixels, decoded = self._round_trip()
        return torch.stack([pixels, decoded], 1)[:8]

    def validate(self) -> dict[str, float]:
        """PSNR of the round trip on fixed crops that are not trained on."""
        pixels, decoded = self._round_trip()
        return {"psnr_round_trip": float(psnr(decoded, pixels).mean())}

    @torch.no_grad()
    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write the autoencoder; its scaling factor gives latents unit variance."""
        latents = self.vae.encode(self.fixed_batch()["pixels"]).latents
        self.vae.register_to_config(scaling_factor=round(1 / float(latents.float().std()), 4))
        save_network(self.vae, folder / "vae", dtype=dtype)


class DenoiserStage(Stage):
    """What the two denoising stages share: latents of rendered windows, noise levels, conditioning."""

    def __init__(self, config: DenoiserTraining, library: TextureLibrary) -> None:
        maker = WindowMaker(config, library)
        super().__init__(config, maker)
        self.windows = maker
        self.settings = config
        self.init: Path = init_of(config)
        self.vae = maker.vae
        self.unet: EventUNet
        self.controlnet: EventControlNet | None = None

    def forward(self, batch: Batch) -> Tensor:
        """The mean denoising loss of a batch."""
        inputs = DenoisingInputs(**batch)
        return denoising_loss(self.unet, self.controlnet, inputs, max_weight=self.settings.max_weight).mean()

    @torch.no_grad()
    def sample_pictures(self) -> Tensor:
        """True frames, and frames denoised in one step from much noise, from one side."""
        batch = _at_noise_level(self.fixed_batch(), 20.0)
        truth, denoised = batch["latents"], self._denoised(batch)
        rows = torch.stack([truth, denoised], 1)[:6].flatten(0, 1)
        decoded = torch.stack([decode_latents(self.vae, row, len(row)) for row in rows])
        return decoded.clamp(-1, 1)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss at fixed noise levels on fixed scenes that are not trained on, and the one-step estimate's PSNR."""
        fixed, figures = self.fixed_batch(), {}
        for sigma in (0.5, 2.0, 8.0, 32.0):
            batch = _at_noise_level(fixed, sigma)
            figures[f"loss_sigma_{sigma:g}"] = float(self(batch))
        truth, denoised = (
            decode_latents(self.vae, latents.flatten(0, 1), 64).clamp(-1, 1)
            for latents in (batch["latents"], self._denoised(batch))
        )
        figures["psnr_one_step"] = float(psnr(denoised, truth).mean())
        return figures

    def _denoised(self, batch: Batch) -> Tensor:
        """One-step estimate of the latents [B, F, C, h, w]."""
        return denoise(self.unet, self.controlnet, DenoisingInputs(**batch))


def _at_noise_level(batch: Batch, sigma: float) -> Batch:
    return {**batch, "sigma": torch.full_like(batch["sigma"], sigma)}


class BaseStage(DenoiserStage):
    """The key image becomes a video, without events."""

    def __init__(self, config: BaseTraining, library: TextureLibrary) -> None:
        super().__init__(config, library)
        latent_channels = int(self.vae.config.latent_channels)
        unet = new_unet(config.network, latent_channels, max(config.num_frames))
        self.unet = _start_from(self.init, "unet", library.device) or unet.to(library.device)
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
        place: dict[str, Any] = {"dtype": torch.float32, "device": library.device}
        self.stage = config
        check_recordings(config.validation, config.validation_skip)
        self.unet = load_network(EventUNet, self.init / "unet", **place).requires_grad_(config.train_base)
        started = (self.init / "controlnet").is_dir()
        self.controlnet = (
            load_controlnet(self.init / "controlnet", **place)
            if started
            else EventControlNet.from_unet(
                self.unet,
                conditioning_channels=config.event_stack.num_channels,
                conditioning_embedding_out_channels=config.event_widths,
            ).to(library.device)
        )
        _check_events(config, self.controlnet, self.init, vae_factor=self.windows.vae_factor)
        self.controlnet.requires_grad_(True).train()
        for network in (self.unet, self.controlnet):
            _checkpoint_gradients(network, config)

    def export(self, folder: Path, *, dtype: torch.dtype | None) -> None:
        """Write a bundle."""
        self._bundle(folder.name).save(folder, dtype=dtype)

    def validate(self) -> dict[str, float]:
        """As every denoiser; and PSNR of frames left out of recordings, where the config names some."""
        config = self.stage
        figures = super().validate()
        if config.validation:
            bundle = self._bundle("in training")
            figures |= validate_recordings(bundle, config.validation, config.validation_skip, config.validation_windows)
        return figures

    def _bundle(self, name: str) -> ModelBundle:
        """The networks as they are now, with the base's own noise levels if it has some."""
        assert self.controlnet is not None
        scheduler = self.init / "scheduler" / "scheduler_config.json"
        known = scheduler.is_file()
        return ModelBundle(
            vae=self.vae,
            unet=self.unet,
            controlnet=self.controlnet,
            scheduler=read_json(scheduler) if known else TINY_SCHEDULER,
            event_stack=self.stage.event_stack,
            info=ModelInfo(name, "as its base and its training data allow", str(self.init), max(self.stage.num_frames)),
            sampling={} if known else TINY_SAMPLING,
            image_encoder=self.windows.image_encoder,
            feature_extractor=self.windows.feature_extractor,
        )


def _start_from(init: Path | None, part: str, device: torch.device) -> Any:
    """A network that an earlier run left in its model folder, or None."""
    if init is None or not (init / part).is_dir():
        return None
    if part == "vae":
        return load_vae(init / part, dtype=torch.float32, device=device)
    return load_network(EventUNet, init / part, dtype=torch.float32, device=device)


def _check_events(config: ControlNetTraining, controlnet: EventControlNet, init: Path, vae_factor: int) -> None:
    """Refuse event settings that do not fit the networks.

    Raises:
        ConfigError: what does not fit.
    """
    widths = tuple(controlnet.config.conditioning_embedding_out_channels)
    if 2 ** (len(widths) - 1) != vae_factor:
        raise ConfigError(
            f"event_widths must shrink as the autoencoder does, by {vae_factor}: give {vae_factor.bit_length()} widths, "
            f"got {widths}"
        )
    known = read_json(init / BUNDLE_FILE).get("event_stack") if (init / BUNDLE_FILE).is_file() else None
    wanted = dataclasses.asdict(config.event_stack)
    channels = int(controlnet.config.conditioning_channels)
    if channels != config.event_stack.num_channels or (known is not None and known != wanted):
        raise ConfigError(
            f"the ControlNet in {init} reads {channels} channels of {known or 'event stacks'}, but the settings ask for "
            f"{wanted}; set the event stack's options to match it"
        )


def _checkpoint_gradients(network: Any, config: TrainConfig) -> None:
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
