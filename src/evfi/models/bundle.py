"""A model as one thing: base networks, event ControlNet, event representation and sampling defaults.

A bundle is a folder in diffusers' layout with one more file, `evfi.json`:

    model_index.json           which class each part is
    evfi.json                  name, licence, source, number of frames, event representation, sampling defaults
    vae/ unet/ controlnet/     config.json + safetensors
    scheduler/                 scheduler_config.json
    image_encoder/ feature_extractor/   absent where the base has no image embedding
    refiner/                   config.json + safetensors; absent where the model's frames are taken as they are

Conventions: pixels are in [-1, 1], [N, 3, H, W]. *Scaled* latents (what the UNet denoises) are the autoencoder's times its
scaling factor; the key image's latent, which is concatenated to them, is unscaled, as in Stable Video Diffusion.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKLTemporalDecoder, AutoencoderTiny
from torch import Tensor, nn

from evfi.errors import ModelError
from evfi.events.stack_config import StackConfig
from evfi.files import one_line
from evfi.models.configs import autoencoder_kind, listed_parts, read_config, read_scheduler
from evfi.models.configs import load_feature_extractor as load_feature_extractor  # beside its fellows, for callers
from evfi.models.controlnet import EventControlNet
from evfi.models.info import BUNDLE_FORMAT, ModelInfo, read_bundle_facts
from evfi.models.layouts import BUNDLE_FILE, CONFIG_NAME, INDEX_NAME, REFINER_FOLDER
from evfi.models.refiner import Refiner
from evfi.models.unet import EventUNet
from evfi.models.weights import channels_last, load_weights, tensor_shape, weight_files

Autoencoder: TypeAlias = Any
"""One of diffusers' image autoencoders (its classes are untyped): `AutoencoderKLTemporalDecoder` or `AutoencoderTiny`."""

_EVENT_INPUT = "controlnet_cond_embedding.conv_in.weight"
_AUTOENCODERS = {kind.__name__: kind for kind in (AutoencoderKLTemporalDecoder, AutoencoderTiny)}


@dataclass
class ModelBundle:
    """All parts of a model; see the module's docstring.

    Attributes:
        vae: the image autoencoder.
        unet: the denoising network.
        controlnet: the network that steers it by events.
        scheduler: diffusers' EulerDiscreteScheduler config.
        event_stack: the event representation that the ControlNet was trained with.
        info: name, licence, source.
        sampling: defaults of this model that differ from the sampler's.
        image_encoder: CLIP vision tower, or None: then the key image's embedding is zero.
        feature_extractor: CLIP's preprocessing config (mean, standard deviation, size).
        refiner: warps key frames to where the model's frames say that things are, or None.
    """

    vae: Autoencoder
    unet: EventUNet
    controlnet: EventControlNet
    scheduler: dict[str, Any]
    event_stack: StackConfig
    info: ModelInfo
    sampling: dict[str, Any] = field(default_factory=dict)
    image_encoder: nn.Module | None = None
    feature_extractor: dict[str, Any] | None = None
    refiner: Refiner | None = None

    def __post_init__(self) -> None:
        for what, found, expected in self._sizes():
            if found != expected:
                raise ModelError(
                    f"{what} has {found}, expected {expected}; they must agree: are these parts of the same model?"
                )

    def _sizes(self) -> Iterator[tuple[str, Any, Any]]:
        """What must agree between the parts: words for it, what it is, and what the other parts need."""
        unet, controlnet, latents = self.unet.config, self.controlnet.config, self.latent_channels
        shrinks = 2 ** (len(controlnet.conditioning_embedding_out_channels) - 1)
        yield "the ControlNet's event embedding (pixels per latent)", shrinks, self.vae_factor
        channels = (unet.in_channels, unet.out_channels)
        yield "the UNet (in_channels, out_channels)", channels, (2 * latents, latents)  # the key image's go with them
        for name, network in (("UNet", unet), ("ControlNet", controlnet)):
            key = "projection_class_embeddings_input_dim"
            yield f"the {name} ({key})", network[key], 3 * network.addition_time_embed_dim
        for key in ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim"):
            yield f"the ControlNet ({key})", _plain(controlnet[key]), _plain(unet[key])
        if self.image_encoder is not None:
            encoder: Any = self.image_encoder
            yield "the image encoder (projection_dim)", encoder.config.projection_dim, self.context_dim

    @property
    def vae_factor(self) -> int:
        """Pixels per latent along each side."""
        return autoencoder_factor(self.vae)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.vae.config.latent_channels)

    @property
    def scaling_factor(self) -> float:
        """What latents are multiplied by before they are noised."""
        return float(self.vae.config.scaling_factor)

    @property
    def latent_multiple(self) -> int:
        """Latent sides must be multiples of this for the UNet."""
        return int(2 ** (len(self.unet.config.down_block_types) - 1))

    @property
    def context_dim(self) -> int:
        """Channels of the key image's embedding."""
        return int(self.unet.config.cross_attention_dim)

    def networks(self) -> dict[str, nn.Module]:
        """Every network by the name of its folder."""
        parts = {
            "vae": self.vae,
            "unet": self.unet,
            "controlnet": self.controlnet,
            "image_encoder": self.image_encoder,
            "refiner": self.refiner,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def num_bytes(self) -> int:
        """Of all weights."""
        return sum(weight.nbytes for network in self.networks().values() for weight in network.parameters())

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ModelBundle:
        """Move every network; an autoencoder that asks for `force_upcast` stays in float32 rather than go to float16."""
        for name, network in self.networks().items():
            upcast = name == "vae" and dtype == torch.float16 and self.vae.config.get("force_upcast", False)
            nn.Module.to(
                network, device=device, dtype=torch.float32 if upcast else dtype
            )  # diffusers' own warns in vain
        return self

    def eval(self) -> ModelBundle:
        """Put every network into inference mode and freeze it."""
        for network in self.networks().values():
            network.eval().requires_grad_(False)
        return self

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encode images to unscaled latents (the posterior's mode).

        Args:
            pixels: [N, 3, H, W] in [-1, 1]; H and W multiples of `vae_factor`.

        Returns:
            [N, latent_channels, H / vae_factor, W / vae_factor].
        """
        return encode_pixels(self.vae, pixels)

    def decode(self, latents: Tensor, chunk: int) -> Tensor:
        """Decode the scaled latents of one window's consecutive frames.

        Args:
            latents: [F, latent_channels, h, w], scaled.
            chunk: frames at a time; the temporal decoder mixes within a chunk, so that it is part of the result.

        Returns:
            [F, 3, H, W], about [-1, 1], not clamped.
        """
        return decode_latents(self.vae, latents, chunk)

    def save(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the bundle as a folder that `load_bundle` reads.

        Args:
            folder: made if absent.
            dtype: of the weights on disk; None keeps theirs.
        """
        for name, network in self.networks().items():
            save_network(network, folder / name, dtype=dtype)
        _write_json(folder / "scheduler" / "scheduler_config.json", self.scheduler)
        if self.feature_extractor is not None:
            _write_json(folder / "feature_extractor" / "preprocessor_config.json", self.feature_extractor)
        index = {name: ["evfi" if name in ("unet", "controlnet", "refiner") else "diffusers", type(network).__name__]
                 for name, network in self.networks().items()}  # fmt: skip
        _write_json(folder / INDEX_NAME, {"_class_name": "EvfiBundle", **index})
        meta = {
            "format": BUNDLE_FORMAT,
            **asdict(self.info),
            "event_stack": asdict(self.event_stack),
            "sampling": self.sampling,
        }
        _write_json(folder / BUNDLE_FILE, meta)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def autoencoder_factor(vae: Autoencoder) -> int:
    """Pixels per latent along each side."""
    widths = getattr(vae.config, "encoder_block_out_channels", None) or vae.config.block_out_channels
    return int(2 ** (len(widths) - 1))


def encode_pixels(vae: Autoencoder, pixels: Tensor) -> Tensor:
    """Pixels [N, 3, H, W] in [-1, 1] to unscaled latents (mode), in the autoencoder's dtype."""
    encoded = vae.encode(pixels.to(vae.dtype))
    latents: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return latents


def decode_latents(vae: Autoencoder, latents: Tensor, chunk: int) -> Tensor:
    """Scaled latents [F, C, h, w] to pixels [F, 3, H, W], `chunk` frames at a time."""
    unscaled = latents.to(vae.dtype) / vae.config.scaling_factor
    temporal = isinstance(vae, AutoencoderKLTemporalDecoder)
    parts = []
    for part in unscaled.split(chunk):
        more = {"num_frames": part.shape[0]} if temporal else {}
        parts.append(vae.decode(part, **more).sample)
    return torch.cat(parts)


def save_network(network: Any, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write one network's config.json and safetensors, converting the weights on the way out."""
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()}
    if type(network).__module__.startswith("transformers."):
        network.save_pretrained(folder, state_dict=state)
    else:
        _save_diffusers(network, folder, state)


def _save_diffusers(network: Any, folder: Path, state: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    network.save_config(folder)
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def load_bundle(folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> ModelBundle:
    """Read a bundle from a folder that `ModelBundle.save` wrote.

    Args:
        folder: holds `evfi.json`.
        dtype: of the networks; None keeps the files'.
        device: where they shall lie.

    Raises:
        ModelError: a file is missing, damaged or does not fit.
    """
    info, event_stack, sampling = read_bundle_facts(folder)
    return assemble(
        folder,
        folder / "controlnet",
        _refiner_folder(folder),
        info=info,
        event_stack=event_stack,
        sampling=sampling,
        dtype=dtype,
        device=device,
    )


def _refiner_folder(folder: Path) -> Path | None:
    """Where a bundle's refiner lies, or None where it has none.

    Raises:
        ModelError: the bundle's index lists one that is not there: without it frames would silently be others.
    """
    refiner, parts = folder / REFINER_FOLDER, listed_parts(folder)
    if refiner.is_dir():
        return refiner
    if REFINER_FOLDER in parts:
        raise ModelError(f"{folder / INDEX_NAME} lists a refiner, but {refiner} is missing; fetch the model again")
    return None


def assemble(
    base: Path,
    controlnet: Path,
    refiner: Path | None = None,
    *,
    info: ModelInfo,
    event_stack: StackConfig,
    sampling: dict[str, Any],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> ModelBundle:
    """Put a bundle together from a base model's folder and a ControlNet's folder.

    Args:
        base: diffusers layout with vae/, unet/, scheduler/ and, if the base has one, image_encoder/.
        controlnet: holds config.json and safetensors.
        refiner: likewise; None for a model without one.
        info: name, licence, source.
        event_stack: the representation that the ControlNet was trained with.
        sampling: defaults that differ from the sampler's.
        dtype: of the networks; None keeps the files'.
        device: where they shall lie.

    Raises:
        ModelError: a part is missing, damaged, or does not fit the others.
    """
    where = torch.device(device)
    place: dict[str, Any] = {"dtype": dtype, "device": where}
    scheduler, feature_extractor = read_scheduler(base), load_feature_extractor(base)
    vae = load_vae(base / "vae", dtype=dtype, device=where)
    network = load_controlnet(controlnet, **place)
    channels = int(network.config.conditioning_channels)
    if channels != event_stack.num_channels:
        raise ModelError(
            f"{controlnet} reads {channels} event channels, its representation has {event_stack.num_channels}"
        )
    bundle = ModelBundle(
        vae=vae,
        unet=load_network(EventUNet, base / "unet", **place),
        controlnet=network,
        scheduler=scheduler,
        event_stack=event_stack,
        info=info,
        sampling=sampling,
        image_encoder=load_image_encoder(base / "image_encoder", **place),
        feature_extractor=feature_extractor,
        refiner=None if refiner is None else load_refiner(refiner, **place),
    )
    return bundle.eval()


def load_vae(folder: Path, *, dtype: torch.dtype | None, device: torch.device) -> Autoencoder:
    """Read an image autoencoder; one with `force_upcast` is read as float32 where float16 is asked for."""
    kind = _AUTOENCODERS[autoencoder_kind(folder)]
    upcast = dtype == torch.float16 and read_config(folder, kind.__name__).get("force_upcast", False)
    return load_network(kind, folder, dtype=torch.float32 if upcast else dtype, device=device)


def load_controlnet(folder: Path, *, dtype: torch.dtype | None, device: torch.device) -> EventControlNet:
    """Read an event ControlNet.

    The published configs claim 32 conditioning channels where the weights have 6: the tensor is believed.
    """
    shape = tensor_shape(weight_files(folder), _EVENT_INPUT)
    if shape is None or len(shape) != 4:
        raise ModelError(
            f"weights in {folder} lack {_EVENT_INPUT}; expected an event ControlNet; is it a different network?"
        )
    network: EventControlNet = load_network(
        EventControlNet, folder, dtype=dtype, device=device, conditioning_channels=shape[1]
    )
    return network


def load_refiner(folder: Path, *, dtype: torch.dtype | None, device: torch.device) -> Refiner:
    """Read a refiner.

    Raises:
        ModelError: a file is missing or damaged, or the weights are not all finite: frames would be black.
    """
    network: Refiner = load_network(Refiner, folder, dtype=dtype, device=device)
    for name, weight in network.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelError(f"the refiner in {folder} has weights that are not finite ({name}); fetch it again")
    return network


def load_network(kind: Any, folder: Path, *, dtype: torch.dtype | None, device: torch.device, **overrides: Any) -> Any:
    """Build a diffusers network of class `kind` from a folder's config and give it the folder's weights."""
    config = read_config(folder, kind.__name__) | overrides
    network = _built(lambda: kind.from_config(config), folder)
    load_weights(network, weight_files(folder), dtype=dtype, device=device)
    return channels_last(network).eval()


def _built(make: Callable[[], Any], folder: Path) -> Any:
    """A network on the meta device, where it takes no memory.

    Raises:
        ModelError: values that are allowed one by one do not make a network together.
    """
    with torch.device("meta"):
        try:
            return make()
        except Exception as error:  # networks are the libraries' code: what they raise is nowhere listed
            raise ModelError(
                f"{folder / CONFIG_NAME} does not describe a network that can be built ({one_line(error)[:200]}); wrong config?"
            ) from error


def load_image_encoder(folder: Path, *, dtype: torch.dtype | None, device: torch.device) -> nn.Module | None:
    """CLIP's vision tower, or None where the base has none."""
    if not (folder / CONFIG_NAME).is_file():
        return None
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = read_config(folder, CLIPVisionModelWithProjection.__name__)
    encoder = _built(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)), folder)
    load_weights(encoder, weight_files(folder), dtype=dtype, device=device)
    positions = encoder.vision_model.embeddings
    positions.position_ids = torch.arange(positions.num_positions, device=device).expand((1, -1))
    encoder.eval()
    return encoder


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")
