"""Bundles: round trip through a folder, refusals, the released configs' trap."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evfi.errors import ModelError
from evfi.models.bundle import ModelBundle, assemble, load_bundle
from evfi.models.layouts import BUNDLE_FILE
from evfi.models.weights import weight_files
from tiny_models import tiny_bundle

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny_bundle(image_encoder=True).save(tmp_path / "model")
    return tmp_path / "model"


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def states(bundle: ModelBundle) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value for part, net in bundle.networks().items() for name, value in net.state_dict().items()
    }


@pytest.mark.parametrize("temporal", [False, True])
@torch.no_grad()
def test_a_saved_bundle_comes_back_equal(tmp_path: Path, temporal: bool) -> None:
    bundle = tiny_bundle(temporal_vae=temporal, image_encoder=True)
    bundle.feature_extractor = {"image_mean": [0.5, 0.5, 0.5]}
    bundle.save(tmp_path)
    back = load_bundle(tmp_path)
    assert (back.info, back.event_stack, back.sampling) == (bundle.info, bundle.event_stack, bundle.sampling)
    assert (back.scheduler, back.feature_extractor) == (bundle.scheduler, bundle.feature_extractor)
    expected, found = states(bundle), states(back)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    pixels = torch.rand(1, 3, 16, 24) * 2 - 1
    latents = bundle.encode_image(pixels)
    torch.testing.assert_close(back.encode_image(pixels), latents)
    torch.testing.assert_close(back.decode(latents, 2), bundle.decode(latents, 2))
    assert bundle.image_encoder is not None
    assert back.image_encoder is not None
    small = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(back.image_encoder(small).image_embeds, bundle.image_encoder(small).image_embeds)


def test_sizes_come_from_the_networks() -> None:
    bundle = tiny_bundle(factor=8)
    assert (bundle.vae_factor, bundle.latent_channels, bundle.latent_multiple, bundle.context_dim) == (8, 4, 2, 16)


def test_half_precision_on_disk_is_read_in_any_dtype(tmp_path: Path) -> None:
    tiny_bundle().save(tmp_path, dtype=torch.float16)
    assert load_file(tmp_path / "unet" / WEIGHTS)["conv_in.weight"].dtype == torch.float16
    assert load_bundle(tmp_path, dtype=torch.float32).unet.dtype == torch.float32
    assert load_bundle(tmp_path).unet.dtype == torch.float16


def test_conditioning_channels_are_read_from_the_weights(saved: Path) -> None:
    change_json(saved / "controlnet" / "config.json", conditioning_channels=32)
    bundle = load_bundle(saved)
    assert bundle.controlnet.config.conditioning_channels == 6


def test_base_and_controlnet_from_two_folders(saved: Path, tmp_path: Path) -> None:
    (saved / "controlnet").rename(tmp_path / "other")
    original = tiny_bundle()
    parts = {"info": original.info, "event_stack": original.event_stack, "sampling": {}}
    assert assemble(saved, tmp_path / "other", **parts).vae_factor == 4  # type: ignore[arg-type]


def test_a_force_upcast_autoencoder_stays_float32_beside_float16(tmp_path: Path) -> None:
    bundle = tiny_bundle(temporal_vae=True)
    bundle.vae.register_to_config(force_upcast=True)
    bundle.save(tmp_path)
    back = load_bundle(tmp_path, dtype=torch.float16)
    assert (back.vae.dtype, back.unet.dtype) == (torch.float32, torch.float16)


def test_refusals_name_file_and_cure(saved: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            load_bundle(saved)
        assert "\n" not in str(caught.value)

    unet = saved / "unet" / WEIGHTS
    tensors, kept = load_file(unet), unet.read_bytes()
    save_file({name: value for name, value in tensors.items() if name != "conv_in.bias"}, unet)
    refused("lacks 1 tensors, first conv_in.bias")
    save_file({**tensors, "conv_in.bias": torch.zeros(7)}, unet)
    refused(r"conv_in.bias has shape \(7,\), expected \(32,\)")
    save_file({**tensors, "stranger": torch.zeros(7)}, unet)
    refused("stranger")
    unet.write_bytes(kept[: len(kept) // 2])
    refused("damaged")
    unet.rename(unet.with_suffix(".bin"))
    refused("only pickled weights")
    change_json(saved / BUNDLE_FILE, format=99)
    refused("format 99")
    (saved / BUNDLE_FILE).write_text("{")
    refused("evfi.json: expected a model file in JSON")
    (saved / BUNDLE_FILE).unlink()
    refused("expected the model file")


def test_an_event_embedding_must_shrink_as_the_autoencoder_does(saved: Path) -> None:
    with pytest.raises(ModelError, match="they must agree"):
        ModelBundle(**{**vars(tiny_bundle()), "controlnet": tiny_bundle(factor=8).controlnet})


def test_shards_and_variants_are_found(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", "b": "x-2.safetensors"}}
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="missing"):
        weight_files(tmp_path)
    for name in index["weight_map"].values():
        save_file({"t": torch.zeros(1)}, tmp_path / name)
    assert [path.name for path in weight_files(tmp_path)] == sorted(index["weight_map"].values())
    fp16 = tmp_path / "fp16"
    fp16.mkdir()
    save_file({"t": torch.zeros(1)}, fp16 / "diffusion_pytorch_model.fp16.safetensors")
    assert weight_files(fp16)[0].name == "diffusion_pytorch_model.fp16.safetensors"
