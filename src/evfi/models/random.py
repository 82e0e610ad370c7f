"""Networks with random weights: of the published sizes, for measuring speed and memory, and small, for trying things out.

Weights are drawn one parameter at a time in float32 from a seed and then take their dtype, so that networks of different
dtypes hold the same weights to rounding, and no more than the model and one parameter is ever in memory. Convolutions that
start at zero in training are drawn like all others: zeros would hide the ControlNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from evfi.errors import ModelError
from evfi.events.stack_config import StackConfig
from evfi.models.bundle import ModelBundle
from evfi.models.controlnet import EventControlNet
from evfi.models.info import ModelInfo
from evfi.models.unet import EventUNet
from evfi.models.weights import channels_last

_SCHEDULER: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "use_karras_sigmas": True,
        "sigma_min": 0.002,
        "sigma_max": 700.0,
    }
)

_PUBLISHED: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "unet": {"num_attention_heads": (5, 10, 20, 20)},
        "vae": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        "image_encoder": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "projection_dim": 1024,
            "hidden_act": "gelu",
        },
        "sampling": {},
    }
)
_SMALL: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "unet": {
            "block_out_channels": (32, 32, 64, 64),
            "num_attention_heads": (1, 1, 2, 2),
            "cross_attention_dim": 32,
            "layers_per_block": 1,
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96,
        },
        "vae": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
        "image_encoder": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "projection_dim": 32,
        },
        "sampling": {"tile_width": 128, "tile_height": 64},
    }
)

RANDOM_MODELS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = MappingProxyType(
    {"svd-random": _PUBLISHED, "small-random": _SMALL}
)
"""Models with random weights by name: `svd-random` has the sizes of Stable Video Diffusion and the published ControlNet."""

_EMBEDDING_STD: Final = 0.02


def random_bundle(
    name: str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", seed: int = 0
) -> ModelBundle:
    """Make a model with random weights.

    Args:
        name: one of `RANDOM_MODELS`.
        dtype: of the networks; float32 by default. An autoencoder that asks for it stays in float32 rather than go to float16.
        device: where they shall lie; on "meta" nothing is drawn.
        seed: of the weights, which also depend on the kind of device.

    Raises:
        ModelError: there is no such model.
    """
    if name not in RANDOM_MODELS:
        raise ModelError(f"no model with random weights named {name!r}; expected one of {', '.join(RANDOM_MODELS)}")
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes, place = RANDOM_MODELS[name], torch.device(device)
    with torch.device("meta"):
        bundle = ModelBundle(
            vae=AutoencoderKLTemporalDecoder(
                down_block_types=("DownEncoderBlock2D",) * len(sizes["vae"]["block_out_channels"]),
                latent_channels=4,
                **sizes["vae"],
            ),
            unet=EventUNet(**sizes["unet"]),
            controlnet=EventControlNet(**sizes["unet"]),
            scheduler=dict(_SCHEDULER),
            event_stack=StackConfig(),
            info=ModelInfo(name, "none", "random weights", 5),
            sampling=dict(sizes["sampling"]),
            image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes["image_encoder"])),
        ).eval()
    bundle.to("meta", dtype or torch.float32)
    if place.type != "meta":
        generator = torch.Generator(place).manual_seed(seed)
        for network in bundle.networks().values():
            _draw_weights(network, place, generator)
            if network is not bundle.image_encoder:
                channels_last(network)
    return bundle


def _draw_weights(network: nn.Module, device: torch.device, generator: torch.Generator) -> None:
    """Replace every parameter on the meta device by one of the same dtype with values, and every buffer."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            values = torch.empty(parameter.shape, device=device)
            _fill(values, module, name, generator)
            setattr(module, name, nn.Parameter(values.to(parameter.dtype), requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if name != "position_ids":
                raise NotImplementedError(f"buffer {name} of {type(module).__name__} cannot be drawn")
            setattr(module, name, torch.arange(buffer.shape[-1], device=device).expand(buffer.shape))


@torch.no_grad()
def _fill(values: Tensor, module: nn.Module, name: str, generator: torch.Generator) -> None:
    """Fill with what PyTorch's layers start from; parameters that stand alone are embeddings or mixing factors."""
    if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
        values.fill_(1.0 if name == "weight" else 0.0)
    elif isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
        bound = module.weight[0].numel() ** -0.5
        values.uniform_(-bound, bound, generator=generator)
    elif values.numel() == 1:
        values.fill_(0.5)
    else:
        values.normal_(std=_EMBEDDING_STD, generator=generator)
