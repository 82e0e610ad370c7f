"""Configs from strangers: what makes no network is refused in one line before one is built; what is published is read."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, AutoencoderTiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evfi.errors import ModelError
from evfi.models.bundle import load_bundle
from evfi.models.configs import NETWORKS, listed_parts, load_feature_extractor, read_config, read_scheduler
from evfi.models.controlnet import EventControlNet
from evfi.models.info import read_bundle_facts
from evfi.models.json_files import read_json
from evfi.models.layouts import find_controlnet
from evfi.models.refiner import Refiner
from evfi.models.unet import EventUNet
from evfi.models.weights import weight_files
from tiny_models import tiny_bundle, tiny_refiner

SVD_UNET = {
    "_class_name": "UNetSpatioTemporalConditionModel",
    "_diffusers_version": "0.24.0.dev0",
    "_name_or_path": "/admin/home/somebody",
    "addition_time_embed_dim": 256,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * 3 + ["DownBlockSpatioTemporal"],
    "in_channels": 8,
    "layers_per_block": 2,
    "num_attention_heads": [5, 10, 20, 20],
    "num_frames": 14,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 768,
    "sample_size": 96,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
}
SVD_VAE = {
    "_class_name": "AutoencoderKLTemporalDecoder",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
SVD_ENCODER = {
    "_name_or_path": "/home/somebody",
    "architectures": ["CLIPVisionModelWithProjection"],
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 5120,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 32,
    "patch_size": 14,
    "projection_dim": 1024,
    "torch_dtype": "float16",
    "transformers_version": "4.28.0.dev0",
}
SVD_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "trained_betas": None,
    "use_karras_sigmas": True,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whole"
    bundle = replace(tiny_bundle(image_encoder=True), refiner=tiny_refiner())
    bundle.feature_extractor = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    bundle.save(folder)
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def change(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def written(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1500
    assert str(folder) in message or "must agree" in message


UNET, CONTROLNET, VAE, ENCODER = (f"{name}/config.json" for name in ("unet", "controlnet", "vae", "image_encoder"))
SCHEDULER, EXTRACTOR = "scheduler/scheduler_config.json", "feature_extractor/preprocessor_config.json"
BOGUS: list[tuple[str, dict[str, Any], str]] = [
    ("evfi.json", {"format": None}, "has format null"),
    ("evfi.json", {"format": True}, "has format true"),
    ("evfi.json", {"format": [[1]]}, r"has format \[\[1\]\]"),
    ("evfi.json", {"num_frames": None}, '"num_frames" .* must be a whole number from 3 to 1024, found null'),
    ("evfi.json", {"num_frames": 10**30}, '"num_frames"'),
    ("evfi.json", {"num_frames": "9"}, '"num_frames"'),
    ("evfi.json", {"name": ["a"]}, '"name" .* must be a non-empty string'),
    ("evfi.json", {"name": "\ud800"}, '"name" .* must be a non-empty string'),
    ("evfi.json", {"licence": "x" * 10_000}, '"licence" .* must be a non-empty string of at most 4096 characters'),
    ("evfi.json", {"sampling": [[]]}, r'"sampling" .* must be an object .*, found \[\[\]\]'),
    ("evfi.json", {"sampling": {"fps": [7]}}, '"sampling" .* must be an object'),
    ("evfi.json", {"sampling": {"fps": 10**400}}, '"sampling"'),
    ("evfi.json", {"sampling": {"num_inference_steps": 10**9}}, "a number from -65536 to 65536"),
    ("evfi.json", {"event_stack": 6}, '"event_stack" to be an object, found 6'),
    ("evfi.json", {"event_stack": {"num_channels": -6}}, '"num_channels" of "event_stack" must be'),
    ("evfi.json", {"event_stack": {"num_channels": True}}, '"num_channels"'),
    ("evfi.json", {"event_stack": {"normalisation": []}}, '"normalisation" .* must be one of released, symmetric'),
    ("evfi.json", {"event_stack": {"count_cap": 1e300}}, '"count_cap"'),
    ("evfi.json", {"event_stack": {"polarity": 1}}, 'unknown key "polarity"'),
    ("evfi.json", {"colour": "red"}, 'unknown key "colour"'),
    ("model_index.json", {"refiner": 5}, '"refiner" of the index must be a list'),
    ("model_index.json", {"vae": {"a": 1}}, '"vae" of the index must be a list'),
    (UNET, {"in_channels": -8}, '"in_channels" .* must be a whole number from 1 to 1024, found -8'),
    (UNET, {"in_channels": 10**12}, '"in_channels"'),
    (UNET, {"in_channels": 8.0}, '"in_channels"'),
    (UNET, {"in_channels": None}, '"in_channels"'),
    (UNET, {"layers_per_block": 10**7}, '"layers_per_block" .* found 10000000'),
    (UNET, {"layers_per_block": [1] * 10_000}, '"layers_per_block"'),
    (UNET, {"transformer_layers_per_block": 10**7}, '"transformer_layers_per_block"'),
    (UNET, {"block_out_channels": [32] * 10_000}, "a list of length 1 to 6"),
    (UNET, {"block_out_channels": [32, 0]}, '"block_out_channels"'),
    (UNET, {"block_out_channels": {"0": 32}}, '"block_out_channels"'),
    (UNET, {"block_out_channels": [32, 32, 32]}, "one entry for each block, found entries: .* block_out_channels 3"),
    (UNET, {"block_out_channels": [32, 33]}, "does not describe a network that can be built"),
    (UNET, {"down_block_types": ["DownBlock2D", "DownBlock2D"]}, "each one of CrossAttnDownBlockSpatioTemporal"),
    (UNET, {"down_block_types": "CrossAttnDownBlockSpatioTemporal"}, '"down_block_types"'),
    (UNET, {"num_attention_heads": 0}, '"num_attention_heads"'),
    (UNET, {"cross_attention_dim": [16, 16]}, '"cross_attention_dim"'),
    (UNET, {"sample_size": "big"}, '"sample_size"'),
    (
        UNET,
        {"time_embedding": "fourier"},
        'unknown key "time_embedding" in the config of EventUNet; expected one of add',
    ),
    (UNET, {"_class_name": "EventControlNet"}, 'describes a "EventControlNet", expected EventUNet'),
    (UNET, {"out_channels": 5}, r"conv_out.bias has shape \(4,\), expected \(5,\)"),
    (CONTROLNET, {"num_attention_heads": 2}, '"num_attention_heads"'),
    (CONTROLNET, {"conditioning_channels": [6]}, '"conditioning_channels"'),
    (CONTROLNET, {"conditioning_embedding_out_channels": []}, "a list of length 1 to 8"),
    (CONTROLNET, {"conditioning_embedding_out_channels": [1] * 10_000}, "a list of length 1 to 8"),
    (CONTROLNET, {"num_frames": 1e9}, '"num_frames"'),
    (CONTROLNET, {"event_clock": 1}, 'unknown key "event_clock"'),
    (VAE, {"_class_name": ["AutoencoderTiny"]}, '"_class_name" .* must be one of AutoencoderKLTemporalDecoder'),
    (VAE, {"_class_name": "x" * 100_000}, '"_class_name"'),
    (VAE, {"encoder_block_out_channels": [8] * 10_000}, '"encoder_block_out_channels"'),
    (VAE, {"num_encoder_blocks": [10**7, 1, 1]}, '"num_encoder_blocks"'),
    (VAE, {"num_decoder_blocks": [1]}, "one entry for each block"),
    (VAE, {"act_fn": "softmax"}, '"act_fn" .* must be one of relu'),
    (VAE, {"upsampling_scaling_factor": 3}, "must be the whole number 2, found 3"),
    (VAE, {"scaling_factor": 0}, '"scaling_factor"'),
    (VAE, {"in_channels": 1}, '"in_channels"'),
    (ENCODER, {"hidden_size": 10**9}, '"hidden_size"'),
    (ENCODER, {"hidden_size": 17}, "does not describe a network that can be built"),
    (ENCODER, {"num_hidden_layers": 10**7}, '"num_hidden_layers"'),
    (ENCODER, {"hidden_act": {"type": "gelu"}}, '"hidden_act"'),
    (ENCODER, {"patch_size": 0}, '"patch_size"'),
    (ENCODER, {"image_size": [224, 224]}, "must be the whole number 224"),
    (ENCODER, {"layer_norm_eps": "0"}, '"layer_norm_eps"'),
    (SCHEDULER, {"sigma_max": 10**400}, '"sigma_max" of the scheduler must be a number'),
    (SCHEDULER, {"sigma_min": "0.1"}, '"sigma_min"'),
    (SCHEDULER, {"sigma_min": None}, '"sigma_min"'),
    (SCHEDULER, {"prediction_type": {}}, '"prediction_type"'),
    (EXTRACTOR, {"image_mean": [0.5]}, '"image_mean" .* a list of length 3'),
    (EXTRACTOR, {"image_std": [0, 0, 0]}, '"image_std"'),
    ("refiner/config.json", {"widths": 10**9}, "widths must be"),
    ("refiner/config.json", {"matching_levels": None}, "matching_levels must be"),
    ("refiner/config.json", {"occlusion": True}, 'unknown key "occlusion" in the config of Refiner'),
    ("refiner/config.json", {"_class_name": "OtherRefiner"}, 'describes a "OtherRefiner", expected Refiner'),
]


@pytest.mark.parametrize(("file", "changes", "message"), BOGUS, ids=[f"{row[0]} {next(iter(row[1]))}" for row in BOGUS])
def test_bogus_values_are_refused(file: str, changes: dict[str, Any], message: str, model: Path) -> None:
    change(model / file, changes)
    refused(model, message)


NO_OBJECTS = {
    "nested": ("[" * 100_000, "nested more than 64 deep"),
    "nested in a key": ('{"name": ' + '{"a":' * 100_000, "nested more than 64 deep"),
    "a list": ("[]", r"a JSON object, found \[\]"),
    "null": ("null", "a JSON object, found null"),
    "nothing": ("", "in JSON, but"),
    "cut": ('{"a": 1', "in JSON, but"),
    "no text": (b"\xff\xfe{}", "in UTF-8"),
    "too large": (b" " * (2**22 + 1), "at most 4096 KiB"),
    "a key twice": ('{"a": 1, "a": 2}', "duplicate key 'a'"),
    "infinite": ('{"a": 1e999}', "1e999 is too large for a number"),
    "no number": ('{"a": NaN}', "NaN is not a JSON number"),
    "digits": ('{"a": ' + "9" * 100_000 + "}", "in JSON, but"),
}


@pytest.mark.parametrize("name", NO_OBJECTS)
def test_what_is_no_object_is_refused(name: str, tmp_path: Path) -> None:
    content, message = NO_OBJECTS[name]
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=message) as caught:
        read_json(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("file", sorted({row[0] for row in BOGUS}))
def test_every_file_is_read_so(file: str, model: Path) -> None:
    (model / file).write_text("[" * 100_000)
    refused(model, "nested more than 64 deep")


def test_a_folder_in_place_of_a_file(model: Path) -> None:
    (model / UNET).unlink()
    (model / UNET).mkdir()
    refused(model, "cannot read the model file")


def test_every_key_of_a_network_is_declared() -> None:
    for kind in (EventUNet, EventControlNet, Refiner, AutoencoderKLTemporalDecoder, AutoencoderTiny):
        assert set(NETWORKS[kind.__name__].keys) == set(kind._get_init_keys(kind)) - {"self"}, kind.__name__


def test_published_configs_are_read_without_what_they_have_beside(tmp_path: Path) -> None:
    extra = {"attention_type": "default", "only_cross_attention": [False], "anything": {"else": [None]}}
    controlnet = {
        **SVD_UNET,
        "_class_name": "ControlNetSDVModel",
        "conditioning_channels": 32,
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
    }
    for name, config in (
        ("EventUNet", SVD_UNET),
        ("EventUNet", {**SVD_UNET, "_class_name": "UNetSpatioTemporalConditionControlNetModel"}),
        ("EventControlNet", controlnet),
        ("AutoencoderKLTemporalDecoder", SVD_VAE),
        ("CLIPVisionModelWithProjection", SVD_ENCODER),
    ):
        found = read_config(written(tmp_path / "network", {**config, **extra}), name)
        assert found == {key: config[key] for key in NETWORKS[name].keys if key in config}
    written(tmp_path / "scheduler", {})
    (tmp_path / SCHEDULER).write_text(json.dumps(SVD_SCHEDULER))
    assert read_scheduler(tmp_path) == SVD_SCHEDULER


def test_settings_that_load_code_never_reach_the_library(tmp_path: Path) -> None:
    for key in ("attn_implementation", "_attn_implementation", "auto_map", "quantization_config"):
        folder = written(tmp_path / key, {**SVD_ENCODER, key: "somebody/kernels"})
        assert key not in read_config(folder, "CLIPVisionModelWithProjection")


def test_own_networks_may_lack_keys_and_have_notes(tmp_path: Path) -> None:
    assert read_config(written(tmp_path, {"_class_name": "EventUNet", "_note": {}}), "EventUNet") == {}
    with pytest.raises(ModelError, match='the config of Refiner lacks "widths"'):
        read_config(written(tmp_path, {"_class_name": "Refiner"}), "Refiner")


def test_parts_of_different_models_do_not_fit(model: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle()
    others = {
        "the ControlNet's event embedding": {"controlnet": tiny_bundle(factor=8).controlnet},
        "the image encoder": {"image_encoder": type("Encoder", (), {"config": type("", (), {"projection_dim": 5})})()},
    }
    for message, part in others.items():
        with pytest.raises(ModelError, match=f"{message} .* must agree"):
            replace(bundle, **part)
    bundle.unet.register_to_config(in_channels=9)
    with pytest.raises(ModelError, match=r"the UNet \(in_channels, out_channels\) has \(9, 4\), expected \(8, 4\)"):
        replace(bundle)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ([], r'"weight_map" of the index of weights must be an object .*, found \[\]'),
        (None, '"weight_map"'),
        ({"a": 5}, '"weight_map"'),
        ({"a": ["x.safetensors"]}, '"weight_map"'),
        ({}, "none named"),
        ({"a": "../x.safetensors"}, "expected .safetensors files next to it"),
        ({"a": "/etc/passwd"}, "expected .safetensors files next to it"),
        ({"a": "x.bin"}, "expected .safetensors files next to it"),
        ({"a": "x\n.safetensors"}, "missing"),
        ({f"{number}": f"{number}.safetensors" for number in range(1000)}, "missing"),
    ],
)
def test_an_index_of_weights(weight_map: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=message) as caught:
        weight_files(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def test_weights_of_odd_shapes_and_types_are_refused(model: Path) -> None:
    weights = model / "controlnet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    name = "controlnet_cond_embedding.conv_in.weight"
    save_file({**tensors, name: torch.zeros(6)}, weights)
    refused(model, f"lack {name}")
    save_file({**tensors, "conv_in.bias": tensors["conv_in.bias"].to(torch.int64)}, weights)
    refused(model, "conv_in.bias has values of torch.int64, expected floats")


def test_a_checkpoint_of_thousands_of_digits() -> None:
    folder = Path("checkpoint-" + "9" * 5000) / "controlnet"
    paths: Any = [folder / "config.json", folder / "model.safetensors"]
    assert find_controlnet(paths, Path("archive.zip")) == folder  # of no number, but no error of conversion


def test_an_index_may_name_parts_that_are_not_there(model: Path) -> None:
    change(model / "model_index.json", {"refiner": [None, None], "requires_safety_checker": False, "vae": None})
    assert listed_parts(model) == ("unet", "controlnet", "image_encoder")
    assert load_feature_extractor(model / "unet") is None


CONTROLS = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
"""Letters that a terminal obeys; spaces of other widths are shown as they are."""

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_of_any_key_is_read_or_refused(data: st.DataObject, whole: Path, tmp_path: Path) -> None:
    name, network = data.draw(st.sampled_from(sorted(NETWORKS.items())))
    key = data.draw(st.sampled_from(sorted(network.keys)))
    folder = written(tmp_path / "any", {**dict.fromkeys(network.required), key: data.draw(values)})
    try:
        read_config(folder, name)
    except ModelError as error:
        assert not re.search(CONTROLS, str(error))


def test_refusing_takes_no_memory(model: Path) -> None:
    (model / "evfi.json").write_text("[" * 2**22)
    tracemalloc.start()
    with pytest.raises(ModelError, match="nested"):
        read_bundle_facts(model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25
    with pytest.raises(ModelError, match="nested"):
        read_json(model / "evfi.json")
