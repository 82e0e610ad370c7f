"""Making the batches of a training run: from the seed and the step alone, on the device, ahead of the steps.

Rendering scenes issues thousands of small operations, which would hold up the training step's own. A `BatchSource` therefore
makes batches ahead, in a thread.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evfi.errors import ConfigError, ModelError
from evfi.events.stack_config import StackConfig
from evfi.models.bundle import autoencoder_factor, encode_pixels, load_feature_extractor, load_image_encoder, load_vae
from evfi.models.json_files import read_json
from evfi.sampling.conditioning import clip_embeddings
from evfi.training.config import AutoencoderTraining, BaseTraining, ControlNetTraining, DenoiserTraining, TrainConfig
from evfi.training.materials import crop_pictures
from evfi.training.motion import Draw
from evfi.training.synthetic import TrainingWindows, WindowConfig, make_batch
from evfi.training.textures import TextureLibrary

Batch = dict[str, Tensor]

_ADDED_IDS = (6.0, 127.0)
"""fps - 1 and motion bucket, as at sampling."""

_QUEUED = 2
_POLL_S = 0.1


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


class BatchMaker(abc.ABC):
    """Makes the batches of one stage."""

    def __init__(self, library: TextureLibrary) -> None:
        self.library = library

    @property
    def device(self) -> torch.device:
        """Where the work is done and the batches lie."""
        return self.library.device

    @abc.abstractmethod
    def make(self, key: StepKey) -> Batch:
        """The batch of one step."""


class PictureMaker(BatchMaker):
    """Crops of pictures, and of frames of scenes rendered every few steps."""

    def __init__(self, config: AutoencoderTraining, library: TextureLibrary) -> None:
        super().__init__(library)
        multiple = 2 ** (len(config.network.encoder_blocks) - 1)
        if config.size_px % multiple:
            raise ConfigError(
                f"size_px must be a multiple of {multiple}, got {config.size_px}; the autoencoder shrinks by it"
            )
        self.config = config
        self._scenes: tuple[StepKey, Tensor] | None = None

    def make(self, key: StepKey) -> Batch:
        """`pixels` [B, 3, H, W] in [-1, 1], and `noise` of their latents' shape."""
        config, draw = self.config, Draw(key.generator())
        from_scenes = round(config.batch_size * config.scene_share)
        parts = []
        if from_scenes:
            frames = self._rendered(key)
            parts.append(frames[draw.integers((from_scenes,), len(frames)).to(self.device)])
        pictures = config.batch_size - from_scenes
        drawings = pictures // 4
        for pyramid, count in ((self.library.photos, pictures - drawings), (self.library.art, drawings)):
            if count:
                parts.append(crop_pictures(pyramid, config.size_px, count, draw).clamp(0, 1) * 2 - 1)
        pixels = torch.cat(parts)
        side = config.size_px // 2 ** (len(config.network.encoder_blocks) - 1)
        shape = (len(pixels), config.network.latent_channels, side, side)
        return {"pixels": pixels, "noise": key.noise(shape, self.device, 1)}

    def _rendered(self, key: StepKey) -> Tensor:
        """Frames [N, 3, H, W] of the scenes that serve this step."""
        turn = dataclasses.replace(key, step=key.step // self.config.scene_every)
        scenes = self._scenes
        if scenes is None or scenes[0] != turn:
            windows = _windows(self.library, self.config, StackConfig(num_channels=1), turn.generator(2), num_frames=5)
            scenes = self._scenes = turn, windows.frames.flatten(0, 1)
        return scenes[1]


class WindowMaker(BatchMaker):
    """Latents of rendered windows, seen from their start and from their end, with noise and conditioning.

    A batch holds the entries of `evfi.training.loss.DenoisingInputs`.
    """

    def __init__(self, config: DenoiserTraining, library: TextureLibrary) -> None:
        super().__init__(library)
        self.config = config
        self.vae = load_vae(init_of(config) / "vae", dtype=torch.float32, device=library.device).requires_grad_(False)
        self.stacks = config.event_stack if isinstance(config, ControlNetTraining) else StackConfig(num_channels=1)
        self.context_dim, levels = _unet_shape(config)
        self.vae_factor = autoencoder_factor(self.vae)
        multiple = self.vae_factor * 2 ** (levels - 1)
        if config.size_px % multiple:
            raise ConfigError(
                f"size_px must be a multiple of {multiple} (the autoencoder shrinks by {self.vae_factor}, the UNet has "
                f"{levels} scales), got {config.size_px}; try {max(multiple, config.size_px // multiple * multiple)}"
            )
        self.image_encoder = load_image_encoder(
            init_of(config) / "image_encoder", dtype=torch.float32, device=library.device
        )
        self.feature_extractor = load_feature_extractor(init_of(config))

    @torch.no_grad()
    def make(self, key: StepKey) -> Batch:
        """The batch of one step."""
        config = self.config
        counts = config.num_frames
        num_frames = counts[int(torch.randint(len(counts), (1,), generator=key.generator(3)))]
        windows = _windows(self.library, config, self.stacks, key.generator(), num_frames=num_frames)
        draw = Draw(key.generator(4))
        if config.both_sides:
            frames, key_image, events = _both_sides(windows)
        else:
            frames, key_image, events = _either_side(windows, draw.chance((len(windows.frames),), 0.5))
        strength = self._image_noise(draw, len(frames))
        noisy_image = key_image + strength[:, None, None, None] * key.noise(tuple(key_image.shape), self.device, 1)
        latents, image_latent = self._encoded(frames, noisy_image)
        sigma = (config.sigma_log_mean + config.sigma_log_std * draw.normal((len(frames),))).exp()
        dropped = draw.uniform((len(frames),), 0.0, 1.0).to(self.device)
        p = config.conditioning_dropout
        return {
            "latents": latents,
            "noise": key.noise(tuple(latents.shape), self.device, 2),
            "sigma": sigma.to(self.device),
            "image_latent": image_latent * ~((dropped >= p) & (dropped < 3 * p))[:, None, None, None],
            "encoder_hidden_states": self._embedded(key_image) * ~(dropped < 2 * p)[:, None, None],
            "added_time_ids": torch.stack([torch.full_like(strength, value) for value in _ADDED_IDS] + [strength], 1),
            "event_stacks": events,
        }

    def _encoded(self, frames: Tensor, key_image: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled latents [B, F, C, h, w] of frames, and unscaled ones [B, C, h, w] of key images."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision != "no"):
            latents = encode_pixels(self.vae, frames.flatten(0, 1)).float() * float(self.vae.config.scaling_factor)
            image_latent = encode_pixels(self.vae, key_image).float()
        return latents.reshape(*frames.shape[:2], *latents.shape[1:]), image_latent

    def _embedded(self, key_image: Tensor) -> Tensor:
        """Embeddings [B, 1, D] of key images; zeros where the base has no image encoder."""
        if self.image_encoder is None:
            return torch.zeros(len(key_image), 1, self.context_dim, device=self.device)
        return clip_embeddings(self.image_encoder, self.feature_extractor or {}, key_image, torch.float32)

    def _image_noise(self, draw: Draw, number: int) -> Tensor:
        """Standard deviation [B] of the noise on the key images."""
        config = self.config
        if config.image_noise_log_mean is None:
            return torch.zeros(number, device=self.device)
        drawn = config.image_noise_log_mean + config.image_noise_log_std * draw.normal((number,))
        return drawn.exp().to(self.device)


class BatchSource:
    """Hands out the batches of consecutive steps, made ahead by a thread where the config asks for it.

    On a GPU the thread has a stream of its own, so that rendering fills the gaps of the training step. (Other processes
    cannot do that: a GPU serves one process at a time, and a step then takes as long as both together, or longer.)
    """

    def __init__(self, config: TrainConfig, maker: BatchMaker, rank: int, first_step: int) -> None:
        self._config, self._maker, self._rank = config, maker, rank
        self._ready: queue.Queue[_Made | Exception] = queue.Queue(_QUEUED)
        self._making, self._closed = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        if config.prefetch:
            # no daemon: Python would end it within PyTorch's code, which aborts the process
            self._thread = threading.Thread(target=self._work, args=(first_step,), name="batches")
            self._thread.start()

    def take(self, step: int) -> Batch:
        """The batch of a step (from 0); steps must be taken in order.

        Raises:
            EvfiError: what went wrong in the thread.
        """
        if self._thread is None:
            return self._make(step)
        made = self._ready.get()
        if isinstance(made, Exception):
            raise made
        if made.event is not None:
            stream = torch.cuda.current_stream(self._maker.device)
            stream.wait_event(made.event)
            for value in made.batch.values():
                value.record_stream(stream)
        return made.batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No batch is being made meanwhile; what is recorded on the GPU must not see another thread's allocations."""
        with self._making:
            yield

    def close(self) -> None:
        """End the thread; may be called twice."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _make(self, step: int) -> Batch:
        return self._maker.make(StepKey(self._config.seed, step, self._rank))

    def _work(self, step: int) -> None:
        device = self._maker.device
        on_gpu = device.type == "cuda"
        stream = torch.cuda.Stream(device) if on_gpu else None
        try:
            with torch.cuda.stream(stream):
                while not self._is_over():
                    with self._making:
                        batch = self._make(step)
                    event = None if stream is None else stream.record_event()
                    self._put(_Made(batch, event))
                    step += 1
        except Exception as error:
            self._put(error)

    def _put(self, made: _Made | Exception) -> None:
        """Hand over, unless nobody will take it any more."""
        while not self._is_over():
            with contextlib.suppress(queue.Full):
                self._ready.put(made, timeout=_POLL_S)
                return

    def _is_over(self) -> bool:
        """Whether the source is closed, or the program ends without having closed it."""
        return self._closed.is_set() or not threading.main_thread().is_alive()


class _Made(NamedTuple):
    """A batch, and when it is ready; None on a CPU."""

    batch: Batch
    event: torch.cuda.Event | None


def init_of(config: TrainConfig) -> Any:
    """The folder of the stages before.

    Raises:
        ConfigError: none is given.
    """
    if config.init is None:
        raise ConfigError(
            f"the {config.stage} stage builds on the previous one; pass that one's model folder as --init"
        )
    return config.init


def _unet_shape(config: DenoiserTraining) -> tuple[int, int]:
    """Channels of the key image's embedding, and scales, of the UNet that is trained or trained on."""
    path = init_of(config) / "unet" / "config.json"
    if isinstance(config, BaseTraining) and not path.is_file():
        return config.network.context_dim, len(config.network.widths)
    network = read_json(path)
    try:
        return int(network["cross_attention_dim"]), len(network["block_out_channels"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not describe a video UNet ({error!r}); choose another --init") from error


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
