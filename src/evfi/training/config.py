"""Settings of the four training stages; this is the only place that sets defaults, and a run saves all settings.

The stages build on each other: `autoencoder` (images to latents), `base` (image to video), `controlnet` (events steer the
base), `refiner` (key frames are warped to where the model's frames say that things are). The defaults train `evfi-tiny`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from evfi.errors import ConfigError
from evfi.events.stack_config import StackConfig

Precision = Literal["no", "fp16", "bf16"]


@dataclass(frozen=True)
class AutoencoderNetwork:
    """Size of the image autoencoder: convolutions only, diffusers' `AutoencoderTiny`.

    Attributes:
        width: channels of every layer.
        latent_channels: channels of a latent.
        encoder_blocks: residual blocks per scale from fine to coarse; n scales shrink by 2**(n - 1).
        decoder_blocks: residual blocks per scale from coarse to fine.
    """

    width: int = 64
    latent_channels: int = 8
    encoder_blocks: tuple[int, ...] = (1, 3, 3)
    decoder_blocks: tuple[int, ...] = (3, 3, 1)


@dataclass(frozen=True)
class DenoiserNetwork:
    """Size of the video UNet, whose encoder the event ControlNet copies.

    Attributes:
        widths: channels per scale; multiples of 32.
        attention: which scales hold spatial and temporal attention.
        layers_per_block: residual blocks per scale.
        head_dim: channels per attention head.
        context_dim: channels of the key image's embedding.
        time_dim: channels that each added time id is embedded in.
        event_widths: channels of the event embedding; each after the first shrinks by 2.
    """

    widths: tuple[int, ...] = (64, 96, 128, 128)
    attention: tuple[bool, ...] = (False, False, False, True)
    layers_per_block: int = 1
    head_dim: int = 32
    context_dim: int = 32
    time_dim: int = 32
    event_widths: tuple[int, ...] = (16, 32, 64)


@dataclass(frozen=True)
class RefinerNetwork:
    """Size of the refiner.

    Attributes:
        widths: channels of the pyramids from 1/2 of the resolution on, each level half of the one before.
        fusion_widths: channels of the fusion at full, 1/2 and 1/4 resolution.
        matching_levels: number of coarsest levels that compute matching costs.
        matching_radius: positions tried around the flow so far, in each direction, in pixels of the level.
    """

    widths: tuple[int, ...] = (32, 48, 64, 96, 96)
    fusion_widths: tuple[int, int, int] = (24, 48, 72)
    matching_levels: int = 3
    matching_radius: int = 3


@dataclass(frozen=True)
class TrainConfig:
    """Settings that all stages share.

    Attributes:
        textures: folder (or packed file) of pictures and cut-outs that scenes are rendered from.
        output: run folder: checkpoints, curves, samples, the trained model.
        init: folder with the networks of the previous stages (a run's `model/`, or a bundle).
        steps: optimiser steps of the whole run, including resumed parts.
        max_minutes: stop after this time with a checkpoint; run the same command to resume.
        batch_size: rendered windows (or crops) per step and device.
        size_px: side of the rendered square.
        num_frames: frames per window; one of these is drawn for every step.
        learning_rate: peak learning rate.
        warmup_steps: steps of linear rise at the start.
        cooldown_steps: steps of linear fall to zero at the end of `steps`.
        weight_decay: weight decay of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: decay of the averaged weights, which are the ones exported.
        precision: autocast precision.
        gradient_checkpointing: recompute activations instead of storing them.
        seed: seed of all random numbers.
        checkpoint_every: steps between saved training states.
        keep_checkpoints: number of latest states to keep.
        validate_every: steps between validations.
        log_every: steps between points of the curve.
        validation: recordings whose left-out frames are the ground truth.
        validation_skip: frames left out between two of their key frames.
        validation_windows: windows of each recording to interpolate.
        prefetch: prepare batches ahead in a thread; has no effect on the result.
        device: auto, cpu or cuda.
    """

    textures: Path
    output: Path
    init: Path | None = None
    steps: int = 6000
    max_minutes: float | None = None
    batch_size: int = 20
    size_px: int = 160
    num_frames: tuple[int, ...] = (3, 5, 9)
    learning_rate: float = 4e-4
    warmup_steps: int = 100
    cooldown_steps: int = 1000
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    ema_decay: float = 0.998
    precision: Precision = "bf16"
    gradient_checkpointing: bool = False
    seed: int = 0
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    validate_every: int = 500
    log_every: int = 20
    validation: tuple[Path, ...] = ()
    validation_skip: int = 7
    validation_windows: int = 2
    prefetch: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"

    stage: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "size_px",
            "checkpoint_every",
            "validate_every",
            "log_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"training {name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "cooldown_steps", "seed", "validation_windows"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training {name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"training {name} must be a number of at least 0, got {value}")
        if not 0 < self.max_grad_norm < math.inf:
            raise ConfigError(f"training max_grad_norm must be a positive number, got {self.max_grad_norm}")
        if not self.num_frames or min(self.num_frames) < 2:
            raise ConfigError(f"training num_frames must all be at least 2, got {self.num_frames}; try 3 5 9")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"training ema_decay must be in [0, 1), got {self.ema_decay}; try 0.998")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step: linear rise, constant, linear fall."""
        rise = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        fall = min(1.0, (self.steps - step) / max(self.cooldown_steps, 1))
        return self.learning_rate * rise * max(fall, 0.0)

    def as_json(self) -> dict[str, object]:
        """Every setting, for the run's config file."""
        return {"stage": self.stage, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class AutoencoderTraining(TrainConfig):
    """Train the image autoencoder on crops of pictures and of rendered frames.

    Attributes:
        network: its size.
        gradient_weight: weight of the error of picture gradients, which keeps edges sharp.
        latent_weight: weight of the latents' mean square, which keeps them bounded.
        latent_noise: standard deviation of noise on the latents, so that the decoder tolerates small errors.
        scene_share: share of crops that are rendered frames instead of pictures.
        scene_every: steps between two renderings; crops in between are drawn from their frames.
    """

    stage: ClassVar[str] = "autoencoder"
    steps: int = 8000
    batch_size: int = 48
    size_px: int = 128
    learning_rate: float = 8e-4
    network: AutoencoderNetwork = AutoencoderNetwork()
    gradient_weight: float = 1.0
    latent_weight: float = 1e-3
    latent_noise: float = 0.02
    scene_share: float = 0.4
    scene_every: int = 40


@dataclass(frozen=True)
class DenoiserTraining(TrainConfig):
    """Settings that the two denoising stages share.

    Attributes:
        sigma_log_mean: mean of ln sigma.
        sigma_log_std: standard deviation of ln sigma.
        max_weight: bound on the loss weight (1 + sigma^2) / sigma^2; None for none.
        image_noise_log_mean: mean of ln of the noise on the key image; None for no noise.
        image_noise_log_std: its standard deviation.
        both_sides: see every window from its start and from its end; otherwise from one of them, drawn at random.
        conditioning_dropout: p: the key image's embedding is zeroed with probability 2p, its latent with 2p, overlapping by p.
    """

    sigma_log_mean: float = 0.7
    sigma_log_std: float = 1.6
    max_weight: float | None = 5.0
    image_noise_log_mean: float | None = None
    image_noise_log_std: float = 0.5
    both_sides: bool = True
    conditioning_dropout: float = 0.0


@dataclass(frozen=True)
class BaseTraining(DenoiserTraining):
    """Train the image-to-video base: the key image goes in, a video comes out.

    Attributes:
        network: its size.
    """

    stage: ClassVar[str] = "base"
    steps: int = 2000
    network: DenoiserNetwork = DenoiserNetwork()


@dataclass(frozen=True)
class ControlNetTraining(DenoiserTraining):
    """Train the event ControlNet on a base.

    Attributes:
        train_base: also train the base, suitable for a small one; off for Stable Video Diffusion.
        event_stack: the event representation.
        event_widths: channels of the event embedding; each after the first shrinks by 2.
    """

    stage: ClassVar[str] = "controlnet"
    train_base: bool = False
    event_stack: StackConfig = field(default_factory=lambda: StackConfig(normalisation="symmetric"))
    event_widths: tuple[int, ...] = DenoiserNetwork.event_widths


@dataclass(frozen=True)
class RefinerTraining(TrainConfig):
    """Train the refiner, which warps key frames to where a frozen model's prediction and the events say that things are.

    Attributes:
        network: its size; has no effect where `init` holds a refiner, which is then trained further.
        window_px: side of the rendered windows; training uses crops of size_px.
        window_batch: windows rendered and sampled at once.
        pool_batches: number of batches of windows to keep.
        pool_start: number of batches to make before the first step.
        renew_every: steps after which a new batch of windows is added and, where the pool is full, the oldest is removed.
        targets: output frames to keep per window.
        groups: batches of windows that the crops of one step are taken from.
        without_prediction: share of crops whose prediction is withheld, so that the refiner also works without the model.
        without_events: share of crops that have neither events nor a prediction, so that it also learns to match key frames.
        degraded_share: share of batches of windows whose predictions are made from the true frames, with errors as other
            models make them.
        lossy_autoencoder: run or model folder of an autoencoder that half of those windows pass through.
        laplacian_weight: weight of the error in a Laplacian pyramid, which keeps detail sharp.
        census_weight: weight of the census error (local order), which keeps structure whatever its contrast.
        texture_weight: weight of the texture error, measured on the frozen autoencoder's features.
        flow_weight: weight of the error of frames warped by the flows alone, at every level.
    """

    stage: ClassVar[str] = "refiner"
    steps: int = 17_500
    batch_size: int = 40
    size_px: int = 192
    num_frames: tuple[int, ...] = (3, 3, 5, 5, 9, 9, 17)
    learning_rate: float = 6e-4
    cooldown_steps: int = 12_000
    weight_decay: float = 1e-4
    network: RefinerNetwork = RefinerNetwork()
    window_px: int = 224
    window_batch: int = 32
    pool_batches: int = 128
    pool_start: int = 24
    renew_every: int = 16
    targets: int = 4
    groups: int = 5
    without_prediction: float = 0.25
    without_events: float = 0.2
    degraded_share: float = 0.2
    lossy_autoencoder: Path | None = None
    laplacian_weight: float = 0.25
    census_weight: float = 0.15
    texture_weight: float = 1.5
    flow_weight: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_px", "window_batch", "pool_batches", "pool_start", "renew_every", "targets", "groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training {name} must be at least 1, got {getattr(self, name)}")
        for name in ("without_prediction", "without_events", "degraded_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"training {name} is a share and must be in [0, 1], got {getattr(self, name)}")
        for name in ("laplacian_weight", "census_weight", "texture_weight", "flow_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"training {name} must not be negative, got {getattr(self, name)}")
        if min(self.num_frames) < 3:
            raise ConfigError(
                f"the refiner's num_frames must all be at least 3, got {self.num_frames}; 2 leave no frame to interpolate"
            )
        if self.batch_size % self.groups:
            raise ConfigError(
                f"batch_size must be a multiple of groups, got {self.batch_size} and {self.groups}; every group gives equally "
                f"many crops: try a batch_size of {max(1, self.batch_size // self.groups) * self.groups}"
            )
        if self.size_px > self.window_px:
            raise ConfigError(
                f"size_px must be at most window_px, which crops are taken from, got {self.size_px} and {self.window_px}"
            )
