"""What the config of each part of a model may hold: every key with its kind and range, declared here and nowhere else.

Configs may come from strangers. They are checked as data, before a network is built, so that nothing absurd takes memory or
time; keys that are absent have the network's own defaults.

Keys that are not declared: published configs have many that describe other things, and they are left out. In a config of
evfi's own networks such a key is an error: it was written by another version, and what it asks for would silently be missing.
Names that begin with an underscore (`_diffusers_version`) are notes and always allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from evfi.errors import ModelError
from evfi.kinds import ANYTHING, FLAG, NOTHING, Kind, either, listed, number, text, whole, word
from evfi.models.json_files import read_json
from evfi.models.layouts import CONFIG_NAME, INDEX_NAME
from evfi.strict_json import Keys, shown

_WIDEST: Final = 8192
_CHANNELS: Final = whole(1, _WIDEST)
_INPUTS: Final = whole(1, 1024)
_MOST_BLOCKS: Final = 6
_LAYERS: Final = whole(1, 4)  # what makes networks of thousands of layers, which take long to build
_HEADS: Final = whole(1, 256)
_SIDE: Final = whole(1, 65536)
_FACTOR: Final = number(1e-6, 1e6)
_SHIFT: Final = number(-1e6, 1e6)
_ACTIVATION: Final = word("relu", "gelu", "silu", "swish", "mish")


class Network(NamedTuple):
    """A kind of network.

    Attributes:
        keys: what its config declares; exactly what its class takes.
        required: those without a default.
        same_length: lists with one entry for each block.
        is_ours: whether the class is evfi's own.
        is_published: whether there are configs of the same keys under other classes' names.
    """

    keys: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    same_length: tuple[tuple[str, ...], ...] = ()
    is_ours: bool = False
    is_published: bool = True


def _per_block(kind: Kind) -> Kind:
    return listed(kind, 1, _MOST_BLOCKS)


_BLOCK_LISTS: Final = ("down_block_types", "up_block_types", "block_out_channels", "num_attention_heads")
_UNET: Final[dict[str, Kind]] = {
    "sample_size": either(NOTHING, _SIDE, listed(_SIDE, 2, 2)),
    "in_channels": _INPUTS,
    "out_channels": _INPUTS,
    "down_block_types": _per_block(word("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal")),
    "up_block_types": _per_block(word("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal")),
    "block_out_channels": _per_block(_CHANNELS),
    "addition_time_embed_dim": _CHANNELS,
    "projection_class_embeddings_input_dim": _CHANNELS,
    "layers_per_block": _LAYERS,
    "cross_attention_dim": _CHANNELS,
    "transformer_layers_per_block": _LAYERS,
    "num_attention_heads": _per_block(_HEADS),
    "num_frames": whole(1, 1024),
}

NETWORKS: Final[Mapping[str, Network]] = {
    "EventUNet": Network(
        {**_UNET, "num_attention_heads": either(_HEADS, _per_block(_HEADS))}, same_length=(_BLOCK_LISTS,), is_ours=True
    ),
    "EventControlNet": Network(
        {
            **_UNET,
            "conditioning_channels": _INPUTS,
            "conditioning_embedding_out_channels": listed(_CHANNELS, 1, 8),
        },
        same_length=(_BLOCK_LISTS,),
        is_ours=True,
    ),
    "Refiner": Network(
        # the network itself checks its sizes before it makes anything
        dict.fromkeys(("widths", "fusion_widths", "matching_levels", "matching_radius"), ANYTHING),
        required=("widths", "fusion_widths", "matching_levels", "matching_radius"),
        is_ours=True,
        is_published=False,
    ),
    "AutoencoderKLTemporalDecoder": Network(
        {
            "in_channels": whole(3, 3),
            "out_channels": whole(3, 3),
            "down_block_types": _per_block(word("DownEncoderBlock2D", "AttnDownEncoderBlock2D")),
            "block_out_channels": _per_block(_CHANNELS),
            "layers_per_block": _LAYERS,
            "latent_channels": _INPUTS,
            "sample_size": _SIDE,
            "scaling_factor": _FACTOR,
            "force_upcast": either(FLAG, number(0, 1)),
        },
        same_length=(("down_block_types", "block_out_channels"),),
    ),
    "AutoencoderTiny": Network(
        {
            "in_channels": whole(3, 3),
            "out_channels": whole(3, 3),
            "encoder_block_out_channels": _per_block(_CHANNELS),
            "decoder_block_out_channels": _per_block(_CHANNELS),
            "act_fn": _ACTIVATION,
            "upsample_fn": word("nearest", "bilinear", "bicubic"),
            "latent_channels": _INPUTS,
            "upsampling_scaling_factor": whole(2, 2),
            "num_encoder_blocks": _per_block(whole(1, 16)),
            "num_decoder_blocks": _per_block(whole(1, 16)),
            "latent_magnitude": _FACTOR,
            "latent_shift": _SHIFT,
            "force_upcast": FLAG,
            "scaling_factor": _FACTOR,
            "shift_factor": _SHIFT,
        },
        same_length=(
            ("encoder_block_out_channels", "num_encoder_blocks"),
            ("decoder_block_out_channels", "num_decoder_blocks"),
        ),
    ),
    "CLIPVisionModelWithProjection": Network(
        {
            "hidden_size": _CHANNELS,
            "intermediate_size": whole(1, 8 * _WIDEST),
            "projection_dim": _CHANNELS,
            "num_hidden_layers": whole(1, 64),
            "num_attention_heads": _HEADS,
            "num_channels": whole(3, 3),
            "image_size": whole(224, 224),
            "patch_size": whole(1, 224),
            "hidden_act": word("gelu", "quick_gelu", "relu", "silu"),
            "layer_norm_eps": number(0, 1),
            "attention_dropout": number(0, 1),
        }
    ),
}
"""By the name of the class that is built."""

_SCHEDULER: Final[dict[str, Kind]] = {
    "sigma_min": _FACTOR,
    "sigma_max": _FACTOR,
    "use_karras_sigmas": either(FLAG, NOTHING),
    "prediction_type": text(64),
    "timestep_type": text(64),
    "timestep_spacing": text(64),
}
_FEATURE_EXTRACTOR: Final[dict[str, Kind]] = {
    "image_mean": listed(number(-100, 100), 3, 3),
    "image_std": listed(number(1e-3, 100), 3, 3),
}
_ENTRY: Final = either(listed(either(text(128), NOTHING), 2, 2), NOTHING)
_PARTS: Final = ("vae", "unet", "controlnet", "image_encoder", "refiner", "scheduler", "feature_extractor")


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Read and check the config of a network.

    Args:
        folder: holds `config.json`.
        name: of the class that will be built, a key of `NETWORKS`.

    Returns:
        The declared keys that are there.

    Raises:
        ModelError: the file is missing or damaged, is another network's, or a key is unknown or not of its kind.
    """
    path, network = folder / CONFIG_NAME, NETWORKS[name]
    raw = read_json(path)
    written = raw.get("_class_name", name)
    is_own = network.is_ours and (written == name or not network.is_published)
    if written != name and (is_own or (isinstance(written, str) and written in NETWORKS)):
        raise ModelError(f"{path} describes a {shown(written)}, expected {name}; is it a different network's file?")
    notes = {key for key in raw if key.startswith("_")}
    keys = Keys({key: raw[key] for key in raw.keys() - notes}, str(path), f"the config of {name}", ModelError)
    config = keys.declared(network.keys, network.required)
    if is_own:
        keys.finish()
    for names in network.same_length:
        lengths = {key: len(config[key]) for key in names if isinstance(config.get(key), list)}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise ModelError(f"{path}: these must have one entry for each block, found entries: {found}; wrong config?")
    return config


def autoencoder_kind(folder: Path) -> str:
    """Which autoencoder a folder's config describes, a key of `NETWORKS`.

    Raises:
        ModelError: the file is missing or damaged, or describes none that is known.
    """
    known = tuple(name for name in NETWORKS if name.startswith("Autoencoder"))
    keys = Keys(read_json(folder / CONFIG_NAME), str(folder / CONFIG_NAME), "the autoencoder's config", ModelError)
    return keys.choice("_class_name", known)


def read_scheduler(base: Path) -> dict[str, Any]:
    """Read and check a base model's scheduler config, which is kept as a whole.

    Raises:
        ModelError: it is missing, damaged, or a key is not of its kind.
    """
    path = base / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    Keys(config, str(path), "the scheduler", ModelError).declared(_SCHEDULER, ("sigma_min", "sigma_max"))
    return config


def load_feature_extractor(base: Path) -> dict[str, Any] | None:
    """Read and check CLIP's preprocessing config, which is kept as a whole; None where the base has none.

    Raises:
        ModelError: it is damaged, or a key is not of its kind.
    """
    path = base / "feature_extractor" / "preprocessor_config.json"
    if not path.is_file():
        return None
    config = read_json(path)
    Keys(config, str(path), "the preprocessing", ModelError).declared(_FEATURE_EXTRACTOR)
    return config


def listed_parts(folder: Path) -> tuple[str, ...]:
    """The parts that a bundle's index names; none where there is no index.

    Raises:
        ModelError: the index is damaged.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        return ()
    entries = Keys(read_json(path), str(path), "the index", ModelError).declared(dict.fromkeys(_PARTS, _ENTRY))
    return tuple(name for name, entry in entries.items() if entry is not None and None not in entry)
